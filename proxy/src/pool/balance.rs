//! Smooth weighted round robin: whose turn it is.
//!
//! It decides the order only. Which RS may be used at all is said by the caller for each pick; see
//! [`Pool`](super::Pool). One [`RoundRobin`] belongs to one worker and one pool, nothing in it is shared.
//!
//! The method is nginx's: at each pick every usable RS gains its weight, the one that has most is chosen and
//! pays what all of them gained. Picks of a heavy RS are spread between those of the others instead of coming
//! in a row. An RS that cannot be used keeps what it has, so the sum over all is always 0 and its return
//! causes no burst.

/// The turns of one worker through the RS of one pool.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    turns: Box<[Turn]>,
}

#[derive(Clone, Debug)]
struct Turn {
    weight: i64,
    current: i64,
}

impl RoundRobin {
    /// Starts with one weight for each RS, in the order of the pool; 0 never gets a turn (drain).
    ///
    /// `offset` is the number of picks to start after, taken modulo the number of RS with a weight. Workers
    /// with different offsets do not all send their first requests to the same RS.
    pub fn new(weights: impl IntoIterator<Item = u8>, offset: usize) -> Self {
        let turns = weights.into_iter().map(|weight| Turn { weight: weight.into(), current: 0 }).collect();
        let mut this = Self { turns };
        let weighted = this.turns.iter().filter(|turn| turn.weight > 0).count();
        for _ in 0..offset.checked_rem(weighted).unwrap_or(0) {
            this.pick(|_| true);
        }
        this
    }

    /// The index of the RS whose turn it is among those with a weight for which `usable` says so; `None` if
    /// there is none. `usable` is asked once for each RS with a weight. Time is linear in their number.
    ///
    /// To try another RS after a failure, leave the [`Excluded`] ones out:
    ///
    /// ```
    /// use proxy::pool::{Excluded, RoundRobin};
    ///
    /// let mut turns = RoundRobin::new([10, 10], 0);
    /// let mut tried = Excluded::default();
    /// let first = turns.pick(|i| !tried.contains(i)).unwrap();
    /// assert!(tried.insert(first));
    /// assert_eq!(turns.pick(|i| !tried.contains(i)), Some(1 - first));
    /// ```
    pub fn pick(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut gained, mut best) = (0, None::<(usize, i64)>);
        for (index, turn) in self.turns.iter_mut().enumerate() {
            if turn.weight == 0 || !usable(index) {
                continue;
            }
            gained += turn.weight;
            turn.current += turn.weight;
            // Of equals the first: the order of the file.
            if best.is_none_or(|(_, most)| turn.current > most) {
                best = Some((index, turn.current));
            }
        }
        let (index, _) = best?;
        if let Some(turn) = self.turns.get_mut(index) {
            turn.current -= gained;
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

    fn picks(turns: &mut RoundRobin, count: usize) -> String {
        (0..count).map(|_| turns.pick(|_| true).map_or('-', |i| char::from(b'a' + i as u8))).collect()
    }

    #[test]
    fn the_example_of_nginx() {
        assert_eq!(picks(&mut RoundRobin::new([5, 1, 1], 0), 14), "aabacaaaabacaa");
    }

    #[test]
    fn equal_weights_take_turns_in_file_order() {
        assert_eq!(picks(&mut RoundRobin::new([10, 10, 10], 0), 7), "abcabca");
    }

    #[test]
    fn weight_zero_never_gets_a_turn() {
        assert_eq!(picks(&mut RoundRobin::new([0, 1, 0], 3), 3), "bbb");
        assert_eq!(picks(&mut RoundRobin::new([0, 0], 3), 1), "-");
        assert_eq!(picks(&mut RoundRobin::new([], 3), 1), "-");
    }

    #[test]
    fn the_offset_starts_later_in_the_same_order() {
        assert_eq!(picks(&mut RoundRobin::new([10, 10, 10], 1), 4), "bcab");
        assert_eq!(picks(&mut RoundRobin::new([5, 1, 1], 2), 5), "bacaa");
        // Modulo the number of RS, so that no offset is slow.
        assert_eq!(picks(&mut RoundRobin::new([10, 10, 10], usize::MAX / 3 * 3), 3), "abc");
    }

    #[test]
    fn an_unusable_rs_is_left_out_and_comes_back_without_a_burst() {
        let mut turns = RoundRobin::new([1, 1, 1], 0);
        assert_eq!(turns.pick(|_| false), None);
        for _ in 0..1000 {
            assert_ne!(turns.pick(|i| i != 1), Some(1));
        }
        let after = picks(&mut turns, 9);
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
            weights in prop::collection::vec(0u8..=100, 1..20),
            offset in 0usize..1000,
        ) {
            let mut turns = RoundRobin::new(weights.iter().copied(), offset);
            let total: usize = weights.iter().map(|w| usize::from(*w)).sum();
            let mut counts = vec![0; weights.len()];
            for _ in 0..total {
                counts[turns.pick(|_| true).unwrap()] += 1;
            }
            prop_assert_eq!(counts, weights.iter().map(|w| usize::from(*w)).collect::<Vec<_>>());
        }

        /// However often RS come and go, each stays within a few turns of its share.
        #[test]
        fn no_history_makes_a_burst(
            weights in prop::collection::vec(1u8..=100, 2..6),
            history in prop::collection::vec((any::<u8>(), 1usize..40), 0..60),
        ) {
            let mut turns = RoundRobin::new(weights.iter().copied(), 0);
            for (mask, count) in history {
                for _ in 0..count {
                    turns.pick(|i| mask & (1 << i) != 0);
                }
            }
            prop_assert_eq!(turns.turns.iter().map(|t| t.current).sum::<i64>(), 0);
            let total: usize = weights.iter().map(|w| usize::from(*w)).sum();
            let mut counts = vec![0usize; weights.len()];
            for picked in 1..=total {
                counts[turns.pick(|_| true).unwrap()] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    let share = (picked * usize::from(*weight)) as f64 / total as f64;
                    prop_assert!((*count as f64 - share).abs() < 4.0, "{} of {}", count, share);
                }
            }
        }
    }
}
