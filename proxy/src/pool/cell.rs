//! What all workers know together about one RS: its health, and where a pool asks for it its load.
//!
//! Moments are milliseconds of one clock that never goes back, the same for all threads; 0 is never.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::health::HealthState;

/// The health of one RS as the workers see it: written by its prober alone, read for every request, kept
/// across reloads.
#[derive(Debug)]
pub struct HealthCell {
    state: AtomicU8,
    joined_live: bool,
}

impl HealthCell {
    /// For an RS of a pool without health check.
    pub fn unchecked() -> Self {
        Self { state: AtomicU8::new(HealthState::Unchecked as u8), joined_live: false }
    }

    /// For an RS whose first probe is about to start. `joined_live`: it was added by a reload to a pool that
    /// was already serving, and waits for its first success where the others do not.
    pub fn probing(joined_live: bool) -> Self {
        Self { state: AtomicU8::new(HealthState::Probing as u8), joined_live }
    }

    /// Whether the RS was added to a pool that was already serving.
    pub fn joined_live(&self) -> bool {
        self.joined_live
    }

    /// Publishes the state. One prober writes, so no order has to be kept with anything else.
    pub fn set(&self, state: HealthState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// The state published last.
    pub fn get(&self) -> HealthState {
        const UP: u8 = HealthState::Up as u8;
        const PROBING: u8 = HealthState::Probing as u8;
        const DOWN: u8 = HealthState::Down as u8;
        match self.state.load(Ordering::Relaxed) {
            UP => HealthState::Up,
            PROBING => HealthState::Probing,
            DOWN => HealthState::Down,
            _ => HealthState::Unchecked,
        }
    }
}

/// Requests in flight, counted exactly by all workers together, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct InFlight(AtomicU32);

impl InFlight {
    /// Counts one more unless there are `most` already. The order is total, so that whoever finds no room and then
    /// lines up is seen by the one who leaves.
    pub fn enter(&self, most: u32) -> bool {
        let more = |count| (count < most).then_some(count + 1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Counts one less; only behind an [`enter`](Self::enter) that was granted.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many there are.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a pool that balances by more than turns knows of one RS; kept across reloads.
#[derive(Debug, Default)]
pub struct Live {
    /// Its requests.
    pub in_flight: InFlight,
    /// Whether the last request failed, so that one that ends well has something to tell the
    /// [`Ejector`](super::Ejector).
    pub failing: AtomicBool,
    back_since: AtomicU64,
    ejected_until: AtomicU64,
}

impl Live {
    /// It serves again since this moment.
    pub fn came_back(&self, now: u64) {
        self.back_since.store(now, Ordering::Relaxed);
    }

    /// It is spared until this moment.
    pub fn eject(&self, until: u64) {
        self.ejected_until.store(until, Ordering::Relaxed);
    }

    /// Whether it is spared.
    pub fn is_ejected(&self, now: u64) -> bool {
        now < self.ejected_until.load(Ordering::Relaxed)
    }

    /// Since when it serves without a break; 0 where it has always done so.
    pub fn back_since(&self) -> u64 {
        self.back_since.load(Ordering::Relaxed).max(self.ejected_until.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::HealthState::{Down, Probing, Unchecked, Up};
    use super::*;

    #[test]
    fn a_cell_gives_back_what_was_published() {
        let cell = HealthCell::unchecked();
        assert_eq!(cell.get(), Unchecked);
        for state in [Probing, Up, Down, Unchecked] {
            cell.set(state);
            assert_eq!(cell.get(), state);
        }
        assert_eq!(HealthCell::probing(true).get(), Probing);
    }

    #[test]
    fn no_more_than_the_cap_enter_whoever_races() {
        let requests = InFlight::default();
        let granted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        if requests.enter(1500) {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!((granted.load(Ordering::Relaxed), requests.get()), (1500, 1500));
        requests.leave();
        assert!(requests.enter(1500) && !requests.enter(1500));
    }

    #[test]
    fn an_rs_is_back_when_its_last_break_has_ended() {
        let live = Live::default();
        assert_eq!((live.back_since(), live.is_ejected(1)), (0, false));
        live.came_back(100);
        live.eject(500);
        assert!(live.is_ejected(499) && !live.is_ejected(500));
        assert_eq!(live.back_since(), 500);
        live.came_back(900);
        assert_eq!(live.back_since(), 900);
    }
}
