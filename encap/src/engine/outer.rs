//! The outer headers of a packet from the network: which tunnels it is for, and where its inner packets lie.
//!
//! Decides nothing about inner packets.

use std::net::IpAddr;
use std::ops::Range;

use crate::config::Kind;
use crate::metrics::DropReason;
use crate::tunnel::flows::PeerIndex;
use crate::tunnel::{Peers, Relation};
use crate::wire::checksum::Sum;
use crate::wire::{WireError, gre, ipv4, ipv6, udp, virtio};

/// An outer packet, maybe merged from several, without its link header.
pub(super) struct Outer {
    pub(super) peer: IpAddr,
    pub(super) local: IpAddr,
    pub(super) tos: u8,
    /// Identification and TTL of IPv4.
    pub(super) marks: Option<(u16, u8)>,
    body: Body,
    /// Where the body lies in the frame.
    range: Range<usize>,
    /// Bytes of the outer IP and UDP headers.
    headers: usize,
    /// The kernel has verified or made every checksum of the body, or not finished one: none can be verified here.
    is_offloaded: bool,
    /// What the kernel left undone concerns inner packets, and not the outer UDP header.
    inner_offload: bool,
    /// If there is a GRE checksum, it is the one that the kernel has left open; those of the inner packet are complete.
    gre_is_open: bool,
    /// GRE-in-UDP without a UDP checksum.
    pub(super) lacks_checksum: bool,
    /// Bytes per packet, when a body of UDP stands for several.
    segment: Option<usize>,
}

#[derive(Clone, Copy)]
enum Body {
    Gre,
    GreInUdp,
    /// The inner packet itself, of this version.
    Ip(u8),
}

/// One inner packet that is not parsed yet.
pub(super) struct Wrapped {
    pub(super) tunnel: usize,
    /// Number of the peer in the tunnel.
    pub(super) peer: PeerIndex,
    /// Where it lies in the frame; may be longer than the packet.
    pub(super) range: Range<usize>,
    /// The packet has a GRE checksum.
    pub(super) has_checksum: bool,
    /// What the kernel left undone concerns the inner packet.
    pub(super) inner_offload: bool,
    /// Bytes of the outer headers, link header excluded.
    pub(super) overhead: usize,
}

/// A packet that is not delivered, and the tunnel that counts it, if one is known.
pub(super) struct Refused {
    pub(super) tunnel: Option<usize>,
    pub(super) reason: DropReason,
}

fn unmatched(reason: DropReason) -> Refused {
    Refused { tunnel: None, reason }
}

impl Outer {
    /// Reads a frame: a virtio header, `link_len` bytes of link header, and the outer packet.
    pub(super) fn parse(link_len: usize, frame: &[u8], header: &virtio::Header) -> Result<Self, DropReason> {
        let start = virtio::LEN + link_len;
        let packet = frame.get(start..).ok_or(DropReason::Malformed)?;
        let malformed = |_: WireError| DropReason::Malformed;
        let mut marks = None;
        let (peer, local, tos, protocol, ip_len, payload): (IpAddr, IpAddr, _, _, _, _) =
            match packet.first().map(|first| first >> 4) {
                Some(4) => {
                    let (ip, payload) = ipv4::Header::parse(packet).map_err(malformed)?;
                    // A packet socket is given what no kernel has verified (RFC 1122 section 3.2.1.2).
                    let bytes = packet.get(..ip.len()).unwrap_or_default();
                    if Sum::default().bytes(bytes).finish() != 0 {
                        return Err(DropReason::Malformed);
                    }
                    // The kernel puts fragments together before it hands them over.
                    if ip.is_fragment() {
                        return Err(DropReason::OuterFragment);
                    }
                    marks = Some((ip.identification, ip.ttl));
                    (ip.source.into(), ip.destination.into(), ip.tos, ip.protocol, ip.len(), payload)
                }
                Some(6) => {
                    let (ip, payload) = ipv6::Header::parse(packet).map_err(malformed)?;
                    let upper = ipv6::upper(ip.next_header, payload).map_err(malformed)?;
                    if upper.fragment.is_some_and(|fragment| fragment.offset != 0 || fragment.more) {
                        return Err(DropReason::OuterFragment);
                    }
                    let body = payload.get(upper.offset..).ok_or(DropReason::Malformed)?;
                    let (source, destination) = (ip.source.into(), ip.destination.into());
                    (source, destination, ip.traffic_class, upper.protocol, ipv6::LEN + upper.offset, body)
                }
                _ => return Err(DropReason::Malformed),
            };
        let partial = header.flags & virtio::NEEDS_CSUM != 0;
        let merged = header.gso_type != virtio::GSO_NONE;
        let is_offloaded = partial || merged;
        let mut outer = Self {
            peer,
            local,
            tos,
            marks,
            body: Body::Gre,
            range: start + ip_len..start + ip_len + payload.len(),
            headers: ip_len,
            is_offloaded,
            inner_offload: true,
            gre_is_open: partial
                && !merged
                && usize::from(header.csum_start) == link_len + ip_len
                && usize::from(header.csum_offset) == gre::CHECKSUM_AT,
            lacks_checksum: false,
            segment: None,
        };
        match protocol {
            ipv4::GRE => {}
            ipv4::IPIP => outer.body = Body::Ip(4),
            ipv4::IPV6 => outer.body = Body::Ip(6),
            ipv4::UDP => outer.behind_udp(payload, header)?,
            _ => return Err(DropReason::NotATunnel),
        }
        Ok(outer)
    }

