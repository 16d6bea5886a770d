//! The cases, by what they are about.

mod cli;

use crate::harness::Case;

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [cli::cases()].into_iter().flatten().collect()
}
