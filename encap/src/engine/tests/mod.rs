//! Packets made by hand, and an L7 node and an L4 node that face each other.

mod checklist_fragments;
mod checklist_gre;
mod checklist_ipv6;
mod checklist_marks;
mod checklist_pmtu;
mod checklist_udp;
mod drops;
mod hostile;
mod inbound;
mod leaving_uncut;
mod live;
mod matrix;
mod mirror;
mod nested;
mod node;
mod outbound;
mod packets;
mod pairs;
mod peer_networks;
mod pieces;
mod probing;
mod services;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::node::{Node, Sent, tun_frame};
use super::*;
use crate::batch::Batch;
use crate::config::ForwardTo;
use crate::metrics::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::checksum::tests::naive;
use crate::wire::{gre, icmp, ipv4, ipv6, tcp, udp, virtio};

pub(super) const L7: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
pub(super) const L4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
pub(super) const L4_SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
pub(super) const OWN: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub(super) const RS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
pub(super) const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub(super) const RS6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 0x10);
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(super) const KEY: Option<u32> = Some(0x0102_0304);
pub(super) const LINK: usize = 14;
pub(super) const MTU: u16 = 1472;

/// The L7 node: opens connections from `OWN`, listens on `VIP:443`.
pub(super) fn l7() -> Tunnel {
    Tunnel {
        key: KEY,
        addresses: vec![OWN.into()],
        vips: vec![SocketAddr::new(VIP.into(), 443)],
        ttl: 63,
        ..Tunnel::new(
            "t",
            L7.into(),
            vec![L4.into(), L4_SECOND.into()],
            nets(&["10.0.0.0/8", "192.0.2.0/24"]),
        )
    }
}

/// The same, which carries IPv6 as well.
pub(super) fn l7_with_v6() -> Tunnel {
    let mut tunnel = l7();
    tunnel.addresses.push(OWN6.into());
    tunnel.networks.extend(nets(&["fd10::/16"]));
    tunnel
}

/// The L4 node: hands everything for 10/8 on.
pub(super) fn l4() -> Tunnel {
    let forward = ForwardTo { device: "rs0".into(), networks: vec!["10.0.0.0/8".parse().unwrap()] };
    Tunnel {
        local: L4.into(),
        peers: vec![L7.into()],
        addresses: vec![],
        networks: vec![IpAddr::V4(OWN).into(), IpAddr::V4(VIP).into()],
        vips: vec![],
        forward: vec![forward],
        ..l7()
    }
}

pub(super) fn nets(text: &[&str]) -> Vec<ipnet::IpNet> {
    text.iter().map(|net| net.parse().unwrap()).collect()
}

pub(super) fn ip(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr) -> ipv4::Header<'static> {
    ipv4::Header {
        tos: 0,
        total_length: 0,
        identification: 0x1234,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol,
        source,
        destination,
        options: &[],
    }
}

/// An IPv4 packet; the total length is filled in.
pub(super) fn packet(header: ipv4::Header<'_>, payload: &[u8]) -> Vec<u8> {
    let total = header.len() + payload.len();
    let mut bytes = vec![0; total];
    let header = ipv4::Header { total_length: total as u16, ..header };
    header.emit(&mut bytes).unwrap().copy_from_slice(payload);
    bytes
}

