//! DSCP and ECN of outer and inner headers (RFC 2983, RFC 6040 as updated by RFC 9601), and what a change costs the
//! checksum of an IPv4 header (RFC 1624).

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::config::Ecn;

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;
const EF: u8 = 46 << 2;

/// A request and its answer, of one version.
fn exchange(inner_v4: bool) -> [Vec<u8>; 2] {
    let (own, server) = if inner_v4 { (at(OWN, 1), at(RS, 2)) } else { (at(OWN6, 1), at(RS6, 2)) };
    [udp(own, server, b"question"), udp(server, own, b"answer")]
}

const FAMILIES: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

#[test]
fn rfc6040_1_the_outer_mark_is_copied_only_toward_an_end_that_knows() {
    for (variant, (outer_v4, inner_v4)) in
        VARIANTS.into_iter().flat_map(|variant| FAMILIES.map(|families| (variant, families)))
    {
        let [request, _] = exchange(inner_v4);
        let tunnel = variant.near(outer_v4);
        assert_eq!(tunnel.ecn, Ecn::Compatible, "unless it is configured");
        let mut compatible = node(&tunnel);
        let mut normal = node(&Tunnel { ecn: Ecn::Normal, ..tunnel.clone() });
        for ecn in [NOT_ECT, ECT_1, ECT_0, CE] {
            let inner = marked(&request, EF | ecn);
            let sent = [&mut compatible, &mut normal].map(|node| node.outward(&inner)[0].bytes.clone());
            assert_eq!([tos_of(&sent[0]), tos_of(&sent[1])], [EF, EF | ecn], "{variant:?}");
            for outer in sent {
                assert_eq!(unwrapped(&tunnel, &outer), inner, "the inner mark stays");
            }
        }
    }
}

#[test]
fn rfc6040_2_the_inner_mark_is_that_of_figure_4() {
    let table = [
        (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
        (ECT_0, [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)]),
        (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];
    for (variant, (outer_v4, inner_v4)) in
        VARIANTS.into_iter().flat_map(|variant| FAMILIES.map(|families| (variant, families)))
    {
        let [request, answer] = exchange(inner_v4);
        let tunnel = variant.near(outer_v4);
        let mut node = node(&tunnel);
        node.outward(&request);
        for (inner, results) in table {
            for (outer, result) in [NOT_ECT, ECT_1, ECT_0, CE].into_iter().zip(results) {
                let packet = marked(&answer, EF | inner);
                let outer = marked(&from_peer(&tunnel, tunnel.peers[0], &packet), outer);
                // The rest of the packet is as it was, its checksum right.
                let expected = result.map(|ecn| marked(&answer, EF | ecn));
                assert_eq!(node.receive_plain(&outer), expected, "{variant:?}");
            }
        }
        assert_eq!(node.drops(), [DropReason::EcnCongested]);
    }
}

#[test]
fn rfc6040_3_a_merged_packet_is_decided_on_once() {
    let tunnel = GRE.near(true);
    let mut node = node(&tunnel);
    node.outward(&tcp(at(OWN, 40_000), at(RS, 80), tcp::SYN, &[], &[]));
    let mut inner = marked(&tcp(at(RS, 80), at(OWN, 40_000), tcp::ACK, &[], &[7; 4000]), ECT_0);
    let open = leave_open(&mut inner, Some(1000));
    let outer = marked(&from_peer(&tunnel, L4.into(), &inner), CE);
    assert_eq!(node.inward(behind(open, 28), &outer), [(0, open, marked(&inner, CE))]);
    let mut unable = marked(&inner, NOT_ECT);
    let open = leave_open(&mut unable, Some(1000));
    let outer = marked(&from_peer(&tunnel, L4.into(), &unable), CE);
    assert_eq!(node.inward(behind(open, 28), &outer), []);
    assert_eq!(node.drops(), [DropReason::EcnCongested]);
}

#[test]
fn rfc6040_3_every_datagram_of_a_merged_one_has_a_mark_of_its_own_inside() {
    let tunnel = GRE_IN_UDP.near(true);
    let mut node = node(&tunnel);
    let [request, answer] = exchange(true);
    node.outward(&request);
    let gre = |inner: &[u8]| from_peer(&tunnel, L4.into(), inner)[28..].to_vec();
    let pieces = [ECT_0, NOT_ECT, ECT_1].map(|ecn| gre(&marked(&answer, ecn)));
    let mut outer = marked(&udp(at(L4, 50_000), at(L7, 4754), &pieces.concat()), CE);
    let open = leave_open(&mut outer, Some(pieces[0].len() as u16));
    let delivered = node.inward(behind(open, 0), &outer);
    let packets: Vec<_> = delivered.into_iter().map(|(_, header, packet)| (header, packet)).collect();
    let expected = (virtio::Header::default(), marked(&answer, CE));
    assert_eq!(packets, [expected.clone(), expected]);
    assert_eq!(node.drops(), [DropReason::EcnCongested]);
}

#[test]
fn rfc2983_dscp_is_uniform_outward_unless_fixed_and_kept_inward() {
    for (outer_v4, inner_v4) in FAMILIES {
        let [request, answer] = exchange(inner_v4);
        let tunnel = GRE.near(outer_v4);
        let mut uniform = node(&tunnel);
        let mut pipe = node(&Tunnel { dscp: Some(10), ..tunnel.clone() });
        for dscp in 0..64 {
            let inner = marked(&request, dscp << 2);
            assert_eq!(tos_of(&uniform.outward(&inner)[0].bytes), dscp << 2);
            let sent = pipe.outward(&inner);
            assert_eq!(tos_of(&sent[0].bytes), 10 << 2);
            assert_eq!(unwrapped(&tunnel, &sent[0].bytes), inner);
            let outer = marked(&from_peer(&tunnel, tunnel.peers[0], &marked(&answer, EF)), dscp << 2);
            assert_eq!(pipe.receive_plain(&outer), Some(marked(&answer, EF)));
        }
    }
}

/// Every value of the identification: the sums that wrap around are among them.
#[test]
fn rfc1624_the_checksum_after_a_change_is_the_one_of_the_new_header() {
    let tunnel = GRE.near(true);
    let mut node = node(&tunnel);
    let [request, answer] = exchange(true);
    node.outward(&request);
    let answer = marked(&answer, ECT_0);
    let mut outer = marked(&from_peer(&tunnel, L4.into(), &answer), CE);
    let mut expected = marked(&answer, CE);
    for identification in 0..=u16::MAX {
        let id = |packet: &mut [u8]| packet[4..6].copy_from_slice(&identification.to_be_bytes());
        let inner = changed(&answer, id);
        outer[28..48].copy_from_slice(&inner[..20]);
        let header = changed(&expected[..20], id);
        expected[..20].copy_from_slice(&header);
        assert_eq!(node.receive_plain(&outer).as_deref(), Some(&expected[..]), "{identification}");
    }
}
