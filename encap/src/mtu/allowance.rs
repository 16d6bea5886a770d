//! How often something may happen.

use std::time::{Duration, Instant};

/// A token bucket: how often something may happen.
#[derive(Debug, Clone)]
pub struct Allowance {
    every: Duration,
    burst: u32,
    left: u32,
    refilled: Option<Instant>,
}

impl Allowance {
    /// At most `burst` at once, and one more each `every`, which is not zero.
    pub fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, left: burst, refilled: None }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let since = *self.refilled.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_nanos() / self.every.as_nanos().max(1);
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(self.burst);
            // What is left of a period is forgotten, which errs to the slower side.
            self.refilled = Some(now);
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn allowance_refills() {
        let start = Instant::now();
        let mut allowance = Allowance::new(Duration::from_millis(10), 2);
        let taken = |allowance: &mut Allowance, ms| allowance.take(start + Duration::from_millis(ms));
        assert_eq!([0, 0, 0, 9].map(|ms| taken(&mut allowance, ms)), [true, true, false, false]);
        assert_eq!([10, 10].map(|ms| taken(&mut allowance, ms)), [true, false]);
        assert_eq!([5000, 5000, 5000].map(|ms| taken(&mut allowance, ms)), [true, true, false]);
    }
}
