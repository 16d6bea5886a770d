//! Where requests of all workers wait while every RS of their pool is full: first come, first served.
//!
//! Only the first in line tries; the one who leaves an RS wakes it, and it wakes the next one when it has gone. So
//! nobody overtakes, and a place in line that is given up costs nobody his turn.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The line of one pool, kept across reloads.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    line: Mutex<Line>,
    /// Its length, for those who only look.
    length: AtomicUsize,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<(u64, Option<Waker>)>,
    next: u64,
}

impl Queue {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// Lines up behind all others; `None` if `most` are there already.
    pub(crate) fn line_up(self: &Arc<Self>, most: usize) -> Option<Ticket> {
        let mut line = self.lock();
        if line.waiting.len() >= most {
            return None;
        }
        let number = line.next;
        line.next += 1;
        line.waiting.push_back((number, None));
        self.length.store(line.waiting.len(), Ordering::SeqCst);
        Some(Ticket { queue: Arc::clone(self), number })
    }

    /// There may be room now: the first in line is to try.
    pub(crate) fn wake(&self) {
        if self.len() == 0 {
            return;
        }
        let first = self.lock().waiting.front_mut().and_then(|(_, waker)| waker.take());
        if let Some(waker) = first {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in line, given up when dropped.
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    number: u64,
}

impl Ticket {
    /// Waits until this is the first in line and `attempt` brings something.
    pub(crate) async fn wait<T>(self, mut attempt: impl FnMut() -> Option<T>) -> T {
        poll_fn(|cx| {
            // Whoever leaves an RS from here on sees the waker.
            if !self.leave_waker(cx.waker()) {
                return Poll::Pending;
            }
            attempt().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Whether this is the first in line.
    fn leave_waker(&self, waker: &Waker) -> bool {
        let mut line = self.queue.lock();
        let Some(place) = line.place(self.number) else { return false };
        if let Some((_, own)) = line.waiting.get_mut(place) {
            *own = Some(waker.clone());
        }
        place == 0
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = self.queue.lock();
        if let Some(place) = line.place(self.number) {
            line.waiting.remove(place);
        }
        self.queue.length.store(line.waiting.len(), Ordering::SeqCst);
        drop(line);
        // It may have been this one's turn.
        self.queue.wake();
    }
}

impl Line {
    fn place(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;
    use std::task::Context;

    use super::*;
    use crate::pool::InFlight;

    #[test]
    fn the_first_is_served_first_and_nobody_beyond_the_most() {
        let queue = Arc::<Queue>::default();
        let room = Cell::new(0);
        let attempt = || {
            room.set(u32::checked_sub(room.get(), 1)?);
            Some(())
        };
        let mut first = pin!(queue.line_up(2).unwrap().wait(attempt));
        let mut second = pin!(queue.line_up(2).unwrap().wait(attempt));
        assert!(queue.line_up(2).is_none());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(cx).is_pending() && first.as_mut().poll(cx).is_pending());
        room.set(1);
        // Not its turn, though there is room.
        assert!(second.as_mut().poll(cx).is_pending());
        assert!(first.as_mut().poll(cx).is_ready());
        assert_eq!(queue.len(), 1);
        room.set(1);
        assert!(second.as_mut().poll(cx).is_ready());
        assert_eq!((queue.len(), room.get()), (0, 0));
    }

    #[test]
    fn who_leaves_the_line_costs_nobody_his_turn() {
        let queue = Arc::<Queue>::default();
        let first = queue.line_up(9).unwrap();
        let mut second = pin!(queue.line_up(9).unwrap().wait(|| Some(())));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(cx).is_pending());
        drop(first);
        assert!(second.as_mut().poll(cx).is_ready());
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn everybody_on_every_thread_gets_a_turn_and_the_cap_holds() {
        let queue = Arc::<Queue>::default();
        let requests = InFlight::default();
        let (most, served) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    crate::local_runtime().unwrap().block_on(async {
                        for _ in 0..500 {
                            let enter = || requests.enter(2).then_some(());
                            if queue.len() > 0 || enter().is_none() {
                                queue.line_up(100).unwrap().wait(enter).await;
                            }
                            most.fetch_max(requests.get(), Ordering::SeqCst);
                            served.fetch_add(1, Ordering::SeqCst);
                            tokio::task::yield_now().await;
                            requests.leave();
                            queue.wake();
                        }
                    });
                });
            }
        });
        assert_eq!((served.into_inner(), requests.get(), queue.len()), (2000, 0, 0));
        assert!(most.into_inner() <= 2);
    }
}
