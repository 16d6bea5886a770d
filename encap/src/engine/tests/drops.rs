use DropReason::*;

use super::*;
use crate::config::{Fragment, Kind};
use crate::wire::ip::Version;

const PLAIN: virtio::Header =
    virtio::Header { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

/// Does what leads to exactly one drop of this kind. A new reason does not compile without a case here.
fn provoke(reason: DropReason, node: &mut Node) {
    let request = tcp_packet(REQUEST, tcp::ACK, &[], b"x");
    let client = tcp_packet(CLIENT, tcp::SYN, &[], &[]);
    let gre_with = |header: gre::Header| gre_packet(L4, L7, header, &client);
    let outer_with = |change: &dyn Fn(&mut [u8])| packets::changed(&from_l4(&client), change);
    let inner_of = |protocol| from_l4(&packet(ip(protocol, RS, VIP), &[0; 40]));
    let sent = match reason {
        Malformed => node.send(PLAIN, &request[..30]),
        BadOffload => node.send(virtio::Header { gso_type: 1, gso_size: 9, ..PLAIN }, &request),
        NoTunnel => node.send_by(1, PLAIN, &request),
        UnsupportedProtocol => node.send(PLAIN, &packet(ip(ipv4::GRE, OWN, RS), &[0; 8])),
        NoRoute => node.send(PLAIN, &tcp_packet((OWN, 1, Ipv4Addr::new(8, 8, 8, 8), 2), tcp::ACK, &[], &[])),
        ForeignSource => node.send(PLAIN, &tcp_packet((RS, 1, RS, 2), tcp::ACK, &[], &[])),
        TooBig => node.send(PLAIN, &tcp_packet(REQUEST, tcp::ACK, &[], &[0; 1433])),
        FragmentationNeeded => {
            let mut large = tcp_packet(REQUEST, tcp::ACK, &[], &[0; 1433]);
            large[6] = 0;
            node.send(PLAIN, &large)
        }
        TooManySegments => {
            let mut large = tcp_packet(REQUEST, tcp::ACK, &[], &vec![0; MAX_FRAME_PACKETS_OUT + 1]);
            let header = open_checksum(&mut large, virtio::GSO_TCPV4, 1);
            node.send(header, &large)
        }
        BatchFull => {
            node.batch = Batch::new(60, 1);
            node.send(PLAIN, &request)
        }
        Loop => node.send(PLAIN, &udp_packet((OWN, 1, L4_SECOND, 2), b"x")),
        PathTooSmall => {
            // Three rounds in which only the small probe is answered.
            for _ in 0..4 {
                node.batch.clear();
                assert_eq!(node.engine.poll_probe(node.now), Some(0));
                node.engine.write_probes(node.now, 0, &mut node.batch);
                let small = super::inner_of(&node.batch.packets().next().unwrap().bytes());
                assert_eq!(node.receive_plain(&from_l4(&echoed(&small))), None);
                node.now += Duration::from_secs(5);
            }
            node.send(PLAIN, &udp6_packet((OWN6, 1, RS6, 2), b"x"))
        }
        UnderlayIgnored => {
            let error = icmp_message(icmp::fragmentation_needed(1000), &from_l4(&client));
            assert_eq!(
                node.engine.handle_underlay_error(node.now, Version::V4, &error),
                Err(UnderlayIgnored)
            );
            node.unmatched.count_drop(UnderlayIgnored);
            vec![]
        }
        _ => vec![],
    };
    assert!(sent.is_empty());
    let outer = match reason {
        Malformed | BadOffload | NoTunnel | UnsupportedProtocol | NoRoute | ForeignSource | TooBig
        | FragmentationNeeded | TooManySegments | BatchFull | Loop | PathTooSmall | UnderlayIgnored => return,
        OuterFragment => outer_with(&|outer| outer[6] = 0x20),
        NotATunnel => outer_with(&|outer| outer[9] = 50),
        BadGre => outer_with(&|outer| outer[20] |= 0x40),
        UnknownPeer => gre_with(gre::Header { key: None, ..keyed() }),
        BadUdpChecksum => {
            let mut datagram = udp_packet((L4, 50_000, L7, udp::GRE_IN_UDP), &from_l4(&client)[20..]);
            datagram[26..28].copy_from_slice(&[0xab, 0xcd]);
            datagram
        }
        BadGreChecksum => gre_with(gre::Header { checksum: Some(1), ..keyed() }),
        UnknownProtocol => gre_with(gre::Header { protocol: 0x88be, ..keyed() }),
        Nested => inner_of(ipv4::GRE),
        InnerFragment => {
            from_l4(&packet(ipv4::Header { fragment_offset: 8, ..ip(ipv4::TCP, RS, VIP) }, &[0; 40]))
        }
        SpoofedInner => from_l4(&tcp_packet((Ipv4Addr::new(8, 8, 8, 8), 1, VIP, 443), tcp::SYN, &[], &[])),
        NotOurs => from_l4(&tcp_packet((RS, 1, VIP, 444), tcp::SYN, &[], &[])),
        EcnCongested => outer_with(&|outer| outer[1] = 3),
    };
    assert_eq!(node.receive_plain(&outer), None);
}

/// The tunnel that makes this drop possible.
fn tunnel_for(reason: DropReason) -> Tunnel {
    match reason {
        BadUdpChecksum => Tunnel { kind: Kind::GreInUdp, ..l7() },
        FragmentationNeeded => Tunnel { fragment: Fragment::Off, ..l7() },
        PathTooSmall => Tunnel { probe: Some(RS.into()), ..l7_with_v6() },
        _ => l7(),
    }
}

#[test]
fn every_reason_can_happen() {
    for reason in DropReason::all() {
        let mut node = Node::new(&[tunnel_for(*reason)]);
        provoke(*reason, &mut node);
        assert_eq!(node.drops(), [*reason]);
        let counters = node.counters[0].snapshot();
        let only_probes = *reason == PathTooSmall;
        assert_eq!((counters.packets_out, counters.packets_in) == (0, 0), !only_probes, "{reason:?}");
    }
}

#[test]
fn nothing_from_an_unknown_peer_counts_for_a_tunnel() {
    let inner = tcp_packet(CLIENT, tcp::SYN, &[], &[]);
    for outer in [
        gre_packet(Ipv4Addr::new(192, 0, 2, 99), L7, keyed(), &inner),
        gre_packet(L4, Ipv4Addr::new(192, 0, 2, 99), keyed(), &inner),
        gre_packet(L4, L7, gre::Header { key: Some(0), ..keyed() }, &inner),
    ] {
        let mut node = Node::new(&[l7()]);
        assert_eq!(node.receive_plain(&outer), None);
        assert_eq!(node.unmatched.drops(UnknownPeer), 1);
    }
}

#[test]
fn every_kind_of_tunnel_inside_is_nested() {
    let mut node = Node::new(&[l4()]);
    let nested = |protocol| packet(ip(protocol, OWN, RS), &[0; 40]);
    let packets = [
        nested(ipv4::GRE),
        nested(ipv4::IPIP),
        nested(ipv4::IPV6),
        packet(ipv4::Header { fragment_offset: 3, ..ip(ipv4::GRE, OWN, RS) }, &[0; 40]),
        udp_packet((OWN, 1, RS, 4754), b"gre"),
        udp_packet((OWN, 1, RS, 4755), b"gre"),
    ];
    for inner in &packets {
        assert_eq!(node.receive_plain(&gre_packet(L7, L4, keyed(), inner)), None);
    }
    assert_eq!(node.drops(), vec![Nested; packets.len()]);
    assert!(node.receive_plain(&gre_packet(L7, L4, keyed(), &udp_packet((OWN, 4754, RS, 1), b""))).is_some());
}

#[test]
fn a_source_of_this_host_is_forged() {
    let mut tunnel = l7();
    tunnel.networks = vec!["0.0.0.0/0".parse().unwrap()];
    let mut node = Node::new(&[tunnel]);
    let forged = [OWN, VIP, Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST];
    for source in forged {
        let inner = tcp_packet((source, 1, VIP, 443), tcp::SYN, &[], &[]);
        assert_eq!(node.receive_plain(&from_l4(&inner)), None);
    }
    assert_eq!(node.drops(), [SpoofedInner; 5]);
}

#[test]
fn nobody_reaches_an_outer_address_through_a_tunnel() {
    let mut tunnel = l4();
    tunnel.forward[0].networks.push("192.0.2.0/24".parse().unwrap());
    let mut node = Node::new(&[tunnel]);
    let to = |address| gre_packet(L7, L4, keyed(), &udp_packet((OWN, 1, address, 2), b""));
    assert_eq!(node.receive_plain(&to(L7)), None);
    assert_eq!(node.receive_plain(&to(L4)), None);
    assert_eq!(node.drops(), [Loop, Loop]);
    assert!(node.receive_plain(&to(Ipv4Addr::new(192, 0, 2, 200))).is_some());
}

#[test]
fn an_own_address_is_not_forwarded_to() {
    let mut node = Node::new(&[Tunnel { addresses: vec![RS.into()], ..l4() }]);
    let ping = |to| gre_packet(L7, L4, keyed(), &icmp_packet(OWN, to, icmp::ECHO_REQUEST, b""));
    assert_eq!(node.receive_plain(&ping(RS)), None);
    assert_eq!(node.drops(), [NotOurs]);
    assert!(node.receive_plain(&ping(Ipv4Addr::new(10, 0, 0, 11))).is_some());
}
