//! One tunnel and what has been learned about it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ecn::Marking;
use super::probes::Probes;
use super::uncut::Uncut;
use super::wrap::Style;
use crate::config::{Fragment, Tunnel};
use crate::metrics::TunnelCounters;
use crate::mtu::Allowance;
use crate::tunnel::Scope;
use crate::tunnel::flows::{FlowTable, PeerIndex};
use crate::tunnel::fragments::Fragments;

/// How often one tunnel says "too big".
const TOO_BIG_EVERY: Duration = Duration::from_millis(10);
const TOO_BIG_BURST: u32 = 10;

/// One tunnel.
pub(super) struct State {
    pub(super) remotes: Vec<IpAddr>,
    /// Every outer address of both ends.
    pub(super) outer: Vec<IpAddr>,
    pub(super) local: IpAddr,
    pub(super) style: Style,
    pub(super) marking: Marking,
    /// Inner MTU in bytes.
    pub(super) mtu: u16,
    /// Bytes of the outer headers.
    pub(super) overhead: u16,
    pub(super) mtu_floor: u16,
    pub(super) fragments_inner: bool,
    pub(super) nested: bool,
    pub(super) uncut: Uncut,
    /// GRE-in-UDP over IPv6 without a UDP checksum is taken (RFC 6935 section 5).
    pub(super) takes_zero_checksum: bool,
    pub(super) scope: Scope,
    pub(super) flows: FlowTable,
    /// Datagrams in pieces that arrive, and those that leave.
    pub(super) fragments: Fragments,
    pub(super) leaving_fragments: Fragments,
    pub(super) too_big: Allowance,
    /// Next sequence number of each peer (RFC 2890 section 2.2).
    pub(super) sequences: Vec<u32>,
    pub(super) probes: Probes,
    pub(super) counters: Arc<TunnelCounters>,
}

impl State {
    pub(super) fn new(
        now: Instant,
        tunnel: &Tunnel,
        mtu: u16,
        counters: Arc<TunnelCounters>,
        is_served: bool,
        seed: u64,
    ) -> Self {
        let remotes: Vec<_> = tunnel.remotes().collect();
        let outer = remotes.iter().copied().chain([tunnel.local]).collect();
        for index in 0..remotes.len() {
            if let Some(peer) = counters.peer(index as PeerIndex) {
                peer.set_path_mtu(mtu.saturating_add(tunnel.overhead()));
            }
        }
        let style = Style::new(tunnel);
        let uncut = Uncut::new(style.inner_carrier(), tunnel);
        Self {
            outer,
            local: tunnel.local,
            style,
            marking: Marking::new(tunnel),
            mtu,
            overhead: tunnel.overhead(),
            mtu_floor: tunnel.mtu_floor,
            fragments_inner: tunnel.fragment == Fragment::Inner,
            nested: tunnel.nested,
            uncut,
            takes_zero_checksum: !tunnel.udp_checksum || tunnel.local.is_ipv4(),
            scope: Scope::new(tunnel),
            flows: FlowTable::new(now, tunnel.flows as usize, seed),
            fragments: Fragments::new(seed),
            leaving_fragments: Fragments::new(seed),
            too_big: Allowance::new(TOO_BIG_EVERY, TOO_BIG_BURST),
            sequences: vec![0; remotes.len()],
            probes: Probes::new(now, tunnel, mtu, is_served, seed),
            counters,
            remotes,
        }
    }

    /// Longest inner packet in bytes, where the outer path takes `path`. What was learned by another tunnel to the same
    /// address does not go below the floor of this one.
    pub(super) fn limit(&self, path: Option<u16>) -> u16 {
        let inner = |path: u16| path.max(self.mtu_floor).saturating_sub(self.overhead);
        path.map_or(self.mtu, |path| inner(path).min(self.mtu))
    }

    /// Takes over the sequence numbers of the tunnel that this one replaces: a peer that wants them in order would
    /// discard what begins anew.
    pub(super) fn go_on_counting(&mut self, before: &Self) {
        for (peer, sequence) in self.remotes.iter().zip(&mut self.sequences) {
            let same = before.remotes.iter().zip(&before.sequences).find(|(other, _)| *other == peer);
            *sequence = same.map_or(0, |(_, sequence)| *sequence);
        }
    }

    /// The peer for what no peer was heard of: the first one that is not known to be down.
    pub(super) fn first_peer(&self) -> PeerIndex {
        let up = (0..self.remotes.len() as PeerIndex).find(|peer| !self.probes.is_down(*peer));
        up.unwrap_or(0)
    }
}
