//! The rules of GRE and IPv6 (RFC 7676), inner and outer, one test for each. That a tunnel is to be verified with 1280
//! bytes (7676-3) is tested with the probes.

use super::packets::*;
use super::pairs::*;
use super::*;

fn request6(len: usize) -> Vec<u8> {
    udp(at(OWN6, 1), at(RS6, 2), &vec![7; len - ipv6::LEN - udp::LEN])
}

/// An outer IPv6 packet to the L7 node with these extension headers, as (number, bytes), in front of GRE.
fn extended(extensions: &[(u8, [u8; 8])], gre: &[u8]) -> Vec<u8> {
    let numbers = extensions.iter().map(|(number, _)| *number).chain([ipv6::GRE]);
    let mut payload: Vec<u8> = Vec::new();
    for ((_, bytes), next) in extensions.iter().zip(numbers.clone().skip(1)) {
        payload.extend([&[next], &bytes[1..]].concat());
    }
    payload.extend(gre);
    packet6(numbers.clone().next().unwrap(), L4_6, L7_6, &payload)
}

/// Puts the fragments of one outer packet together, as the kernel of the other end does.
fn reassembled(fragments: &[Sent]) -> Vec<u8> {
    let (header_len, last) = match fragments[0].bytes[0] >> 4 {
        4 => (20, fragments.len() - 1),
        _ => (48, fragments.len() - 1),
    };
    let mut payload: Vec<u8> = Vec::new();
    for (index, fragment) in fragments.iter().enumerate() {
        let bytes = &fragment.bytes;
        let (field, unit) = match header_len {
            20 => (u16::from_be_bytes([bytes[6], bytes[7]]), 8),
            _ => (u16::from_be_bytes([bytes[42], bytes[43]]), 1),
        };
        let (offset, more) = match header_len {
            20 => (usize::from(field & 0x1fff) * unit, field & 0x2000 != 0),
            _ => (usize::from(field & 0xfff8) * unit, field & 1 != 0),
        };
        assert_eq!((offset, more), (payload.len(), index != last));
        payload.extend(&bytes[header_len..]);
    }
    let first = &fragments[0].bytes;
    if header_len == 20 {
        let whole = [&first[..20], &payload].concat();
        return changed(&whole, |whole| {
            [whole[6], whole[7]] = [0, 0];
            let total = (whole.len() as u16).to_be_bytes();
            whole[2..4].copy_from_slice(&total);
        });
    }
    let mut whole = [&first[..40], &payload].concat();
    whole[6] = first[40];
    whole[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    whole
}

#[test]
fn rfc7676_1_the_type_of_ipv6_is_86dd_and_the_next_header_47() {
    let sent = node(&GRE.near(true)).outward(&request6(100));
    assert_eq!(sent[0].bytes[22..24], [0x86, 0xdd]);
    let sent = node(&GRE.near(false)).outward(&request6(100));
    assert_eq!((sent[0].bytes[6], &sent[0].bytes[42..44]), (47, &[0x86, 0xdd][..]));
    let sent = node(&GRE.near(false)).outward(&udp(at(OWN, 1), at(RS, 2), b"x"));
    assert_eq!((sent[0].bytes[6], &sent[0].bytes[42..44]), (47, &[0x08, 0x00][..]));
}

#[test]
fn rfc7676_1_gre_may_stand_behind_extension_headers() {
    let tunnel = GRE.near(false);
    let mut node = node(&tunnel);
    node.outward(&request6(100));
    let answer = udp(at(RS6, 2), at(OWN6, 1), b"answer");
    let gre = &from_peer(&tunnel, L4_6.into(), &answer)[40..].to_vec();
    let nothing = [0, 0, 1, 4, 0, 0, 0, 0];
    let atomic = [0, 0, 0, 0, 1, 2, 3, 4];
    for extensions in [
        &[(ipv6::DESTINATION_OPTIONS, nothing)][..],
        &[(ipv6::HOP_BY_HOP, nothing), (ipv6::DESTINATION_OPTIONS, nothing)],
        &[(ipv6::ROUTING, [0; 8])],
        &[(ipv6::FRAGMENT, atomic)],
        &[(ipv6::FRAGMENT, atomic), (ipv6::DESTINATION_OPTIONS, nothing)],
    ] {
        assert_eq!(node.receive_plain(&extended(extensions, gre)), Some(answer.clone()), "{extensions:?}");
    }
    assert_eq!(node.drops(), []);
    // A routing header with a segment left: it is for somebody else.
    assert_eq!(node.receive_plain(&extended(&[(ipv6::ROUTING, [0, 0, 0, 1, 0, 0, 0, 0])], gre)), None);
    // A chain without an end.
    let chain = vec![(ipv6::DESTINATION_OPTIONS, nothing); 9];
    assert_eq!(node.receive_plain(&extended(&chain, gre)), None);
    assert_eq!(node.drops(), [DropReason::Malformed, DropReason::NotATunnel]);
}

#[test]
fn rfc7676_2_no_checksum_is_sent_unless_asked_and_every_one_is_verified() {
    let plain = GRE.near(false);
    let summed = Tunnel { checksum: true, ..plain.clone() };
    let mut node = node(&plain);
    assert_eq!(node.outward(&request6(100))[0].bytes[40] & 0x80, 0);
    let answer = udp(at(RS6, 2), at(OWN6, 1), b"answer");
    let good = from_peer(&summed, L4_6.into(), &answer);
    assert_eq!(node.receive_plain(&good), Some(answer));
    for at in [44, 46, good.len() - 1] {
        let mut wrong = good.clone();
        wrong[at] ^= 1;
        assert_eq!(node.receive_plain(&wrong), None, "byte {at}");
    }
    assert_eq!(node.drops(), [DropReason::BadGreChecksum; 3]);
}

#[test]
fn rfc7676_4_what_fits_is_not_fragmented_inside_or_outside() {
    for (variant, outer_v4) in VARIANTS.iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let tunnel = variant.near(outer_v4);
        let longest = request6(usize::from(UNDERLAY - tunnel.overhead()));
        let sent = node(&tunnel).outward(&longest);
        assert_eq!(sent.len(), 1);
        // `unwrapped` asserts that the outer packet is whole and has DF.
        assert_eq!(unwrapped(&tunnel, &sent[0].bytes), longest);
        assert_eq!(sent[0].bytes.len(), usize::from(UNDERLAY));
    }
}

