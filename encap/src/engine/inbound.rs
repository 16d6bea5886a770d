//! From a frame of the network to what a TUN device is given.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::inner::{Inner, Offload, Transport};
use super::{Delivery, Engine, SWEEP, State};
use crate::metrics::DropReason;
use crate::mtu;
use crate::wire::checksum::adjust;
use crate::wire::{WireError, gre, ipv4, read, udp, virtio, write};

/// The bits of ECN in the TOS byte (RFC 3168 section 5).
const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// A packet that is not delivered, and the tunnel that counts it, if one is known.
struct Refused {
    tunnel: Option<usize>,
    reason: DropReason,
}

/// What the outer headers say.
struct Outer {
    tunnel: usize,
    peer: Ipv4Addr,
    tos: u8,
    /// The packet has a GRE checksum.
    has_checksum: bool,
    /// Offset of the inner packet in the frame.
    inner_at: usize,
    /// Bytes of the outer packet.
    total: usize,
}

impl Engine {
    /// A frame of a packet socket with `PACKET_VNET_HDR`: a virtio header, `link_len` bytes of link header, and the
    /// outer IPv4 packet, maybe merged from several and with an open checksum.
    ///
    /// Returns the part of `frame` to write to a TUN device: a virtio header, rewritten in front of the inner packet,
    /// and that packet as large as it came.
    pub fn handle_tunnel_input(
        &mut self,
        now: Instant,
        link_len: usize,
        frame: &mut [u8],
    ) -> Option<Delivery> {
        match self.decapsulate(now, link_len, frame) {
            Ok(delivery) => {
                self.next_sweep.get_or_insert(now + SWEEP);
                Some(delivery)
            }
            Err(Refused { tunnel, reason }) => {
                let counters = tunnel.map_or(self.counters.unmatched(), |index| self.counters.tunnel(index));
                counters.count_drop(reason);
                None
            }
        }
    }

    fn decapsulate(&mut self, now: Instant, link_len: usize, frame: &mut [u8]) -> Result<Delivery, Refused> {
        let outer = self.outer(link_len, frame)?;
        let refused = |reason| Refused { tunnel: Some(outer.tunnel), reason };
        let malformed = |_: WireError| refused(DropReason::Malformed);

        let (header, _) = virtio::Header::parse(frame).map_err(malformed)?;
        let end = virtio::LEN + link_len + outer.total;
        let inner_bytes = frame.get(outer.inner_at..end).ok_or(refused(DropReason::Malformed))?;
        let inner = Inner::parse(inner_bytes).map_err(refused)?;
        let offload = Offload::check(&header, outer.inner_at - virtio::LEN, &inner).map_err(refused)?;
        let state = self.tunnels.get_mut(outer.tunnel).ok_or(refused(DropReason::UnknownPeer))?;
        state.check_addresses(&inner).map_err(refused)?;
        if self.outer.binary_search(&inner.destination).is_ok() {
            return Err(refused(DropReason::NotOurs));
        }
        let ecn = ecn(outer.tos, inner.tos).ok_or(refused(DropReason::EcnCongested))?;
        if !state.takes(now, &inner, outer.peer) {
            return Err(refused(DropReason::NotOurs));
        }

        let range = outer.inner_at - virtio::LEN..outer.inner_at + inner.total;
        let delivered = frame.get_mut(range.clone()).ok_or(refused(DropReason::Malformed))?;
        let valid = header.flags & virtio::DATA_VALID != 0 && !outer.has_checksum && !offload.partial;
        let packet = toward_tun(&header, &inner, offload, valid).emit(delivered).map_err(malformed)?;
        set_ecn(packet, ecn).map_err(malformed)?;
        if inner.opens() {
            let segment = packet.get_mut(inner.ip_len..).ok_or(refused(DropReason::Malformed))?;
            mtu::clamp_mss(segment, state.mtu, offload.partial).map_err(malformed)?;
        }
        let (packets, bytes) = on_the_wire(&outer, &inner, offload, link_len);
        self.counters.tunnel(outer.tunnel).count_in(packets, bytes);
        Ok(Delivery { tunnel: outer.tunnel, range })
    }

    /// Checks the outer headers and finds the tunnel.
    fn outer(&self, link_len: usize, frame: &[u8]) -> Result<Outer, Refused> {
        let unmatched = |reason| Refused { tunnel: None, reason };
        let (header, _) = virtio::Header::parse(frame).map_err(|_| unmatched(DropReason::Malformed))?;
        let start = virtio::LEN.saturating_add(link_len);
        let packet = frame.get(start..).ok_or(unmatched(DropReason::Malformed))?;
        let (ip, payload) = ipv4::Header::parse(packet).map_err(|_| unmatched(DropReason::Malformed))?;
        if ip.is_fragment() {
            return Err(unmatched(DropReason::OuterFragment));
        }
        if ip.protocol != ipv4::GRE {
            return Err(unmatched(DropReason::NotGre));
        }
        let (gre, _) = gre::Header::parse(payload).map_err(|_| unmatched(DropReason::BadGre))?;
        let tunnel = self.peers.find(ip.source, ip.destination, gre.key);
        let tunnel = tunnel.ok_or(unmatched(DropReason::UnknownPeer))?;

        let refused = |reason| Refused { tunnel: Some(tunnel), reason };
        // What the kernel has merged it has verified packet by packet, and a checksum that is not complete yet never
        // crossed a wire: neither can be verified over these bytes, and neither needs to be.
        let offloaded = header.flags & virtio::NEEDS_CSUM != 0 || header.gso_type != virtio::GSO_NONE;
        if gre.checksum.is_some() && !offloaded && !gre::verify(payload) {
            return Err(refused(DropReason::BadGreChecksum));
        }
        if gre.protocol != gre::IPV4 {
            return Err(refused(DropReason::UnknownProtocol));
        }
        Ok(Outer {
            tunnel,
            peer: ip.source,
            tos: ip.tos,
            has_checksum: gre.checksum.is_some(),
            inner_at: start + ip.len() + gre.len(),
            total: usize::from(ip.total_length),
        })
    }
}

