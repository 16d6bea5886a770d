//! Tunnels that come, change and go while others are in use.

use super::packets::*;
use super::pairs::*;
use super::*;

/// Three tunnels with equal inner addresses, each with a flow by its second peer and a datagram in pieces under way.
struct Busy {
    tunnels: Vec<Tunnel>,
    node: Node,
}

fn busy() -> Busy {
    let tunnels: Vec<_> = [Some(1), Some(2), Some(3)].map(|key| Tunnel { key, ..GRE.near(true) }).into();
    let mut busy = Busy { node: Node::new(&tunnels), tunnels };
    for index in 0..3 {
        busy.open(index);
    }
    busy
}

impl Busy {
    fn open(&mut self, index: usize) {
        assert!(self.receive(index, &syn()).is_some());
        assert_eq!(self.send(index, &request()).len(), 1);
        assert!(self.receive(index, &answer()).is_some());
    }

    fn receive(&mut self, index: usize, inner: &[u8]) -> Option<usize> {
        let outer = from_peer(&self.tunnels[index], L4_SECOND.into(), inner);
        self.node.inward(virtio::Header::default(), &outer).pop().map(|(tunnel, ..)| tunnel)
    }

    fn send(&mut self, index: usize, inner: &[u8]) -> Vec<Sent> {
        self.node.outward_by(index, virtio::Header::default(), inner)
    }

    fn set(&mut self, index: usize, tunnel: Tunnel) {
        let counters = TunnelCounters::new(&tunnel);
        if let Some(place) = self.node.counters.get_mut(index) {
            *place = Arc::clone(&counters);
        }
        self.node.engine.set_tunnel(self.node.now, index, &tunnel, MTU, counters, true);
        if index < self.tunnels.len() {
            self.tunnels[index] = tunnel;
        }
    }

    /// Nothing has changed for this tunnel: its flows, the peer they came by, its key.
    fn is_untouched(&mut self, index: usize) {
        assert_eq!(self.receive(index, &answer()), Some(index));
        let sent = self.send(index, &reply());
        assert_eq!(sent[0].to, L4_SECOND);
        assert_eq!(unwrapped(&self.tunnels[index], &sent[0].bytes), reply());
        assert_eq!(self.send(index, &request())[0].to, L4_SECOND);
        let flows = self.node.engine.tunnels[index].as_ref().unwrap().flows.len();
        assert_eq!(flows, 2);
    }
}

fn syn() -> Vec<u8> {
    tcp(at(RS, 9), at(VIP, 443), tcp::SYN, &[], &[])
}

fn reply() -> Vec<u8> {
    tcp(at(VIP, 443), at(RS, 9), tcp::SYN | tcp::ACK, &[], &[])
}

fn request() -> Vec<u8> {
    udp(at(OWN, 1), at(RS, 2), b"question")
}

fn answer() -> Vec<u8> {
    udp(at(RS, 2), at(OWN, 1), b"answer")
}

#[test]
fn removing_one_leaves_the_others() {
    let mut busy = busy();
    busy.node.engine.remove_tunnel(1);
    assert_eq!(busy.receive(1, &answer()), None);
    assert_eq!(busy.node.unmatched.drops(DropReason::UnknownPeer), 1);
    assert_eq!(busy.send(1, &request()), []);
    assert_eq!(busy.node.unmatched.drops(DropReason::NoTunnel), 1);
    busy.is_untouched(0);
    busy.is_untouched(2);
    // Twice, and one that never was.
    busy.node.engine.remove_tunnel(1);
    busy.node.engine.remove_tunnel(99);
    busy.is_untouched(0);
}

#[test]
fn changing_one_leaves_the_others_and_forgets_its_flows() {
    let mut busy = busy();
    let changed = Tunnel { ttl: 9, ..busy.tunnels[1].clone() };
    busy.set(1, changed);
    assert_eq!(busy.receive(1, &answer()), None, "its flows are forgotten");
    assert_eq!(busy.node.counters[1].drops(DropReason::NotOurs), 1);
    busy.is_untouched(0);
    busy.is_untouched(2);
    busy.open(1);
    busy.is_untouched(1);
    assert_eq!(busy.send(1, &request())[0].bytes[8], 9);
}

