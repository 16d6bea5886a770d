//! Packets of which others cut an inner one.

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::batch::{Gso, InnerCarrier, Takers};
use crate::config::Kind;

/// A node of this tunnel that leaves packets uncut to these.
fn leaving(tunnel: &Tunnel, takers: Takers) -> Node {
    let mut node = node(tunnel);
    node.engine.leave_uncut(0, takers);
    node
}

fn inner(is_v4: bool, is_tcp: bool, bytes: usize) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) =
        if is_v4 { (OWN.into(), RS.into()) } else { (OWN6.into(), RS6.into()) };
    let (from, to) = (at(from, 40_000), at(to, 80));
    let data: Vec<u8> = (0..bytes).map(|number| number as u8).collect();
    if is_tcp { tcp(from, to, tcp::ACK | tcp::PSH, &[1; 12], &data) } else { udp(from, to, &data) }
}

/// What the kernel says about such a packet where nothing has cut it.
fn said(gso: Gso) -> virtio::Header {
    let inner = gso.inner.unwrap();
    let is_udp = inner.gso_type == virtio::GSO_UDP_L4;
    virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type: inner.gso_type,
        hdr_len: LINK as u16 + gso.headers,
        gso_size: gso.size,
        csum_start: LINK as u16 + inner.transport_at,
        csum_offset: if is_udp { udp::CHECKSUM_AT } else { tcp::CHECKSUM_AT } as u16,
    }
}

/// The carrier that a tunnel has, if the kernel can cut inside of it.
fn carrier(tunnel: &Tunnel) -> Option<InnerCarrier> {
    match tunnel.kind {
        _ if tunnel.checksum || tunnel.sequence => None,
        Kind::Ipip => None,
        Kind::Gre => tunnel.key.map(|_| InnerCarrier::Gre),
        Kind::GreInUdp => Some(InnerCarrier::GreInUdp { has_checksum: tunnel.udp_checksum }),
    }
}

#[test]
fn what_leaves_uncut_arrives_as_it_was_and_is_counted_as_it_is_on_the_wire() {
    for (variant, outer_v4) in VARIANTS.into_iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let (near_tunnel, far_tunnel) = (variant.near(outer_v4), variant.far(outer_v4));
        for (is_v4, is_tcp, bytes) in
            [(true, true, 20_000), (true, false, 20_000), (false, true, 1_301), (false, false, 2_600)]
        {
            let mut whole = inner(is_v4, is_tcp, bytes);
            let header = leave_open(&mut whole, Some(1_300));
            let mut cutting = node(&near_tunnel);
            cutting.outward_by(0, header, &whole);
            let mut near = leaving(&near_tunnel, Takers::Everybody);
            let sent = near.outward_by(0, header, &whole);
            let gso = sent[0].gso.filter(|gso| gso.inner.is_some());
            assert_eq!(gso.and_then(|gso| gso.inner).map(|inner| inner.carrier), carrier(&near_tunnel));
            let counted = |node: &Node| {
                let counters = node.counters[0].snapshot();
                (counters.packets_out, counters.bytes_out)
            };
            assert_eq!(counted(&near), counted(&cutting), "{near_tunnel:?}");
            let Some(gso) = gso else { continue };
            assert_eq!((sent.len(), gso.size), (1, 1_300));
            let mut far = node(&far_tunnel);
            let (offload, packet) = far.receive(said(gso), &sent[0].bytes).unwrap();
            assert!(packet == whole, "{far_tunnel:?}");
            assert_eq!((offload.gso_type, offload.gso_size), (header.gso_type, header.gso_size));
            assert_eq!(
                (offload.flags, offload.csum_start, offload.csum_offset),
                (header.flags, header.csum_start, header.csum_offset)
            );
            assert_eq!((near.drops(), far.drops()), (vec![], vec![]));
        }
    }
}

#[test]
fn what_is_one_packet_or_too_long_for_the_outer_header_is_cut_here() {
    let mut near = leaving(&GRE.near(true), Takers::Everybody);
    let mut one = inner(true, true, 1_300);
    let header = leave_open(&mut one, Some(1_300));
    assert_eq!(near.outward_by(0, header, &one)[0].gso, None);
    let mut long = inner(true, true, 65_535 - 52);
    let header = leave_open(&mut long, Some(1_300));
    let sent = near.outward_by(0, header, &long);
    assert!(sent.len() == 51 && sent.iter().all(|packet| packet.gso.is_none()), "{}", sent.len());
    // The path takes less than the sender thought: it is cut so.
    let mut near = Node::with_mtu(&[GRE.near(true)], 1_000);
    near.engine.leave_uncut(0, Takers::Everybody);
    let mut whole = inner(true, true, 20_000);
    let header = leave_open(&mut whole, Some(1_300));
    assert_eq!(near.outward_by(0, header, &whole)[0].gso.unwrap().size, 1_000 - 52);
}

/// Two nodes on a veth find out about each other by what they send anyway.
#[test]
fn of_two_nodes_each_shows_the_other_that_it_takes_them() {
    for variant in [GRE, GRE_IN_UDP] {
        let [mut near, mut far] =
            [variant.near(true), variant.far(true)].map(|tunnel| leaving(&tunnel, Takers::WhoSaysSo));
        let mut whole = inner(true, true, 20_000);
        let header = leave_open(&mut whole, Some(1_300));
        let leaves_uncut = |node: &mut Node| {
            let sent = node.outward_by(0, header, &whole);
            sent[0].gso.is_some_and(|gso| gso.inner.is_some())
        };
        let request = inner(true, true, 1);
        let answer = tcp(at(RS, 80), at(OWN, 40_000), tcp::ACK, &[], b"a");
        for _ in 0..4 {
            assert!(!leaves_uncut(&mut near));
            let sent = near.outward(&request);
            far.receive_plain(&sent[0].bytes).unwrap();
            let sent = far.outward(&answer);
            near.receive_plain(&sent[0].bytes).unwrap();
        }
        assert!(leaves_uncut(&mut near));
        // A node that leaves nothing uncut itself takes it all the same, and says so.
        let mut other = node(&variant.far(true));
        let said = other.receive_plain(&near.outward(&request)[0].bytes).unwrap();
        assert_eq!(said, request);
        assert_eq!(other.outward(&answer)[0].bytes[4..6], far.outward(&answer)[0].bytes[4..6]);
    }
}
