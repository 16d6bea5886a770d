//! A device of which the kernel takes packets that it is to cut inside of a tunnel's packet, which it takes by no socket.
//!
//! A TAP device that is only written: what the host sends on it nobody reads. Its frames are Ethernet frames with the longer
//! virtio header ([`virtio::TunnelHeader`]). The kernel means them for tunnels in UDP, but goes by the protocol of the outer
//! IP header when it cuts: GRE as well.

use std::io;
use std::os::fd::OwnedFd;

use super::tun::{self, OFFLOADS, UDP_OFFLOADS};
use crate::wire::virtio;

/// linux/if_tun.h: packets of a tunnel in UDP, without and with an outer checksum.
const TUNNEL_OFFLOADS: libc::c_uint = 0x080 | 0x100;
/// The kernel puts a free number in.
const NAME: &str = "ingre-out%d";

/// Makes such a device in the network namespace of the calling thread, and returns it with its name. It is down; it lives as
/// long as its descriptor.
///
/// # Errors
/// `EINVAL` before Linux 6.17, and what stands in the way of any device ([`super::TunError`]).
pub fn create_outlet() -> io::Result<(OwnedFd, String)> {
    let device = tun::open().map_err(io::Error::other)?;
    let name = tun::attach(&device, NAME, libc::IFF_TAP)?;
    tun::set_header_size(&device, virtio::TUNNEL_LEN)?;
    tun::set_offloads(&device, OFFLOADS | UDP_OFFLOADS | TUNNEL_OFFLOADS)?;
    Ok((device, name))
}
