//! Packets made by hand, a batch of them, and a naive way to cut what was joined.

mod bounds;
mod content;
mod order;
mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::wire::checksum::tests::naive;
use crate::wire::{tcp, udp, virtio};

/// Bytes in front of the delivered part of each slot, and behind it.
const BEFORE: usize = 52;
const BEHIND: usize = 9;

/// An inner packet, as a sender makes it.
#[derive(Debug, Clone)]
pub(super) struct Inner {
    pub(super) tunnel: usize,
    pub(super) ends: (IpAddr, IpAddr),
    pub(super) ports: (u16, u16),
    pub(super) is_tcp: bool,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) flow_label: u32,
    pub(super) identification: u16,
    /// The two bytes of the IPv4 header that tell of fragments.
    pub(super) fragment: u16,
    pub(super) ip_options: Vec<u8>,
    pub(super) sequence: u32,
    pub(super) acknowledgment: u32,
    pub(super) flags: u16,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

pub(super) const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

/// A segment of TCP over IPv4 with 100 bytes of payload.
pub(super) fn tcp4() -> Inner {
    Inner {
        tunnel: 0,
        ends: (Ipv4Addr::new(10, 0, 0, 10).into(), Ipv4Addr::new(100, 64, 0, 1).into()),
        ports: (80, 40_000),
        is_tcp: true,
        tos: 0x28,
        ttl: 63,
        flow_label: 0x1_2345,
        identification: 0xfffe,
        fragment: 0x4000,
        ip_options: Vec::new(),
        sequence: 0xffff_ff80,
        acknowledgment: 0x0102_0304,
        flags: tcp::ACK,
        window: 500,
        urgent: 0,
        options: TIMESTAMPS.to_vec(),
        payload: vec![0xa5; 100],
    }
}

pub(super) fn tcp6() -> Inner {
    let end = |last| Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, last).into();
    Inner { ends: (end(1), end(2)), ..tcp4() }
}

pub(super) fn udp4() -> Inner {
    Inner { is_tcp: false, ..tcp4() }
}

pub(super) fn udp6() -> Inner {
    Inner { is_tcp: false, ..tcp6() }
}

/// One of each kind that can be joined.
pub(super) fn kinds() -> [Inner; 4] {
    [tcp4(), tcp6(), udp4(), udp6()]
}

impl Inner {
    /// The one that the same sender sends next.
    pub(super) fn next(&self) -> Self {
        let sequence = self.sequence.wrapping_add(self.payload.len() as u32);
        Self { sequence, identification: self.identification.wrapping_add(1), ..self.clone() }
    }

    pub(super) fn with_payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    pub(super) fn is_v4(&self) -> bool {
        self.ends.0.is_ipv4()
    }

    pub(super) fn ip_len(&self) -> usize {
        if self.is_v4() { 20 + self.ip_options.len() } else { 40 }
    }

    pub(super) fn headers(&self) -> usize {
        self.ip_len() + if self.is_tcp { 20 + self.options.len() } else { 8 }
    }

    pub(super) fn protocol(&self) -> u8 {
        if self.is_tcp { 6 } else { 17 }
    }

