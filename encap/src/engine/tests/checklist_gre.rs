//! The rules of GRE (RFC 2784, RFC 2890) and of IP in IP (RFC 2003, RFC 4213, RFC 2473), one test for each.

use super::packets::*;
use super::pairs::*;
use super::*;

/// The L7 node with its flow to `RS` open.
fn open(tunnel: &Tunnel) -> Node {
    let mut node = node(tunnel);
    assert_eq!(node.outward(&tcp(at(OWN, 40_000), at(RS, 80), tcp::SYN, &[], &[])).len(), 1);
    node
}

fn answer() -> Vec<u8> {
    tcp(at(RS, 80), at(OWN, 40_000), tcp::ACK, &[], b"answer")
}

/// An outer packet to the L7 node with a GRE header of these flags; every word after the first is given.
fn with_flags(flags: u16, ether_type: u16, words: &[u32], inner: &[u8]) -> Vec<u8> {
    let head = [flags.to_be_bytes(), ether_type.to_be_bytes()].concat();
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    packet(ip(ipv4::GRE, L4, L7), &[&head[..], &words, inner].concat())
}

const K: u16 = 0x2000;

#[test]
fn rfc2784_1_a_checksum_is_verified_and_reserved1_is_zero() {
    let summed = Tunnel { checksum: true, ..GRE.near(true) };
    // `unwrapped` asserts both of what is sent.
    let inner = udp(at(OWN, 1), at(RS, 2), b"odd");
    assert_eq!(unwrapped(&summed, &node(&summed).outward(&inner)[0].bytes), inner);
    // Whoever sends one is verified, whatever this end sends.
    for tunnel in [GRE.near(true), summed.clone()] {
        let mut node = open(&tunnel);
        let good = from_peer(&summed, L4.into(), &answer());
        assert_eq!(node.receive_plain(&good), Some(answer()));
        assert_eq!(node.receive_plain(&from_peer(&GRE.near(true), L4.into(), &answer())), Some(answer()));
        // In the checksum, in Reserved1, in an ignored flag, at the end of the payload.
        let at = [24, 26, 20, good.len() - 1];
        for at in at {
            let mut wrong = good.clone();
            wrong[at] ^= 1;
            assert_eq!(node.receive_plain(&wrong), None, "byte {at}");
        }
        assert_eq!(node.drops(), [DropReason::BadGreChecksum; 4]);
    }
}

#[test]
fn rfc2784_2_reserved_bits_are_refused_or_ignored() {
    let mut node = open(&GRE.near(true));
    let key = KEY.unwrap();
    for bit in [0x4000, 0x0800, 0x0400] {
        assert_eq!(node.receive_plain(&with_flags(K | bit, 0x0800, &[key], &answer())), None, "{bit:#x}");
    }
    assert_eq!(node.drops(), [DropReason::BadGre; 3], "bits 1, 4 and 5");
    for bit in (3..10).map(|bit| 1 << bit) {
        let ignored = with_flags(K | bit, 0x0800, &[key], &answer());
        assert_eq!(node.receive_plain(&ignored), Some(answer()), "{bit:#x}");
    }
    let sent = node.outward(&udp(at(OWN, 1), at(RS, 2), b"x"));
    assert_eq!(sent[0].bytes[20..22], [0x20, 0], "nothing but K is sent");
}

#[test]
fn rfc2784_3_the_version_is_zero() {
    let mut node = open(&GRE.near(true));
    for version in 1..8 {
        let other = with_flags(K | version, 0x0800, &[KEY.unwrap()], &answer());
        assert_eq!(node.receive_plain(&other), None, "{version}");
    }
    // PPTP as it is sent (RFC 2637 section 4.1).
    let pptp = with_flags(0x3001, 0x880b, &[0x0010_0001, 1], &[0; 16]);
    assert_eq!(node.receive_plain(&pptp), None);
    assert_eq!(node.drops(), [DropReason::BadGre; 8]);
}

#[test]
fn rfc2784_4_unknown_protocol_types_are_counted() {
    let mut node = open(&GRE.near(true));
    let typed = |ether_type| with_flags(K, ether_type, &[KEY.unwrap()], &answer());
    assert_eq!(node.receive_plain(&typed(0x0800)), Some(answer()));
    // Ethernet, ERSPAN, MPLS, WCCP, keepalive, none, ARP.
    let unknown = [0x6558, 0x88be, 0x8847, 0x883e, 0x0000, 0x0806, 0xffff];
    for ether_type in unknown {
        assert_eq!(node.receive_plain(&typed(ether_type)), None, "{ether_type:#x}");
    }
    assert_eq!(node.drops(), [DropReason::UnknownProtocol; 7]);
}

