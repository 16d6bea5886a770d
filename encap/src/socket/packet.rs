//! The receive edge: packet sockets that see GRE packets for one local address on one interface.
//!
//! The kernel's filter takes IPv4 packets of protocol 47 to the local address that were addressed to this host on
//! the link, nothing else. Several sockets share the packets by GRE key, so that each tunnel is received by
//! one thread. Fragments of outer packets are put together by the kernel first. Each frame has a virtio header,
//! which tells the segment size of merged packets.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::option::{self, instruction};

/// Frames per system call.
const SLOTS: usize = 16;
/// virtio header, Ethernet header, the largest IPv4 packet; rounded up to whole cache lines.
const SLOT_BYTES: usize = (10usize + 14 + 65_535).next_multiple_of(64);
/// Enough for the bursts of some milliseconds at 10 Gb/s.
const RECEIVE_BUFFER_BYTES: i32 = 16 << 20;
/// Offsets relative to the network header, whatever the link (linux/filter.h).
const NETWORK_HEADER: u32 = -0x10_0000_i32 as u32;
/// Where the filter finds the kind of a packet (`SKF_AD_OFF + SKF_AD_PKTTYPE`).
const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;

/// Whether frames of an interface of this hardware type (`ARPHRD_*`) can be received.
pub fn is_supported(kind: u16) -> bool {
    matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK | libc::ARPHRD_NONE)
}

/// Bytes of the link header in front of the outer IPv4 header, for a supported hardware type.
pub fn link_header_bytes(kind: u16) -> usize {
    if kind == libc::ARPHRD_NONE { 0 } else { 14 }
}

/// Opens `count` sockets on interface number `device` for packets to `local`. A packet with GRE key K (0 without
/// a key) goes to socket number K modulo `count`. They take packets only once all of them are ready.
///
/// # Errors
/// Without `CAP_NET_RAW`, or when the interface is gone.
pub fn open_receivers(device: u32, local: Ipv4Addr, count: usize) -> io::Result<Vec<OwnedFd>> {
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
        bind(&socket, device)?;
        group = Some(join(&socket, group)?);
        sockets.push(socket);
    }
    if let Some(first) = sockets.first() {
        option::set_program(first, libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, &mut steering())?;
    }
    for socket in &sockets {
        option::set_program(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &mut filter(local))?;
    }
    Ok(sockets)
}

/// One receive socket with its buffers.
#[derive(Debug)]
pub struct PacketReceiver {
    socket: OwnedFd,
    arena: Box<[u8]>,
    lengths: [usize; SLOTS],
    received: usize,
}

impl PacketReceiver {
    /// Receives from a socket of [`open_receivers`].
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            arena: vec![0; SLOTS * SLOT_BYTES].into_boxed_slice(),
            lengths: [0; SLOTS],
            received: 0,
        }
    }

    /// Receives what is there, at most one batch, for [`PacketReceiver::frames`].
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; `ENETDOWN` once after the interface went down.
    pub fn receive(&mut self) -> io::Result<()> {
        self.received = 0;
        // SAFETY: iovec and mmsghdr are plain numbers and pointers, for which zero is valid.
        let mut vectors: [libc::iovec; SLOTS] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; SLOTS] = unsafe { std::mem::zeroed() };
        let slots = self.arena.chunks_exact_mut(SLOT_BYTES);
        for ((vector, header), slot) in vectors.iter_mut().zip(&mut headers).zip(slots) {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points to one vector and that to a slot of its own in the arena; all outlive the
        // call, and nothing else refers to the arena meanwhile.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                SLOTS as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in self.lengths.iter_mut().zip(&headers) {
            let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            *length = if cut { 0 } else { header.msg_len as usize };
        }
        Ok(())
    }

    /// The frames received last: virtio header, link header, outer packet. One that did not fit is empty.
    pub fn frames(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let slots = self.arena.chunks_exact_mut(SLOT_BYTES).zip(&self.lengths).take(self.received);
        slots.map(|(slot, length)| slot.get_mut(..*length).unwrap_or_default())
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

impl AsFd for PacketReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind(socket: &OwnedFd, device: u32) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain numbers, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = device as i32;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `address`, which outlives the call.
    option::check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })
}

/// Joins the fanout group, or makes one with a number nobody has; returns its number.
fn join(socket: &OwnedFd, group: Option<u32>) -> io::Result<u32> {
    let flags = libc::PACKET_FANOUT_FLAG_DEFRAG | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    let unique = if group.is_none() { libc::PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
    let value = group.unwrap_or(0) | (libc::PACKET_FANOUT_CBPF | flags | unique) << 16;
    option::set_number(socket, libc::SOL_PACKET, libc::PACKET_FANOUT, value as i32)?;
    let [value] = option::numbers(socket, libc::SOL_PACKET, libc::PACKET_FANOUT)?;
    Ok(value & 0xffff)
}

/// Takes GRE packets to `local` that were addressed to this host.
fn filter(local: Ipv4Addr) -> [libc::sock_filter; 8] {
    use libc::{BPF_ABS, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let equal = BPF_JMP | BPF_JEQ | BPF_K;
    [
        instruction(BPF_LD | BPF_W | BPF_ABS, PACKET_TYPE, 0, 0),
        instruction(equal, u32::from(libc::PACKET_HOST), 0, 5),
        instruction(BPF_LD | BPF_B | BPF_ABS, NETWORK_HEADER.wrapping_add(9), 0, 0),
        instruction(equal, libc::IPPROTO_GRE as u32, 0, 3),
        instruction(BPF_LD | BPF_W | BPF_ABS, NETWORK_HEADER.wrapping_add(16), 0, 0),
        instruction(equal, local.to_bits(), 0, 1),
        instruction(BPF_RET | BPF_K, u32::MAX, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
    ]
}

/// Returns the GRE key (RFC 2890, section 2), which stands behind the checksum when there is one; 0 without.
fn steering() -> [libc::sock_filter; 9] {
    use libc::{
        BPF_A, BPF_B, BPF_H, BPF_IND, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET, BPF_W,
    };
    let has_bit = BPF_JMP | BPF_JSET | BPF_K;
    [
        // X = length of the outer IPv4 header.
        instruction(BPF_LDX | BPF_B | BPF_MSH, NETWORK_HEADER, 0, 0),
        instruction(BPF_LD | BPF_H | BPF_IND, NETWORK_HEADER, 0, 0),
        instruction(has_bit, 0x2000, 0, 5),
        instruction(has_bit, 0x8000, 0, 2),
        instruction(BPF_LD | BPF_W | BPF_IND, NETWORK_HEADER.wrapping_add(8), 0, 0),
        instruction(BPF_RET | BPF_A, 0, 0, 0),
        instruction(BPF_LD | BPF_W | BPF_IND, NETWORK_HEADER.wrapping_add(4), 0, 0),
        instruction(BPF_RET | BPF_A, 0, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
    ]
}
