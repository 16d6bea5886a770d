//! The network edge: sockets for outer packets, and the TCP sockets that belong to a tunnel.
//!
//! Receives with a packet socket ([`PacketReceiver`]), because only that hands over what the kernel merged
//! together with its segment size; sends with a raw socket ([`RawSender`]), because then the kernel finds next hop
//! and neighbour. Every outer socket is bound to its underlay interface and local address. Never parses a packet.

mod option;
mod packet;
mod raw;
mod stream;

pub use packet::{PacketReceiver, is_supported, link_header_bytes, open_receivers};
pub use raw::{RawSender, SendReport, open_guard, open_sender};
pub use stream::{open_listener, open_stream};
