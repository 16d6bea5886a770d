//! Whether the peers of a tunnel carry packets: echo requests through each to an inner address, made and consumed here.
//!
//! An answer may come by another peer than the request went, so each request has a number of its own by which the
//! answer is known. Where the tunnel carries IPv6, 1280 bytes are tried as well (RFC 7676 section 3.2). No other packet
//! is ever sent because of an answer, and a forged one needs the number.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::emit::Cut;
use super::inner::Inner;
use super::state::State;
use super::{Engine, SWEEP};
use crate::batch::Batch;
use crate::config::Tunnel;
use crate::metrics::{DropReason, PeerState};
use crate::mtu;
use crate::tunnel::Seeded;
use crate::tunnel::flows::PeerIndex;
use crate::wire::ip::Version;
use crate::wire::{WireError, icmp, icmpv6, read, write};

/// How often each peer is tried. An answer later than the next request is no answer.
const EVERY: Duration = Duration::from_secs(5);
/// Requests in a row without an answer that make a peer `down`.
const MISSES: u8 = 3;
/// Bytes of an ordinary probe, IP header included.
const SMALL: usize = 64;
/// Bytes of the number in front of the payload.
const NUMBER: usize = 8;

/// The probes of one tunnel.
pub(super) struct Probes {
    target: Option<(IpAddr, IpAddr)>,
    peers: Vec<Peer>,
    with_1280: bool,
    identifier: u16,
    round: u16,
    next: Instant,
    seed: u64,
}

#[derive(Clone, Copy)]
struct Peer {
    state: PeerState,
    /// Numbers that are awaited, of the small and of the large probe.
    awaited: [Option<u64>; 2],
    misses: [u8; 2],
}

const FRESH: Peer = Peer { state: PeerState::Unverified, awaited: [None; 2], misses: [0; 2] };

impl Probes {
    pub(super) fn new(now: Instant, tunnel: &Tunnel, mtu: u16, is_served: bool, seed: u64) -> Self {
        let probe = tunnel.probe.filter(|_| is_served);
        let target = probe.and_then(|probe| Some((tunnel.address_like(probe)?, probe)));
        let carries_v6 = tunnel.networks.iter().any(|network| network.addr().is_ipv6());
        Self {
            target,
            peers: vec![FRESH; tunnel.remotes().count()],
            with_1280: carries_v6 && mtu >= mtu::MIN_V6,
            identifier: Seeded(seed).hash_one((&tunnel.name, "identifier")) as u16,
            round: 0,
            next: now,
            seed,
        }
    }

    /// When the next round is due, if there are probes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.target.map(|_| self.next)
    }

    pub(super) fn is_down(&self, peer: PeerIndex) -> bool {
        self.peers.get(usize::from(peer)).is_some_and(|peer| peer.state == PeerState::Down)
    }

    /// Whether 1280 bytes do not get through although fewer do: no IPv6 then (RFC 7676 section 3.2).
    pub(super) fn refuses_ipv6(&self, peer: PeerIndex) -> bool {
        let tried = self.peers.get(usize::from(peer)).filter(|_| self.with_1280);
        tried.is_some_and(|peer| peer.state == PeerState::Up && peer.misses[1] >= MISSES)
    }

    /// Begins a round: what was not answered until now counts as missed.
    fn begin(&mut self, now: Instant) {
        // Tunnels that came at the same moment do not stay together for ever: the second round comes earlier, by up to a
        // half.
        let spread = if self.round == 0 { EVERY / 512 * (self.seed as u32 & 0xff) } else { Duration::ZERO };
        self.next = now + EVERY - spread;
        self.round = self.round.wrapping_add(1);
        for peer in &mut self.peers {
            for (awaited, misses) in peer.awaited.iter_mut().zip(&mut peer.misses) {
                if awaited.take().is_some() {
                    *misses = misses.saturating_add(1);
                }
            }
            if peer.misses[0] >= MISSES {
                peer.state = PeerState::Down;
            }
        }
    }

    /// Takes the answer to a probe, its bytes from the ICMP header on. `false`: it is none.
    pub(super) fn consume(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        identifier: u16,
        echo: &[u8],
    ) -> bool {
        if self.target != Some((destination, source)) || identifier != self.identifier {
            return false;
        }
        let Ok(number) = read::<NUMBER>(echo, icmp::LEN).map(u64::from_be_bytes) else { return false };
        for peer in &mut self.peers {
            for (awaited, misses) in peer.awaited.iter_mut().zip(&mut peer.misses) {
                if *awaited == Some(number) {
                    (*awaited, *misses) = (None, 0);
                    peer.state = PeerState::Up;
                    return true;
                }
            }
        }
        // A late answer to one of ours; the kernel has asked for nothing with this identifier.
        true
    }

    /// Writes one request. Returns its length and its number.
    fn write(&self, peer: PeerIndex, large: bool, out: &mut [u8]) -> Result<(usize, u64), WireError> {
        let (source, destination) = self.target.ok_or(WireError::Length)?;
        let version = Version::of_address(destination);
        let kind = match version {
            Version::V4 => icmp::ECHO_REQUEST,
            Version::V6 => icmpv6::ECHO_REQUEST,
        };
        let total = if large { usize::from(mtu::MIN_V6) } else { SMALL };
        let number = Seeded(self.seed).hash_one((self.round, peer, large));
        let mut payload = [0; mtu::MIN_V6 as usize];
        write(&mut payload, 0, number.to_be_bytes())?;
        let payload = payload.get(..total - version.header_len() - icmp::LEN).ok_or(WireError::Length)?;
        let header = icmp::Header::echo(kind, self.identifier, self.round);
        Ok((icmp::write_packet(source, destination, header, payload, out)?, number))
    }

    /// Notes that a request has left.
    fn expect(&mut self, peer: PeerIndex, large: bool, number: u64) {
        if let Some(peer) = self.peers.get_mut(usize::from(peer)) {
            peer.awaited[usize::from(large)] = Some(number);
        }
    }
}

