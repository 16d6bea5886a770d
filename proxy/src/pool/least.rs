//! Weighted least connections: the RS with the fewest requests in flight for its weight.

use super::balance::RoundRobin;

/// The RS with the least `in_flight` / `share`, as in Tencent CLB; among equals the one whose turn it is. `None` if no
/// RS has a share. Time is linear in the number of RS.
pub fn least(
    turns: &mut RoundRobin,
    in_flight: impl Fn(usize) -> u32,
    share: impl Fn(usize) -> u32,
) -> Option<usize> {
    // Compared by cross multiplication; neither factor needs more than 32 bits.
    let mut least = None::<(u64, u64, usize)>;
    for index in 0..turns.len() {
        let share = u64::from(share(index));
        if share == 0 {
            continue;
        }
        let load = u64::from(in_flight(index));
        if least.is_none_or(|(least, of, _)| load * of < least * share) {
            least = Some((load, share, index));
        }
    }
    let (load, of, index) = least?;
    let equal = |index: usize| match share(index) {
        share if u64::from(in_flight(index)) * of <= load * u64::from(share) => share,
        _ => 0,
    };
    // Meanwhile others may have sent requests everywhere.
    turns.pick(equal).or(Some(index))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(shares: &[u32]) -> RoundRobin {
        RoundRobin::new(shares.iter().copied(), 0)
    }

    #[test]
    fn equal_loads_take_turns_by_weight() {
        let shares = [20, 10];
        let mut turns = turns(&shares);
        let mut picks = || least(&mut turns, |_| 0, |index| shares[index]).unwrap();
        assert_eq!([picks(), picks(), picks()], [0, 1, 0]);
    }

    #[test]
    fn the_load_counts_by_weight() {
        let shares = [20, 10, 0];
        let pick = |load: [u32; 3]| least(&mut turns(&shares), |index| load[index], |index| shares[index]);
        assert_eq!(pick([3, 1, 0]), Some(1));
        assert_eq!(pick([1, 1, 0]), Some(0));
        assert_eq!(pick([u32::MAX, u32::MAX - 1, 0]), Some(0));
        assert_eq!(least(&mut turns(&shares), |_| 0, |_| 0), None);
    }

    proptest! {
        /// Requests that never end are shared out by weight, to within one.
        #[test]
        fn loads_stay_proportional(shares in prop::collection::vec(1u32..=100, 1..20), count in 1u32..500) {
            let mut turns = turns(&shares);
            let mut load = vec![0; shares.len()];
            for _ in 0..count {
                let index = least(&mut turns, |index| load[index], |index| shares[index]).unwrap();
                load[index] += 1;
            }
            let total: u32 = shares.iter().sum();
            for (load, share) in load.iter().zip(&shares) {
                let due = f64::from(count) * f64::from(*share) / f64::from(total);
                // The next request goes to whoever has least, so nobody is a whole request ahead of all others.
                prop_assert!(f64::from(*load) < due + 1.0 + shares.len() as f64 * f64::from(*share) / f64::from(total));
            }
        }
    }
}
