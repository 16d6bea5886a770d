//! Smooth weighted round robin: whose turn it is.
//!
//! It decides the order only. Which RS may be used at all, and with what share, is said by the caller for each pick;
//! see [`Pool`](super::Pool). One [`RoundRobin`] belongs to one worker and one pool, nothing in it is shared.
//!
//! The method is nginx's: at each pick every usable RS gains its share, the one that has most is chosen and
//! pays what all of them gained. Picks of a heavy RS are spread between those of the others instead of coming
//! in a row. An RS that cannot be used keeps what it has, so the sum over all is always 0 and its return
//! causes no burst.

/// The turns of one worker through the RS of one pool.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    /// What each RS has gained and not paid.
    gained: Box<[i64]>,
}

impl RoundRobin {
    /// Starts with the share of each RS, in the order of the pool; 0 never gets a turn (drain).
    ///
    /// `offset` is the number of picks to start after, taken modulo the number of RS with a share. Workers
    /// with different offsets do not all send their first requests to the same RS.
    pub fn new(shares: impl IntoIterator<Item = u32>, offset: usize) -> Self {
        let shares: Vec<_> = shares.into_iter().collect();
        let mut this = Self { gained: shares.iter().map(|_| 0).collect() };
        let sharing = shares.iter().filter(|share| **share > 0).count();
        for _ in 0..offset.checked_rem(sharing).unwrap_or(0) {
            this.pick(|index| shares.get(index).copied().unwrap_or(0));
        }
        this
    }

    /// Number of RS.
    pub fn len(&self) -> usize {
        self.gained.len()
    }

    /// Whether there is no RS.
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty()
    }

    /// The index of the RS whose turn it is among those that have a share now; `None` if none has. `share` is asked
    /// once for each RS. Time is linear in their number.
    ///
    /// To try another RS after a failure, leave the [`Excluded`] ones out:
    ///
    /// ```
    /// use proxy::pool::{Excluded, RoundRobin};
    ///
    /// let mut turns = RoundRobin::new([10, 10], 0);
    /// let mut tried = Excluded::default();
    /// let share = |tried: Excluded| move |i| if tried.contains(i) { 0 } else { 10 };
    /// let first = turns.pick(share(tried)).unwrap();
    /// assert!(tried.insert(first));
    /// assert_eq!(turns.pick(share(tried)), Some(1 - first));
    /// ```
    pub fn pick(&mut self, share: impl Fn(usize) -> u32) -> Option<usize> {
        let (mut total, mut best) = (0, None::<(usize, i64)>);
        for (index, gained) in self.gained.iter_mut().enumerate() {
            let share = i64::from(share(index));
            if share == 0 {
                continue;
            }
            total += share;
            *gained += share;
            // Of equals the first: the order of the file.
            if best.is_none_or(|(_, most)| *gained > most) {
                best = Some((index, *gained));
            }
        }
        let (index, _) = best?;
        if let Some(gained) = self.gained.get_mut(index) {
            *gained -= total;
        }
        Some(index)
    }
}

/// The RS a request has been tried on already, by index.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excluded {
    list: [usize; Self::MAX],
    len: usize,
}

impl Excluded {
    /// How many it holds; no request is tried on more RS.
    pub const MAX: usize = 8;

    /// Adds an RS. `false` if there is no room left: do not try again then.
    #[must_use = "`false` says that the request must not be tried again"]
    pub fn insert(&mut self, index: usize) -> bool {
        if self.contains(index) {
            return true;
        }
        let Some(place) = self.list.get_mut(self.len) else { return false };
        *place = index;
        self.len += 1;
        true
    }

