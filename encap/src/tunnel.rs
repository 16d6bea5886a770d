//! What a tunnel is told apart by, and what belongs to it.
//!
//! [`Peers`] finds the tunnel of a packet from the network, [`Scope`] knows the addresses of one tunnel, and
//! [`flows`] remembers which flows it carries and by which peer. The engine asks; nothing here drops a packet.

pub mod flows;

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

/// Makes hashers that nobody outside can predict: SipHash with a secret in front of every key.
#[derive(Debug, Clone, Copy)]
pub struct Seeded(pub u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// (peer, local address, key or none) to the index of the tunnel. The key must match exactly, its absence too.
#[derive(Debug)]
pub struct Peers {
    tunnels: HashMap<(Ipv4Addr, Ipv4Addr, Option<u32>), usize, Seeded>,
}

impl Peers {
    /// An empty map.
    pub fn new(seed: u64) -> Self {
        Self { tunnels: HashMap::with_hasher(Seeded(seed)) }
    }

    /// Adds one peer of a tunnel. Of two tunnels with equal values the first one stays; the configuration refuses
    /// them.
    pub fn add(&mut self, peer: Ipv4Addr, local: Ipv4Addr, key: Option<u32>, tunnel: usize) {
        self.tunnels.entry((peer, local, key)).or_insert(tunnel);
    }

    /// The tunnel of a packet from `peer` to `local`.
    pub fn find(&self, peer: Ipv4Addr, local: Ipv4Addr, key: Option<u32>) -> Option<usize> {
        self.tunnels.get(&(peer, local, key)).copied()
    }
}

/// The addresses of one tunnel, on this side and behind it.
#[derive(Debug, Clone)]
pub struct Scope {
    address: Option<Ipv4Addr>,
    vips: Vec<SocketAddrV4>,
    behind: Ranges,
    forward: Ranges,
}

impl Scope {
    /// The tunnel's own address, the networks behind it, the listeners on it, and the networks on this side that
    /// it forwards to.
    pub fn new(
        address: Option<Ipv4Addr>,
        networks: &[Ipv4Net],
        vips: &[SocketAddrV4],
        forward: impl IntoIterator<Item = Ipv4Net>,
    ) -> Self {
        let mut vips = vips.to_vec();
        vips.sort_unstable();
        Self { address, vips, behind: Ranges::new(networks.iter().copied()), forward: Ranges::new(forward) }
    }

    /// Whether a single host of this address may be behind the tunnel: in its networks, and neither multicast,
    /// broadcast, loopback nor 0.0.0.0/8 (RFC 1122 section 3.2.1.3).
    pub fn is_behind(&self, address: Ipv4Addr) -> bool {
        let no_host = address.is_multicast() || address.is_broadcast() || address.is_loopback();
        !no_host && address.octets()[0] != 0 && self.behind.contains(address)
    }

    /// Whether this host answers to the address on this tunnel: its own, or that of a listener.
    pub fn is_host(&self, address: Ipv4Addr) -> bool {
        self.is_own(address) || self.first_vip(address).is_some()
    }

    /// Whether this is the tunnel's own address, from which connections are opened.
    pub fn is_own(&self, address: Ipv4Addr) -> bool {
        self.address == Some(address)
    }

    /// Whether there is a listener.
    pub fn is_vip(&self, address: Ipv4Addr, port: u16) -> bool {
        self.vips.binary_search(&SocketAddrV4::new(address, port)).is_ok()
    }

    /// Whether packets from the tunnel to this address are handed on.
    pub fn is_forwarded(&self, address: Ipv4Addr) -> bool {
        self.forward.contains(address)
    }

    fn first_vip(&self, address: Ipv4Addr) -> Option<&SocketAddrV4> {
        let at = self.vips.partition_point(|vip| *vip.ip() < address);
        self.vips.get(at).filter(|vip| *vip.ip() == address)
    }
}

/// A set of addresses as disjoint ascending ranges, first and last included.
#[derive(Debug, Clone)]
struct Ranges(Vec<(Ipv4Addr, Ipv4Addr)>);

impl Ranges {
    fn new(networks: impl IntoIterator<Item = Ipv4Net>) -> Self {
        let mut all: Vec<_> = networks.into_iter().map(|net| (net.network(), net.broadcast())).collect();
        all.sort_unstable();
        let mut ranges: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match ranges.last_mut() {
                // Two prefixes either nest or are disjoint: the earlier one already covers this one.
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => ranges.push((first, last)),
            }
        }
        Self(ranges)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < address);
        self.0.get(at).is_some_and(|(first, _)| *first <= address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(text: &[&str]) -> Vec<Ipv4Net> {
        text.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn the_key_must_match_exactly() {
        let [peer, local] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let mut peers = Peers::new(7);
        peers.add(peer, local, Some(0), 0);
        peers.add(peer, local, None, 1);
        peers.add(peer, local, None, 2);
        assert_eq!(peers.find(peer, local, Some(0)), Some(0));
        assert_eq!(peers.find(peer, local, None), Some(1));
        assert_eq!(peers.find(peer, local, Some(1)), None);
        assert_eq!(peers.find(local, peer, None), None);
    }

    #[test]
    fn what_belongs_to_a_tunnel() {
        let own = Ipv4Addr::new(100, 64, 0, 1);
        let vips = ["10.9.0.2:443", "10.9.0.1:443", "10.9.0.1:80"].map(|vip| vip.parse().unwrap());
        let scope = Scope::new(Some(own), &nets(&["0.0.0.0/0"]), &vips, nets(&["10.5.0.0/16"]));
        let at = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert!(scope.is_behind(at("8.8.8.8")));
        for odd in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.251", "255.255.255.255"] {
            assert!(!scope.is_behind(at(odd)), "{odd}");
        }
        assert!(scope.is_host(own) && scope.is_own(own));
        assert!(
            scope.is_host(at("10.9.0.1")) && scope.is_host(at("10.9.0.2")) && !scope.is_own(at("10.9.0.1"))
        );
        assert!(!scope.is_host(at("10.9.0.0")) && !scope.is_host(at("10.9.0.3")));
        assert!(scope.is_vip(at("10.9.0.1"), 80) && !scope.is_vip(at("10.9.0.2"), 80));
        assert!(scope.is_forwarded(at("10.5.255.255")) && !scope.is_forwarded(at("10.6.0.0")));
    }

    proptest! {
        #[test]
        fn ranges_are_the_prefixes(
            prefixes in prop::collection::vec((0u32..4096, 20u8..=32), 0..12), address in 0u32..4200,
        ) {
            let nets: Vec<_> =
                prefixes.iter().map(|(net, len)| Ipv4Net::new((*net).into(), *len).unwrap().trunc()).collect();
            let address = Ipv4Addr::from(address);
            let expected = nets.iter().any(|net| net.contains(&address));
            prop_assert_eq!(Ranges::new(nets).contains(address), expected);
        }
    }
}