impl State {
    /// What no inner packet may be, whoever it is for.
    fn check_addresses(&self, inner: &Inner) -> Result<(), DropReason> {
        if matches!(inner.protocol, ipv4::GRE | ipv4::IPIP | ipv4::IPV6) {
            return Err(DropReason::Nested);
        }
        if inner.is_fragment {
            return Err(DropReason::InnerFragment);
        }
        match inner.transport {
            Transport::Udp { ports }
                if matches!(ports.destination, udp::GRE_IN_UDP | udp::GRE_IN_UDP_DTLS) =>
            {
                return Err(DropReason::Nested);
            }
            Transport::Other => return Err(DropReason::UnsupportedProtocol),
            _ => {}
        }
        if !self.scope.is_behind(inner.source) || self.scope.is_host(inner.source) {
            return Err(DropReason::SpoofedInner);
        }
        Ok(())
    }

    /// Whether the packet belongs to this tunnel; notes its flow and the peer it came by.
    fn takes(&mut self, now: Instant, inner: &Inner, peer: Ipv4Addr) -> bool {
        let to = inner.destination;
        let forwarded = self.scope.is_forwarded(to) && !self.scope.is_host(to);
        if let Some(key) = inner.flow_in() {
            let listens = key.protocol == ipv4::TCP && self.scope.is_vip(to, key.local_port);
            let opens = listens || forwarded;
            return (opens || self.scope.is_own(to))
                && self.flows.arriving(now, key, inner.signals(), peer, opens);
        }
        match &inner.transport {
            // An error is for the sender of the packet it quotes, and only if there is such a flow.
            Transport::Icmp { quoted: Some(quoted), .. } if quoted.source == to => {
                forwarded || self.flows.look_up(now, &quoted.flow_out()).is_some()
            }
            _ => forwarded,
        }
    }
}

/// The ECN bits of the inner packet after decapsulation, or `None` when it must be dropped (RFC 6040 section 4.2).
fn ecn(outer_tos: u8, inner_tos: u8) -> Option<u8> {
    match (outer_tos & ECN, inner_tos & ECN) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(CE),
        (ECT_1, ECT_0) => Some(ECT_1),
        (_, inner) => Some(inner),
    }
}

/// Sets the ECN bits of an IPv4 header and adjusts its checksum.
fn set_ecn(packet: &mut [u8], ecn: u8) -> Result<(), WireError> {
    let [version, tos] = read(packet, 0)?;
    let new = tos & !ECN | ecn;
    if new != tos {
        let checksum = u16::from_be_bytes(read(packet, 10)?);
        let [old, word] = [[version, tos], [version, new]].map(u16::from_be_bytes);
        write(packet, 0, [version, new])?;
        write(packet, 10, adjust(checksum, old, word).to_be_bytes())?;
    }
    Ok(())
}

/// The virtio header for the TUN device: offsets count from the inner packet.
fn toward_tun(header: &virtio::Header, inner: &Inner, offload: Offload, valid: bool) -> virtio::Header {
    if !offload.partial {
        let flags = if valid { virtio::DATA_VALID } else { 0 };
        return virtio::Header { flags, ..virtio::Header::default() };
    }
    virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type: header.gso_type,
        // Both at most 120, the longest headers.
        hdr_len: inner.headers() as u16,
        csum_start: inner.ip_len as u16,
        gso_size: offload.segment.unwrap_or(0),
        csum_offset: header.csum_offset,
    }
}

/// Outer packets and bytes from which the kernel merged this one.
fn on_the_wire(outer: &Outer, inner: &Inner, offload: Offload, link_len: usize) -> (u64, u64) {
    let payload = inner.total.saturating_sub(inner.headers());
    let size = usize::from(offload.segment.unwrap_or(0)).max(1);
    let packets = if offload.segment.is_some() { payload.div_ceil(size).max(1) } else { 1 };
    let headers = (outer.inner_at - virtio::LEN - link_len) + inner.headers();
    (packets as u64, (outer.total + (packets - 1) * headers) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecn_as_rfc_6040_figure_4() {
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, results) in table {
            for (outer, result) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(results) {
                assert_eq!(ecn(outer | 0xb8, inner | 0x28), result, "outer {outer:02b}, inner {inner:02b}");
            }
        }
    }
}
