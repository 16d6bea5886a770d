//! Fragments (RFC 7588, RFC 4459), identification and DF (RFC 6864), and the MSS clamp, one test for each rule.

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::config::Fragment;

fn datagram(len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..len - 28).map(|at| at as u8).collect();
    udp(at(OWN, 40_000), at(RS, 80), &data)
}

/// Payload of the fragments of one packet, put together.
fn joined(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload: Vec<u8> = Vec::new();
    for (index, fragment) in fragments.iter().enumerate() {
        let (header, part) = ipv4::Header::parse(fragment).unwrap();
        assert_eq!(usize::from(header.fragment_offset) * 8, payload.len());
        assert_eq!(header.more_fragments, index + 1 < fragments.len());
        payload.extend(part);
    }
    payload
}

#[test]
fn rfc7588_1_with_df_it_is_dropped_and_the_sender_told_the_mtu() {
    for (variant, outer_v4) in VARIANTS.iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let tunnel = variant.near(outer_v4);
        let mut node = node(&tunnel);
        let mtu = UNDERLAY - tunnel.overhead();
        assert_eq!(node.outward(&datagram(usize::from(mtu))).len(), 1);
        let large = datagram(usize::from(mtu) + 1);
        assert_eq!(node.outward(&large), []);
        assert_eq!(node.drops(), [DropReason::TooBig]);
        let (index, notice) = node.told().unwrap();
        verify_any(&notice);
        let (ip, message) = look(&notice);
        assert_eq!((index, ip.source, ip.destination), (0, RS.into(), OWN.into()));
        assert_eq!((message[0], message[1], &message[6..8]), (3, 4, &mtu.to_be_bytes()[..]));
        assert_eq!(message[8..], large[..576 - 28]);
    }
}

#[test]
fn rfc7588_1_without_df_the_payload_is_fragmented_before_it_is_wrapped() {
    for (variant, outer_v4) in VARIANTS.iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let tunnel = variant.near(outer_v4);
        let mut node = node(&tunnel);
        let large = without_df(&datagram(4000));
        let mut open = large.clone();
        let header = leave_open(&mut open, None);
        // With its checksum complete, and left open: it stands in the first fragment alone.
        for (header, packet) in [(virtio::Header::default(), &large), (header, &open)] {
            let sent = node.outward_by(0, header, packet);
            assert!(sent.iter().all(|outer| outer.bytes.len() <= usize::from(UNDERLAY)));
            let fragments: Vec<_> = sent.iter().map(|outer| unwrapped(&tunnel, &outer.bytes)).collect();
            assert_eq!(fragments.len(), 3);
            assert_eq!(joined(&fragments), large[20..]);
        }
        assert_eq!((node.drops(), node.told()), (vec![], None));
    }
}

#[test]
fn rfc7588_1_fragmentation_can_be_switched_off() {
    let mut node = node(&Tunnel { fragment: Fragment::Off, ..GRE.near(true) });
    assert_eq!(node.outward(&without_df(&datagram(4000))), []);
    assert_eq!(node.drops(), [DropReason::FragmentationNeeded]);
    assert_eq!(node.told(), None, "fragmentation needed is said only about DF");
}

