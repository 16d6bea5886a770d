//! The receive edge: packet sockets that see the tunnels' packets for one local address on one interface.
//!
//! The kernel's filter takes packets of the wanted kinds to the local address that were addressed to this host on
//! the link, nothing else. Several sockets share the packets by GRE key, so that each tunnel is received by
//! one thread. Fragments of outer IPv4 packets are put together by the kernel first; those of IPv6 are not received, for
//! a tunnel does not reassemble them (RFC 7676). Each frame has a virtio header, which tells the segment size of merged
//! packets. Small frames come in a ring shared with
//! the kernel (see `ring.rs`).

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::carrier::Carrier;
use super::queue::{AT_ONCE, Queue};
use super::ring::{self, Frame, Place, Ring};
use super::{filter, option};
use crate::coalesce::Slots;

/// Frames handed out at once, where the socket has a ring.
const FRAMES_AT_ONCE: usize = 64;
/// Enough for the bursts of some milliseconds at 10 Gb/s.
const RECEIVE_BUFFER_BYTES: i32 = 16 << 20;

/// linux/if_packet.h.
const PACKET_FANOUT_CPU: u32 = 2;

/// Whether frames of an interface of this hardware type (`ARPHRD_*`) can be received.
pub fn is_supported(kind: u16) -> bool {
    matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK | libc::ARPHRD_NONE)
}

/// Bytes of the link header in front of the outer IP header, for a supported hardware type.
pub fn link_header_bytes(kind: u16) -> usize {
    if kind == libc::ARPHRD_NONE { 0 } else { 14 }
}

/// Opens `count` sockets on an interface, whose frames have a link header of `link_header` bytes, for what these carriers
/// bring to `local`. A packet with GRE key
/// K, be it in UDP, goes to socket number K modulo `count`, everything without a key to the first. They take packets
/// only once all of them are ready.
///
/// With `ring`, the MTU of the interface, each has a ring of [`super::ring_bytes`], unless packets of that length would not
/// fit into its slots: small frames then cost some half a microsecond less each.
///
/// # Errors
/// Without `CAP_NET_RAW`, or when the interface is gone.
pub fn open_receivers(
    device: u32,
    link_header: usize,
    local: IpAddr,
    carriers: &[Carrier],
    count: usize,
    ring: Option<u32>,
) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::with_capacity(count);
    let mut group = None;
    for _ in 0..count {
        // Protocol 0: nothing arrives before it is bound.
        let socket = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        option::drop_everything(&socket)?;
        option::set_number(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        option::set_number(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        option::grow_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES)?;
        if let Some(mtu) = ring {
            ring::set_up(&socket, mtu)?;
        }
        let kind = if local.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
        bind(&socket, device, kind as u16)?;
        group = Some(join(&socket, local, count, group)?);
        sockets.push(socket);
    }
    if let [first, _, ..] = &sockets[..] {
        option::set_program(first, libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, &mut filter::steer(local))?;
    }
    for socket in &sockets {
        let mut program = filter::take(local, carriers, link_header);
        option::set_program(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &mut program)?;
    }
    Ok(sockets)
}

/// One receive socket with its buffers.
#[derive(Debug)]
pub struct PacketReceiver {
    socket: OwnedFd,
    ring: Option<Ring>,
    queue: Queue,
    /// Whether nothing was there the last time.
    idle: bool,
    /// An error met while frames were received, to be told next.
    error: Option<io::Error>,
}