/// A TCP packet with right checksums.
pub(super) fn tcp_packet(
    ends: (Ipv4Addr, u16, Ipv4Addr, u16),
    flags: u16,
    options: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let (source, source_port, destination, destination_port) = ends;
    let mut header = tcp::Header {
        source_port,
        destination_port,
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
    let length = segment.len() as u16;
    header.checksum = Sum::pseudo(source, destination, ipv4::TCP, length).bytes(&segment).finish();
    header.emit(&mut segment).unwrap();
    packet(ip(ipv4::TCP, source, destination), &segment)
}

pub(super) fn udp_packet(ends: (Ipv4Addr, u16, Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let (source, source_port, destination, destination_port) = ends;
    let length = (udp::LEN + data.len()) as u16;
    let header = udp::Header { source_port, destination_port, length, checksum: 0 };
    let mut datagram = vec![0; usize::from(length)];
    header.emit(&mut datagram).unwrap().copy_from_slice(data);
    packet(ip(ipv4::UDP, source, destination), &datagram)
}

/// A UDP packet over IPv6 with a right checksum.
pub(super) fn udp6_packet(ends: (Ipv6Addr, u16, Ipv6Addr, u16), data: &[u8]) -> Vec<u8> {
    let (source, source_port, destination, destination_port) = ends;
    let length = (udp::LEN + data.len()) as u16;
    let mut header = udp::Header { source_port, destination_port, length, checksum: 0 };
    let mut datagram = vec![0; usize::from(length)];
    header.emit(&mut datagram).unwrap().copy_from_slice(data);
    header.checksum = Sum::pseudo(source, destination, ipv6::UDP, length).bytes(&datagram).finish();
    header.emit(&mut datagram).unwrap();
    packet6(ipv6::UDP, source, destination, &datagram)
}

/// An IPv6 packet.
pub(super) fn packet6(next_header: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let payload_length = payload.len() as u16;
    let (traffic_class, flow_label, hop_limit) = (0, 0, 64);
    let header = ipv6::Header {
        traffic_class,
        flow_label,
        payload_length,
        next_header,
        hop_limit,
        source,
        destination,
    };
    let mut bytes = vec![0; ipv6::LEN + payload.len()];
    header.emit(&mut bytes).unwrap().copy_from_slice(payload);
    bytes
}

/// The reply of a host to an echo request over IPv4.
pub(super) fn echoed(request: &[u8]) -> Vec<u8> {
    let (ip, message) = ipv4::Header::parse(request).unwrap();
    let mut message = message.to_vec();
    (message[0], message[2], message[3]) = (icmp::ECHO_REPLY, 0, 0);
    let checksum = naive(&[&message]).to_be_bytes();
    message[2..4].copy_from_slice(&checksum);
    packet(ipv4::Header { source: ip.destination, destination: ip.source, ..ip }, &message)
}

/// An ICMP message about a packet, from the ICMP header on.
pub(super) fn icmp_message(mut header: icmp::Header, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![0; icmp::LEN + quoted.len()];
    header.emit(&mut message).unwrap().copy_from_slice(quoted);
    header.checksum = naive(&[&message]);
    header.emit(&mut message).unwrap();
    message
}

pub(super) fn icmp_packet(source: Ipv4Addr, destination: Ipv4Addr, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let header = icmp::Header { kind, code: 0, checksum: 0, rest: [0; 4] };
    packet(ip(ipv4::ICMP, source, destination), &icmp_message(header, quoted))
}

/// Leaves only the sum of the pseudo-header in the checksum field, as the kernel does; returns what it says then.
pub(super) fn open_checksum(packet: &mut [u8], gso_type: u8, gso_size: u16) -> virtio::Header {
    let (ip, transport) = ipv4::Header::parse(packet).unwrap();
    let at = if ip.protocol == ipv4::TCP { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT };
    let sum = !Sum::pseudo(ip.source, ip.destination, ip.protocol, transport.len() as u16).finish();
    let start = ip.len();
    packet[start + at..][..2].copy_from_slice(&sum.to_be_bytes());
    virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type,
        hdr_len: start as u16 + 20,
        gso_size,
        csum_start: start as u16,
        csum_offset: at as u16,
    }
}

/// The outer packet around an inner one.
pub(super) fn gre_packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    header: gre::Header,
    inner: &[u8],
) -> Vec<u8> {
    let mut payload = vec![0; header.len() + inner.len()];
    header.emit(&mut payload).unwrap().copy_from_slice(inner);
    packet(ip(ipv4::GRE, source, destination), &payload)
}

/// The outer packet as the L4 node sends it to the L7 node.
pub(super) fn from_l4(inner: &[u8]) -> Vec<u8> {
    gre_packet(L4, L7, keyed(), inner)
}

