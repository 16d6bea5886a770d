//! The send edge: a raw socket that takes whole outer packets, and the guard that keeps the kernel quiet.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType};

use super::option;
use crate::batch::Batch;

/// Packets per system call.
const AT_ONCE: usize = 64;
const SEND_BUFFER_BYTES: i32 = 8 << 20;
/// How often a full queue is waited for within one batch; a longer wait would starve the other tunnels.
const WAITS: u32 = 4;
const WAIT: Duration = Duration::from_millis(1);

/// What became of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SendReport {
    /// Packets handed to the interface.
    pub sent: u64,
    /// Packets larger than the interface's MTU (`EMSGSIZE`).
    pub too_big: u64,
    /// Packets for which the interface's queue or the socket's buffer had no room (`ENOBUFS`, `EAGAIN`).
    pub no_room: u64,
    /// Packets without a route or to a host that does not answer (`ENETUNREACH`, `EHOSTUNREACH`, `ENETDOWN`).
    pub unreachable: u64,
    /// Packets that a firewall refused (`EPERM`, `EACCES`).
    pub refused: u64,
    /// Packets that failed for any other reason.
    pub other: u64,
}

impl SendReport {
    /// Packets that were not sent.
    pub fn failed(&self) -> u64 {
        self.too_big + self.no_room + self.unreachable + self.refused + self.other
    }

    fn count(&mut self, error: &io::Error) {
        *match error.raw_os_error() {
            Some(libc::EMSGSIZE) => &mut self.too_big,
            Some(libc::ENOBUFS | libc::EAGAIN | libc::ENOMEM) => &mut self.no_room,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
                &mut self.unreachable
            }
            Some(libc::EPERM | libc::EACCES) => &mut self.refused,
            _ => &mut self.other,
        } += 1;
    }
}

/// Opens a socket that sends whole IPv4 packets by `device`, an interface name, from `local`.
///
/// # Errors
/// Without `CAP_NET_RAW`; `EADDRNOTAVAIL` when `local` is no address of this host.
pub fn open_sender(device: &str, local: Ipv4Addr) -> io::Result<OwnedFd> {
    let socket = open(libc::IPPROTO_RAW as u32, device, local)?;
    option::drop_everything(&socket)?;
    // Reports a full queue instead of dropping in silence.
    option::set_number(&socket, libc::SOL_IP, libc::IP_RECVERR, 1)?;
    // The DF bit is the one in the header. Packets are measured against the interface's MTU, never against what
    // an ICMP message, possibly forged, claims of the path.
    option::set_number(&socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
    option::grow_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER_BYTES)?;
    Ok(socket)
}

/// Opens a socket that takes no packet. As long as it is there, the kernel does not answer GRE packets to `local`
/// on `device` with ICMP "protocol unreachable".
///
/// # Errors
/// As [`open_sender`].
pub fn open_guard(device: &str, local: Ipv4Addr) -> io::Result<OwnedFd> {
    let socket = open(libc::IPPROTO_GRE as u32, device, local)?;
    option::drop_everything(&socket)?;
    // ICMP messages about GRE packets reach this socket; none may change what the host believes of a path.
    option::set_number(&socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_INTERFACE)?;
    Ok(socket)
}

/// Sends batches.
#[derive(Debug)]
pub struct RawSender {
    socket: OwnedFd,
}

impl RawSender {
    /// Sends with a socket of [`open_sender`].
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a batch in order. Waits a few milliseconds at most for a full queue; what cannot be sent is counted.
    pub fn send(&self, batch: &Batch) -> SendReport {
        let mut report = SendReport::default();
        let mut waits = WAITS;
        let mut from = 0;
        let mut asked_again = None;
        while from < batch.len() {
            match self.send_some(batch, from) {
                Ok(sent) => {
                    report.sent += sent as u64;
                    from += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) && waits > 0 => {
                    waits -= 1;
                    self.wait(&error);
                }
                // An ICMP error about an earlier packet, possibly forged, is told once and sends nothing: this
                // packet has done nothing to deserve it.
                Err(_) if asked_again != Some(from) => asked_again = Some(from),
                Err(error) => {
                    report.count(&error);
                    from += 1;
                }
            }
        }
        report
    }

    /// Sends packets from number `from` on, at least one; returns how many.
    fn send_some(&self, batch: &Batch, from: usize) -> io::Result<usize> {
        // SAFETY: sockaddr_in, iovec and mmsghdr are plain numbers and pointers, for which zero is valid.
        let mut addresses: [libc::sockaddr_in; AT_ONCE] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut vectors: [libc::iovec; AT_ONCE] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; AT_ONCE] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        let slots = addresses.iter_mut().zip(&mut vectors).zip(&mut headers);
        for (((address, vector), header), (packet, destination)) in slots.zip(batch.packets().skip(from)) {
            address.sin_family = libc::AF_INET as u16;
            address.sin_addr.s_addr = destination.to_bits().to_be();
            *vector = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
            header.msg_hdr.msg_name = (&raw mut *address).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        // SAFETY: the first `count` headers point to an address, a vector and the bytes of a packet each, which
        // outlive the call; the kernel only reads the packets.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT)
        };
        // Zero would be an endless loop; it happens only for an empty list.
        usize::try_from(sent).map_err(|_| io::Error::last_os_error()).map(|sent| sent.max(1))
    }

    fn wait(&self, error: &io::Error) {
        // A full queue of the interface does not show in the socket, so that is waited for by time.
        if error.raw_os_error() == Some(libc::ENOBUFS) {
            std::thread::sleep(WAIT);
            return;
        }
        let mut ready = [PollFd::new(&self.socket, PollFlags::OUT)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(WAIT.subsec_nanos()) };
        let _ = rustix::event::poll(&mut ready, Some(&timeout));
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS))
}

fn open(protocol: u32, device: &str, local: Ipv4Addr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = RawProtocol::new(protocol).map(Protocol::from_raw);
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, protocol)?;
    option::bind_to_device(&socket, device)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(local, 0))?;
    Ok(socket)
}
