//! End-to-end tests: the real program, driven from outside as its users drive it.
//!
//! Each case starts its own processes on ports the kernel chooses and takes everything down again, so the
//! cases run side by side. A case that needs more than an ordinary user has (root, curl, a TUN device)
//! says so; where that is missing it is shown as ignored with the reason, and with `INGRE_TESTS=all` it fails.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by panicking, and waits by the clock"
)]

mod cases;
mod harness;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::case::run(cases::all())
}
