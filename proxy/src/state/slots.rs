//! Which queue of kept connections an RS has, the same in every snapshot.
//!
//! A number is given to another RS only when no request can bring a connection back under it and every worker has long
//! closed what it had: names may stand for other addresses every second, for months.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::net::clock;

/// Workers close what they keep for an RS that is gone within seconds; this is for one that was held up.
const QUARANTINE_MS: u64 = 300_000;

/// The numbers of a process.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    count: usize,
    /// Given back, and when.
    free: VecDeque<(u64, usize)>,
}

impl Slots {
    /// A number that nobody has.
    pub(super) fn lease(self: &Arc<Self>) -> Arc<Lease> {
        self.lease_at(clock::millis())
    }

    fn lease_at(self: &Arc<Self>, now: u64) -> Arc<Lease> {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let long_ago = |(since, _): &mut (u64, usize)| now.saturating_sub(*since) >= QUARANTINE_MS;
        let number = match numbers.free.pop_front_if(long_ago) {
            Some((_, number)) => number,
            None => {
                numbers.count += 1;
                numbers.count - 1
            }
        };
        Arc::new(Lease { number, slots: Arc::clone(self) })
    }

    /// Every number is less.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    fn give_back(&self, number: usize, now: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).free.push_back((now, number));
    }
}

/// A number, until the last snapshot that has its RS is gone.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) number: usize,
    slots: Arc<Slots>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slots.give_back(self.number, clock::millis());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_long_after_it_was_given_back() {
        let slots = Arc::<Slots>::default();
        let leases: Vec<_> = (0..3).map(|_| slots.lease()).collect();
        assert_eq!(leases.iter().map(|lease| lease.number).collect::<Vec<_>>(), [0, 1, 2]);
        let kept = Arc::clone(&leases[1]);
        drop(leases);
        let now = clock::millis();
        assert_eq!(slots.lease_at(now).number, 3, "too soon");
        let later = now + QUARANTINE_MS + 1000;
        let mut again = [slots.lease_at(later).number, slots.lease_at(later).number];
        again.sort_unstable();
        assert_eq!((again, slots.count()), ([0, 2], 4));
        drop(kept);
    }
}
