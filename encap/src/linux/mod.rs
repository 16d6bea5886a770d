//! What set-up, the lab and the tests need from Linux: netlink, namespaces, capabilities, processes.
//!
//! Decides nothing about tunnels and never sees a packet: each module wraps one kernel interface with errors
//! that name what was attempted. Used before the first packet and after the last one.

pub mod capability;
pub mod channel;
pub mod ethtool;
pub mod inherited;
pub mod memory;
pub mod namespace;
pub mod netlink;
pub mod process;
pub mod reuseport;
pub mod signal;
pub mod sysctl;
