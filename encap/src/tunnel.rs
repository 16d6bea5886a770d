//! What a tunnel is told apart by, and what belongs to it.
//!
//! [`Peers`] finds the tunnel of a packet from the network, [`Scope`] knows the addresses of one tunnel, [`flows`]
//! remembers which flows it carries and by which peer, and [`fragments`] which datagrams in pieces. The engine asks;
//! nothing here drops a packet.

pub mod flows;
pub mod fragments;
mod index;
mod peers;
mod scope;

use std::hash::{BuildHasher, DefaultHasher, Hasher};

pub use self::peers::{Peers, Relation};
pub use self::scope::Scope;

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
