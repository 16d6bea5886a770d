//! Which RS of a pool may get a request, and whose turn it is.
//!
//! It decides from published health and weights alone. It never probes, dials or counts requests. Stands between the
//! route and the dial: a [`Pool`] says who may be used, a method says who of them it is ([`RoundRobin`], [`least()`],
//! [`Ewma`], and by a key [`Rendezvous`], [`Maglev`], [`Ring`]), [`Health`] turns probes into verdicts and
//! [`Ejector`] outcomes of requests.
//!
//! # Who is used
//!
//! Only RS with a weight count; weight 0 (drain) gets nothing new and its health says nothing about the pool.
//! Backups count only where no other RS has a chance: when all of those are down or have failed the request. The
//! first line that applies decides:
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
mod cell;
mod eject;
mod ewma;
mod hash;
mod health;
mod least;
mod maglev;
mod ramp;
mod rendezvous;
mod ring;
mod sticky;
#[cfg(test)]
mod testing;

use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;

pub use self::balance::{Excluded, RoundRobin};
pub use self::cell::{HealthCell, InFlight, Live};
pub use self::eject::{EjectionPolicy, Ejector};
pub use self::ewma::Ewma;
pub use self::hash::hash;
pub use self::health::{Health, HealthState, ProbeOutcome, ProbePolicy, Transition};
pub use self::least::least;
pub use self::maglev::Maglev;
pub use self::ramp::ramped;
pub use self::rendezvous::Rendezvous;
pub use self::ring::Ring;
pub use self::sticky::{Seal, cookie};

/// One real server of a pool. Its address is its identity within the pool: state is kept by it across
/// reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RealServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share, 0 to 100; 0 drains it.
    pub weight: u8,
    /// Whether it is used only when no other is.
    pub backup: bool,
}

impl RealServer {
    /// The weight if none is configured, as in Tencent CLB.
    pub const DEFAULT_WEIGHT: u8 = 10;
    /// The largest weight.
    pub const MAX_WEIGHT: u8 = 100;
    /// How finely a share is told: a weight of 1 is so many parts, see [`Candidates::share`].
    pub const PARTS: u32 = 1000;

    /// Its whole share.
    pub fn share(&self) -> u32 {
        u32::from(self.weight) * Self::PARTS
    }
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

/// The RS of one pool with their health.
#[derive(Debug)]
pub struct Pool {
    servers: Box<[(RealServer, Arc<HealthCell>)]>,
    all_down: AllDown,
    has_backups: bool,
}

impl Pool {
    /// A pool of these RS, in this order.
    pub fn new(servers: impl IntoIterator<Item = (RealServer, Arc<HealthCell>)>, all_down: AllDown) -> Self {
        let servers: Box<[_]> = servers.into_iter().collect();
        let has_backups = servers.iter().any(|(server, _)| server.backup);
        Self { servers, all_down, has_backups }
    }

    /// Its RS, in the order of their indices.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = (&RealServer, &Arc<HealthCell>)> {
        self.servers.iter().map(|(server, cell)| (server, cell))
    }

    /// The RS with this index.
    pub fn server(&self, index: usize) -> Option<&RealServer> {
        self.servers.get(index).map(|(server, _)| server)
    }

    /// Turns for one worker, see [`RoundRobin::new`].
    pub fn turns(&self, offset: usize) -> RoundRobin {
        RoundRobin::new(self.servers.iter().map(|(server, _)| server.share()), offset)
    }

    /// The RS whose turn it is among those that are used and not tried before; `None` if there is none.
    pub fn pick(&self, turns: &mut RoundRobin, tried: &Excluded) -> Option<usize> {
        self.candidates(tried).find_map(|among| turns.pick(|index| among.share(index)))
    }

    /// Whom a request may be sent to, given those it was tried on: sets to choose from in this order, the next one only
    /// where there is nobody in those before.
    pub fn candidates<'a>(&'a self, tried: &'a Excluded) -> impl Iterator<Item = Candidates<'a>> {
        let first = self.usable();
        // A verdict may change between the look at the pool and the look at the RS: no request fails for it.
        let again = iter::once_with(|| self.usable()).filter(move |now| *now != first);
        // All that are used have been tried.
        let backups = iter::once_with(|| self.verdict(true)).filter(|_| self.has_backups);
        iter::once(first).chain(again).chain(backups).map(|usable| Candidates { pool: self, usable, tried })
    }

    /// Which RS are used now, see the [module](self).
    pub fn usable(&self) -> Usable {
        let regular = self.verdict(false);
        if regular.who != Who::None {
            return regular;
        }
        let backups = self.verdict(true);
        if backups.who != Who::None {
            return backups;
        }
        let weighted =
            |backup| self.servers.iter().any(|(server, _)| server.weight > 0 && server.backup == backup);
        match self.all_down {
            AllDown::UseAll => Usable { who: Who::All, backups: !weighted(false) },
            AllDown::Refuse => regular,
        }
    }

    /// Which of the backups, or of the others, would be used by what their probes say.
    fn verdict(&self, backups: bool) -> Usable {
        let (mut down, mut waiting, mut starting) = (false, false, false);
        let counts = |server: &RealServer| server.weight > 0 && server.backup == backups;
        for (_, cell) in self.servers.iter().filter(|(server, _)| counts(server)) {
            match cell.get() {
                HealthState::Up | HealthState::Unchecked => return Usable { who: Who::Good, backups },
                HealthState::Down => down = true,
                HealthState::Probing if cell.joined_live() => waiting = true,
                HealthState::Probing => starting = true,
            }
        }
        let who = match down {
            true if starting => Who::Starting,
            false if starting || waiting => Who::All,
            true | false => Who::None,
        };
        Usable { who, backups }
    }
}

