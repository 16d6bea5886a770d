//! Packets of either IP version, inner and outer, made without the engine, and what they must be like.

use super::*;
use crate::config::Kind;
use crate::fragment::Fragments;
use crate::wire::icmpv6;
use crate::wire::ip::{Packet as Ip, Version};

/// An IP packet; an IPv4 one has DF.
pub(super) fn ip_packet(protocol: u8, from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => packet(ip(protocol, from, to), payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => packet6(protocol, from, to, payload),
        _ => panic!("{from} and {to} are not of one version"),
    }
}

/// A TCP packet with right checksums.
pub(super) fn tcp(from: SocketAddr, to: SocketAddr, flags: u16, options: &[u8], data: &[u8]) -> Vec<u8> {
    let header = tcp::Header {
        source_port: from.port(),
        destination_port: to.port(),
        sequence: 1000,
        acknowledgment: 2000,
        flags,
        window: 500,
        checksum: 0,
        urgent: 0,
        options,
    };
    let mut segment = vec![0; header.len() + data.len()];
    header.emit(&mut segment).unwrap().copy_from_slice(data);
    complete(ipv4::TCP, from.ip(), to.ip(), segment, tcp::CHECKSUM_AT)
}

/// A UDP packet with right checksums.
pub(super) fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let length = (udp::LEN + data.len()) as u16;
    let header = udp::Header { source_port: from.port(), destination_port: to.port(), length, checksum: 0 };
    let mut datagram = vec![0; usize::from(length)];
    header.emit(&mut datagram).unwrap().copy_from_slice(data);
    complete(ipv4::UDP, from.ip(), to.ip(), datagram, udp::CHECKSUM_AT)
}

/// An echo request or reply with right checksums.
pub(super) fn echo(from: IpAddr, to: IpAddr, is_reply: bool, identifier: u16, data: &[u8]) -> Vec<u8> {
    let [i0, i1] = identifier.to_be_bytes();
    let kind = match (from.is_ipv4(), is_reply) {
        (true, false) => icmp::ECHO_REQUEST,
        (true, true) => icmp::ECHO_REPLY,
        (false, false) => icmpv6::ECHO_REQUEST,
        (false, true) => icmpv6::ECHO_REPLY,
    };
    control(from, to, &[&[kind, 0, 0, 0, i0, i1, 0, 9], data].concat())
}

/// "Unreachable" about a packet, with right checksums.
pub(super) fn unreachable(from: IpAddr, to: IpAddr, about: &[u8]) -> Vec<u8> {
    let kind = if from.is_ipv4() { icmp::UNREACHABLE } else { icmpv6::UNREACHABLE };
    control(from, to, &[&[kind, 0, 0, 0, 0, 0, 0, 0], about].concat())
}

/// A message of ICMP or ICMPv6, whose checksum is made.
pub(super) fn control(from: IpAddr, to: IpAddr, message: &[u8]) -> Vec<u8> {
    let protocol = if from.is_ipv4() { ipv4::ICMP } else { ipv6::ICMPV6 };
    complete(protocol, from, to, message.to_vec(), 2)
}

fn complete(protocol: u8, from: IpAddr, to: IpAddr, mut payload: Vec<u8>, at: usize) -> Vec<u8> {
    payload[at..at + 2].fill(0);
    let sum = match protocol {
        ipv4::ICMP => naive(&[&payload]),
        _ => naive(&[&pseudo(protocol, from, to, payload.len()), &payload]),
    };
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    ip_packet(protocol, from, to, &payload)
}

/// The pseudo-header as RFC 8200 section 8.1 has it; that of IPv4 has the same sum without the zeros.
fn pseudo(protocol: u8, from: IpAddr, to: IpAddr, length: usize) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    };
    [octets(from), octets(to), (length as u32).to_be_bytes().to_vec(), vec![0, 0, 0, protocol]].concat()
}