#[test]
fn a_changed_key_lets_go_of_the_old_one() {
    let mut busy = busy();
    let old = busy.tunnels[1].clone();
    busy.set(1, Tunnel { key: Some(77), ..old.clone() });
    let outer = from_peer(&old, L4_SECOND.into(), &syn());
    assert_eq!(busy.node.receive_plain(&outer), None);
    assert_eq!(busy.node.unmatched.drops(DropReason::UnknownPeer), 1);
    assert_eq!(busy.receive(1, &syn()), Some(1));
    // Another tunnel may have it now.
    busy.set(5, old);
    let delivered = busy.node.inward(virtio::Header::default(), &outer);
    assert_eq!(delivered[0].0, 5);
    busy.is_untouched(0);
    busy.is_untouched(2);
}

#[test]
fn adding_one_leaves_the_others() {
    let mut busy = busy();
    busy.set(7, Tunnel { key: Some(4), ..GRE.near(true) });
    busy.is_untouched(0);
    busy.is_untouched(1);
    busy.is_untouched(2);
    assert_eq!(busy.send(3, &request()), [], "the places between are empty");
    busy.node.engine.handle_timeout(busy.node.now + Duration::from_secs(2));
    busy.is_untouched(2);
}

#[test]
fn what_waited_for_a_tunnel_does_not_reach_its_successor() {
    let mut busy = busy();
    let large = udp(at(OWN, 1), at(RS, 2), &[0; 1500]);
    for index in [1, 2, 1] {
        busy.send(index, &large);
    }
    busy.node.engine.remove_tunnel(1);
    busy.set(1, Tunnel { key: Some(77), ..GRE.near(true) });
    assert_eq!(busy.node.told().map(|(tunnel, _)| tunnel), Some(2));
    assert_eq!(busy.node.told(), None);
    // The places in the queue are free again.
    for _ in 0..100 {
        busy.send(2, &large);
        assert_eq!(busy.node.told().map(|(tunnel, _)| tunnel), Some(2));
        busy.node.now += Duration::from_millis(10);
    }
}

#[test]
fn a_piece_under_way_is_not_let_into_the_successor() {
    let serving = |key| Tunnel {
        services: vec![format!("{VIP}:53/udp").parse().unwrap()],
        ..Tunnel { key, ..GRE.near(true) }
    };
    let mut busy = busy();
    busy.set(1, serving(Some(2)));
    let question = pieces(&udp(at(RS, 9), at(VIP, 53), &[5; 3000]), 1200);
    assert_eq!(busy.receive(1, &question[0]), Some(1));
    assert_eq!(busy.receive(1, &question[1]), Some(1));
    busy.set(1, serving(Some(2)));
    assert_eq!(busy.receive(1, &question[2]), None);
}

#[test]
fn outer_addresses_are_those_of_the_tunnels_that_are_there() {
    let reach = nets(&["10.0.0.0/8", "203.0.113.0/24"]);
    let mut busy = busy();
    busy.set(0, Tunnel { networks: reach, ..busy.tunnels[0].clone() });
    let far = Ipv4Addr::new(203, 0, 113, 9);
    let to_far = udp(at(OWN, 1), at(far, 2), b"x");
    assert_eq!(busy.send(0, &to_far).len(), 1);
    busy.set(1, Tunnel { peers: vec![far.into()], ..busy.tunnels[1].clone() });
    assert_eq!(busy.send(0, &to_far), [], "it is the other end of a tunnel now");
    busy.node.engine.remove_tunnel(1);
    assert_eq!(busy.send(0, &to_far).len(), 1);
}

#[test]
fn an_engine_without_work_has_no_timer() {
    let mut busy = busy();
    for index in 0..3 {
        busy.node.engine.remove_tunnel(index);
    }
    busy.node.now += Duration::from_secs(2);
    busy.node.engine.handle_timeout(busy.node.now);
    assert_eq!(busy.node.engine.poll_timeout(), None);
}

#[test]
fn a_thousand_come_and_go() {
    let counters = Counters::default();
    let mut node = node(&GRE.near(true));
    let tunnel = |key| Tunnel { key: Some(key), ..GRE.near(true) };
    for index in 1..1000 {
        let tunnel = tunnel(index as u32);
        node.engine.set_tunnel(node.now, index, &tunnel, MTU, counters.add(&tunnel), true);
    }
    for index in [1, 500, 999] {
        let outer = from_peer(&tunnel(index as u32), L4.into(), &syn());
        assert_eq!(node.inward(virtio::Header::default(), &outer)[0].0, index);
    }
    for index in 1..1000 {
        node.engine.remove_tunnel(index);
    }
    assert_eq!(node.receive_plain(&from_peer(&tunnel(500), L4.into(), &syn())), None);
    assert!(node.receive_plain(&from_peer(&GRE.near(true), L4.into(), &syn())).is_some());
}
