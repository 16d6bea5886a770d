//! Connections to RS that one worker has not needed for a while: whichever runs dry takes them before it makes new
//! ones. Nobody comes here on the way of a request that finds a connection of its worker's own.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::net::Resting;

/// Time between two looks at all of them.
const SWEEP: Duration = Duration::from_millis(900);

/// What all workers share.
#[derive(Debug, Default)]
pub(crate) struct Lobby(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By the slot of their RS; the one used last is at the end.
    parked: Vec<VecDeque<Parked>>,
    swept: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Parked {
    pub(super) stream: Resting,
    pub(super) until: Instant,
}

impl Lobby {
    /// Connections here.
    pub(crate) fn len(&self) -> usize {
        self.lock().parked.iter().map(VecDeque::len).sum()
    }

    /// Leaves a connection; beyond `most` of an RS the oldest one is closed.
    pub(super) fn park(&self, slot: usize, parked: Parked, most: usize) {
        let all = &mut self.lock().parked;
        if all.len() <= slot {
            all.resize_with(slot + 1, VecDeque::new);
        }
        let Some(queue) = all.get_mut(slot) else { return };
        if queue.len() >= most {
            queue.pop_front();
        }
        queue.push_back(parked);
    }

    /// The connection used last that is still good.
    pub(super) fn take(&self, slot: usize, now: Instant) -> Option<Parked> {
        let mut state = self.lock();
        let queue = state.parked.get_mut(slot)?;
        while let Some(parked) = queue.pop_back() {
            if now < parked.until && parked.stream.is_quiet() {
                return Some(parked);
            }
        }
        None
    }

    /// Closes what has been here for too long, what the RS has closed, and everything of RS that are gone.
    /// Every worker asks for it; it is done once in a while.
    pub(super) fn sweep(&self, now: Instant, has_slot: impl Fn(usize) -> bool) {
        let mut state = self.lock();
        if state.swept.is_some_and(|swept| now < swept + SWEEP) {
            return;
        }
        state.swept = Some(now);
        for (slot, queue) in state.parked.iter_mut().enumerate() {
            if has_slot(slot) {
                queue.retain(|parked| now < parked.until && parked.stream.is_quiet());
            } else {
                queue.clear();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
