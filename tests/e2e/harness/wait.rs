//! Waiting for what must come true, with a limit.

use std::io;
use std::time::{Duration, Instant};

/// How long anything may take that takes a moment; a loaded machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

/// Asks until there is an answer; panics when there is none after [`PATIENCE`].
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, ask).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// Asks until there is an answer or the time is over.
pub(crate) fn within<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Does again what a signal has cut short: a socket with a timeout does not go on by itself (signal(7)), and a machine
/// that is stopped and goes on interrupts like a signal.
pub(crate) fn uninterrupted<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
