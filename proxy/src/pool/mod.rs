//! Which RS of a pool may get a request, and whose turn it is.
//!
//! It decides from published health and weights alone. It never probes, dials or counts connections: whether
//! an RS is full is said by the caller. Stands between the route and the dial; [`balance`](RoundRobin) holds
//! the turns of one worker, [`health`](Health) turns probes into verdicts.
//!
//! # Who is used
//!
//! Only RS with a weight count; weight 0 (drain) gets nothing new and its health says nothing about the pool.
//! The first line that applies decides:
//!
//! | health of the RS with a weight | used |
//! |---|---|
//! | one is `Up`, or the pool has no health check | those that are `Up` or `Unchecked` |
//! | all are `Probing`: the pool has no verdict yet | all |
//! | some are `Probing` since the pool began, the rest `Down` | those: not known is better than known to fail |
//! | all are `Down`, or joined a pool that was live and are `Probing` | as [`AllDown`] says: all, or none (503) |
//!
//! So an RS that is added to a live pool waits for its first success, and a pool that has just begun does not
//! wait for probes.

mod balance;
mod health;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

pub use self::balance::{Excluded, RoundRobin};
pub use self::health::{Health, HealthState, ProbeOutcome, ProbePolicy, Transition};

/// One real server of a pool. Its address is its identity within the pool: state is kept by it across
/// reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RealServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share, 0 to 100; 0 drains it.
    pub weight: u8,
}

impl RealServer {
    /// The weight if none is configured, as in Tencent CLB.
    pub const DEFAULT_WEIGHT: u8 = 10;
    /// The largest weight.
    pub const MAX_WEIGHT: u8 = 100;
}

/// What a pool does when every RS is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllDown {
    /// Use all of them: the fault may be in the probes ("all dead, all alive", the rule of Tencent CLB).
    #[default]
    UseAll,
    /// Use none; the request is answered with 503.
    Refuse,
}

/// The health of one RS as the workers see it: written by its prober alone, read for every request, kept
/// across reloads.
#[derive(Debug)]
pub struct HealthCell {
    state: AtomicU8,
    joined_live: bool,
}

impl HealthCell {
    /// For an RS of a pool without health check.
    pub fn unchecked() -> Self {
        Self { state: AtomicU8::new(HealthState::Unchecked as u8), joined_live: false }
    }

    /// For an RS whose first probe is about to start. `joined_live`: it was added by a reload to a pool that
    /// was already serving, and waits for its first success where the others do not.
    pub fn probing(joined_live: bool) -> Self {
        Self { state: AtomicU8::new(HealthState::Probing as u8), joined_live }
    }

    /// Publishes the state. One prober writes, so no order has to be kept with anything else.
    pub fn set(&self, state: HealthState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// The state published last.
    pub fn get(&self) -> HealthState {
        const UP: u8 = HealthState::Up as u8;
        const PROBING: u8 = HealthState::Probing as u8;
        const DOWN: u8 = HealthState::Down as u8;
        match self.state.load(Ordering::Relaxed) {
            UP => HealthState::Up,
            PROBING => HealthState::Probing,
            DOWN => HealthState::Down,
            _ => HealthState::Unchecked,
        }
    }
}

/// The RS of one pool with their health.
#[derive(Debug)]
pub struct Pool {
    servers: Box<[(RealServer, Arc<HealthCell>)]>,
    all_down: AllDown,
}

impl Pool {
    /// A pool of these RS, in this order.
    pub fn new(servers: impl IntoIterator<Item = (RealServer, Arc<HealthCell>)>, all_down: AllDown) -> Self {
        Self { servers: servers.into_iter().collect(), all_down }
    }

    /// Its RS, in the order of the indices that [`pick`](Self::pick) returns.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = (&RealServer, &Arc<HealthCell>)> {
        self.servers.iter().map(|(server, cell)| (server, cell))
    }

    /// The RS with this index.
    pub fn server(&self, index: usize) -> Option<&RealServer> {
        self.servers.get(index).map(|(server, _)| server)
    }

