//! A host behind a tunnel that wants more than it is offered: the node's other listeners, the other tenant, its own
//! way around the key. And peers that send as much as they can.

use proptest::prelude::*;

use super::packets::*;
use super::pairs::*;
use super::*;
use DropReason::*;

/// Two tenants with equal addresses, by one L4 tier.
fn tenants() -> [Tunnel; 2] {
    [1, 2].map(|key| Tunnel { key: Some(key), ..GRE.near(true) })
}

fn from_tenant(node: &mut Node, tenant: usize, inner: &[u8]) -> Option<usize> {
    let outer = from_peer(&tenants()[tenant], L4.into(), inner);
    node.inward(virtio::Header::default(), &outer).pop().map(|(tunnel, ..)| tunnel)
}

#[test]
fn nothing_of_the_node_is_reached_but_its_listeners_on_this_tunnel() {
    let mut node = Node::new(&tenants());
    let admin: [IpAddr; 8] = [
        OWN.into(),
        VIP.into(),
        L7.into(),
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(198, 51, 100, 1).into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::BROADCAST.into(),
        Ipv4Addr::new(224, 0, 0, 1).into(),
    ];
    let mut refused = 0;
    for address in admin {
        for packet in [
            tcp(at(RS, 9), at(address, 9090), tcp::SYN, &[], &[]),
            tcp(at(RS, 9), at(address, 22), tcp::ACK, &[], b"x"),
            udp(at(RS, 9), at(address, 53), b"x"),
            echo(RS.into(), address, false, 1, b"x"),
        ] {
            assert_eq!(from_tenant(&mut node, 0, &packet), None, "{address}");
            refused += 1;
        }
    }
    let admin6: [IpAddr; 6] = [
        OWN6.into(),
        VIP6.into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
        OWN.to_ipv6_mapped().into(),
    ];
    for address in admin6 {
        for packet in [
            tcp(at(RS6, 9), at(address, 9090), tcp::SYN, &[], &[]),
            udp(at(RS6, 9), at(address, 53), b"x"),
            // Router advertisement, neighbour solicitation, multicast listener query.
            control(RS6.into(), address, &[134, 0, 0, 0, 64, 0, 1, 0]),
            control(RS6.into(), address, &[135, 0, 0, 0, 0, 0, 0, 0]),
            control(RS6.into(), address, &[130, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(from_tenant(&mut node, 0, &packet), None, "{address}");
            refused += 1;
        }
    }
    let drops = node.drops();
    assert_eq!(drops.len(), refused);
    assert!(drops.iter().all(|reason| matches!(reason, NotOurs | Loop)));
    assert_eq!(drops.iter().filter(|reason| **reason == Loop).count(), 4, "its outer address");
}

#[test]
fn a_tenant_does_not_answer_for_the_other() {
    let mut node = Node::new(&tenants());
    let syn = tcp(at(OWN, 40_000), at(RS, 80), tcp::SYN, &[], &[]);
    assert_eq!(node.outward_by(1, virtio::Header::default(), &syn).len(), 1);
    let answer = tcp(at(RS, 80), at(OWN, 40_000), tcp::SYN | tcp::ACK, &[], &[]);
    assert_eq!(from_tenant(&mut node, 0, &answer), None);
    assert_eq!(from_tenant(&mut node, 0, &unreachable(RS.into(), OWN.into(), &syn)), None);
    // Nor does it close or divert the flow.
    let reset = tcp(at(RS, 80), at(OWN, 40_000), tcp::RST, &[], &[]);
    assert_eq!(from_tenant(&mut node, 0, &reset), None);
    assert_eq!(node.counters[0].drops(NotOurs), 3);
    assert_eq!(from_tenant(&mut node, 1, &answer), Some(1));
}

#[test]
fn sources_that_are_not_behind_the_tunnel_are_refused() {
    let everything = nets(&["0.0.0.0/0", "::/0"]);
    let tunnel = Tunnel { networks: everything, ..GRE.near(true) };
    let mut node = node(&tunnel);
    let forged: [IpAddr; 13] = [
        OWN.into(),
        VIP.into(),
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(127, 8, 8, 8).into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::new(0, 9, 9, 9).into(),
        Ipv4Addr::BROADCAST.into(),
        Ipv4Addr::new(239, 1, 1, 1).into(),
        OWN6.into(),
        VIP6.into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
        RS.to_ipv6_mapped().into(),
    ];
    for source in forged {
        let to: IpAddr = if source.is_ipv4() { VIP.into() } else { VIP6.into() };
        let syn = tcp(at(source, 9), at(to, 443), tcp::SYN, &[], &[]);
        assert_eq!(node.receive_plain(&from_peer(&tunnel, L4.into(), &syn)), None, "{source}");
    }
    assert_eq!(node.drops(), [SpoofedInner; 13]);
}

#[test]
fn an_l4_node_hands_nothing_to_groups_or_to_loopback() {
    let everything = nets(&["0.0.0.0/0", "::/0"]);
    let forward = vec![ForwardTo { device: "rs0".into(), networks: everything }];
    let far = Tunnel { forward, ..GRE.far(true) };
    let mut node = node(&far);
    let odd: [IpAddr; 8] = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(0, 0, 0, 9).into(),
        Ipv4Addr::new(224, 0, 0, 251).into(),
        Ipv4Addr::BROADCAST.into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into(),
        RS.to_ipv6_mapped().into(),
    ];
    for address in odd {
        let own: IpAddr = if address.is_ipv4() { OWN.into() } else { OWN6.into() };
        let packet = udp(at(own, 1), at(address, 5353), b"x");
        assert_eq!(node.receive_plain(&from_peer(&far, L7.into(), &packet)), None, "{address}");
        // Nor does anything come from there.
        assert_eq!(node.outward(&udp(at(address, 5353), at(own, 1), b"x")), [], "{address}");
    }
    assert_eq!(node.drops(), [vec![ForeignSource; 8], vec![NotOurs; 8]].concat());
    let ordinary = udp(at(OWN, 1), at([8, 8, 8, 8], 53), b"x");
    assert!(node.receive_plain(&from_peer(&far, L7.into(), &ordinary)).is_some());
}

#[test]
fn a_flood_of_connections_costs_bounded_memory_and_no_other_flow() {
    let flows = 1024;
    let [first, second] = tenants().map(|tunnel| Tunnel { flows, ..tunnel });
    let mut node = Node::new(&[first.clone(), second]);
    let request = tcp(at(OWN, 40_000), at(RS, 80), tcp::SYN, &[], &[]);
    let answer = tcp(at(RS, 80), at(OWN, 40_000), tcp::SYN | tcp::ACK, &[], &[]);
    for tenant in 0..2 {
        assert_eq!(node.outward_by(tenant, virtio::Header::default(), &request).len(), 1);
        assert_eq!(from_tenant(&mut node, tenant, &answer), Some(tenant));
    }
    for number in 0..50_000_u32 {
        let source = at(Ipv4Addr::from(0x0a00_0000 | number), 9);
        from_tenant(&mut node, 0, &tcp(source, at(VIP, 443), tcp::SYN, &[], &[]));
        // Replies that nobody asked for open nothing.
        from_tenant(&mut node, 0, &tcp(source, at(OWN, 443), tcp::ACK, &[], &[]));
        // First pieces, of which each is remembered for a while.
        let header = ipv4::Header {
            identification: number as u16,
            more_fragments: true,
            dont_fragment: false,
            ..ip(ipv4::TCP, RS, VIP)
        };
        from_tenant(&mut node, 0, &packet(header, &[0, 9, 1, 0xbb, 0, 0, 0, 0]));
    }
    let len = |node: &Node, tenant: usize| node.engine.tunnels[tenant].as_ref().unwrap().flows.len();
    assert_eq!((len(&node, 0), len(&node, 1)), (flows as usize, 1));
    for tenant in 0..2 {
        assert_eq!(from_tenant(&mut node, tenant, &answer), Some(tenant));
    }
}

#[test]
fn a_flood_of_unknown_keys_and_peers_is_counted_and_leaves_nothing() {
    let mut node = Node::new(&tenants());
    let syn = tcp(at(RS, 9), at(VIP, 443), tcp::SYN, &[], &[]);
    for number in 10..5_010_u32 {
        let stranger = Tunnel { key: Some(number), ..GRE.near(true) };
        assert_eq!(node.receive_plain(&from_peer(&stranger, L4.into(), &syn)), None);
        let peer = Ipv4Addr::from(0xcb00_7100 | number).into();
        assert_eq!(node.receive_plain(&from_peer(&tenants()[0], peer, &syn)), None);
    }
    assert_eq!(node.unmatched.drops(UnknownPeer), 10_000);
    assert_eq!(node.engine.poll_timeout(), None, "nothing was noted");
    assert_eq!(from_tenant(&mut node, 1, &syn), Some(1));
}

proptest! {
    /// Frames that are nearly right get further than random ones. Each is carried or counted, never both and never
    /// neither, and what is carried is a packet within its bounds.
    #[test]
    fn damaged_frames_are_carried_whole_or_counted(
        variant in 0..VARIANTS.len(), outer_v4: bool, inner_v4: bool, is_tcp: bool, gso: Option<u16>, merged: bool,
        damage in prop::collection::vec((0_usize..160, any::<u8>()), 0..5), cut in 0_usize..30, flags in 0_u16..64,
    ) {
        let near = Tunnel { nested: flags & 1 != 0, ..VARIANTS[variant].near(outer_v4) };
        let (own, server) = if inner_v4 { (at(OWN, 1), at(RS, 2)) } else { (at(OWN6, 1), at(RS6, 2)) };
        let ends = |from, to| if is_tcp { tcp(from, to, flags, &[2, 4, 5, 0xb4], &[5; 90]) } else { udp(from, to, &[5; 90]) };
        let spoil = |mut frame: Vec<u8>| {
            for (at, value) in &damage {
                if let Some(byte) = frame.get_mut(*at) { *byte = *value; }
            }
            frame.truncate(frame.len() - cut);
            frame
        };
        let mut node = node(&near);
        let mut inner = ends(own, server);
        let header = leave_open(&mut inner, gso);
        let mut frame = spoil(tun_frame(header, &inner));
        node.engine.handle_tun_input(node.now, 0, &mut frame, &mut node.batch);
        let dropped = node.drops().len();
        prop_assert_eq!(node.batch.is_empty(), dropped == 1);
        for sent in node.sent() {
            let len = sent.gso.map_or(sent.bytes.len(), |gso| usize::from(gso.size) + usize::from(gso.headers));
            prop_assert!(len <= usize::from(UNDERLAY) && near.peers.contains(&sent.to));
            prop_assert_eq!(look(&sent.bytes).0.source, near.local);
        }

        let mut inner = ends(server, own);
        let open = leave_open(&mut inner, gso);
        let mut outer = from_peer(&near, near.peers[0], &inner);
        let header = if merged && near.kind == crate::config::Kind::GreInUdp {
            behind(leave_open(&mut outer, Some(gso.unwrap_or(0) % 200)), 0)
        } else {
            behind(open, usize::from(near.overhead()))
        };
        let mut frame = spoil(tun_frame(header, &[&[0xee; LINK], &outer[..]].concat()));
        let len = frame.len();
        let deliveries = node.deliver(&mut frame);
        prop_assert!(deliveries.len() + node.drops().len() - dropped >= 1);
        for delivery in deliveries {
            prop_assert!(delivery.range.end <= len && delivery.tunnel == 0);
            let packet = &frame[delivery.range];
            let (ip, transport) = look(packet);
            prop_assert!(node.engine.tunnels[0].as_ref().unwrap().scope.is_behind(ip.source));
            if delivery.header.flags & virtio::NEEDS_CSUM != 0 {
                prop_assert_eq!(usize::from(delivery.header.csum_start), ip.header_len);
                prop_assert!(usize::from(delivery.header.csum_offset) + 2 <= transport.len());
                prop_assert!(usize::from(delivery.header.hdr_len) <= packet.len());
            } else {
                prop_assert_eq!(delivery.header.gso_type, virtio::GSO_NONE);
            }
        }
    }
}

#[test]
fn truncated_packets_are_refused_at_every_length() {
    for (variant, outer_v4) in VARIANTS.iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let tunnel = variant.near(outer_v4);
        let mut node = node(&tunnel);
        for inner in [
            tcp(at(RS, 9), at(VIP, 443), tcp::SYN, &[], b"x"),
            tcp(at(RS6, 9), at(VIP6, 443), tcp::SYN, &[], b"x"),
        ] {
            let outer = from_peer(&tunnel, tunnel.peers[0], &inner);
            for len in 0..outer.len() {
                assert_eq!(node.receive_plain(&outer[..len]), None, "{variant:?}, {len} bytes");
            }
            assert_eq!(node.receive_plain(&outer), Some(inner));
        }
    }
}
