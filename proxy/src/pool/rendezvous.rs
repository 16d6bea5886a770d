//! Weighted rendezvous hashing (highest random weight): every RS draws a lot for each key, and the best one wins.
//!
//! The shares are exactly the weights, and whatever happens to one RS, only its own keys move: when it goes, they are
//! spread over all others by weight; when it comes or gains weight, it takes some from everybody. No table, but time
//! linear in the number of RS for each pick. Behind IP hash, and the last resort of the methods with tables.

use std::net::SocketAddr;

use super::hash::{again, hash_address};

/// The RS of one pool.
#[derive(Clone, Debug)]
pub struct Rendezvous(Box<[u64]>);

impl Rendezvous {
    /// For RS at these addresses, in the order of the pool.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(addresses.into_iter().map(|address| hash_address(&address)).collect())
    }

    /// The RS for the key with this hash among those with a share; `None` if there is none.
    pub fn pick(&self, key: u64, share: impl Fn(usize) -> u32) -> Option<usize> {
        let mut best = None::<(f64, usize)>;
        for (index, server) in self.0.iter().enumerate() {
            let share = share(index);
            if share == 0 {
                continue;
            }
            let lot = lot(again(key, *server), share);
            if best.is_none_or(|(most, _)| lot > most) {
                best = Some((lot, index));
            }
        }
        best.map(|(_, index)| index)
    }
}

/// The greatest of `share` numbers between 0 and 1 drawn at random would be `u^(1/share)`; the order is the same for
/// `-share / ln u`, which loses no precision.
fn lot(hash: u64, share: u32) -> f64 {
    /// 2 to the power of 53: the numbers a double tells apart.
    const STEPS: f64 = 9_007_199_254_740_992.0;
    let uniform = ((hash >> 11) as f64 + 0.5) / STEPS;
    -f64::from(share) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{addresses, keys, moved, shares_of};
    use super::*;

    fn pick(shares: &[u32]) -> impl Fn(u64) -> usize {
        let table = Rendezvous::new(addresses(shares.len()));
        move |key| table.pick(key, |index| shares[index]).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn keys_are_shared_out_by_weight(shares in prop::collection::vec(1u32..=100, 1..12)) {
            shares_of(&shares, 0.03, pick(&shares))?;
        }

        /// A lower weight, down to 0, only takes keys away from its RS; a higher one only brings it some.
        #[test]
        fn only_the_keys_of_the_one_that_changes_move(
            before in prop::collection::vec(1u32..=100, 2..12), which in any::<prop::sample::Index>(), to in 0u32..=100,
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

    #[test]
    fn nobody_without_a_share() {
        let table = Rendezvous::new(addresses(2));
        assert_eq!(table.pick(1, |_| 0), None);
        assert!(keys().all(|key| table.pick(key, |index| index as u32) == Some(1)));
    }
}
