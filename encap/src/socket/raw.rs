//! The plain send edge: a raw socket that takes whole outer packets and lets the kernel find the way.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType};

use super::option;
use super::send::{Progress, SEND_BUFFER_BYTES, SendReport, send_some};
use crate::batch::{Batch, Gso, InnerCarrier};
use crate::segment::{self, SuperPacket};
use crate::wire::checksum::Sum;
use crate::wire::{WireError, ip, udp, virtio, write};

/// Datagrams that are cut together; more are sent in turns.
const CUT_PACKETS: usize = 64;
const CUT_BYTES: usize = 2 * (40 + 65_535);

/// Opens a socket that sends whole IP packets of the family of `local` by `device`, an interface name, from `local`.
///
/// # Errors
/// Without `CAP_NET_RAW`; `EADDRNOTAVAIL` when `local` is no address of this host; `EAFNOSUPPORT` without IPv6.
pub fn open_sender(device: &str, local: IpAddr) -> io::Result<OwnedFd> {
    // With this protocol number the kernel expects the IP header in front, in both families (raw(7), ipv6(7)).
    let socket = open(libc::IPPROTO_RAW as u32, device, local)?;
    option::drop_everything(&socket)?;
    match local {
        IpAddr::V4(_) => {
            // Reports a full queue instead of dropping in silence.
            option::set_number(&socket, libc::SOL_IP, libc::IP_RECVERR, 1)?;
            // The DF bit is the one in the header. Packets are measured against the interface's MTU, never against
            // what an ICMP message, possibly forged, claims of the path.
            option::set_number(&socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        }
        IpAddr::V6(_) => {
            option::set_number(&socket, libc::SOL_IPV6, libc::IPV6_RECVERR, 1)?;
            option::set_number(&socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        }
    }
    option::grow_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER_BYTES)?;
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
    /// Destinations have the family of the socket.
    pub fn send(&self, batch: &Batch) -> SendReport {
        let mut progress = Progress::new();
        self.send_range(batch, 0..batch.len(), &mut progress, &mut None);
        progress.report
    }

    /// Sends some packets of a batch in order. `scratch` is memory kept for the next call.
    pub(super) fn send_range(
        &self,
        batch: &Batch,
        packets: Range<usize>,
        progress: &mut Progress,
        scratch: &mut Option<Batch>,
    ) {
        let Range { start: mut from, end } = packets;
        while from < end {
            let plain = (from..end).take_while(|number| gso(batch, *number).is_none()).count();
            match gso(batch, from) {
                None => self.send_plain(batch, from..from + plain, progress),
                Some(gso) => {
                    let cut = scratch.get_or_insert_with(|| Batch::new(CUT_BYTES, CUT_PACKETS));
                    self.send_cut(batch, from, gso, progress, cut);
                }
            }
            from += plain.max(1);
        }
    }

    /// Sends packets that are one each.
    fn send_plain(&self, batch: &Batch, packets: Range<usize>, progress: &mut Progress) {
        let end = packets.end;
        let list = |from| (from..end).map_while(|number| batch.packet(number));
        progress.send(self.socket.as_fd(), packets, |from| {
            match list(from).next().map(|first| first.destination) {
                Some(IpAddr::V6(_)) => {
                    send_some(&self.socket, list(from).map_while(|p| Some((p.parts(), v6(p.destination)?))))
                }
                _ => send_some(&self.socket, list(from).map_while(|p| Some((p.parts(), v4(p.destination)?)))),
            }
        });
    }

    /// Sends a packet that is several: a raw socket cannot have the kernel cut it.
    fn send_cut(&self, batch: &Batch, number: usize, gso: Gso, progress: &mut Progress, cut: &mut Batch) {
        let Some(whole) = batch.packet(number) else { return };
        let bytes = whole.bytes();
        let Ok((outer, parts)) = parts(&bytes, gso) else {
            progress.report.other += 1;
            return;
        };
        let before = std::mem::take(&mut progress.report);
        cut.clear();
        for index in 0..parts.count() {
            let len = outer.len() + parts.len_of(index);
            if !cut.has_room(len, 1) {
                self.send_plain(cut, 0..cut.len(), progress);
                cut.clear();
            }
            if let Some(place) = cut.push(len, whole.destination, None) {
                // Cannot fail: the place is as long as both.
                let (head, rest) = place.split_at_mut(outer.len());
                head.copy_from_slice(outer);
                let _ = parts.write(index, rest);
                if let Some(inner) = gso.inner {
                    let _ = finish_outer(place, inner.carrier);
                }
            }
        }
        self.send_plain(cut, 0..cut.len(), progress);
        let parts = std::mem::replace(&mut progress.report, before);
        progress.report.add_parts(&parts);
    }
}

/// What stands in front of each part of a packet, and the parts.
fn parts(packet: &[u8], gso: Gso) -> Result<(&[u8], SuperPacket<'_>), WireError> {
    let size = gso.size.into();
    let Some(inner) = gso.inner else { return Ok((&[], SuperPacket::udp(packet, size)?)) };
    let (outer, packet) = packet.split_at_checked(inner.ip_at.into()).ok_or(WireError::Truncated)?;
    let is_udp = inner.gso_type == virtio::GSO_UDP_L4;
    let parts = if is_udp { SuperPacket::udp(packet, size) } else { SuperPacket::tcp(packet, size) };
    Ok((outer, parts?))
}

/// Completes the outer headers of one of several packets that are written otherwise.
fn finish_outer(packet: &mut [u8], carrier: InnerCarrier) -> Result<(), WireError> {
    ip::set_length(packet, packet.len())?;
    let InnerCarrier::GreInUdp { has_checksum } = carrier else { return Ok(()) };
    let (ip, datagram) = ip::Packet::parse(packet)?;
    let (at, length) = (ip.header_len, datagram.len() as u16);
    write(packet, at + udp::LENGTH_AT, length.to_be_bytes())?;
    if has_checksum {
        let open = !Sum::pseudo(ip.source, ip.destination, ip.protocol, length).finish();
        write(packet, at + udp::CHECKSUM_AT, open.to_be_bytes())?;
        segment::finish(packet, at, udp::CHECKSUM_AT)?;
    }
    Ok(())
}

fn gso(batch: &Batch, number: usize) -> Option<Gso> {
    batch.packet(number).and_then(|packet| packet.gso)
}

fn v4(destination: IpAddr) -> Option<libc::sockaddr_in> {
    let IpAddr::V4(destination) = destination else { return None };
    Some(libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: destination.to_bits().to_be() },
        sin_zero: [0; 8],
    })
}

fn v6(destination: IpAddr) -> Option<libc::sockaddr_in6> {
    let IpAddr::V6(destination) = destination else { return None };
    Some(libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as u16,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: destination.octets() },
        // A link-local destination is on the interface that the socket is bound to.
        sin6_scope_id: 0,
    })
}

/// A raw socket bound to an interface and a local address.
pub(super) fn open(protocol: u32, device: &str, local: IpAddr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = RawProtocol::new(protocol).map(Protocol::from_raw);
    let socket = rustix::net::socket_with(family, SocketType::RAW, flags, protocol)?;
    option::bind_to_device(&socket, device)?;
    rustix::net::bind(&socket, &SocketAddr::new(local, 0))?;
    Ok(socket)
}
