//! Which tunnel a packet from the network belongs to.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Seeded;
use super::flows::PeerIndex;
use crate::config::{Kind, Tunnel};

/// What the outer headers of a packet say about its tunnel, without the peer. The key must match exactly, its absence
/// too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Relation {
    /// Encapsulation.
    pub kind: Kind,
    /// Outer address of this host.
    pub local: IpAddr,
    /// GRE key.
    pub key: Option<u32>,
}

/// Index of a tunnel, and of the peer in it.
type Place = (usize, PeerIndex);

/// (relation, peer) to the index of the tunnel and the peer in it, where peers are single addresses or networks.
#[derive(Debug)]
pub struct Peers {
    hosts: HashMap<(Relation, IpAddr), Place, Seeded>,
    /// Of one relation the networks are disjoint: the configuration refuses others.
    networks: HashMap<Relation, Vec<(IpNet, Place)>, Seeded>,
    /// What was found last: packets come in bursts.
    latest: Cell<Option<(Relation, IpAddr, Place)>>,
}

impl Peers {
    /// An empty map.
    pub fn new(seed: u64) -> Self {
        Self {
            hosts: HashMap::with_hasher(Seeded(seed)),
            networks: HashMap::with_hasher(Seeded(seed)),
            latest: Cell::new(None),
        }
    }

    /// Adds what a tunnel receives. Of two tunnels with equal values the first one stays; the configuration refuses
    /// them.
    pub fn add(&mut self, tunnel: &Tunnel, index: usize) {
        self.latest.set(None);
        let relation = Relation { kind: tunnel.kind, local: tunnel.local, key: tunnel.key };
        for (peer, address) in (0..).zip(tunnel.remotes()) {
            self.hosts.entry((relation, address)).or_insert((index, peer));
        }
        if !tunnel.peer_networks.is_empty() {
            let networks = self.networks.entry(relation).or_default();
            let reply_to = tunnel.remotes().position(|remote| Some(remote) == tunnel.reply_to);
            let reply_to = reply_to.unwrap_or(0) as PeerIndex;
            networks.extend(tunnel.peer_networks.iter().map(|network| (*network, (index, reply_to))));
        }
    }

    /// Forgets a tunnel.
    pub fn remove(&mut self, index: usize) {
        self.latest.set(None);
        self.hosts.retain(|_, (of, _)| *of != index);
        self.networks.retain(|_, networks| {
            networks.retain(|(_, (of, _))| *of != index);
            !networks.is_empty()
        });
    }

    /// The tunnel of a packet from `peer`, and the peer that answers to it go to.
    pub fn find(&self, relation: Relation, peer: IpAddr) -> Option<Place> {
        if let Some((latest, from, found)) = self.latest.get()
            && (latest, from) == (relation, peer)
        {
            return Some(found);
        }
        let found = self.look_up(relation, peer)?;
        self.latest.set(Some((relation, peer, found)));
        Some(found)
    }

    fn look_up(&self, relation: Relation, peer: IpAddr) -> Option<Place> {
        if let Some(found) = self.hosts.get(&(relation, peer)) {
            return Some(*found);
        }
        if self.networks.is_empty() {
            return None;
        }
        let networks = self.networks.get(&relation)?;
        networks.iter().find(|(network, _)| network.contains(&peer)).map(|(_, found)| *found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tunnel;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_key_must_match_exactly() {
        let keys = [Some(0), None, None];
        let mut peers = Peers::new(7);
        for (index, key) in keys.into_iter().enumerate() {
            peers.add(&Tunnel { key, ..tunnel() }, index);
        }
        let (local, peer) = (tunnel().local, tunnel().peers[0]);
        let find = |kind, key, peer| peers.find(Relation { kind, local, key }, peer);
        assert_eq!(find(Kind::Gre, Some(0), peer), Some((0, 0)));
        assert_eq!(find(Kind::Gre, None, peer), Some((1, 0)));
        assert_eq!(find(Kind::Gre, Some(1), peer), None);
        assert_eq!(find(Kind::GreInUdp, None, peer), None);
        assert_eq!(find(Kind::Gre, None, local), None);
    }

    #[test]
    fn a_peer_is_an_address_or_inside_a_network() {
        let mut peers = Peers::new(7);
        let wide = Tunnel {
            peers: vec![ip("192.0.2.2")],
            peer_networks: vec!["198.51.100.0/24".parse().unwrap()],
            reply_to: Some(ip("198.51.100.7")),
            ..tunnel()
        };
        peers.add(&wide, 4);
        let relation = Relation { kind: wide.kind, local: wide.local, key: wide.key };
        for (peer, found) in
            [("192.0.2.2", Some((4, 0))), ("198.51.100.9", Some((4, 1))), ("198.51.101.1", None)]
        {
            assert_eq!(peers.find(relation, ip(peer)), found, "{peer}");
        }
        peers.add(&Tunnel { reply_to: Some(ip("192.0.2.2")), key: Some(1), ..wide.clone() }, 5);
        let keyed = Relation { key: Some(1), ..relation };
        assert_eq!(peers.find(keyed, ip("198.51.100.9")), Some((5, 0)), "one of the hosts");
        peers.remove(4);
        assert_eq!(peers.find(relation, ip("192.0.2.2")), None);
        assert_eq!(peers.find(relation, ip("198.51.100.9")), None);
    }
}