#[test]
fn rfc7588_1_so_is_each_datagram_of_a_super_packet_that_is_longer_than_the_path() {
    for (variant, outer_v4) in VARIANTS.iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let tunnel = variant.near(outer_v4);
        let mut whole = without_df(&datagram(7000));
        let payload = whole[28..].to_vec();
        let header = leave_open(&mut whole, Some(1400));
        // The host cut for a path that has become narrower since.
        let mut narrow = Node::with_mtu(std::slice::from_ref(&tunnel), 800);
        let sent = narrow.outward_by(0, header, &whole);
        assert_eq!(sent.len(), 10);
        assert_eq!(narrow.counters[0].snapshot().packets_out, 10);
        let inner: Vec<_> = sent.iter().map(|outer| unwrapped(&tunnel, &outer.bytes)).collect();
        assert!(inner.iter().all(|fragment| fragment.len() <= 800));
        let mut arrived = Vec::new();
        for (index, pair) in inner.chunks(2).enumerate() {
            let datagram = joined(pair);
            let identification = u16::from_be_bytes([pair[0][4], pair[0][5]]);
            assert_eq!((identification, &pair[0][4..6]), (0x1234 + index as u16, &pair[1][4..6]));
            let single = ip_packet(ipv4::UDP, OWN.into(), RS.into(), &datagram);
            verify_any(&single);
            arrived.extend(payload_of(&single));
        }
        assert_eq!(arrived, payload);
        let mut off = Node::with_mtu(&[Tunnel { fragment: Fragment::Off, ..tunnel.clone() }], 800);
        assert_eq!(off.outward_by(0, header, &whole), []);
        assert_eq!((narrow.drops(), off.drops()), (vec![], vec![DropReason::FragmentationNeeded]));
        let mut with_df = changed(&whole, |packet| packet[6] |= 0x40);
        let header = leave_open(&mut with_df, Some(1400));
        assert_eq!(narrow.outward_by(0, header, &with_df), []);
        assert_eq!((narrow.drops(), narrow.told().is_some()), (vec![DropReason::TooBig], true));
    }
}

#[test]
fn rfc7588_1_a_fragment_is_fragmented_further() {
    let tunnel = GRE.near(true);
    let mut node = node(&tunnel);
    let large = without_df(&datagram(6000));
    let fragments: Vec<_> = pieces(&large, 2500)
        .iter()
        .flat_map(|piece| node.outward(piece))
        .map(|sent| unwrapped(&tunnel, &sent.bytes))
        .collect();
    assert_eq!(fragments.len(), 5);
    assert_eq!(joined(&fragments), large[20..]);
}

