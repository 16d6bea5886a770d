//! Tunnel packets inside tunnel packets: a tenant could pose as the L4 tier toward another tenant.

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::config::Service;

const SERVED: Ipv4Addr = Ipv4Addr::new(100, 64, 9, 4);
const SERVED6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 4);

/// A tunnel of which everything at one address of each version is open.
fn tunnel(nested: bool) -> Tunnel {
    let services: [Service; 2] = [SERVED.to_string(), SERVED6.to_string()].map(|text| text.parse().unwrap());
    Tunnel { services: services.to_vec(), nested, ..GRE.near(true) }
}

/// Every clothing of a tunnel packet, whole and as first pieces.
fn clothed() -> Vec<Vec<u8>> {
    let ends: [(IpAddr, IpAddr); 2] = [(RS.into(), SERVED.into()), (RS6.into(), SERVED6.into())];
    let innermost = udp(at(RS, 1), at(VIP, 443), b"forged");
    let gre = [&[0x20, 0, 8, 0, 0, 0, 0, 9], &innermost[..]].concat();
    let mut packets = Vec::new();
    for (from, to) in ends {
        packets.extend([
            ip_packet(47, from, to, &gre),
            ip_packet(4, from, to, &innermost),
            ip_packet(41, from, to, &udp(at(RS6, 1), at(VIP6, 443), b"forged")),
            udp(at(from, 50_000), at(to, 4754), &gre),
            udp(at(from, 50_000), at(to, 4755), &gre),
        ]);
    }
    // Behind extension headers.
    let options = [47, 0, 1, 4, 0, 0, 0, 0];
    packets.push(packet6(60, RS6, SERVED6, &[&options[..], &gre].concat()));
    let firsts: Vec<_> = packets[..10].iter().map(|packet| pieces(packet, 64).swap_remove(0)).collect();
    packets.extend(firsts);
    packets
}

fn take(node: &mut Node, inner: &[u8]) -> bool {
    node.receive_plain(&from_peer(&tunnel(false), L4.into(), inner)).is_some()
}

#[test]
fn they_are_refused_in_every_clothing() {
    let mut near = node(&tunnel(false));
    let mut far = node(&GRE.far(true));
    let packets = clothed();
    for packet in &packets {
        assert!(!take(&mut near, packet), "{:?}", look(packet));
        // An L4 node does not hand them on either.
        let (mut to_server, v4) = (packet.clone(), packet[0] >> 4 == 4);
        if v4 {
            to_server[12..16].copy_from_slice(&OWN.octets());
            to_server[16..20].copy_from_slice(&RS.octets());
        } else {
            to_server[8..24].copy_from_slice(&OWN6.octets());
            to_server[24..40].copy_from_slice(&RS6.octets());
        }
        assert_eq!(far.receive_plain(&from_peer(&GRE.far(true), L7.into(), &to_server)), None);
    }
    assert_eq!(near.drops(), vec![DropReason::Nested; packets.len()]);
    assert_eq!(far.drops(), vec![DropReason::Nested; packets.len()]);
}

#[test]
fn later_pieces_of_them_are_refused_as_well() {
    let mut node = node(&tunnel(false));
    for packet in &clothed()[..10] {
        for piece in &pieces(packet, 64) {
            assert!(!take(&mut node, piece));
        }
    }
    assert!(
        node.drops()
            .iter()
            .all(|reason| { matches!(reason, DropReason::Nested | DropReason::InnerFragment) })
    );
}

#[test]
fn nothing_else_is_taken_for_one() {
    let mut node = node(&tunnel(false));
    for packet in [
        udp(at(RS, 4754), at(SERVED, 1), b"from the port, not to it"),
        udp(at(RS6, 4755), at(SERVED6, 1), b"from the port, not to it"),
        tcp(at(RS, 1), at(SERVED, 4754), tcp::SYN, &[], &[]),
    ] {
        assert!(take(&mut node, &packet));
    }
}

#[test]
fn where_they_are_allowed_they_are_carried_in_both_directions() {
    let mut near = node(&tunnel(true));
    let mut far = node(&Tunnel { nested: true, ..GRE.far(true) });
    for packet in clothed() {
        assert!(take(&mut near, &packet), "{:?}", look(&packet));
    }
    let gre = ip_packet(47, OWN.into(), RS.into(), &[0x20, 0, 8, 0, 0, 0, 0, 9, 1, 2, 3]);
    let sent = near.outward(&gre);
    assert_eq!(unwrapped(&tunnel(true), &sent[0].bytes), gre);
    assert_eq!(far.receive_plain(&sent[0].bytes), Some(gre.clone()));
    // The scope holds all the same.
    let mut near = node(&tunnel(true));
    let elsewhere = ip_packet(47, RS.into(), VIP.into(), &[0x20, 0, 8, 0, 0, 0, 0, 9, 1]);
    assert!(!take(&mut near, &elsewhere) && !take(&mut near, &pieces(&elsewhere, 28)[0]));
    let spoofed = ip_packet(47, OWN.into(), SERVED.into(), &[0x20, 0, 8, 0, 0, 0, 0, 9, 1]);
    assert!(!take(&mut near, &spoofed));
    let unsupported = ip_packet(50, RS.into(), SERVED.into(), &[0; 20]);
    assert!(!take(&mut near, &unsupported));
    use DropReason::*;
    assert_eq!(near.drops(), [UnsupportedProtocol, SpoofedInner, NotOurs, NotOurs]);
}

#[test]
fn a_host_does_not_send_them_unless_they_are_allowed() {
    let gre = ip_packet(47, OWN.into(), RS.into(), &[0; 8]);
    let mut node = node(&tunnel(false));
    assert_eq!(node.outward(&gre), []);
    assert_eq!(node.outward(&ip_packet(4, OWN.into(), RS.into(), &gre)), []);
    assert_eq!(node.drops(), [DropReason::UnsupportedProtocol; 2]);
}
