//! What both senders share: many messages per system call, patience with a full queue, and the report.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::batch::MAX_PARTS;

pub(super) const SEND_BUFFER_BYTES: i32 = 8 << 20;
/// Packets per system call.
const AT_ONCE: usize = 64;
/// Vectors for the parts of these packets: two for each, and as many more as one packet may have.
const VECTORS: usize = 2 * AT_ONCE + MAX_PARTS;
/// How often a full queue is waited for within one batch; a longer wait would starve the other tunnels.
const WAITS: u32 = 4;
const WAIT: Duration = Duration::from_millis(1);

/// What became of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SendReport {
    /// Packets handed to the interface. A datagram that is several counts once.
    pub sent: u64,
    /// Of these, packets that a packet socket put on the link; the others were routed.
    pub on_link: u64,
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

    /// The field that counts this failure.
    fn of(&mut self, error: &io::Error) -> &mut u64 {
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => &mut self.too_big,
            Some(libc::ENOBUFS | libc::EAGAIN | libc::ENOMEM) => &mut self.no_room,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
                &mut self.unreachable
            }
            Some(libc::EPERM | libc::EACCES) => &mut self.refused,
            _ => &mut self.other,
        }
    }

    /// Adds a packet that was sent in parts, as one: it failed when a part did.
    pub(super) fn add_parts(&mut self, parts: &Self) {
        let fields = [
            (&mut self.too_big, parts.too_big),
            (&mut self.no_room, parts.no_room),
            (&mut self.unreachable, parts.unreachable),
            (&mut self.refused, parts.refused),
            (&mut self.other, parts.other),
        ];
        let failed = fields.into_iter().find(|(_, parts)| *parts > 0).map(|(field, _)| field);
        *failed.unwrap_or(&mut self.sent) += 1;
    }
}

/// How far a batch has come.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) report: SendReport,
    /// How often a full queue is still waited for.
    waits: u32,
}

impl Progress {
    /// At the start of a batch, which may wait for some milliseconds altogether.
    pub(super) fn new() -> Self {
        Self { report: SendReport::default(), waits: WAITS }
    }

    /// Sends packets in order. `send_from` sends packets from a number on, at least one, and returns how many.
    /// Waits for a full queue; what cannot be sent is counted.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        packets: Range<usize>,
        mut send_from: impl FnMut(usize) -> io::Result<usize>,
    ) {
        let Range { start: mut from, end } = packets;
        let mut asked_again = None;
        while from < end {
            match send_from(from) {
                Ok(sent) => {
                    self.report.sent += sent as u64;
                    from += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.wait(socket, &error) => {}
                // An ICMP error about an earlier packet, possibly forged, is told once and sends nothing: this
                // packet has done nothing to deserve it.
                Err(_) if asked_again != Some(from) => asked_again = Some(from),
                Err(error) => {
                    *self.report.of(&error) += 1;
                    from += 1;
                }
            }
        }
    }

    /// Waits for room and returns true, when the error is about room and there is patience left.
    fn wait(&mut self, socket: BorrowedFd<'_>, error: &io::Error) -> bool {
        let errno = error.raw_os_error();
        if self.waits == 0 || !matches!(errno, Some(libc::EAGAIN | libc::ENOBUFS)) {
            return false;
        }
        self.waits -= 1;
        // A full queue of the interface does not show in the socket, so that is waited for by time.
        if errno == Some(libc::ENOBUFS) {
            std::thread::sleep(WAIT);
        } else {
            let mut ready = [PollFd::new(&socket, PollFlags::OUT)];
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(WAIT.subsec_nanos()) };
            let _ = rustix::event::poll(&mut ready, Some(&timeout));
        }
        true
    }
}

/// The address structures of the kernel that a message can have.
///
/// # Safety
/// The type is one of the kernel's `sockaddr` structures, without padding that has to be written.
pub(super) unsafe trait SocketAddress {}

// SAFETY: IPv4, plain numbers.
unsafe impl SocketAddress for libc::sockaddr_in {}
// SAFETY: IPv6, plain numbers.
unsafe impl SocketAddress for libc::sockaddr_in6 {}
// SAFETY: none, of no length: the socket is bound to where its messages go.
unsafe impl SocketAddress for () {}

/// Sends the first of these packets, each given by its parts, in one system call; returns how many, at least one.
///
/// # Errors
/// Why the first could not be sent.
pub(super) fn send_some<'p, A: SocketAddress>(
    socket: impl AsFd,
    packets: impl Iterator<Item = (impl Iterator<Item = &'p [u8]>, A)>,
) -> io::Result<usize> {
    let mut addresses = [const { MaybeUninit::<A>::uninit() }; AT_ONCE];
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; VECTORS];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; AT_ONCE];
    let mut count = 0;
    let mut vectors = &mut vectors[..];
    for ((address, header), (parts, destination)) in addresses.iter_mut().zip(&mut headers).zip(packets) {
        if vectors.len() < MAX_PARTS {
            break;
        }
        let mut used = 0;
        for (vector, part) in vectors.iter_mut().zip(parts) {
            vector.write(libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
            used += 1;
        }
        let (these, rest) = vectors.split_at_mut(used);
        vectors = rest;
        // SAFETY: an mmsghdr is plain numbers and pointers, for which zero is valid.
        let header = header.write(unsafe { std::mem::zeroed() });
        header.msg_hdr.msg_name = (&raw mut *address.write(destination)).cast();
        header.msg_hdr.msg_namelen = size_of::<A>() as libc::socklen_t;
        header.msg_hdr.msg_iov = these.as_mut_ptr().cast();
        header.msg_hdr.msg_iovlen = these.len();
        count += 1;
    }
    // SAFETY: the first `count` headers are written and point to an address, to written vectors and by these to the
    // bytes of a packet each, which outlive the call; the kernel writes the headers alone and only reads the rest.
    let sent = unsafe {
        libc::sendmmsg(socket.as_fd().as_raw_fd(), headers.as_mut_ptr().cast(), count, libc::MSG_DONTWAIT)
    };
    // Zero would be an endless loop; it happens only for an empty list.
    usize::try_from(sent).map_err(|_| io::Error::last_os_error()).map(|sent| sent.max(1))
}