    /// GRE-in-UDP: what the kernel has left undone concerns the outer UDP header (RFC 8086 sections 3.1 and 5), unless it
    /// says where in the inner packet, as tunnels of the kernel do.
    fn behind_udp(&mut self, payload: &[u8], header: &virtio::Header) -> Result<(), DropReason> {
        let (udp, _) = udp::Header::parse(payload).map_err(|_| DropReason::Malformed)?;
        if udp.destination_port != udp::GRE_IN_UDP {
            return Err(DropReason::NotATunnel);
        }
        // Counted from the link header.
        let (udp_at, open_at) = (self.range.start - virtio::LEN, usize::from(header.csum_start));
        let partial = header.flags & virtio::NEEDS_CSUM != 0;
        self.inner_offload = partial && open_at != udp_at;
        self.gre_is_open = partial
            && header.gso_type == virtio::GSO_NONE
            && open_at == udp_at + udp::LEN
            && usize::from(header.csum_offset) == gre::CHECKSUM_AT;
        let merged = header.gso_type == virtio::GSO_UDP_L4 && !self.inner_offload;
        let trusted = self.is_offloaded || header.flags & virtio::DATA_VALID != 0;
        self.lacks_checksum = udp.checksum == 0 && (!self.is_offloaded || self.inner_offload);
        if udp.checksum != 0 && !trusted {
            let datagram = payload.get(..usize::from(udp.length)).unwrap_or(payload);
            let sum = Sum::pseudo(self.peer, self.local, ipv4::UDP, udp.length);
            if sum.bytes(datagram).finish() != 0 {
                return Err(DropReason::BadUdpChecksum);
            }
        }
        if header.gso_type != virtio::GSO_NONE && !merged && !self.inner_offload {
            return Err(DropReason::BadOffload);
        }
        self.segment = merged.then_some(usize::from(header.gso_size)).filter(|size| *size > 0);
        self.body = Body::GreInUdp;
        self.headers += udp::LEN;
        // A merged packet is longer than its length field can say.
        let end = if merged { self.range.end } else { self.range.start + usize::from(udp.length) };
        self.range = self.range.start + udp::LEN..end;
        Ok(())
    }

    /// Number of packets that crossed the network as one each in this frame.
    pub(super) fn pieces(&self) -> usize {
        self.segment.map_or(1, |size| self.range.len().div_ceil(size).max(1))
    }

    /// The inner packet of piece number `index`.
    pub(super) fn unwrap(&self, index: usize, frame: &[u8], peers: &Peers) -> Result<Wrapped, Refused> {
        let range = match self.segment {
            None => self.range.clone(),
            Some(size) => {
                let start = self.range.start + index * size;
                start..(start + size).min(self.range.end)
            }
        };
        let body = frame.get(range.clone()).ok_or(unmatched(DropReason::Malformed))?;
        let kind = match self.body {
            Body::Gre => Kind::Gre,
            Body::GreInUdp => Kind::GreInUdp,
            Body::Ip(version) => {
                let (tunnel, peer) = self.find(Kind::Ipip, None, peers)?;
                let refused = |reason| Refused { tunnel: Some(tunnel), reason };
                if body.first().is_none_or(|first| first >> 4 != version) {
                    return Err(refused(DropReason::Malformed));
                }
                return Ok(Wrapped {
                    tunnel,
                    peer,
                    range,
                    has_checksum: false,
                    inner_offload: true,
                    overhead: self.headers,
                });
            }
        };
        let (gre, payload) = gre::Header::parse(body).map_err(|_| unmatched(DropReason::BadGre))?;
        let (tunnel, peer) = self.find(kind, gre.key, peers)?;
        let refused = |reason| Refused { tunnel: Some(tunnel), reason };
        // What the kernel has merged it has verified packet by packet, and a checksum that is not complete yet never
        // crossed a wire: neither can be verified over these bytes, and neither needs to be.
        let verifiable = !self.is_offloaded || !self.inner_offload;
        if gre.checksum.is_some() && verifiable && !gre::verify(body) {
            return Err(refused(DropReason::BadGreChecksum));
        }
        let version = match gre.protocol {
            gre::IPV4 => 4,
            gre::IPV6 => 6,
            _ => return Err(refused(DropReason::UnknownProtocol)),
        };
        if payload.first().is_none_or(|first| first >> 4 != version) {
            return Err(refused(DropReason::Malformed));
        }
        let start = range.start + gre.len();
        Ok(Wrapped {
            tunnel,
            peer,
            range: start..range.end,
            has_checksum: gre.checksum.is_some(),
            inner_offload: self.inner_offload && !(gre.checksum.is_some() && self.gre_is_open),
            overhead: self.headers + gre.len(),
        })
    }

    fn find(&self, kind: Kind, key: Option<u32>, peers: &Peers) -> Result<(usize, PeerIndex), Refused> {
        let relation = Relation { kind, local: self.local, key };
        peers.find(relation, self.peer).ok_or(unmatched(DropReason::UnknownPeer))
    }
}