/// The view of a packet, and its transport.
pub(super) fn look(packet: &[u8]) -> (Ip, &[u8]) {
    let (ip, transport) = Ip::parse(packet).unwrap();
    assert_eq!(ip.total, packet.len());
    (ip, transport)
}

/// Payload of a TCP packet or a datagram.
pub(super) fn payload_of(packet: &[u8]) -> Vec<u8> {
    let (ip, transport) = look(packet);
    match ip.protocol {
        ipv4::TCP => tcp::Header::parse(transport).unwrap().1.to_vec(),
        _ => udp::Header::parse(transport).unwrap().1.to_vec(),
    }
}

/// Leaves the checksum of a TCP or UDP packet open, as the kernel does; returns what it says then. With a size the
/// packet stands for several.
pub(super) fn leave_open(packet: &mut [u8], size: Option<u16>) -> virtio::Header {
    let (ip, transport) = look(packet);
    let (at, header_len, merged) = match (ip.protocol, ip.version()) {
        (ipv4::TCP, Version::V4) => (tcp::CHECKSUM_AT, 20, virtio::GSO_TCPV4),
        (ipv4::TCP, Version::V6) => (tcp::CHECKSUM_AT, 20, virtio::GSO_TCPV6),
        _ => (udp::CHECKSUM_AT, udp::LEN, virtio::GSO_UDP_L4),
    };
    let open = !naive(&[&pseudo(ip.protocol, ip.source, ip.destination, transport.len())]);
    let start = ip.header_len;
    packet[start + at..][..2].copy_from_slice(&open.to_be_bytes());
    virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type: if size.is_some() { merged } else { virtio::GSO_NONE },
        hdr_len: (start + header_len) as u16,
        gso_size: size.unwrap_or(0),
        csum_start: start as u16,
        csum_offset: at as u16,
    }
}

/// A virtio header of a packet that comes from the network, behind `before` bytes of outer headers and a link header.
pub(super) fn behind(header: virtio::Header, before: usize) -> virtio::Header {
    let by = (LINK + before) as u16;
    virtio::Header { csum_start: header.csum_start + by, hdr_len: header.hdr_len + by, ..header }
}

/// All checksums of an inner packet that is whole.
pub(super) fn verify_any(packet: &[u8]) {
    let (ip, transport) = look(packet);
    if ip.version() == Version::V4 {
        assert_eq!(naive(&[&packet[..ip.header_len]]), 0, "IP checksum");
    }
    let sum = match ip.protocol {
        ipv4::ICMP => naive(&[transport]),
        _ => naive(&[&pseudo(ip.protocol, ip.source, ip.destination, transport.len()), transport]),
    };
    assert_eq!(sum, 0, "checksum of protocol {}", ip.protocol);
}

