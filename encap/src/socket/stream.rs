//! TCP sockets that belong to a tunnel: bound to its device, so that no packet of theirs takes another way.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::option;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// Opens a socket for IPv4 or IPv6, bound to `device`, nonblocking, not bound to an address and not connected.
///
/// # Errors
/// `ENODEV` when the device is gone; `EPERM` before Linux 5.7 without `CAP_NET_RAW`.
pub fn open_stream(device: &str, is_v6: bool) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if is_v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    option::bind_to_device(&socket, device)?;
    Ok(socket)
}

/// Opens a listener on `address` that only sees connections arriving by `device`; so are those it accepts.
///
/// # Errors
/// `EADDRINUSE` when somebody has the port there; `EACCES` for a port below 1024 without `CAP_NET_BIND_SERVICE`.
pub fn open_listener(device: &str, address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open_stream(device, address.is_ipv6())?;
    if address.is_ipv6() {
        // An IPv4 client of such a listener would come in the clothes of IPv6.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}
