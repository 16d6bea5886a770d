//! Tunnels of every kind over both versions of IP, and the nodes at their two ends.

use super::*;
use crate::config::Kind;

pub(super) const L7_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
pub(super) const L4_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 4);
pub(super) const L4_SECOND_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);
pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0x99, 0, 0, 0, 0, 0, 1);
/// MTU of the underlay.
pub(super) const UNDERLAY: u16 = 1500;

/// One way to wrap packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variant {
    pub(super) kind: Kind,
    pub(super) key: Option<u32>,
    pub(super) checksum: bool,
    pub(super) sequence: bool,
    pub(super) udp_checksum: bool,
}

const PLAIN: Variant =
    Variant { kind: Kind::Gre, key: None, checksum: false, sequence: false, udp_checksum: true };
const UDP: Variant = Variant { kind: Kind::GreInUdp, key: KEY, ..PLAIN };

pub(super) const GRE: Variant = Variant { key: KEY, ..PLAIN };
pub(super) const IPIP: Variant = Variant { kind: Kind::Ipip, ..PLAIN };
pub(super) const GRE_IN_UDP: Variant = UDP;
/// All of them.
pub(super) const VARIANTS: [Variant; 8] = [
    PLAIN,
    GRE,
    Variant { checksum: true, sequence: true, ..GRE },
    IPIP,
    UDP,
    Variant { udp_checksum: false, ..UDP },
    Variant { checksum: true, ..UDP },
    Variant { sequence: true, ..UDP },
];

impl Variant {
    /// The tunnel of the L7 node, which opens connections from its own addresses and listens on its VIPs, port 443.
    pub(super) fn near(self, outer_v4: bool) -> Tunnel {
        let (local, peers): (IpAddr, [IpAddr; 2]) = if outer_v4 {
            (L7.into(), [L4.into(), L4_SECOND.into()])
        } else {
            (L7_6.into(), [L4_6.into(), L4_SECOND_6.into()])
        };
        let Self { kind, key, checksum, sequence, udp_checksum } = self;
        Tunnel {
            kind,
            key,
            checksum,
            sequence,
            udp_checksum,
            addresses: vec![OWN.into(), OWN6.into()],
            vips: vec![SocketAddr::new(VIP.into(), 443), SocketAddr::new(VIP6.into(), 443)],
            ttl: 63,
            ..Tunnel::new("t", local, peers.to_vec(), nets(&["10.0.0.0/8", "fd10::/16"]))
        }
    }

    /// The tunnel of the L4 node, which hands everything for 10/8 and fd10::/16 on.
    pub(super) fn far(self, outer_v4: bool) -> Tunnel {
        let near = self.near(outer_v4);
        let networks = nets(&["10.0.0.0/8", "fd10::/16"]);
        let behind: [IpAddr; 4] = [OWN.into(), VIP.into(), OWN6.into(), VIP6.into()];
        Tunnel {
            local: near.peers[0],
            peers: vec![near.local],
            addresses: vec![],
            vips: vec![],
            networks: behind.map(ipnet::IpNet::from).to_vec(),
            forward: vec![ForwardTo { device: "rs0".into(), networks }],
            ..near
        }
    }
}

/// A node of one tunnel whose underlay has an MTU of 1500 bytes.
pub(super) fn node(tunnel: &Tunnel) -> Node {
    Node::with_mtu(std::slice::from_ref(tunnel), UNDERLAY - tunnel.overhead())
}

pub(super) fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}
