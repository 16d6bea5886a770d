//! Inner datagrams that arrive in pieces: the first one is judged, the others follow it.

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::config::Service;
use DropReason::*;

const ECHOED: u16 = 7;

/// The L7 node, which also serves UDP on its VIPs.
fn serving() -> Tunnel {
    let services: [Service; 2] =
        [format!("{VIP}:53/udp"), format!("[{VIP6}]:53/udp")].map(|text| text.parse().unwrap());
    Tunnel { services: services.to_vec(), ..GRE.near(true) }
}

/// A question in three pieces, of one version.
fn question(v4: bool) -> Vec<Vec<u8>> {
    let (server, own) = if v4 { (at(RS, 9), at(VIP, 53)) } else { (at(RS6, 9), at(VIP6, 53)) };
    let pieces = pieces(&udp(server, own, &[5; 3000]), 1200);
    assert_eq!(pieces.len(), 3);
    pieces
}

fn take(node: &mut Node, tunnel: &Tunnel, inner: &[u8]) -> bool {
    let delivered = node.receive_plain(&from_peer(tunnel, tunnel.peers[0], inner));
    assert!(delivered.as_deref().is_none_or(|delivered| delivered == inner));
    delivered.is_some()
}

#[test]
fn later_pieces_follow_the_first() {
    for v4 in [true, false] {
        let tunnel = serving();
        let mut node = node(&tunnel);
        for piece in question(v4) {
            assert!(take(&mut node, &tunnel, &piece));
        }
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn later_pieces_before_the_first_are_refused() {
    for v4 in [true, false] {
        let tunnel = serving();
        let mut node = node(&tunnel);
        let question = question(v4);
        assert!(!take(&mut node, &tunnel, &question[1]) && !take(&mut node, &tunnel, &question[2]));
        assert_eq!(node.drops(), [InnerFragment; 2]);
        assert!(take(&mut node, &tunnel, &question[0]) && take(&mut node, &tunnel, &question[2]));
        // Its memory is short.
        node.now += Duration::from_secs(30);
        assert!(!take(&mut node, &tunnel, &question[1]));
    }
}

#[test]
fn pieces_of_another_tunnel_are_refused() {
    for v4 in [true, false] {
        let tunnels = [serving(), Tunnel { key: Some(9), ..serving() }];
        let mut node = Node::new(&tunnels);
        let question = question(v4);
        assert!(take(&mut node, &tunnels[0], &question[0]));
        assert!(!take(&mut node, &tunnels[1], &question[1]));
        assert_eq!(node.counters[1].drops(InnerFragment), 1);
        assert!(take(&mut node, &tunnels[0], &question[1]));
    }
}

#[test]
fn pieces_of_another_datagram_are_refused() {
    for v4 in [true, false] {
        let tunnel = serving();
        let mut node = node(&tunnel);
        let question = question(v4);
        assert!(take(&mut node, &tunnel, &question[0]));
        let (id, source) = if v4 { (5, 15) } else { (47, 23) };
        for at in [id, source] {
            let other = changed(&question[1], |piece| piece[at] ^= 1);
            assert!(!take(&mut node, &tunnel, &other), "byte {at}");
        }
        assert_eq!(node.drops(), [InnerFragment; 2]);
    }
}

#[test]
fn a_first_piece_for_nobody_opens_nothing() {
    let (server, own) = (at(RS, 9), at(VIP, 54));
    let tunnel = serving();
    let mut node = node(&tunnel);
    for piece in pieces(&udp(server, own, &[5; 3000]), 1200) {
        assert!(!take(&mut node, &tunnel, &piece));
    }
    assert_eq!(node.drops(), [InnerFragment, InnerFragment, NotOurs]);
}

#[test]
fn a_first_piece_is_judged_by_its_protocol_like_a_whole_packet() {
    let tunnel = serving();
    let mut node = node(&tunnel);
    // UDP-Lite, SCTP, ESP, IGMP, OSPF: to an address of this host, to one that is served, to anybody.
    let mut refused = 0;
    for protocol in [136, 132, 50, 2, 89] {
        for to in [OWN, VIP, Ipv4Addr::new(203, 0, 113, 1)] {
            for offset in [0, 100] {
                let header = ipv4::Header {
                    more_fragments: true,
                    dont_fragment: false,
                    fragment_offset: offset,
                    ..ip(protocol, RS, to)
                };
                assert!(!take(&mut node, &tunnel, &packet(header, &[0; 64])), "{protocol} to {to}");
                refused += 1;
            }
        }
        let fragment = [&[protocol, 0, 0, 1, 0, 0, 0, 9][..], &[0; 64]].concat();
        assert!(!take(&mut node, &tunnel, &packet6(ipv6::FRAGMENT, RS6, OWN6, &fragment)));
        refused += 1;
    }
    let drops = node.drops();
    assert_eq!(drops.len(), refused);
    assert_eq!(drops.iter().filter(|reason| **reason == UnsupportedProtocol).count(), 20);
    assert_eq!(drops.iter().filter(|reason| **reason == InnerFragment).count(), 15);
    // Nor do they leave.
    let header = ipv4::Header { more_fragments: true, dont_fragment: false, ..ip(136, OWN, RS) };
    assert_eq!(node.outward(&packet(header, &[0; 64])), []);
}

#[test]
fn a_first_piece_without_ports_is_malformed() {
    let tunnel = serving();
    let mut node = node(&tunnel);
    for len in 0..4 {
        let header = ipv4::Header { more_fragments: true, dont_fragment: false, ..ip(ipv4::UDP, RS, VIP) };
        assert!(!take(&mut node, &tunnel, &packet(header, &vec![0; len])));
    }
    assert_eq!(node.drops(), [Malformed; 4]);
}

#[test]
fn pieces_of_an_echo_follow_its_identifier() {
    for (own, server) in [(IpAddr::from(OWN), IpAddr::from(RS)), (OWN6.into(), RS6.into())] {
        let tunnel = serving();
        let mut node = node(&tunnel);
        let large = |from, to, is_reply| pieces(&echo(from, to, is_reply, ECHOED, &[5; 3000]), 1200);
        for piece in large(server, own, true) {
            assert!(!take(&mut node, &tunnel, &piece), "nobody has asked");
        }
        for piece in large(own, server, false) {
            assert_eq!(node.outward(&piece).len(), 1);
        }
        for piece in large(server, own, true) {
            assert!(take(&mut node, &tunnel, &piece));
        }
    }
}

#[test]
fn all_pieces_of_an_answer_leave_by_the_peer_that_asked() {
    for v4 in [true, false] {
        let tunnel = serving();
        let mut node = node(&tunnel);
        for piece in question(v4) {
            let outer = from_peer(&tunnel, L4_SECOND.into(), &piece);
            assert_eq!(node.receive_plain(&outer), Some(piece));
        }
        let (own, server) = if v4 { (at(VIP, 53), at(RS, 9)) } else { (at(VIP6, 53), at(RS6, 9)) };
        let answer = udp(own, server, &[6; 3000]);
        let by_host: Vec<_> = pieces(&answer, 1200).iter().flat_map(|piece| node.outward(piece)).collect();
        assert_eq!(by_host.len(), 3);
        assert!(by_host.iter().all(|sent| sent.to == L4_SECOND), "{by_host:?}");
        if v4 {
            let sent = node.outward(&without_df(&answer));
            assert!(sent.len() == 3 && sent.iter().all(|sent| sent.to == L4_SECOND));
        }
    }
}

/// What was verified of a piece is not the checksum of the datagram.
#[test]
fn that_a_checksum_was_verified_is_not_said_of_pieces() {
    let tunnel = serving();
    let mut node = node(&tunnel);
    let valid = virtio::Header { flags: virtio::DATA_VALID, ..virtio::Header::default() };
    for piece in question(true) {
        let outer = from_peer(&tunnel, L4.into(), &piece);
        assert_eq!(node.receive(valid, &outer), Some((virtio::Header::default(), piece)));
    }
    let whole = udp(at(RS, 9), at(VIP, 53), b"whole");
    assert_eq!(node.receive(valid, &from_peer(&tunnel, L4.into(), &whole)), Some((valid, whole)));
}

#[test]
fn an_l4_node_hands_pieces_on() {
    for v4 in [true, false] {
        let mut far = node(&GRE.far(true));
        let (own, server) = if v4 { (at(OWN, 1), at(RS, 2)) } else { (at(OWN6, 1), at(RS6, 2)) };
        for piece in pieces(&udp(own, server, &[5; 3000]), 1200) {
            assert_eq!(far.receive_plain(&from_peer(&GRE.far(true), L7.into(), &piece)), Some(piece));
        }
    }
}
