//! Outer packets made by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use encap::batch::{Batch, Gso};

/// The ones' complement sum, folded.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An IPv4 packet with a correct checksum.
pub(crate) fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let checksum = !sum(&[&packet]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet without extension headers.
pub(crate) fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// An IP packet of the family of its addresses.
pub(crate) fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(source, destination, protocol, payload),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(source, destination, protocol, payload),
        _ => panic!("two families"),
    }
}

/// A GRE header with or without key, and `inner` (RFC 2890).
pub(crate) fn gre_payload(key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    match key {
        Some(key) => [&[0x20, 0, 8, 0][..], &key.to_be_bytes(), inner].concat(),
        None => [&[0, 0, 8, 0][..], inner].concat(),
    }
}

/// A GRE packet with `key` around `inner`.
pub(crate) fn gre(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    key: Option<u32>,
    inner: &[u8],
) -> Vec<u8> {
    ip(source.into(), destination.into(), 47, &gre_payload(key, inner))
}

/// The sum of the pseudo-header of UDP.
pub(crate) fn pseudo(source: IpAddr, destination: IpAddr, length: u16) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    sum(&[&octets(source), &octets(destination), &[0, 17], &length.to_be_bytes()])
}

/// A UDP packet; its checksum is the sum of the pseudo-header alone when it is `open`.
pub(crate) fn udp(
    (source, source_port): (IpAddr, u16),
    (destination, destination_port): (IpAddr, u16),
    payload: &[u8],
    open: bool,
) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut datagram =
        [source_port.to_be_bytes(), destination_port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    datagram.extend(payload);
    let pseudo = pseudo(source, destination, length);
    let checksum = if open { pseudo } else { !sum(&[&pseudo.to_be_bytes(), &datagram]) };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    ip(source, destination, 17, &datagram)
}

pub(crate) fn batch<A: Into<IpAddr> + Copy>(packets: &[(Vec<u8>, A)]) -> Batch {
    let mut batch = Batch::new(1 << 20, packets.len());
    for (packet, destination) in packets {
        add(&mut batch, packet, (*destination).into(), None);
    }
    batch
}

/// Adds a packet, parts of which lie in a frame as long as the batch keeps frames.
fn add(batch: &mut Batch, packet: &[u8], destination: IpAddr, gso: Option<Gso>) {
    let head = if batch.can_keep() { packet.len().min(30) } else { packet.len() };
    let (head, rest) = packet.split_at(head);
    batch.push(head.len(), destination, gso).unwrap().copy_from_slice(head);
    for (number, part) in rest.chunks(1000).enumerate() {
        if number % 2 == 0 {
            batch.refer(head.len() + number * 1000..head.len() + number * 1000 + part.len()).unwrap();
        } else {
            batch.extend(part.len()).unwrap().copy_from_slice(part);
        }
    }
    batch.keep(&mut packet.to_vec());
}

/// One datagram that is several.
pub(crate) fn several(packet: &[u8], destination: IpAddr, size: u16) -> Batch {
    let headers = if destination.is_ipv4() { 28 } else { 48 };
    let mut batch = Batch::new(packet.len(), 1);
    add(&mut batch, packet, destination, Some(Gso { size, headers, inner: None }));
    batch
}
