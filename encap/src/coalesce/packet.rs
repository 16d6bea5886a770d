//! What of a packet decides whether it is joined to others: its flow, and all that must be equal or in order.

use super::item::Checksum;
use crate::wire::{WireError, ipv4, read as bytes_at, tcp, udp, virtio};

/// Length of the IPv6 header in bytes.
pub(super) const IPV6_LEN: usize = 40;
/// Next header: ICMPv6.
const ICMPV6: u8 = 58;

/// Everything but the lower bits in the two bytes of an IPv4 header that tell of fragments: DF alone is no obstacle.
const DONT_FRAGMENT: u16 = 0x4000;
/// Control bits that end a super-packet: the kernel gives them to the last segment alone.
const ENDING: u16 = tcp::FIN | tcp::PSH;
/// Control bits that no super-packet has.
const ALONE: u16 = tcp::SYN | tcp::RST | tcp::URG | tcp::CWR;

/// What a packet is to the coalescer.
pub(super) enum Seen<'a> {
    /// It belongs to a flow of TCP or UDP; without a segment it must stay alone.
    Flow(Key, Option<Segment<'a>>),
    /// It belongs to no such flow.
    Apart,
    /// It may belong to any flow of its tunnel: the ports are not in sight.
    Unclear,
}

/// One direction of one flow in one tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    tunnel: usize,
    /// Of IPv4, the address in the lower 32 bits.
    addresses: [u128; 2],
    ports: [u8; 4],
    is_v4: bool,
    protocol: u8,
}

/// A packet that others may be joined to, and that may be joined to others: whole, unfragmented, without IP options
/// and extension headers, with payload. It may stand for several segments already.
pub(super) struct Segment<'a> {
    /// Parts of the headers that are equal in all packets that are joined.
    pub(super) ip: u64,
    pub(super) transport: u64,
    pub(super) options: &'a [u8],
    /// Identification, and whether nobody may fragment the packet. IPv4 only.
    pub(super) identification: Option<(u16, bool)>,
    /// TCP only.
    pub(super) sequence: Option<u32>,
    /// Bytes of the IP and the transport header: 28 to 100.
    pub(super) headers: usize,
    /// Bytes of payload, at least 1.
    pub(super) payload: usize,
    /// Bytes of payload per segment, at least 1.
    pub(super) size: usize,
    /// Number of segments that the kernel has merged, 1 if it has not.
    pub(super) count: usize,
    /// Whether the kernel says that it has merged the packet from segments of `size`.
    pub(super) merged: bool,
    /// Nothing can be joined behind it, whatever is in front of it.
    pub(super) ends: bool,
    pub(super) checksum: Checksum,
}

/// What the IP header says.
struct Ip<'a> {
    key: Key,
    /// `None` when the packet must stay alone.
    alike: Option<u64>,
    identification: Option<(u16, bool)>,
    len: usize,
    transport: &'a [u8],
}

/// What a virtio header says about the packet behind it.
struct Offload {
    size: usize,
    count: usize,
    merged: bool,
    checksum: Checksum,
}

/// Reads the headers of a packet; `offload` says what is left undone in it.
pub(super) fn read<'a>(tunnel: usize, offload: &virtio::Header, packet: &'a [u8]) -> Seen<'a> {
    let ip = match packet.first().map(|first| first >> 4) {
        Some(4) => Ip::v4(tunnel, packet),
        Some(6) => Ip::v6(tunnel, packet),
        _ => return Seen::Unclear,
    };
    match ip {
        Ok(Some(ip)) => {
            let segment = if ip.key.protocol == ipv4::TCP { ip.tcp(offload) } else { ip.udp(offload) };
            Seen::Flow(ip.key, segment)
        }
        Ok(None) => Seen::Apart,
        Err(_) => Seen::Unclear,
    }
}

impl Key {
    /// Index of the tunnel.
    pub(super) fn tunnel(&self) -> usize {
        self.tunnel
    }

    /// A number whose lowest bits are about evenly spread. Whoever makes flows collide gains nothing but that they are
    /// not joined.
    pub(super) fn hash(&self) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let [source, destination] = self.addresses.map(|address| (address >> 64) as u64 ^ address as u64);
        let mut hash = source.rotate_left(32) ^ destination;
        hash =
            hash.wrapping_mul(ODD) ^ u64::from(u32::from_ne_bytes(self.ports)) ^ (self.tunnel as u64) << 32;
        hash.wrapping_mul(ODD) >> 32
    }
}

impl Segment<'_> {
    /// Whether it is TCP, and UDP otherwise.
    pub(super) fn is_tcp(&self) -> bool {
        self.sequence.is_some()
    }

    /// The sequence number that comes next; TCP only.
    pub(super) fn after(&self) -> Option<u32> {
        // At most 65 535 bytes of payload.
        self.sequence.map(|sequence| sequence.wrapping_add(self.payload as u32))
    }
}

