//! Probes: what makes a peer `up` and `down`, what new flows do then, and what a forger cannot do (RFC 7676 section
//! 3.2).

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::metrics::PeerState::{self, *};

const EVERY: Duration = Duration::from_secs(5);

/// The L7 node that probes `RS` or `RS6` by two peers.
fn probing(outer_v4: bool, target_v4: bool) -> (Tunnel, Node) {
    let probe: IpAddr = if target_v4 { RS.into() } else { RS6.into() };
    let tunnel = Tunnel { probe: Some(probe), ..GRE.near(outer_v4) };
    let node = node(&tunnel);
    (tunnel, node)
}

/// A round of probes, as the outer packets and their inner ones.
fn round(node: &mut Node, tunnel: &Tunnel) -> Vec<(Sent, Vec<u8>)> {
    node.batch.clear();
    assert_eq!(node.engine.poll_probe(node.now), Some(0));
    node.engine.write_probes(node.now, 0, &mut node.batch);
    assert_eq!(node.engine.poll_probe(node.now), None);
    node.now += EVERY;
    node.sent().into_iter().map(|sent| (sent.clone(), unwrapped(tunnel, &sent.bytes))).collect()
}

/// What the host that is probed answers.
fn reply(request: &[u8]) -> Vec<u8> {
    let (ip, message) = look(request);
    let kind = if ip.source.is_ipv4() { icmp::ECHO_REPLY } else { 129 };
    let message = [&[kind], &message[1..]].concat();
    control(ip.destination, ip.source, &message)
}

fn states(node: &Node) -> Vec<PeerState> {
    node.counters[0].snapshot().peers.iter().map(|peer| peer.state).collect()
}

/// Lets the probes with these numbers of a round be answered by a peer; nothing of it reaches the TUN.
fn answer(node: &mut Node, tunnel: &Tunnel, probes: &[(Sent, Vec<u8>)], which: &[usize], by: usize) {
    for index in which {
        let outer = from_peer(tunnel, tunnel.peers[by], &reply(&probes[*index].1));
        assert_eq!(node.receive_plain(&outer), None);
    }
}