    /// Turns for one worker, see [`RoundRobin::new`].
    pub fn turns(&self, offset: usize) -> RoundRobin {
        RoundRobin::new(self.servers.iter().map(|(server, _)| server.weight), offset)
    }

    /// The RS for a request: usable, not tried before, with room for one more (`has_room`), whose turn it is.
    ///
    /// `None` if there is none. The RS that are used are chosen without regard to `tried` and `has_room`: a
    /// down RS does not become usable because the others are full.
    pub fn pick(
        &self,
        turns: &mut RoundRobin,
        tried: &Excluded,
        has_room: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut pick = |usable: Usable| {
            turns.pick(|index| {
                let Some((server, cell)) = self.servers.get(index) else { return false };
                usable.includes(server, cell) && !tried.contains(index) && has_room(index)
            })
        };
        let usable = self.usable();
        // A verdict may change between the look at the pool and the look at the RS: no request fails for it.
        pick(usable).or_else(|| Some(self.usable()).filter(|now| *now != usable).and_then(pick))
    }

    /// Which RS are used now, see the [module](self).
    pub fn usable(&self) -> Usable {
        let (mut down, mut waiting, mut starting) = (false, false, false);
        for (_, cell) in self.servers.iter().filter(|(server, _)| server.weight > 0) {
            match cell.get() {
                HealthState::Up | HealthState::Unchecked => return Usable::Good,
                HealthState::Down => down = true,
                HealthState::Probing if cell.joined_live => waiting = true,
                HealthState::Probing => starting = true,
            }
        }
        match self.all_down {
            _ if down && starting => Usable::Starting,
            _ if !down && (starting || waiting) => Usable::All,
            AllDown::UseAll if down => Usable::All,
            // Refused, or no RS has a weight.
            AllDown::UseAll | AllDown::Refuse => Usable::None,
        }
    }
}

/// Which RS of a pool are used; those with weight 0 never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usable {
    /// Those that are up or not checked.
    Good,
    /// Those without a verdict since the pool began.
    Starting,
    /// All.
    All,
    /// None: 503.
    None,
}

