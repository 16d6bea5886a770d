//! From a frame of the network to what TUN devices are given.

use std::time::Instant;

use super::inner::{Inner, Offload, Transport};
use super::outer::{Outer, Refused, Wrapped};
use super::state::State;
use super::{Delivery, Engine, SWEEP, ecn};
use crate::metrics::DropReason;
use crate::mtu;
use crate::tunnel::flows::PeerIndex;
use crate::wire::{WireError, ip, virtio};

impl Engine {
    /// A frame of a packet socket with `PACKET_VNET_HDR`: a virtio header, `link_len` bytes of link header, and the
    /// outer packet, maybe merged from several and with an open checksum.
    ///
    /// Adds to `deliveries` which parts of `frame` are to be written to which TUN device, each as large as it came.
    pub fn handle_tunnel_input(
        &mut self,
        now: Instant,
        link_len: usize,
        frame: &mut [u8],
        deliveries: &mut Vec<Delivery>,
    ) {
        let parsed = virtio::Header::parse(frame).map_err(|_| DropReason::Malformed);
        let parsed = parsed.and_then(|(header, _)| Ok((header, Outer::parse(link_len, frame, &header)?)));
        let (header, outer) = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => {
                self.unmatched.count_drop(reason);
                return;
            }
        };
        for piece in 0..outer.pieces() {
            match self.decapsulate(now, &header, &outer, piece, frame) {
                Ok(Some(delivery)) => {
                    self.next_sweep.get_or_insert(now + SWEEP);
                    deliveries.push(delivery);
                }
                // It was for the engine itself.
                Ok(None) => {}
                Err(Refused { tunnel, reason }) => {
                    let state = tunnel.and_then(|index| self.tunnels.get(index)?.as_ref());
                    state.map_or(&self.unmatched, |state| &state.counters).count_drop(reason);
                }
            }
        }
    }

    fn decapsulate(
        &mut self,
        now: Instant,
        header: &virtio::Header,
        outer: &Outer,
        piece: usize,
        frame: &mut [u8],
    ) -> Result<Option<Delivery>, Refused> {
        let wrapped = outer.unwrap(piece, frame, &self.peers)?;
        let refused = |reason| Refused { tunnel: Some(wrapped.tunnel), reason };
        let malformed = |_: WireError| refused(DropReason::Malformed);
        let bytes = frame.get_mut(wrapped.range.clone()).ok_or(refused(DropReason::Malformed))?;
        let inner = Inner::parse(bytes).map_err(refused)?;
        let offload = if wrapped.inner_offload {
            Offload::check(header, wrapped.range.start - virtio::LEN, &inner).map_err(refused)?
        } else {
            Offload { partial: false, segment: None, gso_type: virtio::GSO_NONE }
        };
        let is_loop = self.is_outer(inner.destination);
        let second = self.second(now);
        let state = self.tunnels.get_mut(wrapped.tunnel).and_then(Option::as_mut);
        let state = state.ok_or(refused(DropReason::UnknownPeer))?;
        if outer.lacks_checksum && !state.takes_zero_checksum {
            return Err(refused(DropReason::BadUdpChecksum));
        }
        state.check_addresses(now, &inner).map_err(refused)?;
        if is_loop {
            return Err(refused(DropReason::Loop));
        }
        let mark = ecn::inward(outer.tos, inner.tos).ok_or(refused(DropReason::EcnCongested))?;
        let (packets, wire_bytes) = on_the_wire(&wrapped, &inner, offload);
        if let Transport::Echo { identifier, is_reply: true } = inner.transport
            && let Some(echo) = bytes.get(inner.ip_len..)
            && state.probes.consume(inner.source, inner.destination, identifier, echo)
        {
            state.note_arrival(wrapped.peer, second, packets, wire_bytes);
            (0..state.remotes.len() as PeerIndex).for_each(|peer| state.show_peer(peer));
            return Ok(None);
        }
        if !state.takes(now, &inner, wrapped.peer) {
            return Err(refused(DropReason::NotOurs));
        }
        let packet = bytes.get_mut(..inner.total).ok_or(refused(DropReason::Malformed))?;
        ip::set_ecn(packet, mark).map_err(malformed)?;
        if inner.opens() {
            let segment = packet.get_mut(inner.ip_len..).ok_or(refused(DropReason::Malformed))?;
            mtu::clamp_mss(segment, inner.version(), state.mtu, offload.partial).map_err(malformed)?;
        }
        state.note_arrival(wrapped.peer, second, packets, wire_bytes);
        if let Some(marks) = outer.marks.filter(|_| piece == 0) {
            state.uncut.hear(now, wrapped.peer, outer.peer, marks);
        }
        // Of a piece, or where there is another checksum in front, it is something else that was verified.
        let verified = header.flags & virtio::DATA_VALID != 0
            && wrapped.inner_offload
            && !wrapped.has_checksum
            && matches!(inner.transport, Transport::Tcp { .. } | Transport::Udp { .. });
        let start = wrapped.range.start;
        Ok(Some(Delivery {
            tunnel: wrapped.tunnel,
            header: toward_tun(header, &inner, offload, verified),
            range: start..start + inner.total,
        }))
    }
}

