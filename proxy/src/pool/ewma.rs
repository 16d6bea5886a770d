//! Peak EWMA with two choices: of two RS picked at random, the one expected to answer sooner.
//!
//! What is expected is the moving average of the time until the response head, times the requests in flight. The
//! average follows a slower answer at once and a faster one slowly (its peak), so an RS that begins to stall is noticed
//! with the first request that shows it. One [`Ewma`] belongs to one worker and one pool. After Finagle's balancer of
//! this name.

use std::time::{Duration, Instant};

/// In this time two thirds of what is known are forgotten.
const MEMORY: Duration = Duration::from_secs(10);
/// What is expected of an RS that is busy and has not answered yet.
const UNKNOWN: Duration = Duration::from_secs(1);
/// A request that failed counts as one that took at least this long.
const FAILED: Duration = Duration::from_secs(1);

/// What one worker has seen of the RS of one pool.
#[derive(Clone, Debug)]
pub struct Ewma(Box<[Average]>);

#[derive(Clone, Copy, Debug, Default)]
struct Average {
    /// In seconds.
    cost: f64,
    at: Option<Instant>,
}

impl Average {
    /// How much of it still counts.
    fn kept(&self, now: Instant) -> f64 {
        let age = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

impl Ewma {
    /// For so many RS, of which nothing is known.
    pub fn new(count: usize) -> Self {
        Self(vec![Average::default(); count].into())
    }

    /// Takes over what `before` knows of an RS.
    pub fn take_over(&mut self, index: usize, before: &Self, its_index: usize) {
        if let (Some(average), Some(known)) = (self.0.get_mut(index), before.0.get(its_index)) {
            *average = *known;
        }
    }

    /// An RS took so long until its response head.
    pub fn answered(&mut self, index: usize, took: Duration, now: Instant) {
        let Some(average) = self.0.get_mut(index) else { return };
        let took = took.as_secs_f64();
        let kept = average.kept(now);
        average.cost = took.max(average.cost * kept + took * (1.0 - kept));
        average.at = Some(now);
    }

    /// An RS failed after so long.
    pub fn failed(&mut self, index: usize, took: Duration, now: Instant) {
        self.answered(index, took.max(FAILED), now);
    }

    /// The better of two RS among those with a share, picked by a random number; `None` if there is none. Time is
    /// linear in the number of RS.
    pub fn pick(
        &self,
        random: u64,
        now: Instant,
        in_flight: impl Fn(usize) -> u32,
        share: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let candidates = || (0..self.0.len()).filter(|index| share(*index) > 0);
        let count = candidates().count() as u64;
        let first = (random >> 32) % count.max(1);
        // Any but the first.
        let second = (first + 1 + (random & 0xffff_ffff) % count.saturating_sub(1).max(1)) % count.max(1);
        let one = candidates().nth(first as usize)?;
        // Shares may have changed meanwhile.
        let other = candidates().nth(second as usize).unwrap_or(one);
        let cost = |index| self.expected(index, in_flight(index), now) / f64::from(share(index).max(1));
        Some(if cost(other) < cost(one) { other } else { one })
    }

    fn expected(&self, index: usize, in_flight: u32, now: Instant) -> f64 {
        let average = self.0.get(index).copied().unwrap_or_default();
        match average.at {
            // Nobody waits for an RS to be tried for the first time, but not all try it at once.
            None => UNKNOWN.as_secs_f64() * f64::from(in_flight),
            Some(_) => average.cost * average.kept(now) * f64::from(in_flight + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::mix;
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin; the tests count from it")]
    fn start() -> Instant {
        Instant::now()
    }

    fn counts(ewma: &Ewma, now: Instant, load: &[u32], shares: &[u32]) -> Vec<usize> {
        let mut counts = vec![0; shares.len()];
        for random in 0..3000 {
            counts[ewma.pick(mix(random), now, |i| load[i], |i| shares[i]).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_quicker_of_two_is_taken() {
        let now = start();
        let mut ewma = Ewma::new(3);
        for (index, took) in [10, 20, 5].into_iter().enumerate() {
            ewma.answered(index, took * MILLI, now);
        }
        let counts = counts(&ewma, now, &[0, 0, 0], &[1, 1, 1]);
        // The slowest loses against both, the quickest against none.
        assert_eq!(counts[1], 0);
        assert!(counts[0].abs_diff(1000) < 150 && counts[2].abs_diff(2000) < 150, "{counts:?}");
    }

    #[test]
    fn requests_in_flight_and_weights_count() {
        let now = start();
        let mut ewma = Ewma::new(2);
        ewma.answered(0, 10 * MILLI, now);
        ewma.answered(1, 10 * MILLI, now);
        assert_eq!(counts(&ewma, now, &[3, 2], &[1, 1]), [0, 3000]);
        assert_eq!(counts(&ewma, now, &[3, 2], &[2, 1]), [3000, 0]);
        assert_eq!(counts(&ewma, now, &[9, 0], &[1, 0]), [3000, 0]);
        assert_eq!(ewma.pick(7, now, |_| 0, |_| 0), None);
        assert_eq!(Ewma::new(0).pick(7, now, |_| 0, |_| 1), None);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let now = start();
        let mut ewma = Ewma::new(2);
        ewma.answered(0, 500 * MILLI, now);
        ewma.answered(0, MILLI, now);
        ewma.answered(1, 10 * MILLI, now);
        assert_eq!(counts(&ewma, now, &[0, 0], &[1, 1]), [0, 3000]);
        // Two memories later, with quick answers in between.
        let mut later = now;
        for _ in 0..20 {
            later += Duration::from_secs(1);
            ewma.answered(0, MILLI, later);
            ewma.answered(1, 200 * MILLI, later);
        }
        assert_eq!(counts(&ewma, later, &[0, 0], &[1, 1]), [3000, 0]);
    }

    #[test]
    fn a_failure_is_never_quick() {
        let now = start();
        let mut ewma = Ewma::new(2);
        ewma.failed(0, Duration::ZERO, now);
        ewma.answered(1, 300 * MILLI, now);
        assert_eq!(counts(&ewma, now, &[0, 0], &[1, 1]), [0, 3000]);
    }

    #[test]
    fn an_rs_that_is_not_known_is_tried_but_not_by_all_at_once() {
        let now = start();
        let mut ewma = Ewma::new(2);
        ewma.answered(0, 300 * MILLI, now);
        assert_eq!(counts(&ewma, now, &[0, 0], &[1, 1]), [0, 3000]);
        assert_eq!(counts(&ewma, now, &[0, 1], &[1, 1]), [3000, 0]);
    }
}
