//! Futures that are large and seldom run.

use std::pin::Pin;

/// The future in memory of its own, made there: neither whoever waits for it nor the stack of whoever might keeps room
/// for it, on which every request would have to step over it.
#[inline(never)]
pub(crate) fn apart<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}
