//! ICMP errors of the underlay: what routers say about packets that were too big for them.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{option, raw};

/// linux/icmp.h and linux/icmpv6.h.
const ICMP_FILTER: i32 = 1;
const ICMPV6_FILTER: i32 = 1;
const DEST_UNREACH: u32 = 3;
const PACKET_TOO_BIG: u32 = 2;
/// More than an ICMP error may be long (RFC 4443 section 2.4: the minimum MTU of IPv6); the rest of a longer one is cut.
const MAX_BYTES: usize = 2048;
const RECEIVE_BUFFER_BYTES: i32 = 256 << 10;

/// Opens a socket for ICMP "destination unreachable" or ICMPv6 "packet too big" to `local` on `device`, nonblocking. One that does
/// not hear is given nothing.
///
/// # Errors
/// As [`super::open_sender`].
pub fn open_icmp(device: &str, local: IpAddr, hears: bool) -> io::Result<OwnedFd> {
    let protocol = if local.is_ipv4() { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
    let socket = raw::open(protocol as u32, device, local)?;
    if !hears {
        option::drop_everything(&socket)?;
    }
    // A set bit stands for a type that is not taken.
    if local.is_ipv4() {
        let filter = !(1u32 << DEST_UNREACH);
        option::set_bytes(&socket, libc::SOL_RAW, ICMP_FILTER, &filter.to_ne_bytes())?;
    } else {
        let mut filter = [u32::MAX; 8];
        filter[0] = !(1 << PACKET_TOO_BIG);
        option::set_bytes(&socket, libc::SOL_ICMPV6, ICMPV6_FILTER, &filter.map(u32::to_ne_bytes).concat())?;
    }
    option::grow_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES)?;
    Ok(socket)
}

/// Receives ICMP errors.
#[derive(Debug)]
pub struct IcmpReceiver {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl IcmpReceiver {
    /// Receives from a socket of [`open_icmp`].
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; MAX_BYTES].into_boxed_slice() }
    }

    /// The next message, from its type on, and who sent it. The checksum of an ICMP message is not verified yet, that
    /// of an ICMPv6 message is.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; an error of the socket, which is told once.
    pub fn receive(&mut self) -> io::Result<(IpAddr, &[u8])> {
        let mut from = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut from_len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: the kernel writes at most the length of the buffer into it and at most `from_len` bytes into `from`;
        // both outlive the call.
        let received = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                self.buffer.as_mut_ptr().cast(),
                self.buffer.len(),
                libc::MSG_DONTWAIT,
                from.as_mut_ptr().cast(),
                &raw mut from_len,
            )
        };
        let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: zero is valid for it, and the kernel wrote an address into it.
        let from = unsafe { from.assume_init() };
        let packet = self.buffer.get(..len).unwrap_or_default();
        match i32::from(from.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that it is this structure, which is smaller and aligned less strictly.
                let from = unsafe { *(&raw const from).cast::<libc::sockaddr_in>() };
                // A raw IPv4 socket hands over the IP header too, which the kernel has checked.
                let header_len = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
                let message = packet.get(header_len..).unwrap_or_default();
                Ok((IpAddr::from(from.sin_addr.s_addr.to_ne_bytes()), message))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let from = unsafe { *(&raw const from).cast::<libc::sockaddr_in6>() };
                Ok((IpAddr::from(from.sin6_addr.s6_addr), packet))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl AsFd for IcmpReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