    /// The IP packet with right checksums.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let ip = self.ip(transport.len() as u16);
        finished([ip, transport].concat())
    }

    fn ip(&self, length: u16) -> Vec<u8> {
        if !self.is_v4() {
            let first = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label;
            let rest = [length.to_be_bytes(), [self.protocol(), self.ttl]].concat();
            return [&first.to_be_bytes()[..], &rest, &octets(self.ends.0), &octets(self.ends.1)].concat();
        }
        let total = length + self.ip_len() as u16;
        let words = [total, self.identification, self.fragment].map(u16::to_be_bytes).concat();
        let [first, protocol] = [0x40 | (self.ip_len() / 4) as u8, self.protocol()];
        let ends = [octets(self.ends.0), octets(self.ends.1)].concat();
        [&[first, self.tos], &words[..], &[self.ttl, protocol, 0, 0], &ends, &self.ip_options].concat()
    }

    fn transport(&self) -> Vec<u8> {
        let ports = [self.ports.0, self.ports.1].map(u16::to_be_bytes).concat();
        if !self.is_tcp {
            let length = 8 + self.payload.len() as u16;
            return [&ports[..], &length.to_be_bytes(), &[0, 0], &self.payload].concat();
        }
        let numbers = [self.sequence, self.acknowledgment].map(u32::to_be_bytes).concat();
        let offset = (5 + self.options.len() as u16 / 4) << 12;
        let words = [offset | self.flags, self.window, 0, self.urgent].map(u16::to_be_bytes).concat();
        [&ports[..], &numbers, &words, &self.options, &self.payload].concat()
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Length of the IP header, protocol, and the addresses as they are, of a packet without extension headers.
pub(super) fn layout(packet: &[u8]) -> (usize, u8, &[u8]) {
    match packet[0] >> 4 {
        4 => (usize::from(packet[0] & 15) * 4, packet[9], &packet[12..20]),
        _ => (40, packet[6], &packet[8..40]),
    }
}

/// The offset of the checksum in the transport header.
pub(super) fn checksum_at(protocol: u8) -> usize {
    if protocol == 6 { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT }
}

/// The pseudo-header of a packet.
pub(super) fn pseudo(packet: &[u8]) -> Vec<u8> {
    let (ip_len, protocol, ends) = layout(packet);
    [ends, &[0, protocol], &((packet.len() - ip_len) as u16).to_be_bytes()].concat()
}

/// The packet with both checksums as they should be.
pub(super) fn finished(mut packet: Vec<u8>) -> Vec<u8> {
    let (ip_len, protocol, _) = layout(&packet);
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let checksum = naive(&[&packet[..ip_len]]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    let at = ip_len + checksum_at(protocol);
    packet[at..at + 2].fill(0);
    let checksum = match naive(&[&pseudo(&packet), &packet[ip_len..]]) {
        0 if protocol == 17 => 0xffff,
        checksum => checksum,
    };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Leaves the checksum open, as the kernel does, and says so. With a `size` it is merged from segments of that size.
pub(super) fn opened(packet: &mut [u8], size: Option<u16>) -> virtio::Header {
    let (ip_len, protocol, _) = layout(packet);
    let at = ip_len + checksum_at(protocol);
    let sum = !naive(&[&pseudo(packet)]);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let merged = match (packet[0] >> 4, protocol) {
        (_, 17) => virtio::GSO_UDP_L4,
        (4, _) => virtio::GSO_TCPV4,
        _ => virtio::GSO_TCPV6,
    };
    virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type: size.map_or(virtio::GSO_NONE, |_| merged),
        gso_size: size.unwrap_or(0),
        hdr_len: (ip_len + header_len(&packet[ip_len..], protocol)) as u16,
        csum_start: ip_len as u16,
        csum_offset: checksum_at(protocol) as u16,
    }
}

pub(super) fn header_len(transport: &[u8], protocol: u8) -> usize {
    if protocol == 6 { usize::from(transport[12] >> 4) * 4 } else { 8 }
}

/// A batch of delivered packets in their slots.
pub(super) struct Batch {
    pub(super) coalescer: Coalescer,
    pub(super) slots: Vec<Vec<u8>>,
}

/// A frame as the device gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) tunnel: usize,
    pub(super) pieces: usize,
    pub(super) header: virtio::Header,
    pub(super) packet: Vec<u8>,
}

impl Slots for Vec<Vec<u8>> {
    fn slot(&mut self, number: usize) -> &mut [u8] {
        self.get_mut(number).map(Vec::as_mut_slice).unwrap_or_default()
    }
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { coalescer: Coalescer::new(true), slots: Vec::new() }
    }

    /// Pushes a packet that the kernel says nothing about.
    pub(super) fn push(&mut self, packet: &Inner) {
        self.push_bytes(packet.tunnel, virtio::Header::default(), &packet.bytes());
    }

    pub(super) fn push_all<'a>(&mut self, packets: impl IntoIterator<Item = &'a Inner>) {
        packets.into_iter().for_each(|packet| self.push(packet));
    }

    pub(super) fn push_bytes(&mut self, tunnel: usize, header: virtio::Header, packet: &[u8]) {
        let mut slot = vec![0xee; BEFORE];
        slot.extend_from_slice(packet);
        let place = Piece { slot: self.slots.len(), range: BEFORE..slot.len() };
        self.coalescer.push(tunnel, header, place, &slot[BEFORE..]);
        slot.extend_from_slice(&[0xee; BEHIND]);
        self.slots.push(slot);
    }

    /// Writes all frames and ends the batch. No byte around the packets has changed then, and no payload.
    pub(super) fn write(&mut self) -> Vec<Written> {
        let before = self.slots.clone();
        let mut written = Vec::new();
        while let Some(frame) = self.coalescer.next_frame(&mut self.slots) {
            let (tunnel, header, pieces) = (frame.tunnel, frame.header, frame.pieces.to_vec());
            let part = |piece: &Piece| &self.slots[piece.slot][piece.range.clone()];
            let packet = pieces.iter().flat_map(part).copied().collect();
            written.push(Written { tunnel, pieces: pieces.len(), header, packet });
        }
        for (before, after) in before.iter().zip(&self.slots) {
            let behind_headers = (BEFORE + 100).min(before.len() - BEHIND);
            assert_eq!(before[..BEFORE], after[..BEFORE]);
            assert_eq!(before[behind_headers..], after[behind_headers..]);
        }
        self.slots.clear();
        written
    }
}

