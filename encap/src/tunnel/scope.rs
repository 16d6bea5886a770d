//! The addresses of one tunnel, on this side and behind it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::{ServicePort, Tunnel};
use crate::wire::ipv4;

/// What a tunnel may carry, and for whom.
#[derive(Debug, Clone)]
pub struct Scope {
    own: Vec<IpAddr>,
    /// Sorted.
    tcp: Vec<SocketAddr>,
    /// Sorted.
    udp: Vec<SocketAddr>,
    /// Addresses of which everything is open.
    open: Vec<IpAddr>,
    hosted: Vec<IpAddr>,
    behind: Ranges,
    forward: Ranges,
}

impl Scope {
    /// The scope of a tunnel.
    pub fn new(tunnel: &Tunnel) -> Self {
        let (mut tcp, mut udp, mut open) = (tunnel.vips.clone(), Vec::new(), Vec::new());
        for service in &tunnel.services {
            match service.port {
                ServicePort::All => open.push(service.address),
                ServicePort::Tcp(port) => tcp.push(SocketAddr::new(service.address, port)),
                ServicePort::Udp(port) => udp.push(SocketAddr::new(service.address, port)),
            }
        }
        tcp.sort_unstable();
        udp.sort_unstable();
        let mut hosted: Vec<_> = tunnel.hosted().collect();
        hosted.sort_unstable();
        hosted.dedup();
        Self {
            own: tunnel.addresses.clone(),
            tcp,
            udp,
            open,
            hosted,
            behind: Ranges::new(tunnel.networks.iter().copied()),
            forward: Ranges::new(tunnel.forward.iter().flat_map(|to| to.networks.iter().copied())),
        }
    }

    /// Whether a single host of this address may be behind the tunnel.
    pub fn is_behind(&self, address: IpAddr) -> bool {
        may_be_host(address) && self.behind.contains(address)
    }

    /// Whether this host answers to the address on this tunnel: its own, or that of a listener or a service.
    pub fn is_host(&self, address: IpAddr) -> bool {
        self.hosted.binary_search(&address).is_ok()
    }

    /// Whether this is the tunnel's own address, from which connections are opened.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// Whether something listens there. Every port of an address that is open counts.
    pub fn is_served(&self, protocol: u8, address: IpAddr, port: u16) -> bool {
        let listed = match protocol {
            ipv4::TCP => &self.tcp,
            ipv4::UDP => &self.udp,
            _ => return self.is_open(address),
        };
        listed.binary_search(&SocketAddr::new(address, port)).is_ok() || self.is_open(address)
    }

    /// Whether everything of the address is open, echo included.
    pub fn is_open(&self, address: IpAddr) -> bool {
        self.open.contains(&address)
    }

    /// Whether packets from the tunnel to this address are handed on, and those from it taken.
    pub fn is_forwarded(&self, address: IpAddr) -> bool {
        may_be_host(address) && self.forward.contains(address)
    }
}

/// Whether this is none of the addresses that no single host has (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5).
fn may_be_host(address: IpAddr) -> bool {
    let no_host = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0,
        // An IPv4 address in the clothes of an IPv6 one would get past rules about IPv4.
        IpAddr::V6(v6) => v6.is_unspecified() || v6.to_ipv4_mapped().is_some(),
    };
    !no_host && !address.is_multicast() && !address.is_loopback()
}

/// A set of addresses as disjoint ascending ranges, first and last included. IPv4 sorts before IPv6, so no range has
/// both.
#[derive(Debug, Clone)]
struct Ranges(Vec<(IpAddr, IpAddr)>);

