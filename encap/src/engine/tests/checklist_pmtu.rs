//! Path MTU (RFC 1191, RFC 8201, RFC 5927): what reports of the underlay do, and what they cannot do.

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::wire::icmpv6;
use crate::wire::ip::Version;

/// The node of one tunnel, with what it has sent to its first peer: the longest packet there is.
struct Case {
    tunnel: Tunnel,
    node: Node,
    sent: Vec<u8>,
}

fn case(tunnel: &Tunnel) -> Case {
    let mut node = node(tunnel);
    let sent = node.outward(&longest(tunnel)).remove(0).bytes;
    assert_eq!(sent.len(), usize::from(UNDERLAY));
    Case { tunnel: tunnel.clone(), node, sent }
}

fn longest(tunnel: &Tunnel) -> Vec<u8> {
    sized(UNDERLAY - tunnel.overhead())
}

/// A packet of the host that asks for an answer.
fn sized(len: u16) -> Vec<u8> {
    udp(at(OWN, 40_000), at(RS, 80), &vec![7; usize::from(len) - 28])
}

/// "Too big" about an outer packet, of which `quoted` bytes are quoted.
fn report(mtu: u32, outer: &[u8], quoted: usize) -> (Version, Vec<u8>) {
    if outer[0] >> 4 == 4 {
        (Version::V4, icmp_message(icmp::fragmentation_needed(mtu as u16), &outer[..quoted]))
    } else {
        let mut message = vec![0; icmpv6::LEN + quoted];
        icmpv6::packet_too_big(mtu).emit(&mut message).unwrap().copy_from_slice(&outer[..quoted]);
        (Version::V6, message)
    }
}

impl Case {
    /// Whether a report about a packet that was really sent is believed.
    fn hear(&mut self, mtu: u32) -> bool {
        let sent = self.sent.clone();
        self.hear_about(mtu, &sent, sent.len().min(128))
    }

    fn hear_about(&mut self, mtu: u32, outer: &[u8], quoted: usize) -> bool {
        let before = self.mtu();
        let (version, message) = report(mtu, outer, quoted);
        let heard = self.node.engine.handle_underlay_error(self.node.now, version, &message);
        assert!(matches!(heard, Ok(_) | Err(DropReason::UnderlayIgnored)));
        let after = self.mtu();
        assert!(after <= before, "nothing that is heard raises it");
        assert_eq!(heard == Ok(true), after < before, "other engines are told what has changed");
        after < before
    }

    /// The outer path MTU toward the first peer, as shown and as kept to.
    fn mtu(&mut self) -> u16 {
        let shown = self.node.counters[0].snapshot().peers[0].path_mtu;
        let inner = shown - self.tunnel.overhead();
        assert_eq!(self.node.outward(&sized(inner)).len(), 1);
        assert_eq!(self.node.outward(&sized(inner + 1)), []);
        while self.node.told().is_some() {}
        shown
    }

    fn wait(&mut self, seconds: u64) {
        self.node.now += Duration::from_secs(seconds);
        self.node.engine.handle_timeout(self.node.now);
    }
}

/// Every kind over both versions.
fn cases() -> impl Iterator<Item = Case> {
    let tunnels = VARIANTS.into_iter().flat_map(|variant| [variant.near(true), variant.near(false)]);
    tunnels.map(|tunnel| case(&tunnel))
}

#[test]
fn pmtu_1_a_path_is_that_of_the_outer_address_and_not_of_the_key() {
    for outer_v4 in [true, false] {
        let first = GRE.near(outer_v4);
        let tunnels =
            [first.clone(), Tunnel { key: Some(9), ..first.clone() }, Tunnel { key: None, ..first }];
        let mut node = Node::with_mtu(&tunnels, 1400);
        let sent = node.outward(&sized(1400)).remove(0).bytes;
        let (version, message) = report(1380, &sent, 60);
        assert_eq!(node.engine.handle_underlay_error(node.now, version, &message), Ok(true));
        for (index, tunnel) in tunnels.iter().enumerate() {
            let peers = node.counters[index].snapshot().peers;
            let usual = 1400 + tunnel.overhead();
            assert_eq!([peers[0].path_mtu, peers[1].path_mtu], [1380, usual], "the other peer is elsewhere");
            let fits = 1380 - tunnel.overhead();
            assert_eq!(node.outward_by(index, virtio::Header::default(), &sized(fits)).len(), 1);
            assert_eq!(node.outward_by(index, virtio::Header::default(), &sized(fits + 1)), []);
        }
    }
}

