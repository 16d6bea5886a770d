//! Capabilities: what the process may do, raising it, giving it up for good.
//!
//! All of it concerns the calling thread, so it is called before any other thread exists.

use std::fmt;
use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// A capability this program can need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Devices, addresses, routes, rules.
    NetAdmin,
    /// Packet and raw sockets.
    NetRaw,
    /// Listening on ports below 1024.
    NetBindService,
    /// Network namespaces.
    SysAdmin,
}

impl Capability {
    fn bit(self) -> CapabilitySet {
        match self {
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::NetRaw => CapabilitySet::NET_RAW,
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
            Self::SysAdmin => CapabilitySet::SYS_ADMIN,
        }
    }

    /// The name without `CAP_`, as Docker spells it.
    fn short(self) -> &'static str {
        match self {
            Self::NetAdmin => "NET_ADMIN",
            Self::NetRaw => "NET_RAW",
            Self::NetBindService => "NET_BIND_SERVICE",
            Self::SysAdmin => "SYS_ADMIN",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", self.short())
    }
}

/// Something that the process may not do.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// Capabilities that are not permitted, all of them at once.
    #[error("missing {}: run as root, or `docker run --user 0 {}`, or `setcap {}+p PROGRAM`{}",
            names(.0, ", ", |c| c.to_string()),
            names(.0, " ", |c| format!("--cap-add {}", c.short())),
            names(.0, ",", |c| c.to_string().to_lowercase()),
            if no_new_privileges() { " (no_new_privs is set, so file capabilities do not count)" } else { "" })]
    Missing(Vec<Capability>),
    /// The kernel refused a change.
    #[error("cannot {attempt}: {source}")]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel returned.
        source: io::Error,
    },
}

/// Whether the calling thread may use `capability` now.
pub fn has(capability: Capability) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability.bit()))
}

/// Whether the calling thread may [`raise`] `capability`.
pub fn is_permitted(capability: Capability) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.permitted.contains(capability.bit()))
}

/// Whether a program started from here could gain `capability`.
pub fn is_in_bounding_set(capability: Capability) -> bool {
    rustix::thread::capability_is_in_bounding_set(capability.bit()).unwrap_or(false)
}

/// Makes permitted capabilities effective, for a program whose file capabilities are only `+p`.
///
/// # Errors
/// Names every capability that is not permitted; then nothing has changed.
pub fn raise(capabilities: &[Capability]) -> Result<(), CapabilityError> {
    let missing: Vec<_> =
        capabilities.iter().copied().filter(|capability| !is_permitted(*capability)).collect();
    if !missing.is_empty() {
        return Err(CapabilityError::Missing(missing));
    }
    let mut sets =
        rustix::thread::capabilities(None).map_err(|error| refused("read the capabilities", error))?;
    for capability in capabilities {
        sets.effective |= capability.bit();
    }
    rustix::thread::set_capabilities(None, sets).map_err(|error| refused("raise capabilities", error))
}

/// Keeps only `capabilities` (those of them that are permitted), effective; everything else is given up for
/// good, and no program started from here can gain any.
///
/// # Errors
/// When the kernel refuses it.
pub fn keep_only(capabilities: &[Capability]) -> Result<(), CapabilityError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| refused("set no_new_privs", error))?;
    // Not there before Linux 4.3, which has no ambient set then.
    let _ = rustix::thread::clear_ambient_capability_set();
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Without SETPCAP it stays, and no_new_privs makes it harmless; INVAL: past the last one.
            Err(_) => break,
        }
    }
    let old = rustix::thread::capabilities(None).map_err(|error| refused("read the capabilities", error))?;
    let mut kept = CapabilitySet::empty();
    for capability in capabilities {
        kept |= capability.bit() & old.permitted;
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(|error| refused("give up capabilities", error))
}

/// Gives up every capability for good, and the chance of any program started from here to gain one.
///
/// # Errors
/// When the kernel refuses it.
pub fn drop_all() -> Result<(), CapabilityError> {
    keep_only(&[])
}

fn refused(attempt: &'static str, error: rustix::io::Errno) -> CapabilityError {
    CapabilityError::Refused { attempt, source: error.into() }
}

fn no_new_privileges() -> bool {
    rustix::thread::no_new_privs().unwrap_or(false)
}

fn names(capabilities: &[Capability], separator: &str, name: impl Fn(Capability) -> String) -> String {
    capabilities.iter().map(|capability| name(*capability)).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_remedies() {
        let text = CapabilityError::Missing(vec![Capability::NetAdmin, Capability::NetRaw]).to_string();
        assert!(text.contains("missing CAP_NET_ADMIN, CAP_NET_RAW"), "{text}");
        assert!(text.contains("docker run --user 0 --cap-add NET_ADMIN --cap-add NET_RAW"), "{text}");
        assert!(text.contains("setcap cap_net_admin,cap_net_raw+p"), "{text}");
    }

    #[test]
    fn a_thread_can_give_up_everything() {
        // Capabilities belong to the thread, so this touches no other test.
        std::thread::spawn(|| {
            drop_all().unwrap();
            for capability in [Capability::NetAdmin, Capability::NetRaw, Capability::SysAdmin] {
                assert!(!has(capability));
                assert!(!is_permitted(capability));
                assert!(
                    matches!(raise(&[capability]), Err(CapabilityError::Missing(all)) if all == [capability])
                );
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_can_keep_one() {
        std::thread::spawn(|| {
            let permitted = is_permitted(Capability::NetRaw);
            keep_only(&[Capability::NetRaw]).unwrap();
            assert_eq!(has(Capability::NetRaw), permitted);
            assert!(!has(Capability::NetAdmin));
        })
        .join()
        .unwrap();
    }
}
