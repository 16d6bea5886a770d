//! What the tests of the hashing methods measure.

use std::net::SocketAddr;

use proptest::prelude::TestCaseError;
use proptest::prop_assert;

use super::hash::hash;

/// Keys enough to measure shares with.
pub(super) fn keys() -> impl Iterator<Item = u64> {
    (0..20_000u32).map(|key| hash(&key.to_be_bytes()))
}

/// So many addresses.
pub(super) fn addresses(count: usize) -> impl Iterator<Item = SocketAddr> {
    (0..count).map(|number| SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 8080)))
}

/// The keys that go from one RS to another.
pub(super) fn moved(
    before: impl Fn(u64) -> usize,
    after: impl Fn(u64) -> usize,
) -> impl Iterator<Item = (usize, usize)> {
    keys().map(move |key| (before(key), after(key))).filter(|(before, after)| before != after)
}

/// Checks that every RS gets its share of the keys, to within so much of all of them.
pub(super) fn shares_of(
    shares: &[u32],
    tolerance: f64,
    pick: impl Fn(u64) -> usize,
) -> Result<(), TestCaseError> {
    let mut counts = vec![0u32; shares.len()];
    keys().for_each(|key| counts[pick(key)] += 1);
    let (total, all) = (f64::from(shares.iter().sum::<u32>()), f64::from(counts.iter().sum::<u32>()));
    for (count, share) in counts.iter().zip(shares) {
        let (got, due) = (f64::from(*count) / all, f64::from(*share) / total);
        prop_assert!((got - due).abs() < tolerance, "{} of the keys for {} of the weight", got, due);
    }
    Ok(())
}
