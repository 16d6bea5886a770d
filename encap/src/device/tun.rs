//! One TUN device, single-queue, with a virtio header in front of every frame.
//!
//! With the offloads asked for, the kernel hands over packets of up to 64 KiB with unfinished checksums and takes
//! the same. The device lives as long as its descriptor.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::wire::virtio;

/// Largest frame: virtio header (10 bytes) and the largest IPv6 packet, whose length does not count its header.
pub const MAX_FRAME_BYTES: usize = virtio::LEN + 40 + 65_535;

const PATH: &str = "/dev/net/tun";
pub(super) const OFFLOADS: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// The kernel takes these two only together, and only since Linux 6.2.
pub(super) const UDP_OFFLOADS: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// A TUN device that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// There is no TUN driver.
    #[error(
        "cannot open {PATH}: {0}; in a container: `docker run --device {PATH}`, on a host: `modprobe tun`"
    )]
    NoDriver(io::Error),
    /// The device node may not be opened.
    #[error("cannot open {PATH}: {0}; run as root, or `chmod 0666 {PATH}` on the host")]
    Forbidden(io::Error),
    /// The name is not one.
    #[error(
        "{0:?} is no name of a device: 1 to 15 bytes, without slash, colon, percent sign and white space"
    )]
    BadName(String),
    /// Another program has the device, or another device has the name.
    #[error("cannot make TUN device {0}: the name is in use (`ip link show {0}` tells by what)")]
    InUse(String),
    /// No permission.
    #[error(
        "cannot make TUN device {0}: missing CAP_NET_ADMIN (`docker run --user 0 --cap-add NET_ADMIN`, or run as root)"
    )]
    NotPermitted(String),
    /// Anything else the kernel refused.
    #[error("cannot make TUN device {name}: {attempt}: {source}")]
    Refused {
        /// Name of the device.
        name: String,
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel returned.
        source: io::Error,
    },
}

/// A TUN device.
#[derive(Debug)]
pub struct Tun {
    descriptor: OwnedFd,
    name: String,
}

/// Whether TUN devices take several UDP datagrams as one frame: since Linux 6.2.
pub fn takes_datagrams() -> bool {
    let release = rustix::system::uname();
    let mut numbers = release.release().to_str().unwrap_or_default().split(['.', '-']);
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
    (next(), next()) >= (6, 2)
}

/// Whether TUN devices can be made as far as the driver and its device node are concerned.
///
/// # Errors
/// [`TunError::NoDriver`] or [`TunError::Forbidden`].
pub fn is_available() -> Result<(), TunError> {
    open().map(drop)
}

impl Tun {
    /// Makes the device `name` in the network namespace of the calling thread. It is down and has no address.
    ///
    /// # Errors
    /// See [`TunError`]; each names its remedy.
    pub fn create(name: &str) -> Result<Self, TunError> {
        let forbidden = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(forbidden) {
            return Err(TunError::BadName(name.to_owned()));
        }
        let descriptor = open()?;
        let tun = Self { descriptor, name: name.to_owned() };
        // EXCL: never attach to a device that somebody left behind.
        attach(&tun, name, libc::IFF_TUN | libc::IFF_TUN_EXCL).map_err(|source| {
            match source.raw_os_error() {
                Some(libc::EBUSY) => TunError::InUse(name.to_owned()),
                Some(libc::EPERM) => TunError::NotPermitted(name.to_owned()),
                _ => tun.refused("attach", source),
            }
        })?;
        set_header_size(&tun, virtio::LEN)
            .map_err(|source| tun.refused("set the size of the virtio header", source))?;
        set_offloads(&tun, OFFLOADS | UDP_OFFLOADS)
            .or_else(|_| set_offloads(&tun, OFFLOADS))
            .map_err(|source| tun.refused("set the offloads", source))?;
        Ok(tun)
    }

    /// A device that another process made and handed over, called `name`.
    pub fn from_descriptor(descriptor: OwnedFd, name: String) -> Self {
        Self { descriptor, name }
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one frame, virtio header and packet, in place of what is there. One with less capacity than
    /// [`MAX_FRAME_BYTES`] may cut it.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; `EBADFD` when the device is gone.
    pub fn read(&self, frame: &mut Vec<u8>) -> io::Result<()> {
        frame.clear();
        rustix::io::read(&self.descriptor, rustix::buffer::spare_capacity(frame))?;
        Ok(())
    }

    /// Writes one frame, virtio header and packet, given in at most 1024 parts.
    ///
    /// # Errors
    /// `EIO` while the device is down, `EINVAL` for a malformed frame, `EBADFD` when the device is gone.
    pub fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        Ok(rustix::io::writev(&self.descriptor, parts).map(drop)?)
    }

    fn refused(&self, attempt: &'static str, source: io::Error) -> TunError {
        TunError::Refused { name: self.name.clone(), attempt, source }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

pub(super) fn open() -> Result<OwnedFd, TunError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(PATH, flags, Mode::empty()).map_err(|error| match error {
        // EPERM comes from the device controller of a container.
        Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::PERM => TunError::NoDriver(error.into()),
        _ => TunError::Forbidden(error.into()),
    })
}

/// Makes a device of these flags, each frame with a virtio header. A `%d` in `name` becomes a number that is free. Returns the name
/// it has.
pub(super) fn attach(descriptor: impl AsFd, name: &str, flags: libc::c_int) -> io::Result<String> {
    // SAFETY: an ifreq is plain numbers and bytes, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (flags | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(descriptor.as_fd().as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect();
    String::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData.into())
}

pub(super) fn set_header_size(descriptor: impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = bytes as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
    check(unsafe { libc::ioctl(descriptor.as_fd().as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) })
}

pub(super) fn set_offloads(descriptor: impl AsFd, offloads: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe {
        libc::ioctl(descriptor.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads))
    })
}

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_names_are_refused() {
        for name in ["", "a/b", "sixteen-bytes-xx", "tun%d", "a b", "a:1"] {
            assert!(matches!(Tun::create(name), Err(TunError::BadName(_))), "{name:?}");
        }
    }
}
