//! What a tunnel is, after the `tunnels:` section of the configuration has been read and checked.
//!
//! Pure: no files, no sockets. Everything here holds for the life of the process.

pub mod file;
mod read;

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

pub use self::read::read;

/// One GRE relation between this node and an L4 tier, made reliable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Unique name; pools and listeners refer to it.
    pub name: String,
    /// Outer source address; an address of this host.
    pub local: Ipv4Addr,
    /// Outer addresses of the L4 tier. A flow opened here goes to the first one; an answer goes to
    /// the peer its flow was last heard from.
    pub peers: Vec<Ipv4Addr>,
    /// GRE key (RFC 2890), or none for plain RFC 2784.
    pub key: Option<u32>,
    /// Underlay interface; found by a route lookup toward the first peer when absent.
    pub interface: Option<String>,
    /// Name of the TUN device, at most 15 bytes.
    pub device: String,
    /// Inner address of this node: the source of every connection opened through the tunnel. Absent
    /// where the tunnel only carries client traffic to VIPs or only forwards.
    pub address: Option<Ipv4Addr>,
    /// Inner prefixes behind the tunnel: routed into it, and the only sources accepted from it.
    pub networks: Vec<Ipv4Net>,
    /// Listening addresses on this tunnel: client traffic to these is delivered.
    pub vips: Vec<SocketAddrV4>,
    /// How the tunnel's sockets are kept apart from everything else.
    pub isolation: Isolation,
    /// Inner MTU in bytes; the underlay's MTU less the overhead when absent.
    pub mtu: Option<u16>,
    /// TTL of the outer header, 1 to 255.
    pub ttl: u8,
    /// Where an L4 node hands decapsulated packets on to; empty on an ordinary tunnel.
    pub forward: Vec<ForwardTo>,
}

/// One side of forwarding on an L4 node: inner packets from the tunnel for these networks leave by
/// this device, and only packets that arrive by it may enter the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardTo {
    /// An existing device of this host.
    pub device: String,
    /// Networks reached by it.
    pub networks: Vec<Ipv4Net>,
}

/// How a tunnel's sockets are told apart from those of other tunnels with equal inner addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// One TUN device per tunnel in the host's namespace, sockets bound to it, a routing table of its own.
    Device,
    /// Device and sockets live in a network namespace of their own.
    Namespace,
}

impl Tunnel {
    /// Bytes that encapsulation adds to an inner packet: outer IPv4 (20), GRE (4), key (4 when present).
    pub fn overhead(&self) -> u16 {
        if self.key.is_some() { 28 } else { 24 }
    }
}