#[test]
fn pmtu_2_a_report_about_a_live_peer_lowers_and_never_raises() {
    for mut case in cases() {
        for (mtu, expected) in [(1450, 1450), (1500, 1450), (9000, 1450), (1449, 1449), (1400, 1400)] {
            case.hear(mtu);
            case.wait(2);
            assert_eq!(case.mtu(), expected);
        }
    }
}

#[test]
fn pmtu_2_impossible_sizes_are_ignored_and_small_ones_end_at_the_floor() {
    for mut case in cases() {
        let is_v4 = case.tunnel.local.is_ipv4();
        for impossible in if is_v4 { [0, 1, 67] } else { [0, 68, 1279] } {
            assert!(!case.hear(impossible), "{impossible}");
        }
        assert!(case.hear(if is_v4 { 68 } else { 1280 }));
        assert_eq!(case.mtu(), if is_v4 { 576 } else { 1280 });
    }
    let mut case = case(&Tunnel { mtu_floor: 1300, ..GRE.near(true) });
    assert!(case.hear(700));
    assert_eq!(case.mtu(), 1300, "the floor can be configured");
}

#[test]
fn pmtu_2_what_was_lowered_is_kept_ten_minutes() {
    for mut case in cases() {
        case.hear(1400);
        for _ in 0..599 {
            case.wait(1);
        }
        assert_eq!(case.mtu(), 1400);
        case.wait(1);
        assert_eq!(case.mtu(), 1500);
    }
}

#[test]
fn pmtu_2_only_what_this_node_sent_to_a_live_peer_is_believed() {
    for mut case in cases() {
        let good = case.sent.clone();
        let is_v4 = good[0] >> 4 == 4;
        let (source, destination, protocol) = if is_v4 { (15, 19, 9) } else { (23, 39, 6) };
        let mut others = Vec::new();
        for (at, value) in [(source, good[source] ^ 1), (destination, good[destination] ^ 0x40)] {
            let mut other = good.clone();
            other[at] = value;
            others.push(other);
        }
        // From the peer to this node: what somebody could have seen arrive.
        others.push(from_peer(&case.tunnel, case.tunnel.peers[0], &longest(&case.tunnel)));
        // Another kind of tunnel, of which there is none.
        let mut other = good.clone();
        other[protocol] = if good[protocol] == 47 { 4 } else { 47 };
        others.push(other);
        for other in &others {
            let len = other.len().min(128);
            assert!(!case.hear_about(1300, other, len));
        }
        assert!(case.hear(1300));
    }
}

#[test]
fn pmtu_2_the_quoted_key_must_match_where_it_is_present() {
    for mut case in cases().filter(|case| case.tunnel.key.is_some()) {
        let good = case.sent.clone();
        let ip_len = if good[0] >> 4 == 4 { 20 } else { 40 };
        let gre = match case.tunnel.kind {
            crate::config::Kind::GreInUdp => ip_len + 8,
            _ => ip_len,
        };
        let key = if case.tunnel.checksum { gre + 8 } else { gre + 4 };
        let mut wrong = good.clone();
        wrong[key + 3] ^= 1;
        assert!(!case.hear_about(1300, &wrong, 128), "another key");
        let mut without = good.clone();
        without[gre] &= !0x20;
        assert!(!case.hear_about(1300, &without, 128), "no key");
        // Cut off before the key. Routers quote 8 bytes behind the IP header at least, so a key among those that is not
        // there is a lie.
        let is_among = key + 4 <= ip_len + 8;
        for quoted in ip_len..ip_len + 8 {
            let believed = case.hear_about(1300, &good, quoted);
            assert!(!(is_among && believed), "{quoted} bytes");
            case.wait(700);
        }
        assert!(case.hear_about(1300, &good, ip_len + 8), "{:?}", case.tunnel);
    }
}

#[test]
fn pmtu_2_a_report_must_make_sense() {
    for mut case in cases() {
        // About a packet that is not longer than what it asks for, or longer than any that was sent.
        let small = case.node.outward(&sized(600)).remove(0).bytes;
        let len = small.len().min(128);
        assert!(!case.hear_about(1300, &small, len));
        let mut long = case.sent.clone();
        let at = if long[0] >> 4 == 4 { 2 } else { 4 };
        long[at] += 1;
        assert!(!case.hear_about(1300, &long, 128));
        assert!(case.hear(1300));
    }
}

