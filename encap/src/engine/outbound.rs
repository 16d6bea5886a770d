//! From a TUN frame to packets for the network.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::inner::{Inner, Offload, Transport};
use super::notices::Notices;
use super::{Engine, MAX_FRAME_PACKETS_OUT, SWEEP, State};
use crate::batch::Batch;
use crate::metrics::DropReason;
use crate::mtu;
use crate::segment::{SuperPacket, copy_finished};
use crate::tunnel::flows::Origin;
use crate::wire::{WireError, gre, ipv4, virtio};

impl Engine {
    /// A frame as read from the TUN device of `tunnel`: a virtio header and an IP packet of up to 64 KiB. Its packets
    /// are added to `out`, all of them or none.
    pub fn handle_tun_input(&mut self, now: Instant, tunnel: usize, frame: &mut [u8], out: &mut Batch) {
        let Some(state) = self.tunnels.get_mut(tunnel) else {
            self.counters.unmatched().count_drop(DropReason::NoTunnel);
            return;
        };
        let before = (out.len(), out.bytes());
        let counters = self.counters.tunnel(tunnel);
        match state.encapsulate(now, tunnel, frame, &mut self.notices, out) {
            Ok(()) => {
                let (packets, bytes) = (out.len() - before.0, out.bytes() - before.1);
                counters.count_out(packets as u64, bytes as u64);
                self.next_sweep.get_or_insert(now + SWEEP);
            }
            Err(reason) => {
                out.truncate(before.0);
                counters.count_drop(reason);
            }
        }
    }
}

/// How the packets for the network are made from the one of the TUN.
enum Cut<'a> {
    /// It is copied.
    Whole,
    /// It is copied and its checksum finished.
    Finish,
    /// It is cut.
    Segments(SuperPacket<'a>),
}

impl State {
    fn encapsulate(
        &mut self,
        now: Instant,
        index: usize,
        frame: &mut [u8],
        notices: &mut Notices,
        out: &mut Batch,
    ) -> Result<(), DropReason> {
        let (header, _) = virtio::Header::parse(frame).map_err(|_| DropReason::Malformed)?;
        let packet = frame.get_mut(virtio::LEN..).ok_or(DropReason::Malformed)?;
        if packet.first().ok_or(DropReason::Malformed)? >> 4 != 4 {
            return Err(DropReason::NotIpv4);
        }
        let inner = Inner::parse(packet)?;
        let packet = packet.get_mut(..inner.total).ok_or(DropReason::Malformed)?;
        if !matches!(inner.protocol, ipv4::TCP | ipv4::UDP | ipv4::ICMP) {
            return Err(DropReason::UnsupportedProtocol);
        }
        if !self.scope.is_behind(inner.destination) {
            return Err(DropReason::NoRoute);
        }
        let is_host = self.scope.is_host(inner.source);
        if !is_host && !self.scope.is_forwarded(inner.source) {
            return Err(DropReason::ForeignSource);
        }
        let offload = Offload::check(&header, 0, &inner)?;
        if inner.opens() {
            let segment = packet.get_mut(inner.ip_len..).ok_or(DropReason::Malformed)?;
            mtu::clamp_mss(segment, self.mtu, offload.partial).map_err(|_| DropReason::Malformed)?;
        }
        let cut = match self.cut(packet, &inner, offload) {
            Err(DropReason::TooBig) => {
                self.tell_too_big(now, index, packet, &inner, notices);
                return Err(DropReason::TooBig);
            }
            cut => cut?,
        };
        let origin = if is_host { Origin::Host } else { Origin::Forwarded };
        let peer = self.choose_peer(now, &inner, origin);
        self.emit(packet, &inner, &cut, peer, out)
    }

