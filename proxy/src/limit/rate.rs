//! Requests in a time, by the generic cell rate algorithm (ITU-T I.371): one number per client says when its next request
//! would be due if they came evenly; who is ahead of that by more than the burst has to wait. It is a token bucket
//! that needs no refilling.

use std::time::Duration;

/// A rate and how many requests may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds from one request to the next.
    interval: u64,
    /// How far ahead one may be.
    ahead: u64,
}

impl Rate {
    /// `count` requests per `period`, `burst` of them at once; both at least 1.
    pub fn new(count: u32, period: Duration, burst: u32) -> Self {
        let interval = (nanos(period) / u64::from(count.max(1))).max(1);
        Self { interval, ahead: interval.saturating_mul(u64::from(burst.max(1) - 1)) }
    }

    /// From one request to the next.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// How many requests may come at once.
    pub fn burst(&self) -> u64 {
        self.ahead / self.interval + 1
    }

    /// When the next request is due after one at `now`, which is counted from any fixed moment; `due` is what came out
    /// last time, 0 at first.
    ///
    /// # Errors
    /// Where the request is too early; the wait is what is missing.
    pub fn next(&self, due: u64, now: Duration) -> Result<u64, Duration> {
        let now = nanos(now);
        let due = due.max(now);
        let early = due - now;
        if early > self.ahead {
            return Err(Duration::from_nanos(early - self.ahead));
        }
        Ok(due.saturating_add(self.interval))
    }
}

/// Enough for 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate::new(10, Duration::from_secs(1), 5);
        let mut due = 0;
        let now = Duration::from_secs(100);
        for _ in 0..5 {
            due = rate.next(due, now).unwrap();
        }
        assert_eq!(rate.next(due, now), Err(Duration::from_millis(100)));
        due = rate.next(due, now + Duration::from_millis(100)).unwrap();
        assert!(rate.next(due, now + Duration::from_millis(150)).is_err());
        // After a pause the whole burst is there again.
        for _ in 0..5 {
            due = rate.next(due, now + Duration::from_secs(2)).unwrap();
        }
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_come_more_than_burst_and_rate(
            count in 1u32..1000, burst in 1u32..50, pauses in prop::collection::vec(0u64..5_000_000, 1..300),
        ) {
            let period = Duration::from_secs(1);
            let rate = Rate::new(count, period, burst);
            let (mut due, mut now) = (0, Duration::from_secs(1));
            let mut admitted = Vec::new();
            for pause in pauses {
                now += Duration::from_micros(pause);
                if let Ok(next) = rate.next(due, now) {
                    due = next;
                    admitted.push(now);
                }
            }
            for (index, first) in admitted.iter().enumerate() {
                for (number, last) in admitted.iter().enumerate().skip(index) {
                    let most = f64::from(burst) + f64::from(count) * (*last - *first).as_secs_f64() + 1e-6 * f64::from(count);
                    prop_assert!((number - index + 1) as f64 <= most + 1e-3);
                }
            }
        }
    }
}