#[test]
fn every_peer_is_tried_with_64_and_1280_bytes() {
    for (outer_v4, target_v4) in [(true, true), (true, false), (false, true), (false, false)] {
        let (tunnel, mut node) = probing(outer_v4, target_v4);
        let probes = round(&mut node, &tunnel);
        let to: Vec<_> = probes.iter().map(|(sent, _)| sent.to).collect();
        let [first, second] = [tunnel.peers[0], tunnel.peers[1]];
        assert_eq!(to, [first, first, second, second]);
        let lengths: Vec<_> = probes.iter().map(|(_, inner)| inner.len()).collect();
        assert_eq!(lengths, [64, 1280, 64, 1280]);
        let mut numbers = std::collections::HashSet::new();
        for (_, inner) in &probes {
            verify_any(inner);
            let (ip, message) = look(inner);
            let own = tunnel.address_like(ip.destination).unwrap();
            assert_eq!((ip.source, Some(ip.destination)), (own, tunnel.probe));
            assert!(ip.dont_fragment && message[0] == if target_v4 { 8 } else { 128 });
            assert!(numbers.insert(message[8..16].to_vec()), "each has a number of its own");
        }
        assert_eq!(node.counters[0].snapshot().packets_out, 4);
        assert_eq!(states(&node), [Unverified; 2]);
        answer(&mut node, &tunnel, &probes, &[0], 0);
        assert_eq!(states(&node), [Up, Unverified]);
        answer(&mut node, &tunnel, &probes, &[2], 0);
        assert_eq!(states(&node), [Up, Up], "whoever carries the answer, it tells about the request");
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn a_tunnel_without_ipv6_or_with_less_room_is_not_tried_with_1280_bytes() {
    let tunnel = Tunnel { probe: Some(RS.into()), networks: nets(&["10.0.0.0/8"]), ..GRE.near(true) };
    let lengths = |node: &mut Node, tunnel: &Tunnel| -> Vec<_> {
        round(node, tunnel).iter().map(|(_, inner)| inner.len()).collect()
    };
    assert_eq!(lengths(&mut node(&tunnel), &tunnel), [64, 64]);
    let (tunnel, _) = probing(true, true);
    let mut narrow = Node::with_mtu(std::slice::from_ref(&tunnel), 1279);
    assert_eq!(lengths(&mut narrow, &tunnel), [64, 64]);
}

#[test]
fn without_a_probe_a_peer_is_not_verified_and_nothing_is_sent() {
    let mut node = node(&GRE.near(true));
    assert_eq!((node.engine.poll_timeout(), node.engine.poll_probe(node.now)), (None, None));
    assert_eq!(states(&node), [Unverified; 2]);
    // An engine that does not carry the tunnel leaves its probes to the one that does.
    let (tunnel, _) = probing(true, true);
    let counters = Arc::clone(&node.counters[0]);
    node.engine.set_tunnel(node.now, 0, &tunnel, MTU, counters, false);
    assert_eq!((node.engine.poll_timeout(), node.engine.poll_probe(node.now)), (None, None));
}

#[test]
fn three_misses_make_a_peer_down_and_one_answer_up() {
    let (tunnel, mut node) = probing(true, true);
    let mut seen = Vec::new();
    for number in 0..8 {
        let probes = round(&mut node, &tunnel);
        // The second peer is silent but for round 5.
        answer(&mut node, &tunnel, &probes, &[0, 1], 0);
        if number == 5 {
            answer(&mut node, &tunnel, &probes, &[2, 3], 1);
        }
        seen.push(states(&node)[1]);
    }
    assert_eq!(seen, [Unverified, Unverified, Unverified, Down, Down, Up, Up, Up]);
    assert_eq!(states(&node)[0], Up);
}

#[test]
fn new_flows_avoid_a_peer_that_is_down_and_old_ones_stay() {
    let (tunnel, mut node) = probing(true, true);
    let syn = tcp(at(RS, 9), at(VIP, 443), tcp::SYN, &[], &[]);
    assert!(node.receive_plain(&from_peer(&tunnel, L4.into(), &syn)).is_some());
    let reply = tcp(at(VIP, 443), at(RS, 9), tcp::ACK, &[], b"x");
    let mut port = 0;
    let mut fresh = |node: &mut Node| {
        port += 1;
        node.outward(&udp(at(OWN, port), at(RS, 53), b"?"))[0].to
    };
    let mut by = Vec::new();
    for _ in 0..5 {
        let probes = round(&mut node, &tunnel);
        answer(&mut node, &tunnel, &probes, &[2, 3], 1);
        by.push(fresh(&mut node));
        // The one that was heard from this peer stays with it: the answer belongs where the question came from.
        assert_eq!(node.outward(&reply)[0].to, L4);
    }
    assert_eq!(by, [L4, L4, L4, L4_SECOND, L4_SECOND]);
    // With both down the first one is as good as the other.
    for _ in 0..4 {
        round(&mut node, &tunnel);
    }
    assert_eq!(states(&node), [Down, Down]);
    assert_eq!(fresh(&mut node), L4);
    let probes = round(&mut node, &tunnel);
    answer(&mut node, &tunnel, &probes, &[0, 1], 1);
    assert_eq!((states(&node)[0], fresh(&mut node)), (Up, L4.into()));
}

#[test]
fn rfc7676_3_ipv6_needs_a_peer_that_carries_1280_bytes() {
    for (outer_v4, target_v4) in [(true, true), (true, false), (false, true), (false, false)] {
        let (tunnel, mut node) = probing(outer_v4, target_v4);
        let v6 = udp(at(OWN6, 1), at(RS6, 2), b"x");
        let v4 = udp(at(OWN, 1), at(RS, 2), b"x");
        let (mut passed, mut shown) = (Vec::new(), Vec::new());
        for number in 0..6 {
            let probes = round(&mut node, &tunnel);
            // The long one is lost but for the last round.
            answer(&mut node, &tunnel, &probes, &[0, 2], 0);
            if number == 5 {
                answer(&mut node, &tunnel, &probes, &[1], 0);
            }
            passed.push(node.outward(&v6).len());
            shown.push(states(&node)[0]);
            assert_eq!(node.outward(&v4).len(), 1, "IPv4 is carried all the same");
        }
        assert_eq!(passed, [1, 1, 1, 0, 0, 1]);
        assert_eq!(shown, [Up, Up, Up, Ipv4Only, Ipv4Only, Up]);
        assert_eq!(node.drops(), [DropReason::PathTooSmall; 2]);
    }
}

/// Where the path takes less, longest IPv6 packets leave in fragments of the outer packet; a probe must, too.
#[test]
fn rfc7676_3_over_a_narrow_path_the_probe_leaves_as_ipv6_would() {
    for target_v4 in [true, false] {
        let (_, mut node) = probing(true, target_v4);
        let sent = node.outward(&udp(at(OWN, 1), at(RS, 2), &[0; 1400])).remove(0).bytes;
        let error = icmp_message(icmp::fragmentation_needed(1000), &sent[..60]);
        let version = crate::wire::ip::Version::V4;
        assert_eq!(node.engine.handle_underlay_error(node.now, version, &error), Ok(true));
        node.batch.clear();
        node.engine.write_probes(node.now, 0, &mut node.batch);
        let sent = node.sent();
        let lengths: Vec<_> = sent.iter().filter(|sent| sent.to == L4).map(|sent| sent.bytes.len()).collect();
        assert_eq!(lengths, [92, 996, 332], "fragments of the outer packet");
        assert_eq!((sent[1].bytes[6] & 0x60, sent[2].bytes[6] & 0x60), (0x20, 0));
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn forged_answers_change_nothing() {
    let (tunnel, mut node) = probing(true, true);
    let probes = round(&mut node, &tunnel);
    let request = probes[0].1.clone();
    let good = reply(&request);
    let forge = |change: &dyn Fn(&mut Vec<u8>)| {
        let (ip, message) = look(&good);
        let mut message = message.to_vec();
        change(&mut message);
        control(ip.source, ip.destination, &message)
    };
    // A number that was not asked for, and one that is cut off.
    let wrong_number = [forge(&|message| message[8] ^= 1), forge(&|message| message.truncate(15))];
    // Another host behind the tunnel, another address here, another identifier, a request.
    let (_, message) = look(&good);
    let other: IpAddr = [10, 0, 0, 66].into();
    let elsewhere = [
        control(other, OWN.into(), message),
        control(RS.into(), VIP.into(), message),
        forge(&|message| message[4] ^= 1),
        forge(&|message| message[0] = icmp::ECHO_REQUEST),
    ];
    for forged in wrong_number.iter().chain(&elsewhere) {
        assert_eq!(node.receive_plain(&from_peer(&tunnel, L4.into(), forged)), None);
        assert_eq!(states(&node), [Unverified; 2]);
    }
    // What is not about a probe is an answer that nobody asked for.
    assert_eq!(node.drops().iter().filter(|reason| **reason == DropReason::NotOurs).count(), 5);
    let stranger = Tunnel { key: None, ..tunnel.clone() };
    assert_eq!(node.receive_plain(&from_peer(&stranger, L4.into(), &good)), None);
    assert_eq!(node.receive_plain(&from_peer(&tunnel, [192, 0, 2, 99].into(), &good)), None);
    assert_eq!(states(&node), [Unverified; 2]);
    answer(&mut node, &tunnel, &probes, &[0], 0);
    assert_eq!(states(&node), [Up, Unverified]);
}

#[test]
fn an_answer_counts_once_and_only_before_the_next_round() {
    let (tunnel, mut node) = probing(true, true);
    let first = round(&mut node, &tunnel);
    answer(&mut node, &tunnel, &first, &[0, 1, 2, 3], 0);
    for _ in 0..4 {
        round(&mut node, &tunnel);
        // The same answer again, and again.
        answer(&mut node, &tunnel, &first, &[0, 1, 2, 3], 0);
    }
    assert_eq!(states(&node), [Down, Down]);
    assert_eq!(node.drops(), [], "late answers are still the engine's");
}

/// A host behind one tunnel sees its probes; they must not tell what another tunnel expects.
#[test]
fn numbers_of_one_tunnel_mean_nothing_in_another() {
    let (tunnel, _) = probing(true, true);
    let other = Tunnel { key: Some(9), ..tunnel.clone() };
    let mut node = Node::new(&[tunnel.clone(), other.clone()]);
    let mut numbers = |index: usize, tunnel: &Tunnel| -> Vec<_> {
        node.batch.clear();
        node.engine.write_probes(node.now, index, &mut node.batch);
        let sent = node.sent();
        sent.iter().map(|sent| unwrapped(tunnel, &sent.bytes)[28..36].to_vec()).collect()
    };
    let (first, second) = (numbers(0, &tunnel), numbers(1, &other));
    assert!(first.iter().all(|number| !second.contains(number)));
    // Nor those of a tunnel those of its successor.
    let counters = Arc::clone(&node.counters[0]);
    node.engine.set_tunnel(node.now, 0, &tunnel, MTU, counters, true);
    node.batch.clear();
    node.engine.write_probes(node.now, 0, &mut node.batch);
    let again: Vec<_> =
        node.sent().iter().map(|sent| unwrapped(&tunnel, &sent.bytes)[28..36].to_vec()).collect();
    assert!(first.iter().all(|number| !again.contains(number)));
}

#[test]
fn a_probe_that_did_not_leave_is_not_missed() {
    let (tunnel, mut node) = probing(true, true);
    // Room for the first peer alone.
    node.batch = Batch::new(64 + 28 + 1280 + 28, 2);
    for _ in 0..6 {
        let probes = round(&mut node, &tunnel);
        assert_eq!(probes.len(), 2);
        answer(&mut node, &tunnel, &probes, &[0, 1], 0);
    }
    assert_eq!(states(&node), [Up, Unverified]);
    assert_eq!(node.drops(), [DropReason::BatchFull; 12]);
}

#[test]
fn tunnels_that_came_together_do_not_probe_together_for_ever() {
    let (tunnel, _) = probing(true, true);
    let tunnels: Vec<_> = (0..200).map(|key| Tunnel { key: Some(key), ..tunnel.clone() }).collect();
    let mut node = Node::new(&tunnels);
    let at_once = |node: &mut Node| {
        let mut count = 0;
        while let Some(index) = node.engine.poll_probe(node.now) {
            node.batch.clear();
            node.engine.write_probes(node.now, index, &mut node.batch);
            assert_eq!(node.batch.len(), 4);
            count += 1;
        }
        node.now += Duration::from_millis(100);
        count
    };
    assert_eq!(at_once(&mut node), 200, "the first time nobody waits");
    let counts: Vec<_> = (0..50).map(|_| at_once(&mut node)).collect();
    assert_eq!(counts.iter().sum::<usize>(), 200, "once more within 5 seconds");
    assert!(counts.iter().all(|count| *count < 30), "{counts:?}");
}

#[test]
fn probes_of_an_ended_tunnel_are_over() {
    let (tunnel, mut node) = probing(true, true);
    let probes = round(&mut node, &tunnel);
    node.engine.remove_tunnel(0);
    node.engine.handle_timeout(node.now);
    assert_eq!((node.engine.poll_timeout(), node.engine.poll_probe(node.now + EVERY * 9)), (None, None));
    let outer = from_peer(&tunnel, L4.into(), &reply(&probes[0].1));
    assert_eq!(node.receive_plain(&outer), None);
    assert_eq!(node.unmatched.drops(DropReason::UnknownPeer), 1);
    // It begins anew with the next one.
    let counters = Arc::clone(&node.counters[0]);
    node.engine.set_tunnel(node.now, 0, &tunnel, MTU, counters, true);
    assert_eq!(node.engine.poll_timeout(), Some(node.now));
}
