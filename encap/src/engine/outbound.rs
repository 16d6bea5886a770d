//! From a TUN frame to packets for the network: what may leave, by which peer, and in how many pieces.

use std::net::IpAddr;
use std::time::Instant;

use super::emit::{Cut, Emitted};
use super::inner::{Inner, Offload, Transport};
use super::notices::Notices;
use super::paths::Paths;
use super::state::State;
use super::{Engine, MAX_FRAME_PACKETS_OUT, SWEEP};
use crate::batch::{Batch, InnerCarrier};
use crate::fragment::Fragments;
use crate::metrics::DropReason;
use crate::mtu;
use crate::segment::{self, SuperPacket};
use crate::tunnel::flows::{Origin, PeerIndex};
use crate::wire::virtio;

impl Engine {
    /// A frame as read from the TUN device of `tunnel`: a virtio header and an IP packet of up to 64 KiB. Its packets
    /// are added to `out`, all of them or none. When parts of them lie in the frame, `out` takes it and leaves an empty one.
    pub fn handle_tun_input(&mut self, now: Instant, tunnel: usize, frame: &mut Vec<u8>, out: &mut Batch) {
        let Some(Some(state)) = self.tunnels.get_mut(tunnel) else {
            self.unmatched.count_drop(DropReason::NoTunnel);
            return;
        };
        let before = (out.len(), out.bytes());
        let mut way = Way {
            now,
            index: tunnel,
            outer: &self.outer,
            paths: &self.paths,
            notices: &mut self.notices,
            identification: &mut self.identification,
        };
        match state.encapsulate(&mut way, frame, out) {
            Ok((peer, Emitted { packets, repeated })) => {
                out.keep(frame);
                if let Some(counters) = state.counters.peer(peer) {
                    counters.count_out(packets as u64, (out.bytes() - before.1 + repeated) as u64);
                }
                self.next_sweep.get_or_insert(now + SWEEP);
            }
            Err(reason) => {
                out.truncate(before.0);
                state.counters.count_drop(reason);
            }
        }
    }
}

/// What the way out needs from outside the tunnel.
struct Way<'a> {
    now: Instant,
    index: usize,
    outer: &'a [IpAddr],
    paths: &'a Paths,
    notices: &'a mut Notices,
    identification: &'a mut u32,
}

impl State {
    /// Returns the peer and what is on the wire then.
    fn encapsulate(
        &mut self,
        way: &mut Way<'_>,
        frame: &mut [u8],
        out: &mut Batch,
    ) -> Result<(PeerIndex, Emitted), DropReason> {
        let (header, _) = virtio::Header::parse(frame).map_err(|_| DropReason::Malformed)?;
        let packet = frame.get_mut(virtio::LEN..).ok_or(DropReason::Malformed)?;
        let inner = Inner::parse(packet)?;
        let packet = packet.get_mut(..inner.total).ok_or(DropReason::Malformed)?;
        let origin = self.may_leave(&inner, way.outer)?;
        let mut offload = Offload::check(&header, 0, &inner)?;
        let peer = self.choose_peer(way.now, &inner, origin);
        let address = *self.remotes.get(usize::from(peer)).ok_or(DropReason::NoTunnel)?;
        let limit = self.limit(way.paths.limit(address));
        if !inner.is_v4() && self.probes.refuses_ipv6(peer) {
            return Err(DropReason::PathTooSmall);
        }
        if inner.opens() {
            let segment = packet.get_mut(inner.ip_len..).ok_or(DropReason::Malformed)?;
            mtu::clamp_mss(segment, inner.version(), limit, offload.partial)
                .map_err(|_| DropReason::Malformed)?;
        }
        if offload.partial && offload.segment.is_none() && inner.total > usize::from(limit) {
            // The checksum stands in the first fragment and covers all of them.
            segment::finish(packet, inner.ip_len, inner.checksum_at()).map_err(|_| DropReason::Malformed)?;
            offload.partial = false;
        }
        let uncut = self.uncut.carrier(way.now, peer);
        let cut = match self.cut(packet, &inner, offload, (limit, uncut), way.identification) {
            Err(DropReason::TooBig) => {
                self.tell_too_big(way, packet, &inner, limit);
                return Err(DropReason::TooBig);
            }
            cut => cut?,
        };
        let emitted = self.emit(packet, &inner, &cut, peer, out)?;
        Ok((peer, emitted))
    }

    /// Checks addresses and protocol; says who made the packet.
    fn may_leave(&self, inner: &Inner, outer: &[IpAddr]) -> Result<Origin, DropReason> {
        if inner.is_foreign() && !(self.nested && inner.is_tunnelled()) {
            return Err(DropReason::UnsupportedProtocol);
        }
        if !self.scope.is_behind(inner.destination) {
            return Err(DropReason::NoRoute);
        }
        if outer.binary_search(&inner.destination).is_ok() {
            return Err(DropReason::Loop);
        }
        if self.scope.is_host(inner.source) {
            Ok(Origin::Host)
        } else if self.scope.is_forwarded(inner.source) {
            Ok(Origin::Forwarded)
        } else {
            Err(DropReason::ForeignSource)
        }
    }

