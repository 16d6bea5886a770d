//! A clock for deadlines: a few milliseconds behind at most, and a fifth of the price of the exact one. It is asked
//! several times per request.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::time::Instant;

thread_local! {
    /// One moment on both clocks.
    static SAME: (Instant, Duration) = (Instant::now(), coarse());
    /// The last moment that was asked for, on both. The coarse clock stands still for milliseconds, and the way from it to
    /// an `Instant` costs more than to read it.
    static LAST: Cell<Option<(Duration, Instant)>> = const { Cell::new(None) };
}

/// Now, or a few milliseconds ago.
pub(crate) fn now() -> Instant {
    let coarse = coarse();
    match LAST.get() {
        Some((last, instant)) if last == coarse => instant,
        _ => {
            let instant = SAME.with(|(exact, same)| *exact + coarse.saturating_sub(*same));
            LAST.set(Some((coarse, instant)));
            instant
        }
    }
}

/// Time since some moment in the past, for what several threads keep: no thread is ahead of another, as they may be with
/// [`now`].
pub(crate) fn shared() -> Duration {
    coarse()
}

/// The same in milliseconds since some moment in the past, for what several threads keep: never 0.
pub(crate) fn millis() -> u64 {
    u64::try_from(coarse().as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Seconds since 1970, for what outlives this process.
#[expect(clippy::disallowed_methods, reason = "cookies expire by the calendar")]
pub(crate) fn calendar() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Since some moment in the past; goes on as `Instant` does.
fn coarse() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::MonotonicCoarse);
    // Neither is negative on this clock.
    Duration::new(tv_sec as u64, tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_exact_clock() {
        for _ in 0..3 {
            let before = Instant::now();
            let now = now();
            let lag = Duration::from_millis(50);
            assert!(now + lag >= before && now <= Instant::now() + lag);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
