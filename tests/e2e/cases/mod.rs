//! The cases, by what they are about.

mod cli;
mod tunnel_apart;
mod tunnel_failure;
mod tunnel_hostile;
mod tunnel_privilege;
mod tunnel_switch;
mod tunnel_vip;
mod tunnel_wire;

use crate::harness::Case;

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [
        cli::cases(),
        tunnel_apart::cases(),
        tunnel_failure::cases(),
        tunnel_hostile::cases(),
        tunnel_privilege::cases(),
        tunnel_switch::cases(),
        tunnel_vip::cases(),
        tunnel_wire::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