impl Engine {
    /// A tunnel whose peers are to be tried now; [`Engine::write_probes`] wants to be called for it.
    pub fn poll_probe(&self, now: Instant) -> Option<usize> {
        self.probing.first().filter(|(next, _)| *next <= now).map(|(_, tunnel)| *tunnel)
    }

    /// Adds a round of probes of one tunnel to `out`.
    pub fn write_probes(&mut self, now: Instant, tunnel: usize, out: &mut Batch) {
        if let Some(Some(state)) = self.tunnels.get_mut(tunnel)
            && let Some(next) = state.probes.next()
        {
            self.probing.remove(&(next, tunnel));
            state.probes.begin(now);
            self.probing.extend(state.probes.next().map(|next| (next, tunnel)));
            for peer in 0..state.remotes.len() as PeerIndex {
                let address = state.remotes.get(usize::from(peer));
                let limit = state.limit(address.and_then(|address| self.paths.limit(*address)));
                for large in [false, true].into_iter().take(if state.probes.with_1280 { 2 } else { 1 }) {
                    let before = out.len();
                    let written = state.write_probe(peer, large, limit, &mut self.identification, out);
                    if let Err(reason) = written {
                        // What never left is not missed.
                        out.truncate(before);
                        state.counters.count_drop(reason);
                    }
                }
                state.show_peer(peer);
            }
            self.next_sweep.get_or_insert(now + SWEEP);
        }
    }
}

impl State {
    /// Shows what the probes say about a peer.
    pub(super) fn show_peer(&self, peer: PeerIndex) {
        if let (Some(counters), Some(known)) =
            (self.counters.peer(peer), self.probes.peers.get(usize::from(peer)))
        {
            let state = if self.probes.refuses_ipv6(peer) { PeerState::Ipv4Only } else { known.state };
            counters.set_state(state);
        }
    }

    fn write_probe(
        &mut self,
        peer: PeerIndex,
        large: bool,
        limit: u16,
        identification: &mut u32,
        out: &mut Batch,
    ) -> Result<(), DropReason> {
        let mut bytes = [0; mtu::MIN_V6 as usize];
        let (len, number) = self.probes.write(peer, large, &mut bytes).map_err(|_| DropReason::Malformed)?;
        let packet = bytes.get(..len).ok_or(DropReason::Malformed)?;
        let inner = Inner::parse(packet)?;
        // A longest IPv6 packet would leave in fragments of the outer one: so does what is to find out whether it
        // arrives, over IPv4 as well.
        let limit = usize::from(limit);
        let cut = if len <= limit { Cut::Whole } else { self.delivery(limit, identification) };
        let before = out.bytes();
        let emitted = self.emit(packet, &inner, &cut, peer, out)?;
        self.probes.expect(peer, large, number);
        if let Some(counters) = self.counters.peer(peer) {
            counters.count_out(emitted.packets as u64, (out.bytes() - before) as u64);
        }
        Ok(())
    }
}
