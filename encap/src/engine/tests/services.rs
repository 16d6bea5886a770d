//! What other programs of this host serve on a tunnel: an address, a port of it, and nothing else of this host.

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::config::Service;

const OPEN: Ipv4Addr = Ipv4Addr::new(100, 64, 9, 4);
const OPEN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 4);
const PORTS: Ipv4Addr = Ipv4Addr::new(100, 64, 9, 5);
const PORTS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 5);

fn serving(outer_v4: bool) -> Tunnel {
    let text = [
        OPEN.to_string(),
        OPEN6.to_string(),
        format!("{PORTS}:80"),
        format!("{PORTS}:53/udp"),
        format!("[{PORTS6}]:80"),
        format!("[{PORTS6}]:53/udp"),
    ];
    let services: [Service; 6] = text.map(|text| text.parse().unwrap());
    Tunnel { services: services.to_vec(), ..GRE.near(outer_v4) }
}

/// A server and addresses of this host, of one version: open, with ports, its own, a VIP.
fn ends() -> [(IpAddr, [IpAddr; 4]); 2] {
    [
        (RS.into(), [OPEN.into(), PORTS.into(), OWN.into(), VIP.into()]),
        (RS6.into(), [OPEN6.into(), PORTS6.into(), OWN6.into(), VIP6.into()]),
    ]
}

fn takes(node: &mut Node, tunnel: &Tunnel, inner: &[u8]) -> bool {
    node.receive_plain(&from_peer(tunnel, tunnel.peers[0], inner)).is_some()
}

#[test]
fn of_an_address_everything_is_open_and_of_a_port_only_itself() {
    for outer_v4 in [true, false] {
        let tunnel = serving(outer_v4);
        let mut node = node(&tunnel);
        for (client, addresses) in ends() {
            let from = at(client, 9);
            let by_tcp = |to| tcp(from, to, tcp::SYN, &[], &[]);
            let by_udp = |to| udp(from, to, b"x");
            // TCP 80, TCP 81, UDP 53, UDP 80, echo: of the open one, of the ports, of its own, of the VIP.
            let expected = [[true; 5], [true, false, true, false, false], [false; 5], [false; 5]];
            for (address, expected) in addresses.into_iter().zip(expected) {
                let packets = [
                    by_tcp(at(address, 80)),
                    by_tcp(at(address, 81)),
                    by_udp(at(address, 53)),
                    by_udp(at(address, 80)),
                    echo(client, address, false, 1, b"ping"),
                ];
                let taken = packets.map(|packet| takes(&mut node, &tunnel, &packet));
                assert_eq!(taken, expected, "{address}");
            }
            assert!(
                takes(&mut node, &tunnel, &by_tcp(at(addresses[3], 443))),
                "the listener of this program"
            );
        }
        assert_eq!(node.drops(), [DropReason::NotOurs; 26]);
    }
}

#[test]
fn answers_go_back_to_the_peer_that_asked() {
    let tunnel = serving(true);
    let mut node = node(&tunnel);
    for (client, addresses) in ends() {
        let question = udp(at(client, 9), at(addresses[1], 53), b"?");
        let outer = from_peer(&tunnel, L4_SECOND.into(), &question);
        assert_eq!(node.receive_plain(&outer), Some(question));
        let answer = udp(at(addresses[1], 53), at(client, 9), b"!");
        assert_eq!(node.outward(&answer)[0].to, L4_SECOND);
        let ping = echo(client, addresses[0], false, 7, b"ping");
        assert!(node.receive_plain(&from_peer(&tunnel, L4_SECOND.into(), &ping)).is_some());
        assert_eq!(node.outward(&echo(addresses[0], client, true, 7, b"ping"))[0].to, L4_SECOND);
    }
}

#[test]
fn a_service_that_asks_gets_its_answer() {
    let tunnel = serving(true);
    let mut node = node(&tunnel);
    for (server, addresses) in ends() {
        let open = addresses[0];
        // Nobody has asked yet.
        assert!(!takes(&mut node, &tunnel, &echo(server, open, true, 7, b"pong")));
        assert_eq!(node.outward(&echo(open, server, false, 7, b"ping")).len(), 1);
        assert!(takes(&mut node, &tunnel, &echo(server, open, true, 7, b"pong")));
        assert_eq!(node.outward(&tcp(at(open, 40_000), at(server, 80), tcp::SYN, &[], &[])).len(), 1);
        assert!(takes(
            &mut node,
            &tunnel,
            &tcp(at(server, 80), at(open, 40_000), tcp::SYN | tcp::ACK, &[], &[])
        ));
        // An error about it, too.
        let sent = tcp(at(open, 40_000), at(server, 80), tcp::ACK, &[], b"x");
        assert!(takes(&mut node, &tunnel, &unreachable(server, open, &sent)));
    }
    assert_eq!(node.drops(), [DropReason::NotOurs; 2]);
}

#[test]
fn nobody_behind_the_tunnel_has_an_address_that_is_served() {
    let tunnel = Tunnel { networks: nets(&["0.0.0.0/0", "::/0"]), ..serving(true) };
    let mut node = node(&tunnel);
    for (_, addresses) in ends() {
        for source in addresses {
            assert!(!takes(&mut node, &tunnel, &udp(at(source, 9), at(addresses[1], 53), b"x")));
        }
    }
    assert_eq!(node.drops(), [DropReason::SpoofedInner; 8]);
}

#[test]
fn icmp_of_the_other_version_is_no_echo() {
    let tunnel = serving(true);
    let mut node = node(&tunnel);
    // ICMPv6 in IPv4, and ICMP in IPv6.
    assert!(!takes(&mut node, &tunnel, &ip_packet(58, RS.into(), OPEN.into(), &[128, 0, 0, 0, 0, 1, 0, 1])));
    assert!(!takes(&mut node, &tunnel, &ip_packet(1, RS6.into(), OPEN6.into(), &[8, 0, 0, 0, 0, 1, 0, 1])));
    assert_eq!(node.drops(), [DropReason::UnsupportedProtocol; 2]);
}