impl PacketReceiver {
    /// Receives from a socket of [`open_receivers`].
    ///
    /// # Errors
    /// When there is no memory for the socket's ring.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let ring = Ring::map(&socket)?;
        Ok(Self { socket, ring, queue: Queue::new(), idle: false, error: None })
    }

    /// Receives what is there, at most one batch, for [`PacketReceiver::frames`]. To be called until it has nothing: the
    /// descriptor stays readable as long as frames are handed out.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; `ENETDOWN` once after the interface went down.
    pub fn receive(&mut self) -> io::Result<()> {
        self.queue.clear();
        // Before anything is taken: what is taken has to be handed out.
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let Some(ring) = &mut self.ring else { return self.queue.receive(&self.socket, AT_ONCE) };
        let queued = ring.take(FRAMES_AT_ONCE, AT_ONCE);
        if !ring.places().is_empty() {
            self.idle = false;
            self.receive_queued(queued);
            return Ok(());
        }
        if !self.idle {
            self.idle = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Woken for nothing: the socket has an error to tell.
        self.queue.receive(&self.socket, 1)
    }

    /// Receives the frames that the ring says are in the queue. An error of the socket may come first.
    fn receive_queued(&mut self, count: usize) {
        for _ in 0..count + 2 {
            if self.queue.len() >= count {
                break;
            }
            if let Err(error) = self.queue.receive(&self.socket, count - self.queue.len()) {
                self.error = Some(error);
            }
        }
    }

    /// The frames received last: virtio header, link header, outer packet. One that did not fit is empty.
    pub fn frames(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let mut ring = self.ring.as_mut().map(Ring::frames);
        let mut queued = self.queue.frames();
        std::iter::from_fn(move || match ring.as_mut().and_then(Iterator::next) {
            Some(Frame::Here(frame)) => Some(frame),
            Some(Frame::Queued) => Some(queued.next().unwrap_or_default()),
            Some(Frame::Lost) => Some(Default::default()),
            None => queued.next(),
        })
    }

    /// Whether as many frames were received last as are received at once, so that there may be more.
    pub fn is_full(&self) -> bool {
        match &self.ring {
            Some(ring) => ring.places().len() == FRAMES_AT_ONCE,
            None => self.queue.len() == AT_ONCE,
        }
    }

    /// A part of the frame with this number, counted as [`PacketReceiver::frames`] does; empty when there is none.
    pub fn part(&self, number: usize, range: Range<usize>) -> &[u8] {
        let frame = match self.place(number) {
            Ok(number) => self.ring.as_ref().and_then(|ring| ring.frame(number)),
            Err(number) => self.queue.frame(number),
        };
        frame.and_then(|frame| frame.get(range)).unwrap_or_default()
    }

    /// The number of a frame in the ring, or else its number in the queue.
    fn place(&self, number: usize) -> Result<usize, usize> {
        match self.ring.as_ref().map(|ring| ring.places().get(number)) {
            Some(Some(Place::Queued(number))) => Err(*number),
            Some(Some(_)) => Ok(number),
            Some(None) | None => Err(number),
        }
    }

    /// Packets that the kernel dropped since the last call because this socket's buffer was full.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn take_drops(&self) -> io::Result<u64> {
        // tpacket_stats: packets, drops. Reading sets both to zero.
        let [_, drops] = option::numbers(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS)?;
        Ok(u64::from(drops))
    }
}

impl Slots for PacketReceiver {
    fn slot(&mut self, number: usize) -> &mut [u8] {
        let frame = match self.place(number) {
            Ok(number) => self.ring.as_mut().and_then(|ring| ring.frame_mut(number)),
            Err(number) => self.queue.frame_mut(number),
        };
        frame.unwrap_or_default()
    }
}

impl AsFd for PacketReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Binds to an interface and to what its frames carry: nothing (0) for a socket that only sends. Never to `ETH_P_ALL`: such
/// sockets also see what a traffic control program takes away.
pub(super) fn bind(socket: &OwnedFd, device: u32, kind: u16) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain numbers, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = kind.to_be();
    address.sll_ifindex = device as i32;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `address`, which outlives the call.
    option::check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })
}

/// Joins the fanout group of `count` sockets, or makes one with a number nobody has; returns its number.
fn join(socket: &OwnedFd, local: IpAddr, count: usize, group: Option<u32>) -> io::Result<u32> {
    // One socket needs the group only for the fragments to be put together: this way to choose it costs nothing.
    let choice = if count == 1 { PACKET_FANOUT_CPU } else { libc::PACKET_FANOUT_CBPF };
    let whole = if local.is_ipv4() { libc::PACKET_FANOUT_FLAG_DEFRAG } else { 0 };
    let flags = whole | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    let unique = if group.is_none() { libc::PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
    let value = group.unwrap_or(0) | (choice | flags | unique) << 16;
    option::set_number(socket, libc::SOL_PACKET, libc::PACKET_FANOUT, value as i32)?;
    let [value] = option::numbers(socket, libc::SOL_PACKET, libc::PACKET_FANOUT)?;
    Ok(value & 0xffff)
}