impl<'a> Ip<'a> {
    /// Nothing for a packet that is not of TCP or UDP, an error where that cannot be seen.
    fn v4(tunnel: usize, packet: &'a [u8]) -> Result<Option<Self>, WireError> {
        let (ip, transport) = ipv4::Header::parse(packet)?;
        if ip.is_fragment() {
            return Err(WireError::Truncated);
        }
        let Some(ports) = ports(ip.protocol, ipv4::ICMP, transport)? else { return Ok(None) };
        let fragment = u16::from_be_bytes(bytes_at(packet, 6)?);
        let alone = !ip.options.is_empty()
            || fragment & !DONT_FRAGMENT != 0
            || usize::from(ip.total_length) != packet.len();
        let alike = u64::from(ip.tos) << 24 | u64::from(ip.ttl) << 16 | u64::from(fragment);
        let addresses = [ip.source, ip.destination].map(|address| u128::from(address.to_bits()));
        Ok(Some(Self {
            key: Key { tunnel, addresses, ports, is_v4: true, protocol: ip.protocol },
            alike: (!alone).then_some(alike),
            identification: Some((ip.identification, ip.dont_fragment)),
            len: ip.len(),
            transport,
        }))
    }

    /// As `v4`. Extension headers are not followed.
    fn v6(tunnel: usize, packet: &'a [u8]) -> Result<Option<Self>, WireError> {
        let (head, rest) = packet.split_first_chunk::<IPV6_LEN>().ok_or(WireError::Truncated)?;
        let [protocol, hop_limit] = bytes_at(head, 6)?;
        let length = usize::from(u16::from_be_bytes(bytes_at(head, 4)?));
        let transport = rest.get(..length).ok_or(WireError::Truncated)?;
        let Some(ports) = ports(protocol, ICMPV6, transport)? else { return Ok(None) };
        // Version, traffic class and flow label.
        let first = u32::from_be_bytes(bytes_at(head, 0)?);
        let alike = u64::from(first) << 8 | u64::from(hop_limit);
        let addresses = [bytes_at(head, 8)?, bytes_at(head, 24)?].map(u128::from_be_bytes);
        Ok(Some(Self {
            key: Key { tunnel, addresses, ports, is_v4: false, protocol },
            alike: (length == rest.len()).then_some(alike),
            identification: None,
            len: IPV6_LEN,
            transport,
        }))
    }

    fn tcp(&self, header: &virtio::Header) -> Option<Segment<'a>> {
        let ip = self.alike?;
        let (tcp, data) = tcp::Header::parse(self.transport).ok()?;
        let gso_type = if self.key.is_v4 { virtio::GSO_TCPV4 } else { virtio::GSO_TCPV6 };
        let offload = Offload::check(header, self.len, gso_type, tcp::CHECKSUM_AT, data.len())?;
        if tcp.flags & ALONE != 0 || tcp.flags & tcp::ACK == 0 || tcp.urgent != 0 {
            return None;
        }
        let flags = u64::from(tcp.flags & !ENDING);
        Some(Segment {
            ip,
            transport: u64::from(tcp.acknowledgment) << 32 | flags << 16 | u64::from(tcp.window),
            options: tcp.options,
            identification: self.identification,
            sequence: Some(tcp.sequence),
            headers: self.len + tcp.len(),
            payload: data.len(),
            size: offload.size,
            count: offload.count,
            merged: offload.merged,
            ends: tcp.flags & ENDING != 0 || !data.len().is_multiple_of(offload.size),
            checksum: offload.checksum,
        })
    }

    fn udp(&self, header: &virtio::Header) -> Option<Segment<'a>> {
        let ip = self.alike?;
        let (udp, data) = udp::Header::parse(self.transport).ok()?;
        let offload = Offload::check(header, self.len, virtio::GSO_UDP_L4, udp::CHECKSUM_AT, data.len())?;
        // The sum of a pseudo-header is never zero.
        if udp.checksum == 0 || usize::from(udp.length) != self.transport.len() {
            return None;
        }
        Some(Segment {
            ip,
            transport: 0,
            options: &[],
            identification: self.identification,
            sequence: None,
            headers: self.len + udp::LEN,
            payload: data.len(),
            size: offload.size,
            count: offload.count,
            merged: offload.merged,
            ends: !data.len().is_multiple_of(offload.size),
            checksum: offload.checksum,
        })
    }
}

impl Offload {
    /// `None` when the packet has no payload, or the header is not what the kernel says about such a packet.
    fn check(
        header: &virtio::Header,
        ip_len: usize,
        gso_type: u8,
        checksum_at: usize,
        payload: usize,
    ) -> Option<Self> {
        let partial = header.flags & virtio::NEEDS_CSUM != 0;
        let fits = usize::from(header.csum_start) == ip_len && usize::from(header.csum_offset) == checksum_at;
        if payload == 0 || partial && !fits {
            return None;
        }
        let trusted = partial || header.flags & virtio::DATA_VALID != 0;
        let checksum = if trusted { Checksum::Trusted } else { Checksum::Unknown };
        match (header.gso_type, usize::from(header.gso_size)) {
            (virtio::GSO_NONE, _) => Some(Self { size: payload, count: 1, merged: false, checksum }),
            (merged, size @ 1..) if merged == gso_type && partial => {
                Some(Self { size, count: payload.div_ceil(size), merged: true, checksum })
            }
            _ => None,
        }
    }
}

/// The ports of TCP and UDP; nothing for `icmp`; an error for any other protocol, which may be a header in between.
fn ports(protocol: u8, icmp: u8, transport: &[u8]) -> Result<Option<[u8; 4]>, WireError> {
    match protocol {
        ipv4::TCP | ipv4::UDP => bytes_at(transport, 0).map(Some),
        other if other == icmp => Ok(None),
        _ => Err(WireError::Truncated),
    }
}
