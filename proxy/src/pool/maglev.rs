//! Maglev hashing: a table of 65 537 places that every node fills alike, so that a key costs one look.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4; with weights. When an
//! RS is down, exactly its keys move, to the places a second hash and further ones name. When RS are added, removed or
//! change their weight, the table is filled anew: the keys concerned move, and some percent of the others.

use super::RealServer;
use super::hash::{again, hash_address, takes};
use super::rendezvous::Rendezvous;

/// A prime, large against the number of RS.
const PLACES: usize = 65_537;
/// Places a key looks at before the RS that are left draw lots.
const LOOKS: u64 = 32;

/// The table of one pool.
#[derive(Clone, Debug)]
pub struct Maglev {
    /// By place, the index of its RS; empty where no RS has a weight.
    places: Box<[u16]>,
    /// By RS.
    whole: Box<[u32]>,
    rest: Rendezvous,
}

impl Maglev {
    /// For these RS, at most 65 535, in the order of the pool. Who gets which place does not depend on that order.
    pub fn new(servers: &[RealServer]) -> Self {
        Self {
            places: fill(servers),
            whole: servers.iter().map(RealServer::share).collect(),
            rest: Rendezvous::new(servers.iter().map(|server| server.address)),
        }
    }

    /// The RS for the key with this hash among those with a share; `None` if there is none.
    pub fn pick(&self, key: u64, share: impl Fn(usize) -> u32) -> Option<usize> {
        let looks = (0..LOOKS).map(|look| again(key, look));
        let owners = looks.filter_map(|hash| {
            let index = usize::from(*self.places.get((hash % PLACES as u64) as usize)?);
            takes(hash, share(index), *self.whole.get(index)?).then_some(index)
        });
        owners.into_iter().next().or_else(|| self.rest.pick(key, share))
    }
}

/// Walks through the places in an order of its own.
struct Walk {
    index: u16,
    weight: u32,
    next: usize,
    skip: usize,
    /// Its weights so far, of which the greatest weight is worth a place.
    saved: u32,
}

fn fill(servers: &[RealServer]) -> Box<[u16]> {
    let mut walks: Vec<_> = (0u16..).zip(servers).filter(|(_, server)| server.weight > 0).collect();
    walks.sort_by_key(|(_, server)| server.address);
    let greatest = u32::from(walks.iter().map(|(_, server)| server.weight).max().unwrap_or(0));
    let mut walks: Vec<_> = walks
        .into_iter()
        .map(|(index, server)| {
            let hash = hash_address(&server.address);
            Walk {
                index,
                weight: server.weight.into(),
                next: (again(hash, 1) % PLACES as u64) as usize,
                skip: (again(hash, 2) % (PLACES as u64 - 1) + 1) as usize,
                saved: 0,
            }
        })
        .collect();
    const FREE: u16 = u16::MAX;
    let mut left = if walks.is_empty() { 0 } else { PLACES };
    let mut places = vec![FREE; left];
    while left > 0 {
        for walk in &mut walks {
            walk.saved += walk.weight;
            if walk.saved < greatest || left == 0 {
                continue;
            }
            walk.saved -= greatest;
            while let Some(place) = places.get_mut(walk.next) {
                walk.next = (walk.next + walk.skip) % PLACES;
                if *place == FREE {
                    *place = walk.index;
                    left -= 1;
                    break;
                }
            }
        }
    }
    places.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{addresses, moved, shares_of};
    use super::*;

    fn servers(weights: &[u8]) -> Vec<RealServer> {
        let server = |(address, weight)| RealServer { address, weight, backup: false };
        addresses(weights.len()).zip(weights.iter().copied()).map(server).collect()
    }

    fn pick<'a>(weights: &'a [u8], usable: impl Fn(usize) -> bool + 'a) -> impl Fn(u64) -> usize + 'a {
        let table = Maglev::new(&servers(weights));
        let share = move |index: usize| if usable(index) { u32::from(weights[index]) * 1000 } else { 0 };
        move |key| table.pick(key, &share).unwrap()
    }

    #[test]
    fn the_order_of_the_file_is_no_matter() {
        let forth = servers(&[10, 20, 30]);
        let back: Vec<_> = forth.iter().rev().copied().collect();
        let (forth, back) = (fill(&forth), fill(&back));
        assert!(forth.iter().zip(&back).all(|(one, other)| *one == 2 - other));
    }

    #[test]
    fn where_nobody_has_a_share() {
        assert_eq!(Maglev::new(&servers(&[0, 0])).pick(1, |_| 0), None);
        assert_eq!(Maglev::new(&[]).pick(1, |_| 0), None);
        // A table of many of whom one is left.
        let table = Maglev::new(&servers(&[1; 1000]));
        assert!((0..100).all(|key| table.pick(key, |index| u32::from(index == 7)) == Some(7)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn keys_are_shared_out_by_weight(weights in prop::collection::vec(1u8..=100, 1..12)) {
            let shares: Vec<_> = weights.iter().copied().map(u32::from).collect();
            shares_of(&shares, 0.03, pick(&weights, |_| true))?;
        }

        #[test]
        fn of_an_rs_that_is_down_exactly_its_keys_move(
            weights in prop::collection::vec(1u8..=100, 2..12), which in any::<prop::sample::Index>(),
        ) {
            let down = which.index(weights.len());
            for (from, _) in moved(pick(&weights, |_| true), pick(&weights, move |index| index != down)) {
                prop_assert_eq!(from, down);
            }
        }

        /// Beyond the keys of the RS that gets weight 0, at most a tenth move.
        #[test]
        fn a_drained_rs_disturbs_few_others(count in 3usize..30, which in any::<prop::sample::Index>()) {
            let before = vec![10; count];
            let mut after = before.clone();
            let drained = which.index(count);
            after[drained] = 0;
            let others = moved(pick(&before, |_| true), pick(&after, |_| true)).filter(|(from, _)| *from != drained);
            prop_assert!(others.count() < 2000);
        }
    }
}
