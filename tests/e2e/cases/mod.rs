//! The cases, by what they are about.

mod cli;
mod tunnel_apart;

use crate::harness::Case;

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [cli::cases(), tunnel_apart::cases()].into_iter().flatten().collect()
}
