//! A tunnel together with what was found out about its underlay: everything the helper needs to make it.

use serde::{Deserialize, Serialize};

use crate::config::Tunnel;

/// What the helper is asked to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) tunnel: Tunnel,
    /// Underlay interface.
    pub(super) interface: String,
    /// Its number.
    pub(super) index: u32,
    /// Its hardware type, `ARPHRD_*`.
    pub(super) hardware: u16,
    /// Its MTU in bytes.
    pub(super) link_mtu: u32,
    /// Inner MTU in bytes.
    pub(super) mtu: u16,
}