#[test]
fn rfc2784_4_the_type_must_be_that_of_the_packet() {
    let mut node = open(&GRE.near(true));
    assert_eq!(node.receive_plain(&with_flags(K, 0x86dd, &[KEY.unwrap()], &answer())), None);
    let v6 = udp(at(RS6, 1), at(OWN6, 2), b"x");
    assert_eq!(node.receive_plain(&with_flags(K, 0x0800, &[KEY.unwrap()], &v6)), None);
    assert_eq!(node.receive_plain(&with_flags(K, 0x0800, &[KEY.unwrap()], &[])), None);
    assert_eq!(node.drops(), [DropReason::Malformed; 3]);
}

#[test]
fn rfc2784_5_a_packet_for_an_end_of_a_tunnel_is_a_loop() {
    for outer_v4 in [true, false] {
        let reach = nets(&["192.0.2.0/24", "2001:db8::/32"]);
        let (mut near, mut far) = (GRE.near(outer_v4), GRE.far(outer_v4));
        near.networks.extend(reach.clone());
        far.forward[0].networks.extend(reach);
        let (mut near_node, mut far_node) = (node(&near), node(&far));
        let ends = [near.local, near.peers[0]];
        for end in ends {
            let own: IpAddr = if outer_v4 { OWN.into() } else { OWN6.into() };
            let inner = udp(at(own, 1), at(end, 2), b"x");
            assert_eq!(near_node.outward(&inner), []);
            assert_eq!(far_node.receive_plain(&from_peer(&far, near.local, &inner)), None);
        }
        assert_eq!(
            (near_node.drops(), far_node.drops()),
            (vec![DropReason::Loop; 2], vec![DropReason::Loop; 2])
        );
    }
}

#[test]
fn rfc2784_5_an_end_of_any_tunnel_counts() {
    let mut first = GRE.near(true);
    first.networks = nets(&["0.0.0.0/0"]);
    let second = Tunnel { key: Some(9), peers: vec![[203, 0, 113, 9].into()], ..GRE.near(true) };
    let mut node = Node::new(&[first, second]);
    assert_eq!(node.outward(&udp(at(OWN, 1), at([203, 0, 113, 9], 2), b"x")), []);
    assert_eq!(node.drops(), [DropReason::Loop]);
    node.engine.remove_tunnel(1);
    assert_eq!(node.outward(&udp(at(OWN, 1), at([203, 0, 113, 9], 2), b"x")).len(), 1);
}

/// The kernel forwards between the device and the link, and takes the hop; twice would be wrong.
#[test]
fn ttl_of_the_inner_packet_is_left_to_the_kernel_that_forwards() {
    for (outer_v4, source, server) in
        [(true, at(OWN, 1), at(RS, 2)), (false, at(OWN6, 1), at(RS6, 2)), (true, at(OWN6, 1), at(RS6, 2))]
    {
        let (mut near, mut far) = (node(&GRE.near(outer_v4)), node(&GRE.far(outer_v4)));
        let whole = udp(source, server, b"x");
        let hops = if source.is_ipv4() { 8 } else { 7 };
        for ttl in [1, 2, 64, 255] {
            let inner = changed(&whole, |packet| packet[hops] = ttl);
            let sent = near.outward(&inner);
            assert_eq!(unwrapped(&GRE.near(outer_v4), &sent[0].bytes), inner);
            assert_eq!(far.receive_plain(&sent[0].bytes), Some(inner));
        }
    }
}

#[test]
fn ttl_of_the_outer_packet_is_the_tunnels_own() {
    for (outer_v4, hops) in [(true, 8), (false, 7)] {
        for ttl in [1, 64, 255] {
            let mut node = node(&Tunnel { ttl, ..GRE.near(outer_v4) });
            let inner = changed(&udp(at(OWN, 1), at(RS, 2), b"x"), |packet| packet[8] = 9);
            assert_eq!(node.outward(&inner)[0].bytes[hops], ttl);
        }
    }
    assert_eq!(Tunnel::new("t", L7.into(), vec![L4.into()], vec![]).ttl, 64, "unless it is configured");
}

#[test]
fn rfc2784_6_the_delivery_header_is_protocol_47_and_as_rfc_1122_wants_it() {
    let mut node = open(&GRE.near(true));
    let sent = node.outward(&udp(at(OWN, 1), at(RS, 2), b"x"));
    assert_eq!(sent[0].bytes[9], 47);
    let good = from_peer(&GRE.near(true), L4.into(), &answer());
    assert_eq!(node.receive_plain(&good), Some(answer()));
    // No kernel has looked at what a packet socket gives: a header that was damaged on the way is discarded here.
    for byte in 12..20 {
        let mut wrong = good.clone();
        wrong[byte] ^= 0x10;
        assert_eq!(node.receive_plain(&wrong), None, "byte {byte}");
    }
    let mut wrong = good.clone();
    wrong[1] ^= 3;
    assert_eq!(node.receive_plain(&wrong), None, "a mark that nobody made");
    assert_eq!(node.drops(), [DropReason::Malformed; 9]);
    // Options are allowed, and what the link adds behind the packet.
    let optional = packet(ipv4::Header { options: &[1; 8], ..ip(ipv4::GRE, L4, L7) }, &good[20..]);
    assert_eq!(node.receive_plain(&[&optional[..], &[0; 6]].concat()), Some(answer()));
}

