//! Networks of peers: accepted from, answered at `reply_to`; hosts among the peers keep their own answers.

use super::packets::*;
use super::pairs::*;
use super::*;

/// `peers: [host, network]`, `reply_to` an address of the network.
fn wide(outer_v4: bool) -> Tunnel {
    let near = GRE.near(outer_v4);
    let (network, reply_to) =
        if outer_v4 { ("198.51.100.0/24", "198.51.100.1") } else { ("2001:db8:1::/64", "2001:db8:1::1") };
    Tunnel {
        peers: near.peers[..1].to_vec(),
        peer_networks: nets(&[network]),
        reply_to: Some(reply_to.parse().unwrap()),
        ..near
    }
}

/// Addresses of the network: the first, some, the last.
fn inside(outer_v4: bool) -> Vec<IpAddr> {
    let text = if outer_v4 {
        ["198.51.100.0", "198.51.100.1", "198.51.100.77", "198.51.100.255"]
    } else {
        ["2001:db8:1::", "2001:db8:1::1", "2001:db8:1::77", "2001:db8:1::ffff"]
    };
    text.map(|address| address.parse().unwrap()).to_vec()
}

fn syn(port: u16) -> Vec<u8> {
    tcp(at(RS, port), at(VIP, 443), tcp::SYN, &[], &[])
}

fn syn_ack(port: u16) -> Vec<u8> {
    tcp(at(VIP, 443), at(RS, port), tcp::SYN | tcp::ACK, &[], &[])
}

#[test]
fn what_comes_from_the_network_is_answered_at_reply_to() {
    for outer_v4 in [true, false] {
        let tunnel = wide(outer_v4);
        let mut node = node(&tunnel);
        for (port, peer) in (1..).zip(inside(outer_v4)) {
            assert_eq!(node.receive_plain(&from_peer(&tunnel, peer, &syn(port))), Some(syn(port)), "{peer}");
            assert_eq!(Some(node.outward(&syn_ack(port))[0].to), tunnel.reply_to);
        }
        // The host is answered itself, and new flows go to it: it stands first.
        assert!(node.receive_plain(&from_peer(&tunnel, tunnel.peers[0], &syn(9))).is_some());
        assert_eq!(node.outward(&syn_ack(9))[0].to, tunnel.peers[0]);
        assert_eq!(node.outward(&udp(at(OWN, 1), at(RS, 2), b"x"))[0].to, tunnel.peers[0]);
        // A flow follows whoever was heard last.
        assert!(node.receive_plain(&from_peer(&tunnel, inside(outer_v4)[2], &syn(9))).is_some());
        assert_eq!(Some(node.outward(&syn_ack(9))[0].to), tunnel.reply_to);
        let outside = if outer_v4 { "198.51.101.0" } else { "2001:db8:1:1::" };
        assert_eq!(node.receive_plain(&from_peer(&tunnel, outside.parse().unwrap(), &syn(1))), None);
        assert_eq!(node.drops(), [DropReason::UnknownPeer]);
    }
}

#[test]
fn a_network_alone_sends_everything_to_reply_to() {
    let tunnel = Tunnel { peers: vec![], ..wide(true) };
    let mut node = node(&tunnel);
    assert_eq!(Some(node.outward(&udp(at(OWN, 1), at(RS, 2), b"x"))[0].to), tunnel.reply_to);
    assert!(node.receive_plain(&from_peer(&tunnel, inside(true)[2], &syn(1))).is_some());
    assert_eq!(Some(node.outward(&syn_ack(1))[0].to), tunnel.reply_to);
    let peers = node.counters[0].snapshot().peers;
    assert_eq!((peers.len(), peers[0].packets_in, peers[0].packets_out), (1, 1, 2));
}

#[test]
fn a_host_that_is_reply_to_as_well_is_one_peer() {
    let near = GRE.near(true);
    let tunnel = Tunnel { peers: near.peers.clone(), reply_to: Some(near.peers[1]), ..wide(true) };
    let mut node = node(&tunnel);
    assert_eq!(node.counters[0].snapshot().peers.len(), 2);
    assert!(node.receive_plain(&from_peer(&tunnel, inside(true)[2], &syn(1))).is_some());
    assert_eq!(node.outward(&syn_ack(1))[0].to, near.peers[1]);
    assert_eq!(node.outward(&udp(at(OWN, 1), at(RS, 2), b"x"))[0].to, near.peers[0]);
}

#[test]
fn networks_of_two_tunnels_are_told_apart_by_the_key() {
    let tunnels = [wide(true), Tunnel { key: Some(9), reply_to: Some(L4_SECOND.into()), ..wide(true) }];
    let mut node = Node::new(&tunnels);
    for (index, tunnel) in tunnels.iter().enumerate() {
        let outer = from_peer(tunnel, inside(true)[2], &syn(1));
        let delivered = node.inward(virtio::Header::default(), &outer);
        assert_eq!(delivered.iter().map(|(tunnel, ..)| *tunnel).collect::<Vec<_>>(), [index]);
        let sent = node.outward_by(index, virtio::Header::default(), &syn_ack(1));
        assert_eq!(Some(sent[0].to), tunnel.reply_to);
    }
    let stranger = Tunnel { key: None, ..wide(true) };
    assert_eq!(node.receive_plain(&from_peer(&stranger, inside(true)[2], &syn(1))), None);
    assert_eq!(node.drops(), [DropReason::UnknownPeer]);
    node.engine.remove_tunnel(0);
    assert_eq!(node.receive_plain(&from_peer(&tunnels[0], inside(true)[2], &syn(1))), None);
    assert!(node.receive_plain(&from_peer(&tunnels[1], inside(true)[2], &syn(1))).is_some());
}
