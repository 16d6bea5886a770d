//! The rules of GRE-in-UDP (RFC 8086), one test for each.

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::config::Ecn;

const DONE: virtio::Header =
    virtio::Header { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };
const REQUEST: [(Ipv4Addr, u16); 2] = [(OWN, 40_000), (RS, 80)];

fn request(port: u16, data: &[u8]) -> Vec<u8> {
    udp(at(REQUEST[0].0, port), at(REQUEST[1].0, REQUEST[1].1), data)
}

fn answer() -> Vec<u8> {
    udp(at(RS, 80), at(OWN, 40_000), b"answer")
}

/// The L7 node with a flow open.
fn open(tunnel: &Tunnel) -> Node {
    let mut node = node(tunnel);
    assert_eq!(node.outward(&request(40_000, b"x")).len(), 1);
    node
}

/// Where the UDP header of an outer packet is.
fn udp_at(tunnel: &Tunnel) -> usize {
    if tunnel.local.is_ipv4() { 20 } else { 40 }
}

fn source_port(outer: &[u8]) -> u16 {
    let (_, datagram) = look(outer);
    u16::from_be_bytes([datagram[0], datagram[1]])
}

#[test]
fn rfc8086_1_udp_and_gre_come_and_go_together_on_port_4754() {
    for outer_v4 in [true, false] {
        let tunnel = GRE_IN_UDP.near(outer_v4);
        let mut node = open(&tunnel);
        // `unwrapped` asserts the port and the length of what is sent.
        assert_eq!(unwrapped(&tunnel, &node.outward(&request(1, b"x"))[0].bytes), request(1, b"x"));
        let good = from_peer(&tunnel, tunnel.peers[0], &answer());
        assert_eq!(node.receive_plain(&good), Some(answer()));
        let at = udp_at(&tunnel);
        let with_port = |port: u16| {
            let mut outer = good.clone();
            outer[at + 2..at + 4].copy_from_slice(&port.to_be_bytes());
            outer
        };
        // DTLS, and anything else.
        for port in [4755, 4753, 53] {
            assert_eq!(node.receive_plain(&with_port(port)), None, "{port}");
        }
        // A length beyond the packet, and one that leaves no header.
        for length in [good.len() as u16, 7, 0] {
            let mut outer = good.clone();
            outer[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
            assert_eq!(node.receive_plain(&outer), None, "length {length}");
        }
        // GRE without UDP is of no tunnel here.
        let bare = Tunnel { kind: crate::config::Kind::Gre, ..tunnel.clone() };
        assert_eq!(node.receive_plain(&from_peer(&bare, tunnel.peers[0], &answer())), None);
        use DropReason::*;
        assert_eq!(
            node.drops(),
            [Malformed, Malformed, Malformed, NotATunnel, NotATunnel, NotATunnel, UnknownPeer]
        );
    }
}

#[test]
fn rfc8086_2_the_source_port_is_that_of_the_flow() {
    let tunnel = GRE_IN_UDP.near(true);
    let mut node = node(&tunnel);
    let mut ports = std::collections::HashSet::new();
    for port in 1..200 {
        let first = source_port(&node.outward(&request(port, b"x"))[0].bytes);
        assert!(first >= 49_152);
        // For as long as the flow lasts.
        node.now += Duration::from_secs(600);
        assert_eq!(source_port(&node.outward(&request(port, b"later"))[0].bytes), first);
        ports.insert(first);
    }
    assert!(ports.len() > 190, "199 flows have {} ports", ports.len());
}

#[test]
fn rfc8086_2_the_source_port_can_be_fixed() {
    let tunnel = Tunnel { source_port: Some(7), ..GRE_IN_UDP.near(true) };
    let mut node = node(&tunnel);
    for port in 1..50 {
        assert_eq!(source_port(&node.outward(&request(port, b"x"))[0].bytes), 7);
    }
}

#[test]
fn rfc8086_3_the_checksum_is_on_and_can_be_off() {
    for outer_v4 in [true, false] {
        let with = GRE_IN_UDP.near(outer_v4);
        let without = Tunnel { udp_checksum: false, ..with.clone() };
        // `unwrapped` asserts it, there or not.
        for tunnel in [&with, &without] {
            assert_eq!(
                unwrapped(tunnel, &open(tunnel).outward(&request(1, b"x"))[0].bytes),
                request(1, b"x")
            );
            let mut node = open(tunnel);
            let mut wrong = from_peer(&with, with.peers[0], &answer());
            assert_eq!(node.receive_plain(&wrong), Some(answer()));
            *wrong.last_mut().unwrap() ^= 1;
            assert_eq!(node.receive_plain(&wrong), None);
            assert_eq!(node.drops(), [DropReason::BadUdpChecksum], "verified whenever it is there");
        }
        // None is allowed over IPv4, and over IPv6 only where it is configured.
        let none = from_peer(&without, with.peers[0], &answer());
        assert_eq!(open(&without).receive_plain(&none), Some(answer()));
        let mut node = open(&with);
        assert_eq!(node.receive_plain(&none), outer_v4.then(answer));
        assert_eq!(node.counters[0].drops(DropReason::BadUdpChecksum), u64::from(!outer_v4));
    }
}

#[test]
fn rfc8086_3_a_checksum_of_zero_is_sent_as_ones() {
    for outer_v4 in [true, false] {
        let tunnel = Tunnel { source_port: Some(50_000), ..GRE_IN_UDP.near(outer_v4) };
        let mut node = node(&tunnel);
        // Nobody looks into a later piece: its bytes can be chosen.
        let piece = |word: [u8; 2]| {
            packet(ipv4::Header { fragment_offset: 9, dont_fragment: false, ..ip(ipv4::UDP, OWN, RS) }, &word)
        };
        let at = udp_at(&tunnel) + udp::CHECKSUM_AT;
        let sum = |node: &mut Node, word| {
            let sent = node.outward(&piece(word));
            [sent[0].bytes[at], sent[0].bytes[at + 1]]
        };
        let missing = sum(&mut node, [0, 0]);
        assert_eq!(sum(&mut node, missing), [0xff, 0xff]);
    }
}

#[test]
fn rfc8086_4_the_flow_label_is_that_of_the_flow() {
    // RFC 6438: of every kind, and of the outer packet whatever the inner one is.
    for variant in VARIANTS {
        let mut node = node(&variant.near(false));
        let mut labels = std::collections::HashSet::new();
        for port in 1..100 {
            let label = |packet: &[u8]| [packet[1] & 0x0f, packet[2], packet[3]];
            let v4 = label(&node.outward(&request(port, b"x"))[0].bytes);
            assert_eq!(label(&node.outward(&request(port, b"later"))[0].bytes), v4);
            let v6 = label(&node.outward(&udp(at(OWN6, port), at(RS6, 2), b"x"))[0].bytes);
            labels.extend([v4, v6]);
        }
        assert!(labels.len() > 190, "198 flows have {} labels", labels.len());
    }
}

#[test]
fn rfc8086_5_fragments_are_wrapped_and_all_alike() {
    for outer_v4 in [true, false] {
        let tunnel = Tunnel { ecn: Ecn::Normal, ..GRE_IN_UDP.near(outer_v4) };
        let large = marked(&without_df(&request(40_000, &[7; 4000])), 0xb9);
        // Fragmented by the engine, and by the host.
        let sent = node(&tunnel).outward(&large);
        let mut by_host = Vec::new();
        let mut host = node(&tunnel);
        for piece in pieces(&large, 1000) {
            by_host.extend(host.outward(&piece));
        }
        for sent in [sent, by_host] {
            assert!(sent.len() > 2);
            let port = source_port(&sent[0].bytes);
            for fragment in &sent {
                assert_eq!((source_port(&fragment.bytes), fragment.to), (port, tunnel.peers[0]));
                assert_eq!(tos_of(&fragment.bytes), 0xb9);
                // Each with DF and a right checksum.
                let inner = unwrapped(&tunnel, &fragment.bytes);
                assert!(look(&inner).0.is_fragment());
            }
        }
    }
}

#[test]
fn rfc8086_6_a_key_that_is_not_valid_for_its_source_is_dropped() {
    for outer_v4 in [true, false] {
        let tunnel = GRE_IN_UDP.near(outer_v4);
        let mut node = open(&tunnel);
        for key in [None, Some(0), Some(KEY.unwrap() + 1)] {
            let other = Tunnel { key, ..tunnel.clone() };
            assert_eq!(node.receive_plain(&from_peer(&other, tunnel.peers[0], &answer())), None, "{key:?}");
        }
        let stranger: IpAddr = if outer_v4 { [192, 0, 2, 66].into() } else { VIP6.into() };
        assert_eq!(node.receive_plain(&from_peer(&tunnel, stranger, &answer())), None);
        assert_eq!(node.unmatched.drops(DropReason::UnknownPeer), 4);
    }
}

#[test]
fn rfc8086_6_there_are_no_keepalives() {
    let tunnel = GRE_IN_UDP.near(true);
    let mut node = node(&tunnel);
    assert_eq!(node.engine.poll_timeout(), None, "nothing is sent unless there is something to carry");
    // A keepalive as others send them: an answer to itself, of type 0, inside GRE.
    let back = ip_packet(ipv4::GRE, tunnel.local, tunnel.peers[0], &[0, 0, 0, 0]);
    assert_eq!(node.receive_plain(&from_peer(&tunnel, tunnel.peers[0], &back)), None);
    assert_eq!(node.drops(), [DropReason::Nested]);
    assert!(node.batch.is_empty() && node.told().is_none());
}

#[test]
fn a_gre_checksum_left_open_behind_udp_is_taken_and_nothing_else_is_open() {
    for outer_v4 in [true, false] {
        let tunnel = Tunnel { checksum: true, ..GRE_IN_UDP.near(outer_v4) };
        let mut node = open(&tunnel);
        let gre = udp_at(&tunnel) + udp::LEN;
        let mut outer = from_peer(&tunnel, tunnel.peers[0], &answer());
        outer[gre + 4] ^= 0xff;
        let open =
            virtio::Header { flags: virtio::NEEDS_CSUM, csum_start: gre as u16, csum_offset: 4, ..DONE };
        assert_eq!(node.inward(behind(open, 0), &outer), [(0, DONE, answer())]);
        // Where the tunnel's UDP checksum is the one that is open, that of GRE has to be right.
        let start = udp_at(&tunnel) as u16;
        let of_udp = virtio::Header { csum_start: start, csum_offset: 6, ..open };
        assert_eq!(node.inward(behind(of_udp, 0), &outer), []);
        assert_eq!(node.drops(), [DropReason::BadGreChecksum]);
    }
}

#[test]
fn what_a_kernel_leaves_open_behind_udp_is_the_inner_packets() {
    for (outer_v4, size) in [(true, Some(1000)), (true, None), (false, Some(1000)), (false, None)] {
        for udp_checksum in [true, false] {
            let tunnel = Tunnel { udp_checksum, ..GRE_IN_UDP.near(outer_v4) };
            let mut node = open(&tunnel);
            node.outward(&tcp(at(OWN, 40_000), at(RS, 80), tcp::SYN, &[], &[]));
            let mut inner = tcp(at(RS, 80), at(OWN, 40_000), tcp::ACK, &[], &[7; 3000]);
            let open = leave_open(&mut inner, size);
            let outer = from_peer(&tunnel, tunnel.peers[0], &inner);
            let header = behind(open, usize::from(tunnel.overhead()));
            assert_eq!(node.inward(header, &outer), [(0, open, inner.clone())]);
            // What lies neither in the UDP header nor in the inner transport fits nothing.
            for csum_start in [0, header.csum_start - 1, header.csum_start + 2] {
                assert_eq!(node.inward(virtio::Header { csum_start, ..header }, &outer), []);
            }
            assert_eq!(node.drops(), [DropReason::BadOffload; 3]);
            assert_eq!(node.counters[0].snapshot().packets_in, if size.is_some() { 3 } else { 1 });
        }
    }
}
