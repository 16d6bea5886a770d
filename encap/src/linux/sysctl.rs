//! Per-device IPv6 settings, which the kernel lets nobody change by netlink.
//!
//! They stand in `/proc/sys/net/ipv6/conf/DEVICE`, of the network namespace of the calling thread. In a container that
//! place may be read-only, and where IPv6 is off altogether it does not exist.

use std::io;
use std::path::PathBuf;

/// A setting of `net.ipv6.conf.DEVICE.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6Setting {
    /// Whether router advertisements are believed.
    AcceptRa,
    /// Whether an advertised prefix makes an address.
    Autoconf,
    /// Whether the device has no IPv6 at all. A new device has the value of `default`.
    DisableIpv6,
    /// Whether the device counts as one of a router. Only the value of `all` lets packets be forwarded.
    Forwarding,
}

/// The device name that stands for all devices at once.
pub const ALL: &str = "all";

/// Reads a setting; `None` where the host has no IPv6.
///
/// # Errors
/// When there is no such device or the file cannot be read.
pub fn ipv6_setting(device: &str, setting: Ipv6Setting) -> io::Result<Option<u32>> {
    let text = match std::fs::read_to_string(path(device, setting)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path(ALL, setting).exists() => {
            return Ok(None);
        }
        text => text?,
    };
    text.trim().parse().map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Changes a setting, unless it has the value.
///
/// # Errors
/// `EROFS` in most containers, `NotFound` where the host has no IPv6 or no such device, `EACCES` without the right.
pub fn set_ipv6(device: &str, setting: Ipv6Setting, value: u32) -> io::Result<()> {
    if ipv6_setting(device, setting)? == Some(value) {
        return Ok(());
    }
    std::fs::write(path(device, setting), value.to_string())
}

fn path(device: &str, setting: Ipv6Setting) -> PathBuf {
    let name = match setting {
        Ipv6Setting::AcceptRa => "accept_ra",
        Ipv6Setting::Autoconf => "autoconf",
        Ipv6Setting::DisableIpv6 => "disable_ipv6",
        Ipv6Setting::Forwarding => "forwarding",
    };
    // A device has no slash in its name.
    ["/proc/sys/net/ipv6/conf", device, name].iter().collect()
}
