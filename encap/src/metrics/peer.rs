//! What is known of one peer of a tunnel.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed};

/// Whether a peer is known to carry packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PeerState {
    /// Nobody has tried: the tunnel has no `probe`, or the first one has not been decided yet.
    Unverified = 0,
    /// The last probe was answered.
    Up = 1,
    /// Several probes in a row were not answered.
    Down = 2,
    /// The last probe was answered, but several in a row of 1280 bytes were not: no IPv6 goes there (RFC 7676 section
    /// 3.2).
    Ipv4Only = 3,
}

impl PeerState {
    /// As shown and as a label, in snake case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Up => "up",
            Self::Down => "down",
            Self::Ipv4Only => "ipv4_only",
        }
    }
}

/// Counters and state of one peer. Written by one engine thread.
#[derive(Debug)]
pub struct PeerCounters {
    address: IpAddr,
    packets_out: AtomicU64,
    bytes_out: AtomicU64,
    packets_in: AtomicU64,
    bytes_in: AtomicU64,
    /// One more than the second it was last heard; 0 for never.
    last_heard: AtomicU64,
    path_mtu: AtomicU16,
    state: AtomicU8,
}

impl PeerCounters {
    pub(super) fn new(address: IpAddr) -> Self {
        Self {
            address,
            packets_out: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            packets_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            last_heard: AtomicU64::new(0),
            path_mtu: AtomicU16::new(0),
            state: AtomicU8::new(PeerState::Unverified as u8),
        }
    }

    /// Counts outer packets handed to the network, and their bytes from the outer IP header on.
    pub fn count_out(&self, packets: u64, bytes: u64) {
        add(&self.packets_out, packets);
        add(&self.bytes_out, bytes);
    }

    /// Counts outer packets that were delivered, and their bytes from the outer IP header on. `second` counts from
    /// the engine's start.
    pub fn count_in(&self, second: u64, packets: u64, bytes: u64) {
        add(&self.packets_in, packets);
        add(&self.bytes_in, bytes);
        self.last_heard.store(second.saturating_add(1), Relaxed);
    }

    /// Notes the outer path MTU, in bytes.
    pub fn set_path_mtu(&self, bytes: u16) {
        self.path_mtu.store(bytes, Relaxed);
    }

    /// Notes what a probe has shown.
    pub fn set_state(&self, state: PeerState) {
        self.state.store(state as u8, Relaxed);
    }

    /// All values; not of exactly the same moment.
    pub fn snapshot(&self) -> PeerSnapshot {
        let state = match self.state.load(Relaxed) {
            1 => PeerState::Up,
            2 => PeerState::Down,
            3 => PeerState::Ipv4Only,
            _ => PeerState::Unverified,
        };
        PeerSnapshot {
            address: self.address,
            packets_out: self.packets_out.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            packets_in: self.packets_in.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            last_heard: self.last_heard.load(Relaxed).checked_sub(1),
            path_mtu: self.path_mtu.load(Relaxed),
            state,
        }
    }
}

/// With a single writer an addition need not be atomic, which makes it several times cheaper.
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
}

/// The values of one [`PeerCounters`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// Outer address; of a peer inside a network of peers, the one that answers go to.
    pub address: IpAddr,
    /// Outer packets handed to the network for it.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Outer packets from it that were delivered.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Second since the engine's start in which it was last heard, if ever.
    pub last_heard: Option<u64>,
    /// Outer path MTU in bytes.
    pub path_mtu: u16,
    /// Whether it carries.
    pub state: PeerState,
}