impl State {
    /// What no inner packet may be, whoever it is for.
    fn check_addresses(&self, now: Instant, inner: &Inner) -> Result<(), DropReason> {
        if inner.is_tunnelled() {
            if !self.nested {
                return Err(DropReason::Nested);
            }
        } else if inner.is_foreign() {
            return Err(DropReason::UnsupportedProtocol);
        }
        if !self.scope.is_behind(inner.source) || self.scope.is_host(inner.source) {
            return Err(DropReason::SpoofedInner);
        }
        if let Some(key) = inner.fragment_key()
            && inner.is_later_piece()
            && self.fragments.peer_of(now, &key).is_none()
        {
            return Err(DropReason::InnerFragment);
        }
        Ok(())
    }

    /// Whether the packet belongs to this tunnel; notes its flow and the peer it came by.
    fn takes(&mut self, now: Instant, inner: &Inner, peer: PeerIndex) -> bool {
        let taken = self.is_ours(now, inner, peer);
        if taken
            && inner.fragment.is_some_and(|piece| piece.is_first)
            && let Some(key) = inner.fragment_key()
        {
            self.fragments.admit(now, key, peer);
        }
        taken
    }

    fn is_ours(&mut self, now: Instant, inner: &Inner, peer: PeerIndex) -> bool {
        let to = inner.destination;
        let forwarded = self.scope.is_forwarded(to) && !self.scope.is_host(to);
        if let Some(key) = inner.flow_in() {
            let asks = !matches!(inner.transport, Transport::Echo { is_reply: true, .. });
            let is_echo = matches!(inner.transport, Transport::Echo { .. });
            let served = self.scope.is_served(key.protocol, to, key.local_port);
            let opens = forwarded || asks && served;
            // Nobody asks this host by the identifier of an echo that it has sent itself. What serves may ask, too.
            return (opens || served || self.scope.is_own(to) && !(is_echo && asks))
                && self.flows.arriving(now, key, inner.signals(), peer, opens);
        }
        match &inner.transport {
            // An error is for the sender of the packet it quotes, and only if there is such a flow.
            Transport::Icmp { quoted: Some(quoted), .. } if quoted.source() == to => {
                forwarded || self.flows.look_up(now, &quoted.flow_out()).is_some()
            }
            // Its first piece was let through, or what a tunnel inside this one is made of.
            Transport::Other => forwarded || inner.is_later_piece() || self.scope.is_open(to),
            _ => forwarded,
        }
    }

    fn note_arrival(&self, peer: PeerIndex, second: u64, packets: u64, bytes: u64) {
        if let Some(counters) = self.counters.peer(peer) {
            counters.count_in(second, packets, bytes);
        }
    }
}

/// The virtio header for the TUN device: offsets count from the inner packet.
fn toward_tun(header: &virtio::Header, inner: &Inner, offload: Offload, verified: bool) -> virtio::Header {
    if !offload.partial {
        let flags = if verified { virtio::DATA_VALID } else { 0 };
        return virtio::Header { flags, ..virtio::Header::default() };
    }
    virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type: header.gso_type,
        // Both are far below 64 KiB: headers are bounded.
        hdr_len: inner.headers() as u16,
        csum_start: inner.ip_len as u16,
        gso_size: offload.segment.unwrap_or(0),
        csum_offset: header.csum_offset,
    }
}

/// Outer packets and bytes from which the kernel merged this one.
fn on_the_wire(wrapped: &Wrapped, inner: &Inner, offload: Offload) -> (u64, u64) {
    let payload = inner.total.saturating_sub(inner.headers());
    let size = usize::from(offload.segment.unwrap_or(0)).max(1);
    let packets = if offload.segment.is_some() { payload.div_ceil(size).max(1) } else { 1 };
    let headers = wrapped.overhead + inner.headers();
    (packets as u64, (wrapped.overhead + inner.total + (packets - 1) * headers) as u64)
}
