//! The decisions on every packet: from a TUN frame to packets for the network, and back.
//!
//! Stands between the device edge and the socket edge and touches neither: it is given frames and the time, and
//! fills a [`Batch`] or says which parts of the frame to deliver. A packet that is not forwarded is counted under one
//! [`DropReason`] and nothing else happens. One engine belongs to one thread.

mod ecn;
mod emit;
mod inbound;
mod inner;
mod notices;
mod outbound;
mod outer;
mod paths;
mod probes;
mod state;
mod uncut;
mod underlay;
mod wrap;

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::Takers;
use crate::config::Tunnel;
use crate::metrics::{Counters, TunnelCounters};
use crate::tunnel::{Peers, Seeded};
use crate::wire::virtio;
use notices::Notices;
use paths::Paths;
use state::State;

#[cfg(doc)]
use crate::batch::Batch;
#[cfg(doc)]
use crate::metrics::DropReason;

/// Most packets that one frame of a TUN becomes. The smallest MSS Linux sends with is 48 bytes, options included;
/// with timestamps, 64 KiB make 1821 segments.
pub const MAX_FRAME_PACKETS_OUT: usize = 2048;
/// Most bytes that one frame of a TUN becomes: 64 KiB of payload, and for each packet the longest outer headers and the
/// longest inner IPv4 and TCP headers (120).
pub const MAX_FRAME_BYTES_OUT: usize = 65_535 + MAX_FRAME_PACKETS_OUT * (wrap::MAX + 120);

/// How often idle flows are looked for, and how soon again when one call did not suffice.
const SWEEP: Duration = Duration::from_secs(1);
const SWEEP_AGAIN: Duration = Duration::from_millis(10);
/// Most flows forgotten per call.
const SWEEP_BUDGET: usize = 1024;

/// The encapsulation of all tunnels of one thread.
pub struct Engine {
    /// By the index of the tunnel; places of removed tunnels are empty.
    tunnels: Vec<Option<State>>,
    peers: Peers,
    /// Outer addresses of all tunnels, sorted: no inner packet may be for one of them.
    outer: Vec<IpAddr>,
    paths: Paths,
    unmatched: Arc<TunnelCounters>,
    notices: Notices,
    started: Instant,
    next_sweep: Option<Instant>,
    /// When which tunnel tries its peers.
    probing: BTreeSet<(Instant, usize)>,
    /// The tunnel at which the next sweep begins.
    sweep_from: usize,
    seed: u64,
    /// Number of tunnels that were ever made.
    made: u64,
    /// Identification of the last outer packet that was fragmented: of all tunnels, since those to one address are told
    /// apart only after the fragments are put together.
    identification: u32,
}

/// What is to be written to a TUN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Index of the tunnel whose device it is.
    pub tunnel: usize,
    /// What is left undone in the packet; offsets count from its start.
    pub header: virtio::Header,
    /// Where the inner packet lies in the frame.
    pub range: Range<usize>,
}

impl Engine {
    /// An engine without tunnels. `seed` is a secret: whoever knows it can make flows collide.
    pub fn new(now: Instant, counters: &Counters, seed: u64) -> Self {
        Self {
            tunnels: Vec::new(),
            peers: Peers::new(seed),
            outer: Vec::new(),
            paths: Paths::new(seed),
            unmatched: Arc::clone(counters.unmatched()),
            notices: Notices::new(),
            started: now,
            next_sweep: None,
            probing: BTreeSet::new(),
            sweep_from: 0,
            seed,
            made: 0,
            identification: Seeded(seed).hash_one("identification") as u32,
        }
    }

    /// Adds a tunnel with its inner MTU in bytes, or replaces the one at `index`, whose flows are forgotten and whose
    /// sequence numbers go on. Every engine knows all tunnels; `is_served` says whether this one carries it.
    pub fn set_tunnel(
        &mut self,
        now: Instant,
        index: usize,
        tunnel: &Tunnel,
        mtu: u16,
        counters: Arc<TunnelCounters>,
        is_served: bool,
    ) {
        let before = self.take(index);
        if self.tunnels.len() <= index {
            self.tunnels.resize_with(index + 1, || None);
        }
        // No tunnel's secrets tell anything about those of another, nor of the one that was here before.
        self.made += 1;
        let seed = Seeded(self.seed).hash_one(self.made);
        let mut state = State::new(now, tunnel, mtu, counters, is_served, seed);
        if let Some(before) = before {
            state.go_on_counting(&before);
        }
        self.peers.add(tunnel, index);
        self.probing.extend(state.probes.next().map(|next| (next, index)));
        if let Some(place) = self.tunnels.get_mut(index) {
            *place = Some(state);
        }
        self.note_outer_addresses();
    }

    /// From now on a packet of the tunnel that stands for several leaves as one to these, where its outer headers allow that,
    /// and is cut by whoever sends it ([`crate::batch::Gso::inner`]).
    pub fn leave_uncut(&mut self, index: usize, takers: Takers) {
        if let Some(Some(state)) = self.tunnels.get_mut(index) {
            state.uncut.allow(takers);
        }
    }

    /// Whether packets of the tunnel that stand for several leave as one to any of its peers.
    pub fn leaves_uncut(&self, now: Instant, index: usize) -> bool {
        let state = self.tunnels.get(index).and_then(Option::as_ref);
        state.is_some_and(|state| state.uncut.is_taken(now))
    }

    /// Forgets a tunnel: its packets are `UnknownPeer` from now on.
    pub fn remove_tunnel(&mut self, index: usize) {
        self.take(index);
    }

    fn take(&mut self, index: usize) -> Option<State> {
        let state = self.tunnels.get_mut(index)?.take()?;
        self.peers.remove(index);
        self.notices.forget(index);
        self.note_outer_addresses();
        if let Some(next) = state.probes.next() {
            self.probing.remove(&(next, index));
        }
        Some(state)
    }

    /// The next packet of the engine's own for a TUN device: the tunnel, and a virtio header with a packet.
    pub fn poll_tun(&mut self) -> Option<(usize, &[u8])> {
        self.notices.pop()
    }

    /// When [`Engine::handle_timeout`] and [`Engine::poll_probe`] want to be called, if at all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next_probe = self.probing.first().map(|(next, _)| *next);
        [self.next_sweep, next_probe].into_iter().flatten().min()
    }

    /// Forgets idle flows, a bounded number per call.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_sweep.is_none_or(|then| now < then) {
            return;
        }
        self.expire_paths(now);
        let mut budget = SWEEP_BUDGET;
        let count = self.tunnels.len();
        for step in 0..count {
            let index = (self.sweep_from + step) % count;
            let Some(Some(state)) = self.tunnels.get_mut(index) else { continue };
            budget -= state.flows.expire(now, budget);
            state.counters.set_flows(state.flows.len());
            if budget == 0 {
                // Whoever keeps one tunnel full does not keep the others from being swept.
                self.sweep_from = index + 1;
                self.next_sweep = Some(now + SWEEP_AGAIN);
                return;
            }
        }
        let any = self.tunnels.iter().flatten().any(|state| !state.flows.is_empty());
        self.next_sweep = (any || !self.paths.is_empty()).then_some(now + SWEEP);
    }

    fn note_outer_addresses(&mut self) {
        self.outer = self.tunnels.iter().flatten().flat_map(|state| state.outer.iter().copied()).collect();
        self.outer.sort_unstable();
        self.outer.dedup();
    }

    fn is_outer(&self, address: IpAddr) -> bool {
        self.outer.binary_search(&address).is_ok()
    }

    /// Seconds since the engine was made.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs()
    }
}

#[cfg(test)]
mod tests;
