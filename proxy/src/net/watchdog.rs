//! A deadline that moves with every byte and costs a timer only when somebody waits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires once nothing has happened for a while. Moving the deadline later touches no timer: a timer that
/// goes off too early looks at the deadline and sleeps on.
#[derive(Default)]
pub(crate) struct Watchdog {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Watchdog {
    /// It fires `patience` after `now`.
    pub(crate) fn feed(&mut self, now: Instant, patience: Duration) {
        self.deadline = Some(now + patience);
    }

    /// The same as [`Watchdog::poll_expired`] for one task alone: a timer that is set has its waker already, and asking
    /// it again would cost far more than to see that it has not gone off.
    pub(crate) fn poll_expired_alone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match (&self.sleep, self.deadline) {
            (Some(sleep), Some(deadline)) if !sleep.is_elapsed() && sleep.deadline() <= deadline => {
                Poll::Pending
            }
            _ => self.poll_expired(cx),
        }
    }

    /// Ready when the deadline has passed; never when it was not fed.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
