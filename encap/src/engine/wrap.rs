//! The outer headers of packets for the network.
//!
//! Made once per frame of the TUN and copied in front of each of its packets; only lengths, checksums and sequence
//! numbers differ.

use std::net::IpAddr;

use crate::batch::InnerCarrier;
use crate::config::{Kind, Tunnel};
use crate::wire::checksum::Sum;
use crate::wire::{WireError, gre, ipv4, ipv6, udp, write};

/// The longest outer headers: IPv6, UDP, GRE with everything.
pub(super) const MAX: usize = ipv6::LEN + udp::LEN + 16;

/// First port for flows (RFC 8086 section 3.2.1).
const FIRST_PORT: u16 = 49_152;

/// What the outer headers of a tunnel are made of.
#[derive(Debug, Clone)]
pub(super) struct Style {
    kind: Kind,
    local: IpAddr,
    gre: gre::Header,
    ttl: u8,
    source_port: Option<u16>,
    udp_checksum: bool,
}

/// The outer headers of one frame.
pub(super) struct Wrap {
    bytes: [u8; MAX],
    len: usize,
    /// Offsets of the headers behind the IP header.
    udp_at: Option<usize>,
    gre_at: Option<usize>,
    source: IpAddr,
    destination: IpAddr,
    has_checksum: bool,
    has_sequence: bool,
    /// Sum of the IPv4 header without its length, or nothing.
    ip_sum: Sum,
    udp_checksum: bool,
}

