//! The network edge: sockets for outer packets, and the TCP sockets that belong to a tunnel.
//!
//! Receives with a packet socket ([`PacketReceiver`]), because only that hands over what the kernel merged
//! together with its segment size; sends with a packet socket where the next hop is certain, else with a raw socket
//! ([`Transmitter`], [`RawSender`]), because then the kernel finds next hop and neighbour. Every outer socket is for one
//! underlay interface and local address. Parses no packet that arrives.

mod carrier;
mod filter;
mod follow;
mod guard;
mod icmp;
mod nexthop;
mod option;
mod outlet;
mod packet;
mod queue;
mod raw;
mod ring;
mod send;
mod stream;
mod transmit;

pub use carrier::{Carrier, GRE_IN_UDP_PORT};
pub use follow::Follower;
pub use guard::open_guard;
pub use icmp::{IcmpReceiver, open_icmp};
pub(crate) use option::{instruction, set_program};
pub use outlet::Outlet;
pub use packet::{PacketReceiver, is_supported, link_header_bytes, open_receivers};
pub use raw::{RawSender, open_sender};
pub use ring::ring_bytes;
pub use send::SendReport;
pub use stream::{open_listener, open_stream};
pub use transmit::{SendSockets, Transmitter, open_link_sender};
