//! What a pool needs that balances by more than turns: caps, loads, who is spared. Shared by all workers and exact across
//! them; a pool that is configured for none of it has none of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::queue::Queue;
use super::sticky::Sticky;
use crate::config::{self, HashKey, Method};
use crate::net::clock;
use crate::pool::{
    EjectionPolicy, Ejector, Ewma, Excluded, InFlight, Live, Maglev, Pool, RealServer, Rendezvous, Ring,
    RoundRobin, hash, least, ramped,
};

/// Stands for no cap.
const NO_CAP: u32 = u32::MAX;

/// How one pool shares requests out.
pub(crate) struct Balancer {
    choice: Choice,
    servers: Box<[Server]>,
    whole: Arc<Whole>,
    max_requests: u32,
    /// Most requests that wait, and how long.
    pub(crate) queue: config::Queue,
    /// Whether requests in flight are counted.
    counts: bool,
    /// Milliseconds.
    slow_start: u64,
    ejector: Option<Mutex<Ejector>>,
    /// The cookie that keeps clients at their RS.
    pub(crate) sticky: Option<Sticky>,
}

/// One RS.
struct Server {
    address: SocketAddr,
    live: Arc<Live>,
    cap: u32,
}

/// What all RS of a pool have in common; kept across reloads.
#[derive(Debug, Default)]
struct Whole {
    in_flight: InFlight,
    queue: Arc<Queue>,
}

enum Choice {
    Turns,
    Least,
    Quicker,
    ByClient(Rendezvous),
    Maglev(Maglev, HashKey),
    Ring(Ring, HashKey),
}

/// What one worker keeps for a pool.
pub(crate) struct Own {
    pub(super) turns: RoundRobin,
    ewma: Ewma,
    random: u64,
}

/// What is known of a request that is to be sent.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) tried: &'a Excluded,
    /// Hash of its key, where it has one.
    pub(crate) key: Option<u64>,
    /// The RS its cookie names.
    pub(crate) bound: Option<SocketAddr>,
}

/// Where a request goes.
pub(crate) enum Picked {
    /// To this RS.
    Server(Held),
    /// Nowhere: every RS is full.
    Full,
    /// Nowhere: no RS is usable.
    Nobody,
}

/// How a request went until the head of its response.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// None, by the fault of the RS or of the way to it.
    Failed,
}

impl Balancer {
    /// The balancer of a pool, taking over what `before` knows.
    pub(super) fn new(
        pool: &config::Pool,
        config: &config::Balancing,
        servers: &[RealServer],
        sticky: Option<Sticky>,
        before: Option<&Self>,
    ) -> Self {
        let known: HashMap<SocketAddr, &Arc<Live>> = before
            .into_iter()
            .flat_map(|before| &before.servers)
            .map(|server| (server.address, &server.live))
            .collect();
        let server = |server: &config::Server| Server {
            address: server.address,
            live: known.get(&server.address).map_or_else(Arc::default, |live| Arc::clone(live)),
            cap: server.max_connections.unwrap_or(NO_CAP),
        };
        let addresses = || servers.iter().map(|server| server.address);
        let ejector = config.ejection.map(|ejection| {
            let policy = EjectionPolicy {
                failures: ejection.failures,
                interval: ejection.interval,
                base_time: ejection.base_time,
                max_percent: ejection.max_percent,
            };
            let before = before.and_then(|before| before.ejector.as_ref()).map(lock);
            Mutex::new(Ejector::new(policy, addresses(), before.as_deref()))
        });
        Self {
            choice: match &config.method {
                Method::WeightedRoundRobin => Choice::Turns,
                Method::LeastConnections => Choice::Least,
                Method::PeakEwma => Choice::Quicker,
                Method::IpHash => Choice::ByClient(Rendezvous::new(addresses())),
                Method::Maglev(key) => Choice::Maglev(Maglev::new(servers), key.clone()),
                Method::RingHash(key) => Choice::Ring(Ring::new(servers), key.clone()),
            },
            servers: pool.servers.iter().map(server).collect(),
            whole: before.map_or_else(Arc::default, |before| Arc::clone(&before.whole)),
            max_requests: config.max_requests.unwrap_or(NO_CAP),
            counts: matches!(config.method, Method::LeastConnections | Method::PeakEwma)
                || pool.servers.iter().any(|server| server.max_connections.is_some()),
            queue: config.queue.unwrap_or(config::Queue { size: 0, timeout: Duration::ZERO }),
            slow_start: u64::try_from(config.slow_start.as_millis()).unwrap_or(u64::MAX),
            ejector,
            sticky,
        }
    }