#[test]
fn rfc7676_4_what_is_too_big_is_dropped_and_its_sender_told() {
    let tunnel = GRE.near(false);
    let mut node = node(&tunnel);
    let mtu = UNDERLAY - 48;
    let large = request6(usize::from(mtu) + 1);
    assert_eq!(node.outward(&large), []);
    assert_eq!(node.drops(), [DropReason::TooBig]);
    let (index, notice) = node.told().unwrap();
    verify_any(&notice);
    let (ip, message) = look(&notice);
    assert_eq!((index, ip.source, ip.destination), (0, RS6.into(), OWN6.into()));
    assert_eq!(message[..8], [2, 0, message[2], message[3], 0, 0, 0x05, 0xac], "packet too big, 1452 bytes");
    assert_eq!(message[8..], large[..1280 - 48], "as much as fits 1280 bytes");
}

#[test]
fn rfc7676_4_below_1280_bytes_the_delivery_packet_is_fragmented() {
    for (variant, outer_v4) in VARIANTS.iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let (near, far) = (variant.near(outer_v4), variant.far(outer_v4));
        // A path of 1280 bytes.
        let mtu = 1280 - near.overhead();
        let mut near_node = Node::with_mtu(std::slice::from_ref(&near), mtu);
        let mut far_node = node(&far);
        for len in [usize::from(mtu) + 1, 1280] {
            let inner = request6(len);
            let sent = near_node.outward(&inner);
            assert_eq!(sent.len(), 2);
            assert!(sent.iter().all(|fragment| fragment.bytes.len() <= 1280 && fragment.gso.is_none()));
            for fragment in &sent {
                assert_eq!(far_node.receive_plain(&fragment.bytes), None, "the engine puts nothing together");
            }
            let whole = reassembled(&sent);
            assert_eq!(far_node.receive_plain(&whole), Some(inner), "{variant:?}");
        }
        assert_eq!(far_node.drops(), [DropReason::OuterFragment; 4]);
        let fits = request6(usize::from(mtu));
        assert_eq!(unwrapped(&near, &near_node.outward(&fits)[0].bytes), fits);
        // IPv4 needs no such promise, and longer packets of IPv6 have none.
        assert_eq!(near_node.outward(&udp(at(OWN, 1), at(RS, 2), &[0; 1252])), []);
        assert_eq!(near_node.outward(&request6(1281)), []);
        assert_eq!(near_node.drops(), [DropReason::TooBig; 2]);
        let [(_, about_v4), (_, about_v6)] = [near_node.told().unwrap(), near_node.told().unwrap()];
        assert_eq!(about_v4[26..28], mtu.to_be_bytes());
        assert_eq!(about_v6[44..48], 1280_u32.to_be_bytes(), "never less");
    }
}