impl Ranges {
    fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut all: Vec<_> = networks.into_iter().map(|net| (net.network(), net.broadcast())).collect();
        all.sort_unstable();
        let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match ranges.last_mut() {
                // Two prefixes either nest or are disjoint: the earlier one already covers this one.
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => ranges.push((first, last)),
            }
        }
        Self(ranges)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < address);
        self.0.get(at).is_some_and(|(first, _)| *first <= address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::config::ForwardTo;
    use crate::config::tests::tunnel;
    use crate::wire::{icmp, ipv6};

    fn nets(text: &[&str]) -> Vec<IpNet> {
        text.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_belongs_to_a_tunnel() {
        let scope = Scope::new(&Tunnel {
            addresses: vec![ip("100.64.0.1"), ip("fd00::1")],
            networks: nets(&["0.0.0.0/0", "::/0"]),
            vips: ["10.9.0.2:443", "10.9.0.1:443", "10.9.0.1:80"].map(|vip| vip.parse().unwrap()).into(),
            services: ["10.9.0.3:53/udp", "10.9.0.4", "[fd00::9]:443"]
                .map(|text| text.parse().unwrap())
                .into(),
            forward: vec![ForwardTo { device: "lan".into(), networks: nets(&["10.5.0.0/16", "fd05::/32"]) }],
            ..tunnel()
        });
        let everything = ForwardTo { device: "lan".into(), networks: nets(&["0.0.0.0/0", "::/0"]) };
        let forwards_all = Scope::new(&Tunnel { forward: vec![everything], ..tunnel() });
        for host in ["8.8.8.8", "2001:db8::1"] {
            assert!(scope.is_behind(ip(host)), "{host}");
        }
        let odd = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.251", "255.255.255.255"];
        for odd in odd.into_iter().chain(["::", "::1", "ff02::1", "::ffff:8.8.8.8"]) {
            assert!(!scope.is_behind(ip(odd)) && !forwards_all.is_forwarded(ip(odd)), "{odd}");
        }
        for host in ["100.64.0.1", "fd00::1", "10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4", "fd00::9"] {
            assert!(scope.is_host(ip(host)), "{host}");
        }
        assert!(scope.is_own(ip("fd00::1")) && !scope.is_own(ip("10.9.0.1")));
        assert!(!scope.is_host(ip("10.9.0.0")) && !scope.is_host(ip("10.9.0.5")));
        let served = [
            (ipv4::TCP, "10.9.0.1", 80, true),
            (ipv4::TCP, "10.9.0.2", 80, false),
            (ipv4::UDP, "10.9.0.1", 80, false),
            (ipv4::UDP, "10.9.0.3", 53, true),
            (ipv4::TCP, "10.9.0.3", 53, false),
            (ipv4::TCP, "10.9.0.4", 9, true),
            (ipv4::UDP, "10.9.0.4", 9, true),
            (ipv4::ICMP, "10.9.0.4", icmp::ECHO_REQUEST.into(), true),
            (ipv4::ICMP, "10.9.0.1", icmp::ECHO_REQUEST.into(), false),
            (ipv6::ICMPV6, "fd00::9", 443, false),
            (ipv4::TCP, "fd00::9", 443, true),
        ];
        for (protocol, address, port, expected) in served {
            assert_eq!(scope.is_served(protocol, ip(address), port), expected, "{protocol} {address} {port}");
        }
        assert!(scope.is_forwarded(ip("10.5.255.255")) && !scope.is_forwarded(ip("10.6.0.0")));
        assert!(scope.is_forwarded(ip("fd05::1")) && !scope.is_forwarded(ip("fd06::1")));
    }

    proptest! {
        #[test]
        fn ranges_are_the_prefixes(
            prefixes in prop::collection::vec((0u32..4096, 20u8..=32), 0..12), address in 0u32..4200,
        ) {
            let nets: Vec<IpNet> = prefixes
                .iter()
                .map(|(net, len)| IpNet::new(Ipv4Addr::from_bits(*net).into(), *len).unwrap().trunc())
                .chain(["::/120".parse().unwrap()])
                .collect();
            let address = IpAddr::V4(address.into());
            let expected = nets.iter().any(|net| net.contains(&address));
            prop_assert_eq!(Ranges::new(nets).contains(address), expected);
        }
    }
}