impl Style {
    pub(super) fn new(tunnel: &Tunnel) -> Self {
        Self {
            kind: tunnel.kind,
            local: tunnel.local,
            gre: tunnel.gre(),
            ttl: tunnel.ttl,
            source_port: tunnel.source_port,
            udp_checksum: tunnel.udp_checksum,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the headers depend on the flow.
    pub(super) fn wants_entropy(&self) -> bool {
        self.kind == Kind::GreInUdp && self.source_port.is_none() || self.local.is_ipv6()
    }

    /// Whether many packets can leave as one whose UDP header the kernel repeats.
    pub(super) fn can_merge(&self) -> bool {
        // The kernel makes a UDP checksum when it cuts.
        self.kind == Kind::GreInUdp && self.udp_checksum && self.gre.checksum.is_none()
    }

    /// What the kernel can cut many packets inside of that leave as one: it repeats what stands in front, and insists on 8
    /// bytes between the two IP headers (`virtio_net_hdr_tnl_to_skb`).
    pub(super) fn inner_carrier(&self) -> Option<InnerCarrier> {
        if self.gre.checksum.is_some() || self.gre.sequence.is_some() {
            return None;
        }
        match self.kind {
            Kind::Gre => self.gre.key.map(|_| InnerCarrier::Gre),
            Kind::GreInUdp => Some(InnerCarrier::GreInUdp { has_checksum: self.udp_checksum }),
            Kind::Ipip => None,
        }
    }

    /// Whether the first 8 bytes behind the outer IP header do not show the key.
    pub(super) fn may_hide_key(&self) -> bool {
        self.kind == Kind::GreInUdp || self.gre.checksum.is_some()
    }

    /// Whether packets have these ports, source and destination, if they have any.
    pub(super) fn sends_from(&self, ports: Option<(u16, u16)>) -> bool {
        let Some((from, _)) = ports else { return true };
        self.source_port.map_or(from >= FIRST_PORT, |port| port == from)
    }

    /// Headers to `peer` for inner packets of one family. `entropy` is the same for all packets of a flow. `fragmented`
    /// is the identification of an outer packet that will be fragmented; others say that they must not be, and over IPv4 have
    /// the identification `atomic`.
    pub(super) fn wrap(
        &self,
        peer: IpAddr,
        inner_v4: bool,
        tos: u8,
        (fragmented, atomic): (Option<u32>, u16),
        entropy: u32,
    ) -> Result<Wrap, WireError> {
        let (inner_protocol, ether_type) =
            if inner_v4 { (ipv4::IPIP, gre::IPV4) } else { (ipv4::IPV6, gre::IPV6) };
        let protocol = match self.kind {
            Kind::Gre => ipv4::GRE,
            Kind::Ipip => inner_protocol,
            Kind::GreInUdp => ipv4::UDP,
        };
        let mut bytes = [0; MAX];
        let mut ip_sum = Sum::default();
        let rest = match (self.local, peer) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = ipv4::Header {
                    tos,
                    total_length: 0,
                    // Any value will do with DF (RFC 6864 section 4.1).
                    identification: fragmented.map_or(atomic, |identification| identification as u16),
                    dont_fragment: fragmented.is_none(),
                    more_fragments: false,
                    fragment_offset: 0,
                    ttl: self.ttl,
                    protocol,
                    source,
                    destination,
                    options: &[],
                };
                header.emit(&mut bytes)?;
                write(&mut bytes, 10, [0, 0])?;
                ip_sum = Sum::default().bytes(bytes.get(..ipv4::LEN).unwrap_or_default());
                bytes.get_mut(ipv4::LEN..)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = ipv6::Header {
                    traffic_class: tos,
                    // RFC 6438: the flow for those who spread by addresses and label.
                    flow_label: entropy & 0xf_ffff,
                    payload_length: 0,
                    next_header: protocol,
                    hop_limit: self.ttl,
                    source,
                    destination,
                };
                header.emit(&mut bytes)?.get_mut(..)
            }
            _ => None,
        }
        .ok_or(WireError::Version)?;
        let mut wrap = Wrap {
            bytes: [0; MAX],
            len: MAX - rest.len(),
            udp_at: None,
            gre_at: None,
            source: self.local,
            destination: peer,
            has_checksum: self.gre.checksum.is_some(),
            has_sequence: self.gre.sequence.is_some(),
            ip_sum,
            udp_checksum: self.udp_checksum,
        };
        let mut rest = rest;
        if self.kind == Kind::GreInUdp {
            wrap.udp_at = Some(wrap.len);
            let source_port = self.source_port.unwrap_or(FIRST_PORT | (entropy >> 16) as u16);
            let header =
                udp::Header { source_port, destination_port: udp::GRE_IN_UDP, length: 0, checksum: 0 };
            rest = header.emit(rest)?;
            wrap.len += udp::LEN;
        }
        if self.kind != Kind::Ipip {
            wrap.gre_at = Some(wrap.len);
            gre::Header { protocol: ether_type, ..self.gre }.emit(rest)?;
            wrap.len += self.gre.len();
        }
        wrap.bytes = bytes;
        Ok(wrap)
    }
}

impl Wrap {
    /// Bytes of all headers.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of GRE, which each piece of a merged packet has.
    pub(super) fn gre_len(&self) -> usize {
        self.gre_at.map_or(0, |at| self.len - at)
    }

    /// Bytes of what a merged packet has once.
    pub(super) fn shared_len(&self) -> usize {
        self.len - self.gre_len()
    }

