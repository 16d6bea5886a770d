//! What a tunnel is, after the `tunnels:` section of the configuration has been read and checked.
//!
//! Pure: no files, no sockets. A [`Tunnel`] never changes; a reload makes another one of the same name.

mod apart;
pub mod file;
mod read;
mod service;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::read::read;
pub use self::service::{Service, ServicePort};
use crate::wire::{gre, ipv4, ipv6, udp};

/// Smallest path MTU that the underlay may claim over IPv4, in bytes, where nothing else is configured: every host takes
/// packets of this size (RFC 791 section 3.1).
pub const MTU_FLOOR_V4: u16 = 576;
/// The same over IPv6 (RFC 8200 section 5).
pub const MTU_FLOOR_V6: u16 = 1280;
/// Flows remembered per tunnel where nothing else is configured.
const FLOWS: u32 = 65_536;

/// One relation between this node and an L4 tier, made reliable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Unique name; pools and listeners refer to it.
    pub name: String,
    /// Encapsulation.
    pub kind: Kind,
    /// Outer source address; an address of this host.
    pub local: IpAddr,
    /// Outer addresses of the L4 tier. A flow opened here goes to the first one; an answer goes to
    /// the peer its flow was last heard from.
    pub peers: Vec<IpAddr>,
    /// Outer networks from which packets are accepted as well; answers to them go to `reply_to`.
    pub peer_networks: Vec<IpNet>,
    /// Where everything goes that is not for one of `peers`; always there when `peers` is empty.
    pub reply_to: Option<IpAddr>,
    /// GRE key (RFC 2890), or none for plain RFC 2784.
    pub key: Option<u32>,
    /// Send the GRE checksum (RFC 2784 section 2.5).
    pub checksum: bool,
    /// Send GRE sequence numbers (RFC 2890 section 2.2).
    pub sequence: bool,
    /// UDP source port of GRE-in-UDP; from the flow when absent (RFC 8086 section 3.2.1).
    pub source_port: Option<u16>,
    /// UDP checksum of GRE-in-UDP.
    pub udp_checksum: bool,
    /// Underlay interface; found by a route lookup toward the first peer when absent.
    pub interface: Option<String>,
    /// Who finds the next hop of outer packets.
    pub transmit: Transmit,
    /// Name of the TUN device, at most 15 bytes.
    pub device: String,
    /// Inner addresses of this node, at most one per family: the source of every connection opened through the tunnel.
    /// None where the tunnel only carries client traffic to VIPs or only forwards.
    pub addresses: Vec<IpAddr>,
    /// Inner prefixes behind the tunnel: routed into it, and the only sources accepted from it.
    pub networks: Vec<IpNet>,
    /// What other programs of this host serve on this tunnel.
    pub services: Vec<Service>,
    /// Listening addresses of this program on this tunnel: client traffic to these is delivered.
    pub vips: Vec<SocketAddr>,
    /// How the tunnel's sockets are kept apart from everything else.
    pub isolation: Isolation,
    /// Inner MTU in bytes; the underlay's MTU less the overhead when absent.
    pub mtu: Option<u16>,
    /// Smallest outer path MTU in bytes that is believed.
    pub mtu_floor: u16,
    /// What is done with an inner IPv4 packet that is too big and may be fragmented.
    pub fragment: Fragment,
    /// TTL or hop limit of the outer header, 1 to 255.
    pub ttl: u8,
    /// DSCP of the outer header; that of the inner packet when absent (RFC 2983 section 3.1).
    pub dscp: Option<u8>,
    /// What the outer header says about congestion.
    pub ecn: Ecn,
    /// Deliver inner packets that are tunnel packets themselves.
    pub nested: bool,
    /// Most flows remembered.
    pub flows: u32,
    /// An inner address behind the tunnel to which probes are sent, through every peer.
    pub probe: Option<IpAddr>,
    /// Where an L4 node hands decapsulated packets on to; empty on an ordinary tunnel.
    pub forward: Vec<ForwardTo>,
}

/// One side of forwarding on an L4 node: inner packets from the tunnel for these networks leave by
/// this device, and only packets that arrive by it may enter the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardTo {
    /// An existing device of this host.
    pub device: String,
    /// Networks reached by it.
    pub networks: Vec<IpNet>,
}

/// How inner packets are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// GRE (RFC 2784, 2890, 7676).
    Gre,
    /// The inner packet right behind the outer IP header (RFC 2003, 4213, 2473).
    Ipip,
    /// GRE behind a UDP header (RFC 8086).
    GreInUdp,
}

/// Who finds the next hop of outer packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transmit {
    /// The engine, which follows the kernel's routes and neighbours; the kernel where that is not possible.
    Direct,
    /// The kernel for every packet: its output firewall and IPsec policies apply.
    Routed,
}