/// What the kernel makes of a frame when it cuts it and finishes the checksums.
pub(super) fn cut(written: &Written) -> Vec<Vec<u8>> {
    let Written { header, packet, .. } = written;
    if header.flags & virtio::NEEDS_CSUM == 0 {
        return vec![packet.clone()];
    }
    let (ip_len, protocol, _) = layout(packet);
    assert_eq!(usize::from(header.csum_start), ip_len);
    assert_eq!(usize::from(header.csum_offset), checksum_at(protocol));
    let at = ip_len + checksum_at(protocol);
    assert_eq!(
        packet[at..at + 2],
        (!naive(&[&pseudo(packet)])).to_be_bytes(),
        "the sum of the pseudo-header"
    );
    if header.gso_type == virtio::GSO_NONE {
        return vec![finished(packet.clone())];
    }
    let headers = ip_len + header_len(&packet[ip_len..], protocol);
    assert_eq!(usize::from(header.hdr_len), headers);
    assert_length(packet);
    let chunks: Vec<_> = packet[headers..].chunks(usize::from(header.gso_size)).collect();
    let segment = |(index, chunk): (usize, &&[u8])| {
        let mut segment = [&packet[..headers], chunk].concat();
        let length = (segment.len() - ip_len) as u16;
        if packet[0] >> 4 == 4 {
            segment[2..4].copy_from_slice(&(length + ip_len as u16).to_be_bytes());
            let identification = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(index as u16);
            segment[4..6].copy_from_slice(&identification.to_be_bytes());
        } else {
            segment[4..6].copy_from_slice(&length.to_be_bytes());
        }
        if protocol == 6 {
            let sequence = u32::from_be_bytes(packet[ip_len + 4..ip_len + 8].try_into().unwrap());
            let sequence = sequence.wrapping_add((index * usize::from(header.gso_size)) as u32);
            segment[ip_len + 4..ip_len + 8].copy_from_slice(&sequence.to_be_bytes());
            if index + 1 < chunks.len() {
                segment[ip_len + 13] &= !(tcp::FIN | tcp::PSH) as u8;
            }
        } else {
            segment[ip_len + 4..ip_len + 6].copy_from_slice(&length.to_be_bytes());
        }
        finished(segment)
    };
    chunks.iter().enumerate().map(segment).collect()
}

/// The lengths in the headers of a packet are those of the packet, and the IPv4 checksum is right.
fn assert_length(packet: &[u8]) {
    let (ip_len, protocol, _) = layout(packet);
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if packet[0] >> 4 == 4 {
        assert_eq!(word(2), packet.len());
        assert_eq!(naive(&[&packet[..ip_len]]), 0);
    } else {
        assert_eq!(word(4), packet.len() - ip_len);
    }
    if protocol == 17 {
        assert_eq!(word(ip_len + 4), packet.len() - ip_len);
    }
}

/// How many places each frame for these packets has.
pub(super) fn joined(packets: &[Inner]) -> Vec<usize> {
    let mut batch = Batch::new();
    batch.push_all(packets);
    batch.write().iter().map(|written| written.pieces).collect()
}
