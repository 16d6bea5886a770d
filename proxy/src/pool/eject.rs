//! Passive health: an RS whose requests fail in a row is spared for a while.
//!
//! It decides from outcomes who is ejected and how long. It never counts what clients do wrong and reads no clock:
//! moments are milliseconds of one clock. One [`Ejector`] for all workers of a pool, since one alone may see too little.

use std::net::SocketAddr;
use std::time::Duration;

/// Who is ejected, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Failures in a row; at least 1.
    pub failures: u32,
    /// They count together when the last one comes this long after the first one at most.
    pub interval: Duration,
    /// How long the first time; then twice, three times, ... as long, up to ten times. Each such time without
    /// an ejection takes one back.
    pub base_time: Duration,
    /// Most RS ejected at a time, percent of the pool, rounded up; never the last one.
    pub max_percent: u8,
}

/// Most times `base_time`.
const MOST_TIMES: u32 = 10;

/// What is known of the RS of one pool.
#[derive(Clone, Debug)]
pub struct Ejector {
    policy: EjectionPolicy,
    servers: Vec<Tally>,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    address: SocketAddr,
    /// Failures in a row, and when the first of them was.
    failures: u32,
    first: u64,
    /// How often it was ejected, and until when.
    times: u32,
    until: u64,
}

impl Ejector {
    /// For RS at these addresses, in the order of the pool, taking over what is known of them.
    pub fn new(
        policy: EjectionPolicy,
        addresses: impl IntoIterator<Item = SocketAddr>,
        before: Option<&Self>,
    ) -> Self {
        let known = |address| before?.servers.iter().find(|tally| tally.address == address).copied();
        let tally =
            |address| known(address).unwrap_or(Tally { address, failures: 0, first: 0, times: 0, until: 0 });
        Self { policy, servers: addresses.into_iter().map(tally).collect() }
    }

    /// A request to an RS ended well.
    pub fn succeeded(&mut self, index: usize) {
        if let Some(tally) = self.servers.get_mut(index) {
            tally.failures = 0;
        }
    }

    /// A request to an RS failed. The moment until which it is spared, if it is from now on.
    pub fn failed(&mut self, index: usize, now: u64) -> Option<u64> {
        let policy = self.policy;
        let room = self.room(now);
        let tally = self.servers.get_mut(index)?;
        if now < tally.until {
            return None;
        }
        if tally.failures == 0 || now.saturating_sub(tally.first) > millis(policy.interval) {
            (tally.failures, tally.first) = (0, now);
        }
        tally.failures = tally.failures.saturating_add(1);
        if tally.failures < policy.failures || !room {
            return None;
        }
        let base = millis(policy.base_time).max(1);
        let calm = now.saturating_sub(tally.until) / base;
        let times = u64::from(tally.times).saturating_sub(calm) as u32;
        tally.times = (times + 1).min(MOST_TIMES);
        tally.failures = 0;
        tally.until = now.saturating_add(base.saturating_mul(tally.times.into()));
        Some(tally.until)
    }

    /// Whether one more may be ejected.
    fn room(&self, now: u64) -> bool {
        let count = self.servers.len();
        let most = (count * usize::from(self.policy.max_percent)).div_ceil(100).min(count.saturating_sub(1));
        self.servers.iter().filter(|tally| now < tally.until).count() < most
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::addresses;
    use super::*;

    const POLICY: EjectionPolicy = EjectionPolicy {
        failures: 3,
        interval: Duration::from_secs(10),
        base_time: Duration::from_secs(30),
        max_percent: 50,
    };

    fn ejector(policy: EjectionPolicy, count: usize) -> Ejector {
        Ejector::new(policy, addresses(count), None)
    }

    /// So many failures at one moment; what the last one brought.
    fn fail(ejector: &mut Ejector, index: usize, count: u32, now: u64) -> Option<u64> {
        (1..count).for_each(|_| assert_eq!(ejector.failed(index, now), None));
        ejector.failed(index, now)
    }

    #[test]
    fn three_in_a_row_within_the_interval() {
        let mut ejector = ejector(POLICY, 4);
        assert_eq!(fail(&mut ejector, 0, 2, 1_000), None);
        ejector.succeeded(0);
        assert_eq!(fail(&mut ejector, 0, 2, 2_000), None);
        // Too late to count with the first ones.
        assert_eq!(fail(&mut ejector, 0, 2, 12_001), None);
        assert_eq!(ejector.failed(0, 22_001), Some(52_001));
        // Failures of requests that were under way count for nothing.
        assert_eq!(fail(&mut ejector, 0, 9, 30_000), None);
        // Nobody else is concerned.
        assert_eq!(fail(&mut ejector, 1, 3, 30_000), Some(60_000));
    }

    #[test]
    fn longer_each_time_and_shorter_after_a_calm_while() {
        let mut ejector = ejector(POLICY, 2);
        let mut now = 0;
        for times in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10] {
            let until = fail(&mut ejector, 0, 3, now);
            assert_eq!(until, Some(now + times * 30_000));
            now = until.unwrap();
        }
        // Four times the base without an ejection.
        assert_eq!(fail(&mut ejector, 0, 3, now + 120_000), Some(now + 120_000 + 7 * 30_000));
    }

    #[test]
    fn no_more_than_allowed_and_never_the_last() {
        for (count, max_percent, most) in
            [(4, 50, 2), (4, 51, 3), (4, 100, 3), (10, 5, 1), (10, 0, 0), (1, 100, 0), (2, 10, 1)]
        {
            let mut ejector = ejector(EjectionPolicy { failures: 1, max_percent, ..POLICY }, count);
            let ejected = (0..count).filter(|index| ejector.failed(*index, 1_000).is_some()).count();
            assert_eq!(ejected, most, "{max_percent} % of {count}");
            // There is room again when the first one has come back.
            if most > 0 {
                assert!(ejector.failed(count - 1, 31_000).is_some());
            }
        }
    }

    #[test]
    fn what_is_known_survives_another_configuration() {
        let mut before = ejector(POLICY, 3);
        assert_eq!(fail(&mut before, 2, 2, 1_000), None);
        let servers = [2, 0].map(|number| addresses(3).nth(number).unwrap());
        let mut after = Ejector::new(POLICY, servers, Some(&before));
        assert_eq!(after.failed(0, 2_000), Some(32_000));
        assert_eq!(after.failed(1, 2_000), None);
    }

    proptest! {
        /// Whatever happens, somebody is left.
        #[test]
        fn somebody_is_left(
            count in 1usize..6, max_percent in 0u8..=100,
            events in prop::collection::vec((0usize..6, any::<bool>(), 0u64..20_000), 0..200),
        ) {
            let mut ejector = ejector(EjectionPolicy { max_percent, failures: 2, ..POLICY }, count);
            let mut until = vec![0; count];
            let mut now = 0;
            for (index, ok, later) in events {
                now += later;
                if ok {
                    ejector.succeeded(index);
                } else if let Some(spared) = ejector.failed(index, now) {
                    prop_assert!(until[index] <= now && spared > now);
                    until[index] = spared;
                }
                prop_assert!(until.iter().any(|until| *until <= now));
            }
        }
    }
}
