//! The timing loop of the micro-benchmarks in `proxy/benches` and `encap/benches`. Not a crate: two small programs
//! include it, and a directory keeps cargo from taking it for a benchmark of its own.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// How many batches are timed. Odd, so that one of them is the median.
const BATCHES: usize = 21;
/// How long a batch takes at least: far longer than reading the clock, shorter than most turns of a scheduler.
const BATCH: Duration = Duration::from_millis(5);

/// Prints nanoseconds per call of `operation`: the median of the batches, then the fastest and the slowest.
#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
pub(crate) fn measure<R>(name: &str, mut operation: impl FnMut() -> R) {
    let mut calls = 1_u32;
    while time(calls, &mut operation) < BATCH {
        calls *= 2;
    }
    let mut batches: Vec<f64> =
        (0..BATCHES).map(|_| time(calls, &mut operation).as_secs_f64() * 1e9 / f64::from(calls)).collect();
    batches.sort_by(f64::total_cmp);
    let (fastest, median, slowest) = (batches[0], batches[BATCHES / 2], batches[BATCHES - 1]);
    println!("{name:<56} {median:>10.1} ns  ({fastest:.1} to {slowest:.1})");
}

fn time<R>(calls: u32, operation: &mut impl FnMut() -> R) -> Duration {
    let start = now();
    for _ in 0..calls {
        black_box(operation());
    }
    now() - start
}

/// The time, also for code that is given it.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
