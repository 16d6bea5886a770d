//! The send edge: packets go on the link by a packet socket where the next hop is certain, else by the raw socket; those
//! that are to be cut inside of GRE by an outlet (see `outlet.rs`), if there is one.
//!
//! A packet socket saves the kernel the way through its routing and IP layers, and it is the only way to have a
//! datagram that is several cut by the kernel or the card. The price is that the next hop has to be known here (see
//! `nexthop.rs`), and that the packets do not pass the host's output firewall; an operator who wants that configures that
//! all packets are routed. The queueing discipline of the interface they pass like all others: to go around it
//! (`PACKET_QDISC_BYPASS`) was no quicker on a veth device, and would take from the operator what he has set up there.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::follow::Follower;
use super::nexthop::{LINK_HEADER_LEN, NextHops, Way};
use super::outlet::Outlet;
use super::raw::RawSender;
use super::send::{Progress, SEND_BUFFER_BYTES, SendReport, send_some};
use super::{option, packet};
use crate::batch::{Batch, Gso, HEADROOM, Room, Takers};
use crate::linux::netlink::Event;
use crate::wire::{udp, virtio};

/// Questions to the kernel after a batch: some microseconds each.
const QUESTIONS_AT_ONCE: usize = 8;

/// Opens a packet socket that only sends, on the interface with this index. With `cuts` each packet has a virtio header in
/// front, which can say that it is several; that costs some time for each.
///
/// # Errors
/// Without `CAP_NET_RAW`, or when the interface is gone.
pub fn open_link_sender(device: u32, cuts: bool) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0: it receives nothing.
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    option::drop_everything(&socket)?;
    if cuts {
        option::set_number(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    }
    // Messages then need no address, and the kernel sees in the link header what a packet is.
    packet::bind(&socket, device, 0)?;
    option::grow_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER_BYTES)?;
    Ok(socket)
}

/// The sockets that send from one local address on one interface, for all threads.
#[derive(Debug)]
pub struct SendSockets {
    /// Takes every packet.
    pub raw: RawSender,
    /// Takes packets whose next hop is known, from [`open_link_sender`]. Without it all packets are routed.
    pub link: Option<OwnedFd>,
    /// Takes packets whose next hop is known and that are to be cut inside of GRE.
    pub outlet: Option<Outlet>,
    /// Index of the interface.
    pub device: u32,
    /// The local address.
    pub local: IpAddr,
}

/// Sends from one local address on one interface, for one thread.
#[derive(Debug)]
pub struct Transmitter {
    sockets: Arc<SendSockets>,
    hops: NextHops,
    /// For each packet of a batch how it leaves.
    exits: Vec<Exit>,
    /// Whether packets on the link have a virtio header.
    has_headers: bool,
    /// Whether the kernel cuts datagrams: since Linux 6.2.
    cuts: bool,
    /// Whether the outlet takes packets.
    cuts_inside: bool,
    scratch: Option<Batch>,
}

/// How a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// By the packet socket.
    Link,
    Outlet,
    /// By the raw socket.
    Routed,
}

impl Transmitter {
    /// Sends by these sockets; knows nothing yet of the network.
    pub fn new(sockets: Arc<SendSockets>) -> Self {
        let hops = NextHops::new(sockets.device);
        let header = |link| option::numbers(link, libc::SOL_PACKET, libc::PACKET_VNET_HDR);
        let has_headers = sockets.link.as_ref().is_some_and(|link| header(link).is_ok_and(|[on]| on != 0));
        let cuts_inside = sockets.outlet.is_some();
        let (exits, scratch) = (Vec::new(), None);
        Self { sockets, hops, exits, has_headers, cuts: has_headers, cuts_inside, scratch }
    }

    /// To whom packets of which an inner one is to be cut are best sent as they are, if to anybody: it is cut here where
    /// that is not done by the kernel, but slowly.
    pub fn takers(&self) -> Option<Takers> {
        self.sockets.outlet.as_ref().filter(|_| self.cuts_inside).map(Outlet::takers)
    }

    /// Takes notice of a change, told by [`Follower::read`].
    pub fn handle(&mut self, event: &Event) {
        self.hops.handle(event);
    }

    /// The largest outer packet that the interface and the route to a peer take, in bytes. Known only after packets
    /// were sent there by a packet socket.
    pub fn mtu(&self, peer: IpAddr) -> Option<u32> {
        self.hops.mtu(peer)
    }

    /// Sends a batch in order. Waits a few milliseconds at most for a full queue; what cannot be sent is counted.
    /// Destinations have the family of the local address. Afterwards asks the kernel what was lacking.
    pub fn send(&mut self, now: Instant, batch: &mut Batch, follower: &mut Follower) -> SendReport {
        let mut progress = Progress::new();
        let sockets = Arc::clone(&self.sockets);
        let Some(link) = &sockets.link else {
            sockets.raw.send_range(batch, 0..batch.len(), &mut progress, &mut self.scratch);
            return progress.report;
        };
        self.choose(now, batch);
        let mut from = 0;
        while let Some(&exit) = self.exits.get(from) {
            let run = self.exits.iter().skip(from).take_while(|other| **other == exit).count();
            let packets = from..from + run;
            match exit {
                Exit::Link => self.send_on_link(link, batch, packets, &mut progress),
                Exit::Outlet => self.send_by_outlet(batch, packets, &mut progress),
                Exit::Routed => sockets.raw.send_range(batch, packets, &mut progress, &mut self.scratch),
            }
            from += run;
        }
        follower.answer(now, &mut self.hops, sockets.local, sockets.device, QUESTIONS_AT_ONCE);
        progress.report
    }

