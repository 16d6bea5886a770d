//! The decisions on every packet: from a TUN frame to packets for the network, and back.
//!
//! Stands between the device edge and the socket edge and touches neither: it is given frames and the time, and
//! fills a [`Batch`] or says which part of the frame to deliver. A packet that is not forwarded is counted under one
//! [`DropReason`] and nothing else happens. One engine belongs to one thread.
//!
//! Not done here: IPv6, fragmentation, and ICMP of the underlay.

mod inbound;
mod inner;
mod notices;
mod outbound;

use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Tunnel;
use crate::metrics::Counters;
use crate::mtu::Allowance;
use crate::tunnel::flows::FlowTable;
use crate::tunnel::{Peers, Scope};
use notices::Notices;

#[cfg(doc)]
use crate::batch::Batch;
#[cfg(doc)]
use crate::metrics::DropReason;

/// Most packets that one frame of a TUN becomes. The smallest MSS Linux sends with is 48 bytes, options included;
/// with timestamps, 64 KiB make 1821 segments.
pub const MAX_FRAME_PACKETS_OUT: usize = 2048;
/// Most bytes that one frame of a TUN becomes: 64 KiB of payload, and for each packet the outer IPv4 and GRE headers
/// (28) and the longest inner IPv4 and TCP headers (120).
pub const MAX_FRAME_BYTES_OUT: usize = 65_535 + MAX_FRAME_PACKETS_OUT * (28 + 120);

/// Most flows remembered per tunnel.
const FLOWS: usize = 65_536;
/// How often idle flows are looked for, and how soon again when one call did not suffice.
const SWEEP: Duration = Duration::from_secs(1);
const SWEEP_AGAIN: Duration = Duration::from_millis(10);
/// Most flows forgotten per call.
const SWEEP_BUDGET: usize = 1024;
/// How often one tunnel says "too big".
const TOO_BIG_EVERY: Duration = Duration::from_millis(10);
const TOO_BIG_BURST: u32 = 10;

/// The encapsulation of all tunnels of one thread.
pub struct Engine {
    tunnels: Vec<State>,
    peers: Peers,
    /// Outer addresses of all tunnels, sorted: no inner packet may be for one of them.
    outer: Vec<Ipv4Addr>,
    counters: Arc<Counters>,
    notices: Notices,
    next_sweep: Option<Instant>,
    /// The tunnel at which the next sweep begins.
    sweep_from: usize,
}

/// One tunnel and what has been learned about it.
struct State {
    local: Ipv4Addr,
    first_peer: Ipv4Addr,
    key: Option<u32>,
    ttl: u8,
    /// Inner MTU in bytes.
    mtu: u16,
    scope: Scope,
    flows: FlowTable,
    too_big: Allowance,
}

/// What is to be written to a TUN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Index of the tunnel whose device it is.
    pub tunnel: usize,
    /// The part of the frame that begins with the virtio header and ends with the inner packet.
    pub range: Range<usize>,
}

impl Engine {
    /// An engine for `tunnels`, each with its inner MTU in bytes. Indices of tunnels are those of the slice, as are
    /// those of `counters`. `seed` is a secret: whoever knows it can make flows collide.
    ///
    /// # Panics
    /// When there are not as many MTUs as tunnels, or a tunnel has no peer.
    pub fn new(tunnels: &[Tunnel], mtus: &[u16], counters: Arc<Counters>, seed: u64) -> Self {
        assert_eq!(tunnels.len(), mtus.len(), "one inner MTU per tunnel");
        let mut peers = Peers::new(seed);
        let mut outer = Vec::new();
        for (index, tunnel) in tunnels.iter().enumerate() {
            outer.push(tunnel.local);
            outer.extend(&tunnel.peers);
            for peer in &tunnel.peers {
                peers.add(*peer, tunnel.local, tunnel.key, index);
            }
        }
        outer.sort_unstable();
        outer.dedup();
        let states = tunnels.iter().zip(mtus).map(|(tunnel, mtu)| State::new(tunnel, *mtu, seed));
        Self {
            tunnels: states.collect(),
            peers,
            outer,
            counters,
            notices: Notices::new(),
            next_sweep: None,
            sweep_from: 0,
        }
    }

    /// The next packet of the engine's own for a TUN device: the tunnel, and a virtio header with a packet.
    pub fn poll_tun(&mut self) -> Option<(usize, &[u8])> {
        self.notices.pop()
    }

    /// When [`Engine::handle_timeout`] wants to be called, if at all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Forgets idle flows, a bounded number per call.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_sweep.is_none_or(|then| now < then) {
            return;
        }
        let mut budget = SWEEP_BUDGET;
        let count = self.tunnels.len();
        for step in 0..count {
            let index = (self.sweep_from + step) % count;
            let Some(state) = self.tunnels.get_mut(index) else { break };
            budget -= state.flows.expire(now, budget);
            if budget == 0 {
                // Whoever keeps one tunnel full does not keep the others from being swept.
                self.sweep_from = index + 1;
                self.next_sweep = Some(now + SWEEP_AGAIN);
                return;
            }
        }
        let any = self.tunnels.iter().any(|state| !state.flows.is_empty());
        self.next_sweep = any.then_some(now + SWEEP);
    }
}

impl State {
    fn new(tunnel: &Tunnel, mtu: u16, seed: u64) -> Self {
        let forward = tunnel.forward.iter().flat_map(|to| to.networks.iter().copied());
        let first_peer = tunnel.peers.first().copied();
        Self {
            local: tunnel.local,
            first_peer: first_peer.expect("a tunnel has a peer: the configuration refuses others"),
            key: tunnel.key,
            ttl: tunnel.ttl,
            mtu,
            scope: Scope::new(tunnel.address, &tunnel.networks, &tunnel.vips, forward),
            flows: FlowTable::new(FLOWS, seed),
            too_big: Allowance::new(TOO_BIG_EVERY, TOO_BIG_BURST),
        }
    }
}

#[cfg(test)]
mod tests;
