//! What is counted: packets and bytes of each tunnel, peer and direction, and one counter per reason for a drop.
//!
//! The engine and the edges count; whoever serves `/metrics` takes a [`Counters::snapshot`]. Counting never blocks.
//! Values only grow; relaxed order is enough because none of them guards other memory.

mod drop_reason;
mod peer;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

pub use self::drop_reason::DropReason;
pub use self::peer::{PeerCounters, PeerSnapshot, PeerState};
use crate::config::Tunnel;
use crate::tunnel::flows::PeerIndex;

/// Number of drop reasons.
const REASONS: usize = DropReason::all().len();

/// Counters of one tunnel, or of the packets that belong to none.
#[derive(Debug)]
// Two engine threads never write to the same cache line for two tunnels.
#[repr(align(64))]
pub struct TunnelCounters {
    peers: Box<[PeerCounters]>,
    flows: AtomicU64,
    queue_full: AtomicU64,
    drops: [AtomicU64; REASONS],
}

impl TunnelCounters {
    /// Counters of a tunnel, all zero.
    pub fn new(tunnel: &Tunnel) -> Arc<Self> {
        Arc::new(Self::with_peers(tunnel.remotes().map(PeerCounters::new).collect()))
    }

    fn with_peers(peers: Box<[PeerCounters]>) -> Self {
        let drops = [const { AtomicU64::new(0) }; REASONS];
        Self { peers, flows: AtomicU64::new(0), queue_full: AtomicU64::new(0), drops }
    }

    /// What is known of a peer, by its number in the tunnel.
    pub fn peer(&self, index: PeerIndex) -> Option<&PeerCounters> {
        self.peers.get(usize::from(index))
    }

    /// Counts one frame that was dropped; a super-packet counts as one.
    pub fn count_drop(&self, reason: DropReason) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Notes how many flows are remembered now.
    pub fn set_flows(&self, flows: usize) {
        self.flows.store(flows as u64, Relaxed);
    }

    /// Frames dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).map_or(0, |counter| counter.load(Relaxed))
    }

    /// All values; not of exactly the same moment.
    pub fn snapshot(&self) -> Snapshot {
        let peers: Vec<_> = self.peers.iter().map(PeerCounters::snapshot).collect();
        let sum = |value: fn(&PeerSnapshot) -> u64| peers.iter().map(value).sum();
        Snapshot {
            packets_out: sum(|peer| peer.packets_out),
            bytes_out: sum(|peer| peer.bytes_out),
            packets_in: sum(|peer| peer.packets_in),
            bytes_in: sum(|peer| peer.bytes_in),
            flows: self.flows.load(Relaxed),
            queue_full: self.queue_full.load(Relaxed),
            drops: DropReason::all().iter().map(|reason| (*reason, self.drops(*reason))).collect(),
            peers,
        }
    }
}

/// All counters of the encapsulation; shared by the engines and whoever reads them.
#[derive(Debug)]
pub struct Counters {
    tunnels: Mutex<Vec<(String, Arc<TunnelCounters>)>>,
    unmatched: Arc<TunnelCounters>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { tunnels: Mutex::default(), unmatched: Arc::new(TunnelCounters::with_peers(Box::default())) }
    }
}

impl Counters {
    /// Adds a tunnel, after those that are there. A tunnel of the same name is replaced, in its place.
    pub fn add(&self, tunnel: &Tunnel) -> Arc<TunnelCounters> {
        let counters = TunnelCounters::new(tunnel);
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        match tunnels.iter_mut().find(|(name, _)| *name == tunnel.name) {
            Some((_, old)) => *old = Arc::clone(&counters),
            None => tunnels.push((tunnel.name.clone(), Arc::clone(&counters))),
        }
        counters
    }

    /// Notes how many frames the kernel has dropped until now because the queue of the tunnel's device was full.
    pub fn set_queue_full(&self, name: &str, frames: u64) {
        let tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counters)) = tunnels.iter().find(|(other, _)| other == name) {
            counters.queue_full.store(frames, Relaxed);
        }
    }

    /// Forgets a tunnel.
    pub fn remove(&self, name: &str) {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| other != name);
    }

    /// The counters of packets that belong to no tunnel.
    pub fn unmatched(&self) -> &Arc<TunnelCounters> {
        &self.unmatched
    }

    /// All values: each tunnel with its name, then, without a name, what belongs to no tunnel.
    pub fn snapshot(&self) -> Vec<(Option<String>, Snapshot)> {
        let tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let named = tunnels.into_iter().map(|(name, counters)| (Some(name), counters.snapshot()));
        named.chain([(None, self.unmatched.snapshot())]).collect()
    }
}

/// The values of one [`TunnelCounters`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Outer packets handed to the network.
    pub packets_out: u64,
    /// Their bytes, from the outer IP header on.
    pub bytes_out: u64,
    /// Outer packets that were delivered.
    pub packets_in: u64,
    /// Their bytes, from the outer IP header on.
    pub bytes_in: u64,
    /// Flows remembered.
    pub flows: u64,
    /// Out: frames that no engine has seen, because the kernel dropped them: the queue of the device was full. As
    /// of when it was last asked.
    pub queue_full: u64,
    /// Frames dropped, for every reason.
    pub drops: Vec<(DropReason, u64)>,
    /// The same per peer, in the order of the configuration.
    pub peers: Vec<PeerSnapshot>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tunnel;

    #[test]
    fn counters_add_up() {
        let counters = Counters::default();
        let two = ["192.0.2.2", "192.0.2.3"].map(|peer| peer.parse().unwrap()).to_vec();
        counters.add(&tunnel());
        let b = counters.add(&Tunnel { name: "b".into(), peers: two, ..tunnel() });
        b.peer(0).unwrap().count_out(3, 300);
        b.peer(1).unwrap().count_out(1, 50);
        b.peer(1).unwrap().count_in(7, 1, 10);
        counters.unmatched().count_drop(DropReason::UnknownPeer);
        counters.unmatched().count_drop(DropReason::UnknownPeer);
        counters.set_queue_full("b", 4);
        let snapshot = counters.snapshot();
        let names: Vec<_> = snapshot.iter().map(|(name, _)| name.as_deref()).collect();
        assert_eq!(names, [Some("a"), Some("b"), None]);
        let b = &snapshot[1].1;
        assert_eq!([snapshot[0].1.queue_full, b.queue_full], [0, 4]);
        assert_eq!((b.packets_out, b.bytes_out, b.packets_in, b.bytes_in), (4, 350, 1, 10));
        assert_eq!((b.peers[1].packets_out, b.peers[1].last_heard), (1, Some(7)));
        assert!(snapshot[2].1.drops.contains(&(DropReason::UnknownPeer, 2)));
        counters.remove("a");
        assert_eq!(counters.snapshot().len(), 2);
    }
}
