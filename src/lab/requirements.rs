//! What the lab needs from this host, checked before anything is made, with how to get what is missing.

use anyhow::bail;
use encap::linux::capability::{self, Capability};
use encap::linux::namespace;

/// For namespaces, devices, raw sockets, and port 443 of the VIP.
const NEEDED: [Capability; 4] =
    [Capability::SysAdmin, Capability::NetAdmin, Capability::NetRaw, Capability::NetBindService];

/// How the lab came by its capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// It had them.
    Own,
    /// In a user namespace, which it has entered.
    UserNamespace,
}

/// Makes sure of everything that can be known beforehand; enters a user namespace where that is the way. To be
/// called before any thread exists.
///
/// # Errors
/// Everything that is missing at once, each with its remedy.
pub(super) fn meet() -> anyhow::Result<Rights> {
    let mut missing = Vec::new();
    if let Err(error) = encap::device::is_available() {
        missing.push(error.to_string());
    }
    let rights = match capability::raise(&NEEDED) {
        Ok(()) => Rights::Own,
        Err(denied) => {
            if let Err(error) = namespace::enter_user_namespace() {
                missing.push(format!("{denied}; without them: {error}"));
            }
            Rights::UserNamespace
        }
    };
    if !missing.is_empty() {
        bail!("the lab needs what is missing here:\n  - {}", missing.join("\n  - "));
    }
    Ok(rights)
}