#[test]
fn pmtu_2_gre_in_udp_is_quoted_with_a_port_that_is_in_use() {
    for outer_v4 in [true, false] {
        let fixed = Tunnel { source_port: Some(50_000), ..GRE_IN_UDP.near(outer_v4) };
        for (tunnel, wrong) in [(GRE_IN_UDP.near(outer_v4), 49_151_u16), (fixed, 50_001)] {
            let mut case = case(&tunnel);
            let mut other = case.sent.clone();
            let at = if outer_v4 { 20 } else { 40 };
            other[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
            assert!(!case.hear_about(1300, &other, at + 8), "{wrong}");
            assert!(case.hear(1300));
        }
    }
}

#[test]
fn pmtu_2_the_rate_of_change_is_bounded() {
    for mut case in cases() {
        let mut believed = 0;
        // A byte less every tenth of a second, for nine minutes.
        for step in 0..5400 {
            let sent = case.sent.clone();
            let (version, message) = report(1499_u32.saturating_sub(step / 10).max(1400), &sent, 60);
            let before = case.node.counters[0].snapshot().peers[0].path_mtu;
            let _ = case.node.engine.handle_underlay_error(case.node.now, version, &message);
            believed += u32::from(case.node.counters[0].snapshot().peers[0].path_mtu < before);
            case.node.now += Duration::from_millis(100);
        }
        assert_eq!(believed, 8);
    }
}

#[test]
fn pmtu_2_other_traffic_of_the_host_is_not_counted_and_forgeries_are() {
    let tunnel = GRE.near(true);
    let mut case = case(&tunnel);
    let mut hear = |outer: &[u8], version| {
        let message = report(1300, outer, outer.len().min(60)).1;
        case.node.engine.handle_underlay_error(case.node.now, version, &message)
    };
    let data = [0; 1400];
    for own in [
        tcp(at(L7, 1), at(L4, 22), tcp::ACK, &[], &data),
        udp(at(L7, 1), at(L4, 53), &data),
        echo(L7.into(), L4.into(), false, 1, &data),
        ip_packet(50, L7.into(), L4.into(), &data),
    ] {
        assert_eq!(hear(&own, Version::V4), Ok(false));
    }
    let forged = gre_packet(L7, L4, gre::Header { key: Some(1), ..keyed() }, &data);
    assert_eq!(hear(&forged, Version::V4), Err(DropReason::UnderlayIgnored));
    // Other messages are about something else.
    for kind in [icmp::ECHO_REPLY, icmp::TIME_EXCEEDED, icmp::REDIRECT] {
        let message = icmp_message(icmp::Header { kind, code: 0, checksum: 0, rest: [0; 4] }, &case.sent);
        assert_eq!(case.node.engine.handle_underlay_error(case.node.now, Version::V4, &message), Ok(false));
    }
    assert_eq!(case.mtu(), 1500);
}

#[test]
fn pmtu_2_nothing_is_learned_about_an_address_inside_a_network_of_peers() {
    let tunnel = Tunnel {
        peers: vec![],
        peer_networks: nets(&["198.51.100.0/24"]),
        reply_to: Some([198, 51, 100, 1].into()),
        ..GRE.near(true)
    };
    let mut case = case(&tunnel);
    let other = changed(&case.sent, |outer| outer[19] = 77);
    assert!(!case.hear_about(1300, &other, 60));
    assert!(case.hear(1300), "{:?} is sent to", tunnel.reply_to);
}

#[test]
fn pmtu_2_each_tunnel_keeps_its_floor_on_a_shared_path() {
    let low = GRE.near(true);
    let high = Tunnel { key: Some(9), mtu_floor: 1400, ..low.clone() };
    for order in [[low.clone(), high.clone()], [high, low]] {
        let mut node = Node::with_mtu(&order, 1472);
        let index = order.iter().position(|tunnel| tunnel.mtu_floor == 576).unwrap();
        // The one with the high floor hears it first, then the other.
        for quoted in [1 - index, index] {
            let sent = node.outward_by(quoted, virtio::Header::default(), &sized(1372)).remove(0).bytes;
            let sent = changed(&sent, |outer| outer[2..4].copy_from_slice(&1500_u16.to_be_bytes()));
            let (version, message) = report(1000, &sent, 60);
            assert_eq!(node.engine.handle_underlay_error(node.now, version, &message), Ok(true));
            node.now += Duration::from_secs(2);
        }
        let path = |index: usize| node.counters[index].snapshot().peers[0].path_mtu;
        assert_eq!([path(index), path(1 - index)], [1000, 1400]);
        let mut passes = |index, len| node.outward_by(index, virtio::Header::default(), &sized(len)).len();
        assert_eq!([passes(index, 972), passes(index, 973)], [1, 0]);
        assert_eq!([passes(1 - index, 1372), passes(1 - index, 1373)], [1, 0]);
    }
}

#[test]
fn pmtu_3_after_a_decrease_senders_are_told_and_segments_and_mss_are_smaller() {
    for mut case in cases() {
        assert!(case.hear(1300));
        let (overhead, inner) = (case.tunnel.overhead(), 1300 - case.tunnel.overhead());
        case.wait(1);
        assert_eq!(case.node.outward(&sized(inner + 1)), []);
        let (index, notice) = case.node.told().unwrap();
        assert_eq!((index, &notice[26..28]), (0, &inner.to_be_bytes()[..]));
        let syn = tcp(at(OWN, 40_000), at(RS, 80), tcp::SYN, &[2, 4, 0x05, 0xb4], &[]);
        let sent = case.node.outward(&syn);
        assert_eq!(unwrapped(&case.tunnel, &sent[0].bytes)[42..44], (inner - 40).to_be_bytes());
        let mut large = tcp(at(OWN, 40_000), at(RS, 80), tcp::ACK, &[], &[7; 8000]);
        let header = leave_open(&mut large, Some(1400));
        for sent in case.node.outward_by(0, header, &large) {
            let longest = sent.gso.map_or(sent.bytes.len(), |gso| usize::from(gso.size + gso.headers));
            assert!(longest <= 1300, "{longest} bytes, {overhead} of them outside");
        }
    }
}

#[test]
fn pmtu_3_senders_are_told_by_the_tunnel_they_used_and_not_often() {
    let tunnels = [GRE.near(true), Tunnel { key: Some(9), ..GRE.near(true) }];
    let mut node = Node::new(&tunnels);
    let large = sized(1473);
    for tunnel in [1, 0, 1] {
        assert_eq!(node.outward_by(tunnel, virtio::Header::default(), &large), []);
        assert_eq!(node.told().unwrap().0, tunnel);
    }
    node.now += Duration::from_secs(9);
    for _ in 0..100 {
        node.outward_by(0, virtio::Header::default(), &large);
    }
    assert_eq!(std::iter::from_fn(|| node.told()).count(), 10);
    // One that is loud does not silence the other.
    node.outward_by(1, virtio::Header::default(), &large);
    assert_eq!(node.told().unwrap().0, 1);
}

#[test]
fn pmtu_3_nobody_is_told_about_errors_later_pieces_or_groups() {
    let mut node = node(&GRE.near(true));
    let piece = ipv4::Header { fragment_offset: 9, ..ip(ipv4::UDP, OWN, RS) };
    let error6 = unreachable(OWN6.into(), RS6.into(), &[0; 1500]);
    let large = [unreachable(OWN.into(), RS.into(), &[0; 1500]), error6, packet(piece, &[0; 1500])];
    for large in &large {
        assert_eq!(node.outward(large), []);
    }
    assert_eq!(node.drops(), [DropReason::TooBig; 3]);
    let group = Ipv4Addr::new(224, 0, 0, 5);
    assert_eq!(node.outward(&udp(at(OWN, 1), at(group, 2), &[0; 1500])), []);
    assert_eq!(node.drops().len(), 4);
    assert_eq!(node.told(), None);
}

/// There is no DPLPMTUD: a lost probe is no sign of congestion and lowers no MTU.
#[test]
fn pmtu_4_probes_that_are_lost_lower_nothing() {
    let tunnel = Tunnel { probe: Some(RS.into()), ..GRE.near(true) };
    let mut case = case(&tunnel);
    for _ in 0..10 {
        case.node.batch.clear();
        case.node.engine.write_probes(case.node.now, 0, &mut case.node.batch);
        case.wait(5);
    }
    assert_eq!(case.mtu(), 1500);
}