    /// Writes the headers of a packet of `total` bytes and returns the room that is left of the place for the inner packet.
    pub(super) fn write<'p>(&self, place: &'p mut [u8], total: usize) -> Result<&'p mut [u8], WireError> {
        let (head, rest) = place.split_at_mut_checked(self.len).ok_or(WireError::Truncated)?;
        head.copy_from_slice(self.bytes.get(..self.len).unwrap_or_default());
        self.set_ip_length(head, total)?;
        if let Some(at) = self.udp_at {
            write(head, at + udp::LENGTH_AT, length(total - at)?)?;
        }
        Ok(rest)
    }

    /// Writes the headers that a merged packet of `total` bytes has once, its UDP checksum open. Returns their length.
    pub(super) fn write_shared(&self, place: &mut [u8], total: usize) -> Result<usize, WireError> {
        let at = self.udp_at.ok_or(WireError::Length)?;
        let len = at + udp::LEN;
        let head = place.get_mut(..len).ok_or(WireError::Truncated)?;
        head.copy_from_slice(self.bytes.get(..len).unwrap_or_default());
        self.set_ip_length(head, total)?;
        write(head, at + udp::LENGTH_AT, length(total - at)?)?;
        self.leave_open(head, total)?;
        Ok(len)
    }

    /// Leaves the UDP checksum of a packet of `total` bytes, if it has one, to who cuts it.
    pub(super) fn leave_open(&self, place: &mut [u8], total: usize) -> Result<(), WireError> {
        let Some(at) = self.udp_at.filter(|_| self.udp_checksum) else { return Ok(()) };
        // The folded sum of the pseudo-header, not its complement.
        let open = !self.udp_pseudo(total - at).finish();
        write(place, at + udp::CHECKSUM_AT, open.to_be_bytes())
    }

    /// Writes the GRE header of one piece of a merged packet.
    pub(super) fn write_gre<'p>(
        &self,
        place: &'p mut [u8],
        sequence: &mut u32,
    ) -> Result<&'p mut [u8], WireError> {
        let gre = self.gre_at.and_then(|at| self.bytes.get(at..self.len)).unwrap_or_default();
        let (head, rest) = place.split_at_mut_checked(gre.len()).ok_or(WireError::Truncated)?;
        head.copy_from_slice(gre);
        self.set_sequence(head, sequence)?;
        Ok(rest)
    }

    /// The sum of an inner packet, where a checksum will cover it.
    pub(super) fn sum(&self, packet: &[u8]) -> Sum {
        let is_covered = self.has_checksum || self.udp_at.is_some() && self.udp_checksum;
        if is_covered { Sum::default().bytes(packet) } else { Sum::default() }
    }

    /// Completes the headers of a packet of `total` bytes, whose inner packet has the sum `inner`: sequence number and
    /// checksums of GRE and UDP.
    pub(super) fn finish(
        &self,
        place: &mut [u8],
        total: usize,
        inner: Sum,
        sequence: &mut u32,
    ) -> Result<(), WireError> {
        let head = place.get_mut(..self.len).ok_or(WireError::Truncated)?;
        if let Some(gre) = self.gre_at.and_then(|at| head.get_mut(at..)) {
            self.set_sequence(gre, sequence)?;
            if self.has_checksum {
                let checksum = inner.bytes(gre).finish();
                write(gre, 4, checksum.to_be_bytes())?;
            }
        }
        if let Some(at) = self.udp_at.filter(|_| self.udp_checksum) {
            let headers = head.get_mut(at..).ok_or(WireError::Truncated)?;
            let checksum = match self.udp_pseudo(total - at).bytes(headers).plus(inner).finish() {
                // A zero would mean "none" (RFC 768).
                0 => 0xffff,
                checksum => checksum,
            };
            write(headers, udp::CHECKSUM_AT, checksum.to_be_bytes())?;
        }
        Ok(())
    }

    fn set_ip_length(&self, head: &mut [u8], total: usize) -> Result<(), WireError> {
        if self.source.is_ipv4() {
            let total = length(total)?;
            write(head, 2, total)?;
            let checksum = self.ip_sum.word(u16::from_be_bytes(total)).finish();
            write(head, 10, checksum.to_be_bytes())
        } else {
            write(head, 4, length(total - ipv6::LEN)?)
        }
    }

    /// The number is the last word of the header (RFC 2890 section 2).
    fn set_sequence(&self, gre: &mut [u8], sequence: &mut u32) -> Result<(), WireError> {
        if self.has_sequence {
            let at = gre.len().checked_sub(4).ok_or(WireError::Length)?;
            write(gre, at, sequence.to_be_bytes())?;
            *sequence = sequence.wrapping_add(1);
        }
        Ok(())
    }

    fn udp_pseudo(&self, length: usize) -> Sum {
        Sum::pseudo(self.source, self.destination, ipv4::UDP, length as u16)
    }
}

fn length(bytes: usize) -> Result<[u8; 2], WireError> {
    u16::try_from(bytes).map(u16::to_be_bytes).map_err(|_| WireError::Length)
}