    /// What a worker with this number keeps, with what it knew `before`.
    pub(super) fn own(&self, pool: &Pool, worker: usize, before: Option<(&Self, &Own)>) -> Own {
        let count = if self.is_timed() { self.servers.len() } else { 0 };
        let mut ewma = Ewma::new(count);
        if let Some((balancer, own)) = before {
            for (index, server) in self.servers.iter().enumerate().take(count) {
                if let Some(its_index) = balancer.place_of(server.address) {
                    ewma.take_over(index, &own.ewma, its_index);
                }
            }
        }
        Own { ewma, ..Own::plain(pool, worker) }
    }

    fn place_of(&self, address: SocketAddr) -> Option<usize> {
        self.servers.iter().position(|server| server.address == address)
    }

    /// What of a request is hashed.
    pub(crate) fn hash_key(&self) -> Option<&HashKey> {
        match &self.choice {
            Choice::Turns | Choice::Least | Choice::Quicker => None,
            Choice::ByClient(_) => Some(&HashKey::Client),
            Choice::Maglev(_, key) | Choice::Ring(_, key) => Some(key),
        }
    }

    /// Whether it matters how long an answer takes.
    fn is_timed(&self) -> bool {
        matches!(self.choice, Choice::Quicker)
    }

    /// Those who wait.
    pub(crate) fn line(&self) -> &Arc<Queue> {
        &self.whole.queue
    }