#[test]
fn rfc2890_1_the_key_follows_the_checksum_word_and_names_the_tunnel() {
    let all = Tunnel { checksum: true, sequence: true, ..GRE.near(true) };
    let sent = node(&all).outward(&udp(at(OWN, 1), at(RS, 2), b"x"));
    assert_eq!(sent[0].bytes[20..24], [0xb0, 0, 8, 0]);
    assert_eq!(sent[0].bytes[28..36], [1, 2, 3, 4, 0, 0, 0, 0], "then the sequence number");

    let keys = [Some(0), Some(1), Some(u32::MAX), None];
    let tunnels = keys.map(|key| Tunnel { key, ..GRE.near(true) });
    let mut node = Node::new(&tunnels);
    for (index, tunnel) in tunnels.iter().enumerate() {
        let syn = tcp(at(RS, 9), at(VIP, 443), tcp::SYN, &[], &[]);
        let mut frame = tun_frame(
            virtio::Header::default(),
            &[&[0; LINK], &from_peer(tunnel, L4.into(), &syn)[..]].concat(),
        );
        let delivered = node.deliver(&mut frame);
        assert_eq!(delivered.iter().map(|delivery| delivery.tunnel).collect::<Vec<_>>(), [index]);
    }
    let stranger = Tunnel { key: Some(2), ..GRE.near(true) };
    assert_eq!(node.receive_plain(&from_peer(&stranger, L4.into(), &answer())), None);
    assert_eq!(node.drops(), [DropReason::UnknownPeer]);
}

#[test]
fn rfc2890_1_a_key_is_valid_for_its_peers_alone() {
    let third = Ipv4Addr::new(192, 0, 2, 6);
    let first = GRE.near(true);
    let second = Tunnel { key: Some(9), peers: vec![third.into()], ..GRE.near(true) };
    let mut node = Node::new(&[first.clone(), second.clone()]);
    let syn = tcp(at(RS, 9), at(VIP, 443), tcp::SYN, &[], &[]);
    assert!(node.receive_plain(&from_peer(&first, L4.into(), &syn)).is_some());
    assert!(node.receive_plain(&from_peer(&second, third.into(), &syn)).is_some());
    // Each peer with the key of the other, and the right peer to another address of this host.
    assert_eq!(node.receive_plain(&from_peer(&first, third.into(), &syn)), None);
    assert_eq!(node.receive_plain(&from_peer(&second, L4.into(), &syn)), None);
    let elsewhere = Tunnel { local: [192, 0, 2, 77].into(), ..first };
    assert_eq!(node.receive_plain(&from_peer(&elsewhere, L4.into(), &syn)), None);
    assert_eq!(node.unmatched.drops(DropReason::UnknownPeer), 3);
    assert_eq!(node.drops().len(), 3);
}

#[test]
fn rfc2890_2_sequence_numbers_are_sent_only_if_asked_and_accepted_always() {
    let mut plain = open(&GRE.near(true));
    assert_eq!(plain.outward(&udp(at(OWN, 1), at(RS, 2), b"x"))[0].bytes[20] & 0x10, 0, "off by default");
    // In any order, twice, and not at all: nothing is reordered and nothing is late.
    for number in [5, 3, 3, u32::MAX, 0, 0x8000_0000] {
        let numbered = with_flags(K | 0x1000, 0x0800, &[KEY.unwrap(), number], &answer());
        assert_eq!(plain.receive_plain(&numbered), Some(answer()), "{number}");
    }
    assert_eq!(plain.receive_plain(&from_peer(&GRE.near(true), L4.into(), &answer())), Some(answer()));
}