pub(super) fn keyed() -> gre::Header {
    gre::Header { protocol: gre::IPV4, checksum: None, key: KEY, sequence: None }
}

/// Both checksums of an inner packet, by the naive sum.
pub(super) fn verify(packet: &[u8]) {
    let (ip, transport) = ipv4::Header::parse(packet).unwrap();
    assert_eq!(naive(&[&packet[..ip.len()]]), 0, "IP checksum");
    let pseudo = [&ip.source.octets()[..], &ip.destination.octets(), &[0, ip.protocol]].concat();
    assert_eq!(naive(&[&pseudo, &(transport.len() as u16).to_be_bytes(), transport]), 0, "checksum");
}

/// The inner packet of an outer one that the L7 node sent.
pub(super) fn inner_of(outer: &[u8]) -> Vec<u8> {
    let (ip, payload) = ipv4::Header::parse(outer).unwrap();
    assert_eq!(usize::from(ip.total_length), outer.len());
    assert_eq!(naive(&[&outer[..20]]), 0);
    let (_, inner) = gre::Header::parse(payload).unwrap();
    inner.to_vec()
}

pub(super) const REQUEST: (Ipv4Addr, u16, Ipv4Addr, u16) = (OWN, 40_000, RS, 80);
pub(super) const ANSWER: (Ipv4Addr, u16, Ipv4Addr, u16) = (RS, 80, OWN, 40_000);
pub(super) const CLIENT: (Ipv4Addr, u16, Ipv4Addr, u16) = (RS, 5555, VIP, 443);
pub(super) const TO_CLIENT: (Ipv4Addr, u16, Ipv4Addr, u16) = (VIP, 443, RS, 5555);
pub(super) const MSS_1460: &[u8] = &[1, 2, 4, 0x05, 0xb4, 1, 1, 1];

/// The MSS option of a packet that has `MSS_1460` or what became of it.
pub(super) fn mss(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[43], packet[44]])
}

#[test]
fn idle_flows_are_forgotten() {
    let mut node = Node::new(&[l7()]);
    assert_eq!(node.engine.poll_timeout(), None);
    node.send(virtio::Header::default(), &tcp_packet(REQUEST, tcp::SYN, &[], &[]));
    let answer = from_l4(&tcp_packet(ANSWER, tcp::SYN | tcp::ACK, &[], &[]));
    assert!(node.receive_plain(&answer).is_some());
    let start = node.now;
    assert_eq!(node.engine.poll_timeout(), Some(start + Duration::from_secs(1)));
    node.engine.handle_timeout(start + Duration::from_secs(1));
    assert_eq!(node.engine.poll_timeout(), Some(start + Duration::from_secs(2)));
    node.now = start + Duration::from_secs(31);
    node.engine.handle_timeout(node.now);
    assert_eq!(node.engine.poll_timeout(), None);
    assert!(node.receive_plain(&answer).is_none());
    assert_eq!(node.drops(), [DropReason::NotOurs]);
}

#[test]
fn a_sweep_is_bounded_and_fair() {
    let mut node = Node::new(&[l7(), Tunnel { key: None, ..l7() }]);
    for port in 0..3000 {
        let syn = tcp_packet((OWN, port, RS, 80), tcp::SYN, &[], &[]);
        node.send_by(usize::from(port > 2900), virtio::Header::default(), &syn);
    }
    let mut now = node.now + Duration::from_secs(40);
    let left = |node: &Node| [0, 1].map(|index| node.engine.tunnels[index].as_ref().unwrap().flows.len());
    let steps = [[2901 - SWEEP_BUDGET, 99], [2901 - 2 * SWEEP_BUDGET + 99, 0], [0, 0]];
    for (step, expected) in steps.into_iter().enumerate() {
        node.engine.handle_timeout(now);
        assert_eq!(left(&node), expected);
        assert_eq!(node.engine.poll_timeout(), (step < 2).then_some(now + SWEEP_AGAIN));
        now += SWEEP_AGAIN;
    }
}