    /// Counts a request of the whole pool; `None` if there are as many as there may be.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let admitted = self.max_requests == NO_CAP || self.whole.in_flight.enter(self.max_requests);
        admitted.then(|| Admitted(Arc::clone(self)))
    }

    /// The RS for a request that was admitted, entered.
    pub(super) fn pick(self: &Arc<Self>, pool: &Pool, own: &mut Own, ask: &Ask<'_>) -> Picked {
        let millis = if self.slow_start > 0 || self.ejector.is_some() { clock::millis() } else { 0 };
        for among in pool.candidates(ask.tried) {
            let ejected =
                |index| self.ejector.is_some() && self.live(index).is_some_and(|l| l.is_ejected(millis));
            let indices = 0..self.servers.len();
            // Who is ejected is used where nobody else is left.
            let left = self.ejector.is_some()
                && indices.clone().any(|index| among.share(index) > 0 && !ejected(index));
            let share = |index| if left && ejected(index) { 0 } else { among.share(index) };
            while let Some(server) = self.choose(own, ask, millis, share) {
                if let Some(held) = self.enter(server) {
                    return Picked::Server(held);
                }
                // Another worker was quicker.
            }
            if indices.clone().any(|index| among.share(index) > 0) {
                return Picked::Full;
            }
        }
        Picked::Nobody
    }

    /// Somebody with a share and room.
    fn choose(
        &self,
        own: &mut Own,
        ask: &Ask<'_>,
        millis: u64,
        share: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let load = |index: usize| self.live(index).map_or(0, |live| live.in_flight.get());
        let share = |index: usize| match self.servers.get(index) {
            Some(server) if server.cap == NO_CAP || load(index) < server.cap => {
                ramped(share(index), server.live.back_since(), millis, self.slow_start)
            }
            _ => 0,
        };
        if let Some(bound) = ask.bound
            && let Some(index) = self.place_of(bound)
            && share(index) > 0
        {
            return Some(index);
        }
        match (&self.choice, ask.key) {
            (Choice::Least, _) => least(&mut own.turns, load, share),
            (Choice::Quicker, _) => {
                let random = own.random();
                own.ewma.pick(random, Instant::now().into_std(), load, share)
            }
            (Choice::ByClient(lots), Some(key)) => lots.pick(key, share),
            (Choice::Maglev(table, _), Some(key)) => table.pick(key, share),
            (Choice::Ring(ring, _), Some(key)) => ring.pick(key, share),
            (Choice::Turns, _) | (_, None) => own.turns.pick(share),
        }
    }

    fn enter(self: &Arc<Self>, server: usize) -> Option<Held> {
        let entry = self.servers.get(server)?;
        let entered = !self.counts || entry.live.in_flight.enter(entry.cap);
        let since = self.is_timed().then(Instant::now);
        entered.then(|| Held { balancer: Arc::clone(self), server, since })
    }

    /// Learns how a request went, and how long it took where that matters.
    pub(super) fn learn(&self, own: &mut Own, server: usize, outcome: Outcome, took: Option<Duration>) {
        if let Some(took) = took {
            let now = Instant::now().into_std();
            match outcome {
                Outcome::Status(_) => own.ewma.answered(server, took, now),
                Outcome::Failed => own.ewma.failed(server, took, now),
            }
        }
        let (Some(ejector), Some(live)) = (&self.ejector, self.live(server)) else { return };
        let failed = match outcome {
            Outcome::Status(status) => status >= 500,
            Outcome::Failed => true,
        };
        if !failed && !live.failing.load(Ordering::Relaxed) {
            return;
        }
        let mut ejector = lock(ejector);
        live.failing.store(failed, Ordering::Relaxed);
        if !failed {
            ejector.succeeded(server);
        } else if let Some(until) = ejector.failed(server, clock::millis()) {
            live.eject(until);
        }
    }

    /// An RS is up from now on; `returns`: others have done without it until now.
    pub(crate) fn is_up(&self, server: usize, returns: bool) {
        if let Some(live) = self.live(server).filter(|_| returns) {
            live.came_back(clock::millis());
        }
        self.whole.queue.wake();
    }

    /// Every RS with its requests in flight, where they are counted, and whether it is ejected.
    pub(crate) fn loads(&self) -> impl Iterator<Item = (SocketAddr, Option<u32>, bool)> {
        self.servers.iter().map(|server| {
            let in_flight = self.counts.then(|| server.live.in_flight.get());
            (server.address, in_flight, server.live.is_ejected(clock::millis()))
        })
    }

    fn live(&self, server: usize) -> Option<&Live> {
        self.servers.get(server).map(|server| &*server.live)
    }
}

fn lock(ejector: &Mutex<Ejector>) -> MutexGuard<'_, Ejector> {
    ejector.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Own {
    /// For a pool that balances by nothing but turns.
    pub(super) fn plain(pool: &Pool, worker: usize) -> Self {
        Self { turns: pool.turns(worker), ewma: Ewma::new(0), random: worker as u64 }
    }

    /// A number as good as random (SplitMix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash(&self.random.to_ne_bytes())
    }
}

/// A request of a pool, until its response has ended.
pub(crate) struct Admitted(Arc<Balancer>);

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.0.max_requests != NO_CAP {
            self.0.whole.in_flight.leave();
        }
    }
}

/// A request at an RS, until its response has ended.
pub(crate) struct Held {
    balancer: Arc<Balancer>,
    server: usize,
    /// When it was entered, where that matters.
    since: Option<Instant>,
}

impl Held {
    /// With what was granted before.
    pub(crate) fn with(self, admitted: Admitted) -> Grant {
        Grant { held: self, _admitted: admitted }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.balancer.counts {
            return;
        }
        if let Some(live) = self.balancer.live(self.server) {
            live.in_flight.leave();
        }
        self.balancer.whole.queue.wake();
    }
}

/// What a request needs to be sent to an RS of a pool that balances by more than turns. Dropped when its response, or
/// the connection it has become, has ended.
pub(crate) struct Grant {
    held: Held,
    _admitted: Admitted,
}

impl Grant {
    /// The RS.
    pub(crate) fn server(&self) -> usize {
        self.held.server
    }

    /// When the RS was chosen, where that matters.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.held.since
    }
}