#[test]
fn rfc2890_2_each_peer_is_counted_from_zero() {
    let tunnel = Tunnel { sequence: true, ..GRE.near(true) };
    let mut node = node(&tunnel);
    let number = |sent: &Sent| u32::from_be_bytes(sent.bytes[28..32].try_into().unwrap());
    let request = udp(at(OWN, 1), at(RS, 2), b"x");
    for expected in 0..3 {
        assert_eq!(number(&node.outward(&request)[0]), expected);
    }
    let syn = tcp(at(RS, 9), at(VIP, 443), tcp::SYN, &[], &[]);
    assert!(node.receive_plain(&from_peer(&GRE.near(true), L4_SECOND.into(), &syn)).is_some());
    let reply = tcp(at(VIP, 443), at(RS, 9), tcp::SYN | tcp::ACK, &[], &[]);
    let sent = node.outward(&reply);
    assert_eq!((sent[0].to, number(&sent[0])), (L4_SECOND.into(), 0));
    assert_eq!(number(&node.outward(&request)[0]), 3, "the first peer's go on");
    // Segments of one frame count one by one.
    let mut large = tcp(at(OWN, 40_000), at(RS, 80), tcp::ACK, &[], &[7; 5000]);
    let header = leave_open(&mut large, Some(1000));
    let numbers: Vec<_> = node.outward_by(0, header, &large).iter().map(number).collect();
    assert_eq!(numbers, [4, 5, 6, 7, 8]);
}

#[test]
fn rfc2890_2_a_tunnel_that_is_changed_goes_on_counting() {
    let tunnel = Tunnel { sequence: true, ..GRE.near(true) };
    let mut node = node(&tunnel);
    let number = |sent: &Sent| u32::from_be_bytes(sent.bytes[28..32].try_into().unwrap());
    let request = udp(at(OWN, 1), at(RS, 2), b"x");
    assert_eq!([0; 2].map(|_| number(&node.outward(&request)[0])), [0, 1]);
    // A receiver that wants them in order would discard everything until they have caught up.
    let peers = vec![L4_SECOND.into(), L4.into()];
    let counters = Arc::clone(&node.counters[0]);
    node.engine.set_tunnel(node.now, 0, &Tunnel { peers, ..tunnel }, MTU, counters, true);
    let sent = node.outward(&request);
    assert_eq!((sent[0].to, number(&sent[0])), (L4_SECOND.into(), 0));
    let answer = udp(at(RS, 2), at(OWN, 1), b"y");
    assert!(node.receive_plain(&from_peer(&GRE.near(true), L4.into(), &answer)).is_some());
    let sent = node.outward(&request);
    assert_eq!((sent[0].to, number(&sent[0])), (L4.into(), 2));
}

#[test]
fn rfc2890_3_what_is_discarded_is_counted_and_nobody_is_told() {
    let mut node = open(&GRE.near(true));
    let wrong = [
        with_flags(K | 0x4000, 0x0800, &[KEY.unwrap()], &answer()),
        with_flags(K, 0x0800, &[77], &answer()),
        with_flags(K, 0x6558, &[KEY.unwrap()], &answer()),
        with_flags(K | 0x8000, 0x0800, &[0, KEY.unwrap()], &answer()),
        with_flags(K, 0x0800, &[KEY.unwrap()], &udp(at(RS, 53), at(OWN, 53), b"unasked")),
    ];
    node.batch.clear();
    for outer in &wrong {
        assert_eq!(node.receive_plain(outer), None);
        assert!(node.engine.poll_tun().is_none() && node.batch.is_empty());
    }
    use DropReason::*;
    // Those of the tunnel first, in the order of the reasons.
    assert_eq!(node.drops(), [BadGreChecksum, UnknownProtocol, NotOurs, BadGre, UnknownPeer]);
}

#[test]
fn rfc2003_rfc4213_rfc2473_the_protocol_says_which_version_is_inside() {
    for outer_v4 in [true, false] {
        let (near, far) = (IPIP.near(outer_v4), IPIP.far(outer_v4));
        let (mut near_node, mut far_node) = (node(&near), node(&far));
        for (protocol, inner) in
            [(4, udp(at(OWN, 1), at(RS, 2), b"x")), (41, udp(at(OWN6, 1), at(RS6, 2), b"x"))]
        {
            let sent = near_node.outward(&inner);
            let (outer, body) = look(&sent[0].bytes);
            assert_eq!((outer.protocol, outer.dont_fragment), (protocol, true));
            assert_eq!(body, inner, "nothing stands between");
            assert_eq!(far_node.receive_plain(&sent[0].bytes), Some(inner.clone()));
            // The number of the other version.
            let wrong = ip_packet(45 - protocol, near.local, far.local, &inner);
            assert_eq!(far_node.receive_plain(&wrong), None);
        }
        assert_eq!(far_node.drops(), [DropReason::Malformed; 2]);
        // The kinds are told apart: GRE from the same peer is of no tunnel here.
        let gre = Tunnel { key: None, ..GRE.far(outer_v4) };
        let inner = udp(at(OWN, 1), at(RS, 2), b"x");
        assert_eq!(far_node.receive_plain(&from_peer(&gre, near.local, &inner)), None);
        assert_eq!(far_node.unmatched.drops(DropReason::UnknownPeer), 1);
    }
}