#[test]
fn rfc7676_4_a_super_packet_over_a_narrow_path_is_cut_to_it() {
    let tunnel = GRE.near(false);
    let mut node = Node::with_mtu(std::slice::from_ref(&tunnel), 1232);
    let mut inner = tcp(at(OWN6, 40_000), at(RS6, 80), tcp::ACK, &[], &[7; 5000]);
    let header = leave_open(&mut inner, Some(1300));
    let sent = node.outward_by(0, header, &inner);
    assert_eq!(sent.len(), 5);
    for segment in sent {
        let inner = unwrapped(&tunnel, &segment.bytes);
        assert!(inner.len() <= 1232);
        verify_any(&inner);
    }
}

#[test]
fn rfc7676_5_delivery_packets_are_not_reassembled() {
    for outer_v4 in [true, false] {
        let tunnel = GRE.near(outer_v4);
        let mut node = node(&tunnel);
        node.outward(&request6(1000));
        let answer = udp(at(RS6, 2), at(OWN6, 1), &[9; 900]);
        let fragments = pieces(&from_peer(&tunnel, tunnel.peers[0], &answer), 600);
        assert_eq!(fragments.len(), 2);
        for fragment in &fragments {
            assert_eq!(node.receive_plain(fragment), None);
        }
        assert_eq!(node.drops(), [DropReason::OuterFragment; 2]);
    }
}

#[test]
fn rfc7676_6_an_outer_header_without_a_checksum_is_no_way_to_another_tenant() {
    let tenants =
        [GRE.near(false), Tunnel { key: Some(9), peers: vec![L4_SECOND_6.into()], ..GRE.near(false) }];
    let mut node = Node::new(&tenants);
    let syn = tcp(at(RS6, 9), at(VIP6, 443), tcp::SYN, &[], &[]);
    // The key of one with the peer of the other: what a bit that was flipped on the way could make.
    let mixed = Tunnel { key: Some(9), ..GRE.near(false) };
    assert_eq!(node.receive_plain(&from_peer(&mixed, L4_6.into(), &syn)), None);
    assert_eq!(node.unmatched.drops(DropReason::UnknownPeer), 1);
    // The GRE checksum covers the key, that of UDP the addresses as well.
    let summed = Tunnel { checksum: true, ..GRE.near(false) };
    let mut wrong = from_peer(&summed, L4_6.into(), &syn);
    wrong[48..52].copy_from_slice(&9_u32.to_be_bytes());
    wrong[23] = 5;
    assert_eq!(node.receive_plain(&wrong), None);
    assert_eq!(node.counters[1].drops(DropReason::BadGreChecksum), 1);

    let tunnel = GRE_IN_UDP.near(false);
    let mut node = super::pairs::node(&tunnel);
    let mut wrong = from_peer(&tunnel, L4_6.into(), &syn);
    wrong[23] ^= 1;
    assert_eq!(node.receive_plain(&wrong), None);
    assert_eq!(node.drops(), [DropReason::BadUdpChecksum]);
}
