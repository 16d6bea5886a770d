//! The `tunnels:` section as written: strings with positions, no logic.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::Deserialize;
use yaml::Setting;

/// One GRE relation between this node and an L4 tier.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelFile {
    /// Unique name; pools and listeners refer to it.
    pub name: Setting<String>,
    /// Encapsulation. Default: gre (RFC 2784, with `key` RFC 2890).
    pub kind: Option<KindFile>,
    /// Outer source address: an address of this host.
    pub local: Setting<Ipv4Addr>,
    /// Outer addresses of the L4 tier, 1 to 64. A flow opened here goes to the first; an answer goes to the peer it was heard from.
    pub peers: Vec<Setting<Ipv4Addr>>,
    /// GRE key, 0 to 4294967295; tells tenants with equal addresses apart. Default: no key.
    pub key: Option<Setting<u32>>,
    /// Underlay interface. Default: the one that leads to the first peer.
    pub interface: Option<Setting<String>>,
    /// Name of the TUN device, at most 15 characters. Default: ig- and the tunnel's name.
    pub device: Option<Setting<String>>,
    /// Inner address of this node: where connections to the RS come from.
    pub address: Option<Setting<Ipv4Addr>>,
    /// Inner networks behind the tunnel: sent into it, and the only sources accepted from it.
    pub networks: Vec<Setting<Ipv4Net>>,
    /// `device` (sockets bound to the TUN device) or `namespace` (a network namespace of its own). Default: device.
    pub isolation: Option<IsolationFile>,
    /// Inner MTU in bytes, 576 to 9216. Default: that of the underlay less 24, or 28 with a key.
    pub mtu: Option<Setting<u16>>,
    /// TTL of outer packets, 1 to 255. Default: 64.
    pub ttl: Option<Setting<u8>>,
    /// This is an L4 node: hand packets on between the tunnel and the devices of `forward_to`. Default: false.
    pub forward: Option<Setting<bool>>,
    /// Where packets are handed on to.
    #[serde(default)]
    pub forward_to: Vec<ForwardToFile>,
}

/// Encapsulations that are known.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KindFile {
    /// GRE over IPv4.
    Gre,
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
    pub networks: Vec<Setting<Ipv4Net>>,
}