/// The only exception is RFC 7676's, which has a test of its own.
#[test]
fn rfc7588_2_delivery_packets_are_not_fragmented() {
    for (variant, outer_v4) in VARIANTS.iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let tunnel = variant.near(outer_v4);
        // Far below 1280 bytes, but IPv4.
        let mut node = Node::with_mtu(std::slice::from_ref(&tunnel), 600);
        for packet in [datagram(600), datagram(100), without_df(&datagram(3000)), without_df(&datagram(90))] {
            for outer in node.outward(&packet) {
                // `unwrapped` asserts that it is whole and has DF, whatever the inner packet has.
                assert!(unwrapped(&tunnel, &outer.bytes).len() <= 600);
            }
        }
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn rfc4459_1_first_the_mss_then_the_sender_then_inner_fragments() {
    let tunnel = GRE.near(true);
    let mut node = node(&tunnel);
    let mss_1460 = [2, 4, 0x05, 0xb4];
    let sent = node.outward(&tcp(at(OWN, 40_000), at(RS, 80), tcp::SYN, &mss_1460, &[]));
    assert_eq!(unwrapped(&tunnel, &sent[0].bytes)[42..44], 1432_u16.to_be_bytes(), "the MSS fits");
    // Who does not keep to it and has DF is told.
    let large = tcp(at(OWN, 40_000), at(RS, 80), tcp::ACK, &[], &[7; 1460]);
    assert_eq!(node.outward(&large), []);
    assert!(node.told().is_some());
    // Who allows it is fragmented inside; the outer packet has DF all the same.
    let sent = node.outward(&without_df(&large));
    let fragments: Vec<_> = sent.iter().map(|outer| unwrapped(&tunnel, &outer.bytes)).collect();
    assert_eq!(joined(&fragments), large[20..]);
}

#[test]
fn mss_is_clamped_in_both_directions_and_versions() {
    for (variant, outer_v4) in VARIANTS.iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let tunnel = variant.near(outer_v4);
        let mut node = node(&tunnel);
        let mtu = UNDERLAY - tunnel.overhead();
        for (own, server, headers) in [(at(OWN, 40_000), at(RS, 80), 40), (at(OWN6, 40_000), at(RS6, 80), 60)]
        {
            let mss = mtu - headers;
            for (offered, expected) in [(1460, mss), (mss + 1, mss), (mss, mss), (536, 536)] {
                let option = |mss: u16| [&[1, 2, 4][..], &mss.to_be_bytes(), &[1, 1, 1]].concat();
                let packet = |from, to, flags, mss| tcp(from, to, flags, &option(mss), &[]);
                let syn = packet(own, server, tcp::SYN, offered);
                let sent = node.outward(&syn);
                assert_eq!(unwrapped(&tunnel, &sent[0].bytes), packet(own, server, tcp::SYN, expected));
                let answer = packet(server, own, tcp::SYN | tcp::ACK, offered);
                let outer = from_peer(&tunnel, tunnel.peers[0], &answer);
                let delivered = packet(server, own, tcp::SYN | tcp::ACK, expected);
                assert_eq!(node.receive_plain(&outer), Some(delivered));
            }
        }
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn rfc6864_outer_packets_have_df_and_any_identification() {
    // Ours is the same for all packets to a peer: it says something to another of our kind, where packets have the headers
    // for that.
    for (tunnel, says) in [(GRE.near(true), true), (Tunnel { key: None, ..GRE.near(true) }, false)] {
        let mut node = node(&tunnel);
        let mut identifications = [datagram(100), without_df(&datagram(100))].map(|packet| {
            let sent = node.outward(&packet);
            assert_eq!(sent[0].bytes[6..8], [0x40, 0]);
            u16::from_be_bytes([sent[0].bytes[4], sent[0].bytes[5]])
        });
        identifications.sort_unstable();
        assert_eq!(identifications[0], identifications[1]);
        assert_eq!(identifications[0] != 0, says);
    }
}

#[test]
fn rfc6864_what_is_fragmented_has_an_identification_of_its_own() {
    let inner = udp(at(OWN6, 1), at(RS6, 2), &[7; 1280 - 48]);
    for outer_v4 in [true, false] {
        // Two tunnels to one address: the fragments are put together before anybody looks at the key.
        let tunnels = [GRE.near(outer_v4), Tunnel { key: Some(9), ..GRE.near(outer_v4) }];
        let mut node = Node::with_mtu(&tunnels, 1200);
        let mut seen = std::collections::HashSet::new();
        for round in 0..100 {
            for tunnel in [0, 1] {
                let sent = node.outward_by(tunnel, virtio::Header::default(), &inner);
                let ids = if outer_v4 { 4..6 } else { 44..48 };
                assert_eq!(
                    sent[0].bytes[ids.clone()],
                    sent[1].bytes[ids.clone()],
                    "of one packet they are equal"
                );
                assert!(seen.insert(sent[0].bytes[ids].to_vec()), "used before: round {round}");
                if outer_v4 {
                    assert_eq!(sent[0].bytes[6] & 0x40, 0, "no DF");
                }
            }
        }
    }
}

#[test]
fn rfc6864_inner_identifications_are_the_senders_and_counted_up_where_it_asks_for_segments() {
    let tunnel = GRE.near(true);
    let mut node = node(&tunnel);
    let id = |packet: &[u8]| u16::from_be_bytes([packet[4], packet[5]]);
    let large = without_df(&datagram(4000));
    for outer in node.outward(&large) {
        assert_eq!(id(&unwrapped(&tunnel, &outer.bytes)), id(&large), "fragments have the same");
    }
    let mut merged = without_df(&tcp(at(OWN, 40_000), at(RS, 80), tcp::ACK, &[], &[7; 4000]));
    let header = leave_open(&mut merged, Some(1000));
    for (index, outer) in (0..).zip(node.outward_by(0, header, &merged)) {
        assert_eq!(id(&unwrapped(&tunnel, &outer.bytes)), id(&merged) + index, "segments have one each");
    }
}