impl Usable {
    fn includes(self, server: &RealServer, cell: &HealthCell) -> bool {
        let state = cell.get();
        server.weight > 0
            && match self {
                Self::Good => matches!(state, HealthState::Up | HealthState::Unchecked),
                Self::Starting => state == HealthState::Probing && !cell.joined_live,
                Self::All => true,
                Self::None => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::HealthState::{Down, Probing, Unchecked, Up};
    use super::*;

    /// Weight, state, and whether it joined a live pool.
    type Rs = (u8, HealthState, bool);

    fn pool(servers: &[Rs], all_down: AllDown) -> Pool {
        let servers = servers.iter().enumerate().map(|(index, (weight, state, joined_live))| {
            let address = SocketAddr::from(([192, 0, 2, index as u8], 80));
            let cell = HealthCell::probing(*joined_live);
            cell.set(*state);
            (RealServer { address, weight: *weight }, Arc::new(cell))
        });
        Pool::new(servers, all_down)
    }

    /// The indices a pool uses, by picking many times.
    fn used(servers: &[Rs], all_down: AllDown) -> Vec<usize> {
        let pool = pool(servers, all_down);
        let mut turns = pool.turns(0);
        let mut picked: Vec<_> =
            (0..40).filter_map(|_| pool.pick(&mut turns, &Excluded::default(), |_| true)).collect();
        picked.sort_unstable();
        picked.dedup();
        picked
    }

    const W: u8 = RealServer::DEFAULT_WEIGHT;

    #[test]
    fn every_line_of_the_table() {
        let table: &[(&[Rs], &[usize], &[usize])] = &[
            // No health check.
            (&[(W, Unchecked, false), (W, Unchecked, false)], &[0, 1], &[0, 1]),
            // One is up.
            (&[(W, Up, false), (W, Down, false), (W, Probing, false), (W, Probing, true)], &[0], &[0]),
            // No verdict yet, also when every RS was replaced at once.
            (&[(W, Probing, false), (W, Probing, false)], &[0, 1], &[0, 1]),
            (&[(W, Probing, true), (W, Probing, true)], &[0, 1], &[0, 1]),
            // Not known is better than known to fail.
            (&[(W, Down, false), (W, Probing, false), (W, Probing, true)], &[1], &[1]),
            // Down, or not yet proven.
            (&[(W, Down, false), (W, Down, false)], &[0, 1], &[]),
            (&[(W, Down, false), (W, Probing, true)], &[0, 1], &[]),
            // Drained RS get nothing, and their health counts for nothing.
            (&[(0, Up, false), (W, Down, false)], &[1], &[]),
            (&[(0, Down, false), (W, Probing, false), (W, Probing, false)], &[1, 2], &[1, 2]),
            (&[(0, Unchecked, false), (W, Unchecked, false)], &[1], &[1]),
            (&[(0, Up, false)], &[], &[]),
            (&[(0, Down, false)], &[], &[]),
            (&[], &[], &[]),
        ];
        for (servers, use_all, refuse) in table {
            assert_eq!(used(servers, AllDown::UseAll), *use_all, "{servers:?}");
            assert_eq!(used(servers, AllDown::Refuse), *refuse, "{servers:?}");
        }
    }

    #[test]
    fn full_and_tried_rs_do_not_bring_down_ones_back() {
        let pool = pool(&[(W, Up, false), (W, Up, false), (W, Down, false)], AllDown::UseAll);
        let mut turns = pool.turns(0);
        let mut tried = Excluded::default();
        assert_eq!(pool.pick(&mut turns, &tried, |i| i != 0), Some(1));
        assert!(tried.insert(1));
        assert_eq!(pool.pick(&mut turns, &tried, |_| true), Some(0));
        assert_eq!(pool.pick(&mut turns, &tried, |i| i != 0), None);
    }

    #[test]
    fn a_verdict_that_changes_during_the_pick_fails_no_request() {
        let pool = pool(&[(W, Up, false), (W, Up, false)], AllDown::UseAll);
        let first = Cell::new(true);
        let picked = pool.pick(&mut pool.turns(0), &Excluded::default(), |_| {
            // The first RS is full, and while it is asked both go down.
            pool.servers().for_each(|(_, cell)| cell.set(Down));
            !first.replace(false)
        });
        assert!(picked.is_some());
    }

    #[test]
    fn a_cell_gives_back_what_was_published() {
        let cell = HealthCell::unchecked();
        assert_eq!(cell.get(), Unchecked);
        for state in [Probing, Up, Down, Unchecked] {
            cell.set(state);
            assert_eq!(cell.get(), state);
        }
        assert_eq!(HealthCell::probing(true).get(), Probing);
    }

    #[test]
    fn workers_start_at_different_rs() {
        let pool = pool(&[(W, Up, false), (W, Up, false), (W, Up, false)], AllDown::UseAll);
        let firsts: Vec<_> =
            (0..4).map(|worker| pool.pick(&mut pool.turns(worker), &Excluded::default(), |_| true)).collect();
        assert_eq!(firsts, [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(pool.server(2).map(|server| server.address), Some("192.0.2.2:80".parse().unwrap()));
        assert_eq!(pool.server(3), None);
    }

    proptest! {
        #[test]
        fn what_holds_for_every_pool(
            servers in prop::collection::vec(
                (prop_oneof![Just(0u8), Just(W)], prop_oneof![Just(Probing), Just(Up), Just(Down)], any::<bool>()),
                0..6,
            ),
        ) {
            let weighted = |wanted: &dyn Fn(&Rs) -> bool| -> Vec<usize> {
                (0..servers.len()).filter(|i| servers[*i].0 > 0 && wanted(&servers[*i])).collect()
            };
            let up = weighted(&|rs| rs.1 == Up);
            let all = used(&servers, AllDown::UseAll);
            let refusing = used(&servers, AllDown::Refuse);
            if !up.is_empty() {
                prop_assert_eq!(&all, &up);
                prop_assert_eq!(&refusing, &up);
            }
            // Somebody is always used, and refusing never uses an RS that is down.
            prop_assert_eq!(all.is_empty(), weighted(&|_| true).is_empty());
            prop_assert!(refusing.iter().all(|i| servers[*i].0 > 0 && servers[*i].1 != Down));
        }
    }
}