    /// Whether the request has been tried there.
    pub fn contains(&self, index: usize) -> bool {
        self.list.iter().take(self.len).any(|tried| *tried == index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Turns with fixed shares.
    struct Turns<'a>(RoundRobin, &'a [u32]);

    impl<'a> Turns<'a> {
        fn new(shares: &'a [u32], offset: usize) -> Self {
            Self(RoundRobin::new(shares.iter().copied(), offset), shares)
        }

        fn pick(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
            self.0.pick(|index| if usable(index) { self.1[index] } else { 0 })
        }

        fn picks(&mut self, count: usize) -> String {
            (0..count).map(|_| self.pick(|_| true).map_or('-', |i| char::from(b'a' + i as u8))).collect()
        }
    }

    #[test]
    fn the_example_of_nginx() {
        assert_eq!(Turns::new(&[5, 1, 1], 0).picks(14), "aabacaaaabacaa");
    }

    #[test]
    fn equal_shares_take_turns_in_file_order() {
        assert_eq!(Turns::new(&[10, 10, 10], 0).picks(7), "abcabca");
    }

    #[test]
    fn share_zero_never_gets_a_turn() {
        assert_eq!(Turns::new(&[0, 1, 0], 3).picks(3), "bbb");
        assert_eq!(Turns::new(&[0, 0], 3).picks(1), "-");
        assert_eq!(Turns::new(&[], 3).picks(1), "-");
    }

    #[test]
    fn the_offset_starts_later_in_the_same_order() {
        assert_eq!(Turns::new(&[10, 10, 10], 1).picks(4), "bcab");
        assert_eq!(Turns::new(&[5, 1, 1], 2).picks(5), "bacaa");
        // Modulo the number of RS, so that no offset is slow.
        assert_eq!(Turns::new(&[10, 10, 10], usize::MAX / 3 * 3).picks(3), "abc");
    }

    #[test]
    fn an_unusable_rs_is_left_out_and_comes_back_without_a_burst() {
        let mut turns = Turns::new(&[1, 1, 1], 0);
        assert_eq!(turns.pick(|_| false), None);
        for _ in 0..1000 {
            assert_ne!(turns.pick(|i| i != 1), Some(1));
        }
        let after = turns.picks(9);
        assert!(!after.contains("bb"), "{after}");
        assert_eq!(after.matches('b').count(), 3, "{after}");
    }

    #[test]
    fn excluded_is_bounded() {
        let mut tried = Excluded::default();
        assert!(!tried.contains(0));
        for index in 0..Excluded::MAX {
            assert!(tried.insert(index));
            assert!(tried.insert(index), "again takes no room");
        }
        assert!(!tried.insert(99));
        assert!(tried.contains(7) && !tried.contains(99));
    }

    proptest! {
        #[test]
        fn every_round_is_exactly_proportional(
            shares in prop::collection::vec(0u32..=100, 1..20),
            offset in 0usize..1000,
        ) {
            let mut turns = Turns::new(&shares, offset);
            let mut counts = vec![0; shares.len()];
            for _ in 0..shares.iter().sum() {
                counts[turns.pick(|_| true).unwrap()] += 1;
            }
            prop_assert_eq!(counts, shares);
        }

        /// However often RS come and go, each stays within a few turns of its share.
        #[test]
        fn no_history_makes_a_burst(
            shares in prop::collection::vec(1u32..=100, 2..6),
            history in prop::collection::vec((any::<u8>(), 1usize..40), 0..60),
        ) {
            let mut turns = Turns::new(&shares, 0);
            for (mask, count) in history {
                for _ in 0..count {
                    turns.pick(|i| mask & (1 << i) != 0);
                }
            }
            prop_assert_eq!(turns.0.gained.iter().sum::<i64>(), 0);
            let total: u32 = shares.iter().sum();
            let mut counts = vec![0usize; shares.len()];
            for picked in 1..=total {
                counts[turns.pick(|_| true).unwrap()] += 1;
                for (count, share) in counts.iter().zip(&shares) {
                    let due = f64::from(picked * share) / f64::from(total);
                    prop_assert!((*count as f64 - due).abs() < 4.0, "{} of {}", count, due);
                }
            }
        }
    }
}