/// Which RS of a pool are used; those with weight 0 never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usable {
    who: Who,
    /// Of the backups; else of the others.
    backups: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
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
            && server.backup == self.backups
            && match self.who {
                Who::Good => matches!(state, HealthState::Up | HealthState::Unchecked),
                Who::Starting => state == HealthState::Probing && !cell.joined_live(),
                Who::All => true,
                Who::None => false,
            }
    }
}

/// The RS that a request may be sent to.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    pool: &'a Pool,
    usable: Usable,
    tried: &'a Excluded,
}

impl Candidates<'_> {
    /// The share of an RS, in parts of its weight ([`RealServer::PARTS`]); 0 where it is none of them.
    #[inline]
    pub fn share(&self, index: usize) -> u32 {
        match self.pool.servers.get(index) {
            Some((server, cell)) if self.usable.includes(server, cell) && !self.tried.contains(index) => {
                server.share()
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
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
            (RealServer { address, weight: *weight, backup: false }, Arc::new(cell))
        });
        Pool::new(servers, all_down)
    }

    /// The indices a pool uses, by picking many times.
    fn used(servers: &[Rs], all_down: AllDown) -> Vec<usize> {
        let pool = pool(servers, all_down);
        let mut turns = pool.turns(0);
        let mut picked: Vec<_> =
            (0..40).filter_map(|_| pool.pick(&mut turns, &Excluded::default())).collect();
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
    fn tried_rs_do_not_bring_down_ones_back() {
        let pool = pool(&[(W, Up, false), (W, Up, false), (W, Down, false)], AllDown::UseAll);
        let mut turns = pool.turns(0);
        let mut tried = Excluded::default();
        assert!(tried.insert(1));
        assert_eq!(pool.pick(&mut turns, &tried), Some(0));
        assert!(tried.insert(0));
        assert_eq!(pool.pick(&mut turns, &tried), None);
    }

    #[test]
    fn a_verdict_that_changes_during_the_pick_fails_no_request() {
        let pool = pool(&[(W, Up, false), (W, Up, false)], AllDown::UseAll);
        let tried = Excluded::default();
        let mut sets = pool.candidates(&tried);
        let before = sets.next().unwrap();
        pool.servers().for_each(|(_, cell)| cell.set(Down));
        assert_eq!(before.share(0) + before.share(1), 0);
        let after = sets.next().unwrap();
        assert!(after.share(0) > 0 && after.share(1) > 0);
    }

    /// State of an RS and whether it is a backup; who is used, with all down or refusing.
    #[test]
    fn backups_are_used_when_no_other_is() {
        type Case<'a> = (&'a [(HealthState, bool)], &'a [usize], &'a [usize]);
        let table: &[Case<'_>] = &[
            (&[(Unchecked, false), (Unchecked, true)], &[0], &[0]),
            (&[(Up, false), (Up, true), (Up, true)], &[0], &[0]),
            (&[(Probing, false), (Up, true)], &[0], &[0]),
            (&[(Down, false), (Up, true), (Down, true)], &[1], &[1]),
            (&[(Down, false), (Probing, true), (Probing, true)], &[1, 2], &[1, 2]),
            (&[(Down, false), (Down, false), (Down, true)], &[0, 1], &[]),
        ];
        for (servers, use_all, refuse) in table {
            for (all_down, expected) in [(AllDown::UseAll, use_all), (AllDown::Refuse, refuse)] {
                let servers = servers.iter().enumerate().map(|(index, (state, backup))| {
                    let cell = HealthCell::probing(false);
                    cell.set(*state);
                    let address = SocketAddr::from(([192, 0, 2, index as u8], 80));
                    (RealServer { address, weight: W, backup: *backup }, Arc::new(cell))
                });
                let pool = Pool::new(servers, all_down);
                let tried = Excluded::default();
                let first = pool.candidates(&tried).next().unwrap();
                let used: Vec<_> = (0..3).filter(|index| first.share(*index) > 0).collect();
                assert_eq!(used, **expected, "{pool:?}");
            }
        }
    }

    #[test]
    fn a_request_that_failed_everywhere_else_goes_to_a_backup() {
        let servers = [false, false, true].map(|backup| {
            let address = SocketAddr::from(([192, 0, 2, 1], 80));
            (RealServer { address, weight: W, backup }, Arc::new(HealthCell::unchecked()))
        });
        let pool = Pool::new(servers, AllDown::UseAll);
        let (mut turns, mut tried) = (pool.turns(0), Excluded::default());
        assert!(tried.insert(0));
        assert_eq!(pool.pick(&mut turns, &tried), Some(1));
        assert!(tried.insert(1));
        assert_eq!(pool.pick(&mut turns, &tried), Some(2));
    }

    #[test]
    fn workers_start_at_different_rs() {
        let pool = pool(&[(W, Up, false), (W, Up, false), (W, Up, false)], AllDown::UseAll);
        let firsts: Vec<_> =
            (0..4).map(|worker| pool.pick(&mut pool.turns(worker), &Excluded::default())).collect();
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
