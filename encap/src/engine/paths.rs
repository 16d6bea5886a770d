//! Path MTUs toward the other ends, where they are smaller than the underlay's (RFC 1191, RFC 8201).
//!
//! Kept per outer address, not per tunnel: the path does not know keys.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::mtu::{self, PathMtu};
use crate::tunnel::Seeded;
use crate::wire::ip::Version;

/// Paths that were found to be smaller; at most one per peer.
pub(super) struct Paths {
    smaller: HashMap<IpAddr, PathMtu, Seeded>,
}

impl Paths {
    pub(super) fn new(seed: u64) -> Self {
        Self { smaller: HashMap::with_hasher(Seeded(seed)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.smaller.is_empty()
    }

    /// Outer path MTU in bytes, if it is known to be smaller than that of the underlay.
    pub(super) fn limit(&self, peer: IpAddr) -> Option<u16> {
        if self.smaller.is_empty() {
            return None;
        }
        self.smaller.get(&peer).map(PathMtu::current)
    }

    /// Lowers the path MTU to a peer of a tunnel, whose ceiling is higher; returns the new value if it changed. The
    /// caller has made sure that the peer is one and that the tunnel's floor is kept.
    pub(super) fn lower(&mut self, now: Instant, peer: IpAddr, believed: u16, ceiling: u16) -> Option<u16> {
        let floor = mtu::smallest(Version::of_address(peer));
        let path = self.smaller.entry(peer).or_insert_with(|| PathMtu::new(floor, ceiling));
        path.lower(now, believed).then(|| path.current())
    }

    /// Lets values that are old rise again; calls `raised` with the peers.
    pub(super) fn expire(&mut self, now: Instant, mut raised: impl FnMut(IpAddr)) {
        self.smaller.retain(|peer, path| {
            let is_over = path.expire(now);
            if is_over {
                raised(*peer);
            }
            !is_over
        });
    }
}