    /// Decides how the packet is made to fit `limit` bytes, or what others may cut it inside of.
    fn cut<'a>(
        &self,
        packet: &'a [u8],
        inner: &Inner,
        offload: Offload,
        (limit, uncut): (u16, Option<InnerCarrier>),
        identification: &mut u32,
    ) -> Result<Cut<'a>, DropReason> {
        let limit = usize::from(limit);
        let Some(size) = offload.segment else {
            if inner.total <= limit {
                return Ok(if offload.partial { Cut::Finish } else { Cut::Whole });
            }
            if inner.is_v4() {
                return self.fragment(packet, inner, limit);
            }
            // A packet of 1280 bytes must get through whatever the path takes (RFC 7676 section 3.3).
            if limit < usize::from(mtu::MIN_V6) && inner.total <= usize::from(mtu::MIN_V6) {
                return Ok(self.delivery(limit, identification));
            }
            return Err(DropReason::TooBig);
        };
        // A TCP stream may be cut anywhere, a datagram nowhere.
        let too_big = if inner.dont_fragment { DropReason::TooBig } else { DropReason::FragmentationNeeded };
        let room = limit.checked_sub(inner.headers()).filter(|room| *room > 0).ok_or(too_big)?;
        let size = usize::from(size);
        let segments = match inner.transport {
            Transport::Udp { .. } if size.min(inner.total - inner.headers()) > room => {
                if inner.dont_fragment || !self.fragments_inner {
                    return Err(too_big);
                }
                let segments = SuperPacket::udp(packet, size).map_err(|_| DropReason::Malformed)?;
                return Ok(Cut::FragmentedSegments { segments, limit });
            }
            Transport::Udp { .. } => SuperPacket::udp(packet, size),
            _ => SuperPacket::tcp(packet, size.min(room)),
        };
        let segments = segments.map_err(|_| DropReason::Malformed)?;
        if segments.count() > MAX_FRAME_PACKETS_OUT {
            return Err(DropReason::TooManySegments);
        }
        // The length of the whole has to fit the outer header as well.
        let whole = usize::from(self.overhead) + inner.total;
        if let Some(carrier) = uncut
            && segments.count() > 1
            && whole <= usize::from(u16::MAX)
        {
            return Ok(Cut::Uncut { segments, gso_type: offload.gso_type, carrier });
        }
        Ok(Cut::Segments(segments))
    }

    /// The outer packet is fragmented, so that the inner ones are `limit` bytes where they are not.
    pub(super) fn delivery(&self, limit: usize, identification: &mut u32) -> Cut<'static> {
        *identification = identification.wrapping_add(1);
        Cut::Delivery { limit: limit + usize::from(self.overhead), identification: *identification }
    }

    /// An IPv4 packet that is too big (RFC 7588 section 3).
    fn fragment<'a>(&self, packet: &'a [u8], inner: &Inner, limit: usize) -> Result<Cut<'a>, DropReason> {
        if inner.dont_fragment {
            return Err(DropReason::TooBig);
        }
        if !self.fragments_inner {
            return Err(DropReason::FragmentationNeeded);
        }
        Fragments::v4(packet, limit).map(Cut::Fragments).map_err(|_| DropReason::FragmentationNeeded)
    }

    /// The sender of a packet that may not be fragmented learns the MTU, unless that could start a loop or a flood
    /// (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
    fn tell_too_big(&mut self, way: &mut Way<'_>, packet: &[u8], inner: &Inner, limit: u16) {
        let is_error = matches!(inner.transport, Transport::Icmp { is_error: true, .. });
        if !is_error && !inner.is_later_piece() && self.too_big.take(way.now) {
            // The packet was parsed before and a slot of the queue is always long enough: this cannot fail.
            let smallest = if inner.is_v4() { mtu::MIN } else { mtu::MIN_V6 };
            let _ = way.notices.too_big(way.index, packet, limit.max(smallest));
        }
    }

    /// The peer of the flow; of a later piece, that of the first one, for the pieces have to meet.
    fn choose_peer(&mut self, now: Instant, inner: &Inner, origin: Origin) -> PeerIndex {
        let Some(key) = inner.fragment_key() else { return self.peer_of_flow(now, inner, origin) };
        if inner.is_later_piece() {
            return self.leaving_fragments.peer_of(now, &key).unwrap_or_else(|| self.first_peer());
        }
        let peer = self.peer_of_flow(now, inner, origin);
        self.leaving_fragments.admit(now, key, peer);
        peer
    }

    /// The peer the flow was last heard from, else the first one. Notes that the flow was seen, when an answer to it
    /// may come back.
    fn peer_of_flow(&mut self, now: Instant, inner: &Inner, origin: Origin) -> PeerIndex {
        let learned = match (inner.flow_out(), &inner.transport) {
            (Some(key), _) => {
                let answerable = origin == Origin::Forwarded
                    || self.scope.is_own(key.local)
                    || self.scope.is_served(key.protocol, key.local, key.local_port);
                answerable.then(|| self.flows.leaving(now, key, inner.signals(), origin)).flatten()
            }
            (None, Transport::Icmp { quoted: Some(quoted), .. }) => {
                self.flows.look_up(now, &quoted.flow_in()).flatten()
            }
            (None, _) => None,
        };
        learned.unwrap_or_else(|| self.first_peer())
    }
}
