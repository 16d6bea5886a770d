//! Ring hashing (consistent hashing, "ketama"): every RS has points on a ring in proportion to its weight, and a key
//! belongs to the next point.
//!
//! Whatever happens to one RS, only keys of its own points move, to their neighbours on the ring. The shares are
//! rougher than those of Maglev: to within some percent of each.

use super::RealServer;
use super::hash::{again, hash_address, takes};
use super::rendezvous::Rendezvous;

/// Points for each unit of weight: 160 with the default weight.
const POINTS: usize = 16;
/// Most points of a pool; beyond it every RS has half as many, a quarter, ...
const MOST_POINTS: usize = 1 << 18;
/// Points a key looks at before the RS that are left draw lots.
const LOOKS: usize = 256;

/// The ring of one pool.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Place on the ring and index of the RS, in the order of the places.
    points: Box<[(u64, u16)]>,
    /// By RS.
    whole: Box<[u32]>,
    rest: Rendezvous,
}

impl Ring {
    /// For these RS, at most 65 536, in the order of the pool. Where the points are does not depend on that order.
    pub fn new(servers: &[RealServer]) -> Self {
        let whole: usize = servers.iter().map(|server| usize::from(server.weight) * POINTS).sum();
        let part = whole.div_ceil(MOST_POINTS).next_power_of_two();
        let mut points: Vec<_> = (0u16..)
            .zip(servers)
            .flat_map(|(index, server)| {
                let hash = hash_address(&server.address);
                let count = (usize::from(server.weight) * POINTS).div_ceil(part);
                (0..count as u64).map(move |number| (again(hash, number), index))
            })
            .collect();
        points.sort_unstable();
        Self {
            points: points.into(),
            whole: servers.iter().map(RealServer::share).collect(),
            rest: Rendezvous::new(servers.iter().map(|server| server.address)),
        }
    }

    /// The RS for the key with this hash among those with a share; `None` if there is none.
    pub fn pick(&self, key: u64, share: impl Fn(usize) -> u32) -> Option<usize> {
        let start = self.points.partition_point(|(place, _)| *place < key);
        let (before, behind) = self.points.split_at_checked(start)?;
        let mut owners = behind.iter().chain(before).take(LOOKS).filter_map(|(place, index)| {
            let index = usize::from(*index);
            takes(key ^ place, share(index), *self.whole.get(index)?).then_some(index)
        });
        owners.next().or_else(|| self.rest.pick(key, &share))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{addresses, moved, shares_of};
    use super::*;

    fn ring(weights: &[u8]) -> Ring {
        let server = |(address, weight)| RealServer { address, weight, backup: false };
        let servers: Vec<_> = addresses(weights.len()).zip(weights.iter().copied()).map(server).collect();
        Ring::new(&servers)
    }

    fn pick(weights: &[u8]) -> impl Fn(u64) -> usize {
        let ring = ring(weights);
        move |key| ring.pick(key, |index| u32::from(weights[index]) * 1000).unwrap()
    }

    #[test]
    fn where_nobody_has_a_share() {
        assert_eq!(ring(&[0, 0]).pick(1, |_| 0), None);
        assert_eq!(ring(&[]).pick(1, |_| 0), None);
        let ring = ring(&[1; 1000]);
        assert!((0..100).all(|key| ring.pick(key, |index| u32::from(index == 7)) == Some(7)));
    }

    #[test]
    fn a_large_pool_has_no_more_points_than_there_may_be() {
        let ring = ring(&[100; 1000]);
        assert!((MOST_POINTS / 2..=MOST_POINTS).contains(&ring.points.len()), "{}", ring.points.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn keys_are_shared_out_by_weight(weights in prop::collection::vec(10u8..=100, 1..12)) {
            let shares: Vec<_> = weights.iter().copied().map(u32::from).collect();
            shares_of(&shares, 0.1, pick(&weights))?;
        }

        /// Also when it is 0 afterwards: RS that are down or gone are the same to the others.
        #[test]
        fn only_the_keys_of_the_one_that_changes_move(
            before in prop::collection::vec(1u8..=100, 2..12), which in any::<prop::sample::Index>(), to in 0u8..=100,
        ) {
            let mut after = before.clone();
            let changed = which.index(before.len());
            after[changed] = to;
            for (from, to) in moved(pick(&before), pick(&after)) {
                prop_assert!(from == changed || to == changed);
                prop_assert_eq!(to == changed, after[changed] > before[changed]);
            }
        }
    }
}