    /// Decides for every packet how it leaves, and writes what stands in front of it.
    fn choose(&mut self, now: Instant, batch: &mut Batch) {
        self.exits.clear();
        let mut last = None;
        for room in batch.rooms_mut() {
            let known = last.filter(|(destination, _)| *destination == room.destination);
            let header = match known.map(|(_, header)| header) {
                Some(header) => Some(header),
                None => match self.hops.way(now, room.destination) {
                    Way::Link(header) => Some(header),
                    Way::Routed => None,
                },
            };
            last = header.map(|header| (room.destination, header));
            // What is too big for the interface even when cut is refused there, part by part.
            let fits = |gso: Gso| {
                (if gso.inner.is_some() { self.cuts_inside } else { self.cuts })
                    && self
                        .hops
                        .link_mtu()
                        .is_some_and(|mtu| u32::from(gso.size) + u32::from(gso.headers) <= mtu)
            };
            let header = header.filter(|_| room.gso.is_none_or(fits));
            self.exits.push(match header {
                None => Exit::Routed,
                Some(_) if room.gso.is_some_and(|gso| gso.inner.is_some()) => Exit::Outlet,
                Some(_) => Exit::Link,
            });
            if let Some(header) = header {
                prepend(room, header, self.has_headers);
            }
        }
    }

    /// What the outlet does not take is cut here.
    fn send_by_outlet(&mut self, batch: &Batch, packets: Range<usize>, progress: &mut Progress) {
        let sockets = Arc::clone(&self.sockets);
        for number in packets {
            let whole = batch.packet(number).and_then(|packet| {
                let gso = packet.gso?;
                Some((sockets.outlet.as_ref().filter(|_| self.cuts_inside)?, packet, gso, gso.inner?))
            });
            let Some((outlet, packet, gso, inner)) = whole else {
                sockets.raw.send_range(batch, number..number + 1, progress, &mut self.scratch);
                continue;
            };
            let before = progress.report.sent;
            let mut is_refused = false;
            progress.send(outlet.as_fd(), number..number + 1, |_| match outlet.send(packet, gso, inner) {
                Err(error) if is_refusal(&error) => {
                    is_refused = true;
                    Ok(1)
                }
                result => result.map(|()| 1),
            });
            if is_refused {
                self.cuts_inside = false;
                progress.report.sent = before;
                sockets.raw.send_range(batch, number..number + 1, progress, &mut self.scratch);
            } else {
                progress.report.on_link += progress.report.sent - before;
            }
        }
    }

    fn send_on_link(
        &mut self,
        link: &OwnedFd,
        batch: &Batch,
        packets: Range<usize>,
        progress: &mut Progress,
    ) {
        let mut uncut = Vec::new();
        let end = packets.end;
        let room = if self.has_headers { HEADROOM } else { LINK_HEADER_LEN };
        let before = progress.report.sent;
        progress.send(link.as_fd(), packets, |from| {
            let is_several = batch.packet(from).is_some_and(|packet| packet.gso.is_some());
            let list = (from..end).map_while(|number| batch.packet(number));
            let list = list.map(|packet| (packet.parts_with_room(room), ()));
            match send_some(link, list) {
                Err(error) if is_several && error.raw_os_error() == Some(libc::EINVAL) => {
                    uncut.push(from);
                    Ok(1)
                }
                result => result,
            }
        });
        progress.report.sent -= uncut.len() as u64;
        progress.report.on_link += progress.report.sent - before;
        for number in uncut {
            self.cuts = false;
            self.sockets.raw.send_range(batch, number..number + 1, progress, &mut self.scratch);
        }
    }
}

/// Whether a device will go on refusing: it cannot do this, was taken down, or is gone.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EBADFD))
}

/// Writes the link header in front of a packet, and the virtio header if it has one.
fn prepend(room: Room<'_>, link_header: [u8; LINK_HEADER_LEN], has_header: bool) {
    const _: () = assert!(virtio::LEN + LINK_HEADER_LEN == HEADROOM);
    let (virtio, link) = room.bytes.split_at_mut(virtio::LEN);
    link.copy_from_slice(&link_header);
    if !has_header {
        return;
    }
    let header = room.gso.map_or_else(virtio::Header::default, |gso| {
        let headers = LINK_HEADER_LEN as u16 + gso.headers;
        virtio::Header {
            flags: virtio::NEEDS_CSUM,
            gso_type: virtio::GSO_UDP_L4,
            hdr_len: headers,
            gso_size: gso.size,
            csum_start: headers.saturating_sub(udp::LEN as u16),
            csum_offset: udp::CHECKSUM_AT as u16,
        }
    });
    // A virtio header always fits its own length.
    let _ = header.emit(virtio);
}