/// What is done with an inner IPv4 packet that is too big and may be fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fragment {
    /// It is fragmented before it is wrapped (RFC 7588 section 3.3.2).
    Inner,
    /// It is dropped and counted.
    Off,
}

/// What the outer header says about congestion (RFC 6040 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ecn {
    /// Not ECN-capable, for an egress that may not carry a mark inward.
    Compatible,
    /// As the inner header: the egress knows RFC 6040.
    Normal,
}

/// How a tunnel's sockets are told apart from those of other tunnels with equal inner addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// One TUN device per tunnel in the host's namespace, sockets bound to it, a routing table of its own.
    Device,
    /// Device and sockets live in a network namespace of their own.
    Namespace,
}

impl Tunnel {
    /// A tunnel with the defaults of the configuration: keyless GRE with everything optional off.
    pub fn new(name: &str, local: IpAddr, peers: Vec<IpAddr>, networks: Vec<IpNet>) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Gre,
            local,
            peers,
            peer_networks: Vec::new(),
            reply_to: None,
            key: None,
            checksum: false,
            sequence: false,
            source_port: None,
            udp_checksum: true,
            interface: None,
            transmit: Transmit::Direct,
            device: format!("ig-{name}"),
            addresses: Vec::new(),
            networks,
            services: Vec::new(),
            vips: Vec::new(),
            isolation: Isolation::Device,
            mtu: None,
            mtu_floor: if local.is_ipv4() { MTU_FLOOR_V4 } else { MTU_FLOOR_V6 },
            fragment: Fragment::Inner,
            ttl: 64,
            dscp: None,
            ecn: Ecn::Compatible,
            nested: false,
            flows: FLOWS,
            probe: None,
            forward: Vec::new(),
        }
    }

    /// Bytes that encapsulation adds to an inner packet.
    pub fn overhead(&self) -> u16 {
        let outer = if self.local.is_ipv4() { ipv4::LEN } else { ipv6::LEN };
        let between = match self.kind {
            Kind::Ipip => 0,
            Kind::Gre => self.gre().len(),
            Kind::GreInUdp => udp::LEN + self.gre().len(),
        };
        // At most 40 + 8 + 16.
        (outer + between) as u16
    }

    /// The GRE header that is sent, with its optional fields zero; of no meaning for [`Kind::Ipip`].
    pub fn gre(&self) -> gre::Header {
        gre::Header {
            protocol: gre::IPV4,
            checksum: self.checksum.then_some(0),
            key: self.key,
            sequence: self.sequence.then_some(0),
        }
    }

    /// Where a flow goes that was not heard from any peer.
    ///
    /// # Panics
    /// When the tunnel has neither, which [`read()`] refuses.
    pub fn first_peer(&self) -> IpAddr {
        let first = self.peers.first().copied().or(self.reply_to);
        first.expect("a tunnel has a peer or `reply_to`")
    }

    /// The node's own address of the same family as `other`, if it has one.
    pub fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
    }

    /// Every outer address of the other end that packets are sent to: `peers`, then `reply_to` if it is none of them.
    pub fn remotes(&self) -> impl Iterator<Item = IpAddr> {
        let reply_to = self.reply_to.filter(|reply_to| !self.peers.contains(reply_to));
        self.peers.iter().copied().chain(reply_to)
    }

    /// Inner addresses of this host on the tunnel, maybe some of them twice.
    pub fn hosted(&self) -> impl Iterator<Item = IpAddr> {
        let services = self.services.iter().map(|service| service.address);
        self.addresses.iter().copied().chain(self.vips.iter().map(SocketAddr::ip)).chain(services)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Some tunnel: tests change what matters to them.
    pub(crate) fn tunnel() -> Tunnel {
        let [local, peer] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        Tunnel::new("a", local, vec![peer], vec!["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn overhead_of_every_kind() {
        let v6 = "2001:db8::1".parse().unwrap();
        let of = |kind, key, local| Tunnel { kind, key, local, ..tunnel() }.overhead();
        let v4 = tunnel().local;
        assert_eq!(of(Kind::Gre, None, v4), 24);
        assert_eq!(of(Kind::Gre, Some(1), v4), 28);
        assert_eq!(of(Kind::Gre, Some(1), v6), 48);
        assert_eq!(of(Kind::Ipip, None, v4), 20);
        assert_eq!(of(Kind::Ipip, None, v6), 40);
        assert_eq!(of(Kind::GreInUdp, Some(1), v4), 36);
        assert_eq!(of(Kind::GreInUdp, Some(1), v6), 56);
        let all = Tunnel { key: Some(1), checksum: true, sequence: true, ..tunnel() };
        assert_eq!(all.overhead(), 36);
    }
}
