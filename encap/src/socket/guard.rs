//! Sockets that take nothing: as long as they are there, the kernel does not answer packets that are for the engine.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};

use super::carrier::{Carrier, GRE_IN_UDP_PORT};
use super::{option, raw};

/// linux/in6.h.
const IPV6_PMTUDISC_INTERFACE: i32 = 4;

/// Opens a socket that takes no packet. As long as it is there, the kernel does not answer what this carrier brings to
/// `local` on `device` with an ICMP error (protocol or port unreachable, parameter problem).
///
/// With [`Carrier::GreInUdp`] it also occupies the port, and lets the kernel merge datagrams of one flow before packet
/// sockets see them.
///
/// # Errors
/// As [`super::open_sender`]; `EADDRINUSE` when another program has the port.
pub fn open_guard(device: &str, local: IpAddr, carrier: Carrier) -> io::Result<OwnedFd> {
    let socket = match carrier {
        Carrier::GreInUdp => open_udp(device, local)?,
        _ => raw::open(carrier.protocol().into(), device, local)?,
    };
    option::drop_everything(&socket)?;
    ignore_path_mtu(&socket, local)?;
    Ok(socket)
}

fn open_udp(device: &str, local: IpAddr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    option::drop_everything(&socket)?;
    option::bind_to_device(&socket, device)?;
    // Before Linux 5.0 datagrams just stay single.
    let _ = option::set_number(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    rustix::net::bind(&socket, &SocketAddr::new(local, GRE_IN_UDP_PORT))?;
    Ok(socket)
}

/// ICMP messages about the tunnels' packets reach the guards; none may change what the host believes of a path.
fn ignore_path_mtu(socket: impl AsFd, local: IpAddr) -> io::Result<()> {
    match local {
        IpAddr::V4(_) => {
            option::set_number(socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_INTERFACE)
        }
        IpAddr::V6(_) => {
            option::set_number(socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, IPV6_PMTUDISC_INTERFACE)
        }
    }
}
