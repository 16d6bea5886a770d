//! The `tunnels:` section as written: strings with positions, no logic.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use yaml::Setting;

/// One relation between this node and an L4 tier.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelFile {
    /// Unique name; pools and listeners refer to it.
    pub name: Setting<String>,
    /// Encapsulation: `gre` (RFC 2784, 2890, 7676), `ipip` (IPv4 or IPv6 right behind the outer header: RFC 2003, 4213, 2473) or `gre-in-udp` (RFC 8086). Default: gre.
    pub kind: Option<KindFile>,
    /// Outer source address, IPv4 or IPv6: an address of this host.
    pub local: Setting<IpAddr>,
    /// Outer addresses of the L4 tier, 1 to 64. A flow opened here goes to the first; an answer goes to the peer it was heard from. A network, such as 192.0.2.0/26, is only received from; see `reply_to`.
    pub peers: Vec<Setting<IpNet>>,
    /// Where packets go whose flow was heard from a network of `peers`, or from nobody if `peers` has networks only.
    pub reply_to: Option<Setting<IpAddr>>,
    /// GRE key, 0 to 4294967295; tells tenants with equal addresses apart. Default: no key.
    pub key: Option<Setting<u32>>,
    /// Send GRE checksums; received ones are always verified. Default: false.
    pub checksum: Option<Setting<bool>>,
    /// Send GRE sequence numbers; received ones are always accepted. Default: false.
    pub sequence: Option<Setting<bool>>,
    /// UDP source port of `gre-in-udp`, 1 to 65535. Default: 49152 to 65535, from the flow.
    pub source_port: Option<Setting<u16>>,
    /// UDP checksum of `gre-in-udp`. Without it over IPv6 misdelivered packets are not noticed: for networks under one control only. Default: true.
    pub udp_checksum: Option<Setting<bool>>,
    /// Underlay interface. Default: the one that leads to the first peer.
    pub interface: Option<Setting<String>>,
    /// `direct`: outer packets go straight to the next hop that the kernel knows, past its output firewall and IPsec; `routed`: through the kernel, with both, at a higher cost per packet. Default: direct.
    pub transmit: Option<TransmitFile>,
    /// Name of the TUN device, at most 15 characters. Default: ig- and the tunnel's name.
    pub device: Option<Setting<String>>,
    /// Inner address of this node: where connections to the RS come from.
    pub address: Option<Setting<IpAddr>>,
    /// Inner address of the other family, for a tunnel that carries both.
    pub second_address: Option<Setting<IpAddr>>,
    /// Inner networks behind the tunnel: sent into it, and the only sources accepted from it.
    pub networks: Vec<Setting<IpNet>>,
    /// What other programs of this host serve on this tunnel: an address (all of its ports), `ADDRESS:PORT` or `ADDRESS:PORT/udp`. Listeners of this program need no entry.
    #[serde(default)]
    pub services: Vec<Setting<String>>,
    /// `device` (sockets bound to the TUN device) or `namespace` (a network namespace of its own). Default: device.
    pub isolation: Option<IsolationFile>,
    /// Inner MTU in bytes, 576 to 9216. Default: that of the underlay less what the outer headers take.
    pub mtu: Option<Setting<u16>>,
    /// Smallest outer path MTU in bytes that an ICMP message may claim, 68 to 9216. Default: 576 over IPv4, 1280 over IPv6.
    pub mtu_floor: Option<Setting<u16>>,
    /// What is done with an IPv4 packet that is too big and may be fragmented: `inner` (fragmented before it is wrapped) or `off` (dropped). Default: inner.
    pub fragment: Option<FragmentFile>,
    /// TTL of outer packets, 1 to 255. Default: 64.
    pub ttl: Option<Setting<u8>>,
    /// DSCP of outer packets, 0 to 63. Default: that of the inner packet.
    pub dscp: Option<Setting<u8>>,
    /// ECN of outer packets: `compatible` (not ECN-capable) or `normal` (that of the inner packet; the other end must carry marks inward, RFC 6040). Default: compatible.
    pub ecn: Option<EcnFile>,
    /// Accept packets that are tunnel packets themselves. A tenant could then forge what belongs to another one's key. Default: false.
    pub nested: Option<Setting<bool>>,
    /// Most flows remembered, 1024 to 16777216; memory is taken as they come. Default: 65536.
    pub flows: Option<Setting<u32>>,
    /// An inner address behind the tunnel that answers echo requests: each peer is tried through it. Default: peers are not verified.
    pub probe: Option<Setting<IpAddr>>,
    /// This is an L4 node: hand packets on between the tunnel and the devices of `forward_to`. Default: false.
    pub forward: Option<Setting<bool>>,
    /// Where packets are handed on to.
    #[serde(default)]
    pub forward_to: Vec<ForwardToFile>,
}

/// Encapsulations that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KindFile {
    /// GRE.
    Gre,
    /// IP in IP.
    Ipip,
    /// GRE in UDP.
    GreInUdp,
}

/// Who finds the next hop.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransmitFile {
    /// The engine.
    Direct,
    /// The kernel.
    Routed,
}

/// What is done with what is too big.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FragmentFile {
    /// Fragmented before it is wrapped.
    Inner,
    /// Dropped.
    Off,
}

/// What outer packets say about congestion.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EcnFile {
    /// Not ECN-capable.
    Compatible,
    /// As the inner packet.
    Normal,
}

/// How a tunnel's sockets are kept apart.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IsolationFile {
    /// Sockets bound to a TUN device, with a routing table of its own.
    Device,
    /// A network namespace of its own; needs SYS_ADMIN.
    Namespace,
}

/// A device of this host and what is behind it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardToFile {
    /// Name of the device.
    pub device: Setting<String>,
    /// Networks reached by it.
    pub networks: Vec<Setting<IpNet>>,
}
