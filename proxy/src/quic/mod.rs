//! QUIC toward clients (RFC 9000), as far as it is not the library's: sockets of which each worker has one of its own,
//! connection IDs that lead a packet to the worker that has its connection, the keys that all workers share, the ways to the
//! processes before and after this one, and TLS by the name a client asks for.

mod failure;
mod group;
mod ids;
mod relay;
mod secrets;
mod socket;
mod tls;

pub(crate) use self::failure::failure;
pub(crate) use self::group::Quic;
pub(crate) use self::ids::Ids;
pub use self::ids::{ID_IN_LONG, ID_IN_SHORT};
pub use self::relay::Predecessor;
pub use self::secrets::QuicKeys;
pub(crate) use self::secrets::Secrets;
pub(crate) use self::socket::{Count, Origin, Passage, Post, Socket};
pub(crate) use self::tls::{ByName, Handshake};