    /// Decides how the packet is made to fit the tunnel.
    fn cut<'a>(&self, packet: &'a [u8], inner: &Inner, offload: Offload) -> Result<Cut<'a>, DropReason> {
        let mtu = usize::from(self.mtu);
        let too_big = if inner.dont_fragment { DropReason::TooBig } else { DropReason::FragmentationNeeded };
        let Some(size) = offload.segment else {
            return match offload.partial {
                _ if inner.total > mtu => Err(too_big),
                true => Ok(Cut::Finish),
                false => Ok(Cut::Whole),
            };
        };
        // A TCP stream may be cut anywhere, a datagram nowhere.
        let room = mtu.checked_sub(inner.headers()).filter(|room| *room > 0).ok_or(too_big)?;
        let size = usize::from(size);
        let segments = match inner.transport {
            Transport::Udp { .. } if size.min(inner.total - inner.headers()) > room => return Err(too_big),
            Transport::Udp { .. } => SuperPacket::udp(packet, size),
            _ => SuperPacket::tcp(packet, size.min(room)),
        };
        let segments = segments.map_err(|_| DropReason::Malformed)?;
        if segments.count() > MAX_FRAME_PACKETS_OUT {
            return Err(DropReason::TooManySegments);
        }
        Ok(Cut::Segments(segments))
    }

    /// The sender of a packet with DF learns the MTU, unless that could start a loop or a flood (RFC 1122 section
    /// 3.2.2).
    fn tell_too_big(
        &mut self,
        now: Instant,
        index: usize,
        packet: &[u8],
        inner: &Inner,
        notices: &mut Notices,
    ) {
        let is_error = matches!(inner.transport, Transport::Icmp { is_error: true, .. });
        // Only the first fragment of TCP and UDP is known to be first.
        let later_fragment = inner.is_fragment && inner.ports().is_none();
        if !is_error && !later_fragment && self.too_big.take(now) {
            // The packet was parsed before and a slot of the queue is always long enough: this cannot fail.
            let _ = notices.too_big(index, packet, self.mtu);
        }
    }

    /// The peer the flow was last heard from, else the first one. Notes that the flow was seen, when an answer to it
    /// may come back.
    fn choose_peer(&mut self, now: Instant, inner: &Inner, origin: Origin) -> Ipv4Addr {
        let learned = match (inner.flow_out(), &inner.transport) {
            (Some(key), _) => {
                let answerable = origin == Origin::Forwarded
                    || self.scope.is_own(key.local)
                    || self.scope.is_vip(key.local, key.local_port);
                answerable.then(|| self.flows.leaving(now, key, inner.signals(), origin)).flatten()
            }
            (None, Transport::Icmp { quoted: Some(quoted), .. }) => {
                self.flows.look_up(now, &quoted.flow_in()).flatten()
            }
            (None, _) => None,
        };
        learned.unwrap_or(self.first_peer)
    }

    /// Writes every packet with its outer headers into the batch.
    fn emit(
        &self,
        packet: &[u8],
        inner: &Inner,
        cut: &Cut<'_>,
        peer: Ipv4Addr,
        out: &mut Batch,
    ) -> Result<(), DropReason> {
        let gre = gre::Header { protocol: gre::IPV4, checksum: None, key: self.key, sequence: None };
        let overhead = ipv4::LEN + gre.len();
        let (count, len_of): (usize, &dyn Fn(usize) -> usize) = match cut {
            Cut::Segments(segments) => (segments.count(), &|index| segments.len_of(index)),
            Cut::Whole | Cut::Finish => (1, &|_| packet.len()),
        };
        for index in 0..count {
            let total = overhead + len_of(index);
            let outer = ipv4::Header {
                // DSCP of the inner packet, Not-ECT: the other end may not know how to carry a mark inward (RFC 6040
                // section 4.1, compatibility mode).
                tos: inner.tos & 0xfc,
                total_length: u16::try_from(total).map_err(|_| DropReason::TooBig)?,
                // Any value will do with DF (RFC 6864 section 4.1).
                identification: 0,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                ttl: self.ttl,
                protocol: ipv4::GRE,
                source: self.local,
                destination: peer,
                options: &[],
            };
            let place = out.push(total, peer).ok_or(DropReason::BatchFull)?;
            let write = |place| -> Result<(), WireError> {
                let place = gre.emit(outer.emit(place)?)?;
                match cut {
                    Cut::Segments(segments) => segments.write(index, place),
                    Cut::Finish => copy_finished(packet, inner.ip_len, inner.checksum_at(), place),
                    Cut::Whole => {
                        place.copy_from_slice(packet);
                        Ok(())
                    }
                }
            };
            write(place).map_err(|_| DropReason::Malformed)?;
        }
        Ok(())
    }
}