/// Changes an IPv4 header and makes its checksum again; an IPv6 header is only changed.
pub(super) fn changed(packet: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut packet = packet.to_vec();
    change(&mut packet);
    if packet[0] >> 4 == 4 {
        let len = usize::from(packet[0] & 0x0f) * 4;
        packet[10..12].fill(0);
        let sum = naive(&[&packet[..len]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The packet with another TOS byte or traffic class.
pub(super) fn marked(packet: &[u8], tos: u8) -> Vec<u8> {
    changed(packet, |packet| match packet[0] >> 4 {
        4 => packet[1] = tos,
        _ => [packet[0], packet[1]] = [0x60 | tos >> 4, packet[1] & 0x0f | tos << 4],
    })
}

/// The TOS byte or traffic class.
pub(super) fn tos_of(packet: &[u8]) -> u8 {
    look(packet).0.traffic_class
}

/// The same IPv4 packet, without DF.
pub(super) fn without_df(packet: &[u8]) -> Vec<u8> {
    changed(packet, |packet| packet[6] &= !0x40)
}

/// The pieces of a packet of which none is longer than `limit` bytes; an IPv4 packet loses DF.
pub(super) fn pieces(packet: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let v4 = without_df(packet);
    let fragments = match packet[0] >> 4 {
        4 => Fragments::v4(&v4, limit).unwrap(),
        _ => Fragments::v6(packet, limit, 0x5555_0001).unwrap(),
    };
    let write = |index| {
        let mut piece = vec![0; fragments.len_of(index)];
        fragments.write(index, &mut piece).unwrap();
        piece
    };
    (0..fragments.count()).map(write).collect()
}

/// The outer packet around an inner one, from `peer` to a tunnel, as its configuration has it.
pub(super) fn from_peer(tunnel: &Tunnel, peer: IpAddr, inner: &[u8]) -> Vec<u8> {
    let ether_type = if inner[0] >> 4 == 4 { gre::IPV4 } else { gre::IPV6 };
    let mut header = gre::Header { protocol: ether_type, ..tunnel.gre() };
    let mut gre = vec![0; header.len() + inner.len()];
    header.emit(&mut gre).unwrap().copy_from_slice(inner);
    if tunnel.checksum {
        header.checksum = Some(naive(&[&gre]));
        header.emit(&mut gre).unwrap();
    }
    match tunnel.kind {
        Kind::Gre => ip_packet(ipv4::GRE, peer, tunnel.local, &gre),
        Kind::Ipip if ether_type == gre::IPV4 => ip_packet(ipv4::IPIP, peer, tunnel.local, inner),
        Kind::Ipip => ip_packet(ipv4::IPV6, peer, tunnel.local, inner),
        Kind::GreInUdp => {
            let [from, to] = [SocketAddr::new(peer, 51_234), SocketAddr::new(tunnel.local, udp::GRE_IN_UDP)];
            let mut outer = udp(from, to, &gre);
            if !tunnel.udp_checksum {
                let at = look(&outer).0.header_len + udp::CHECKSUM_AT;
                outer[at..at + 2].fill(0);
            }
            outer
        }
    }
}

/// The inner packet of an outer one that a tunnel sent. Everything that the outer headers must be is asserted.
pub(super) fn unwrapped(tunnel: &Tunnel, outer: &[u8]) -> Vec<u8> {
    let (ip, body) = look(outer);
    assert_eq!((ip.source, ip.ttl, ip.part), (tunnel.local, tunnel.ttl, crate::wire::ip::Part::Whole));
    assert!(ip.dont_fragment, "an outer packet has DF");
    if ip.version() == Version::V4 {
        assert_eq!(naive(&[&outer[..20]]), 0, "outer IP checksum");
    }
    let gre = match tunnel.kind {
        Kind::Ipip => {
            assert_eq!(ip.protocol, if body[0] >> 4 == 4 { 4 } else { 41 });
            return body.to_vec();
        }
        Kind::Gre => {
            assert_eq!(ip.protocol, 47);
            body
        }
        Kind::GreInUdp => {
            assert_eq!(ip.protocol, 17);
            let (header, gre) = udp::Header::parse(body).unwrap();
            assert_eq!((header.destination_port, usize::from(header.length)), (4754, body.len()));
            assert!(
                tunnel.source_port.map_or(header.source_port >= 49_152, |port| port == header.source_port)
            );
            if tunnel.udp_checksum {
                assert_ne!(header.checksum, 0);
                assert_eq!(
                    naive(&[&pseudo(17, ip.source, ip.destination, body.len()), body]),
                    0,
                    "UDP checksum"
                );
            } else {
                assert_eq!(header.checksum, 0);
            }
            gre
        }
    };
    let (header, inner) = gre::Header::parse(gre).unwrap();
    assert_eq!(header.key, tunnel.key);
    assert_eq!((header.checksum.is_some(), header.sequence.is_some()), (tunnel.checksum, tunnel.sequence));
    if tunnel.checksum {
        assert_eq!(naive(&[gre]), 0, "GRE checksum");
        assert_eq!(gre[6..8], [0, 0], "Reserved1");
    }
    assert_eq!(header.protocol, if inner[0] >> 4 == 4 { 0x0800 } else { 0x86dd });
    inner.to_vec()
}
