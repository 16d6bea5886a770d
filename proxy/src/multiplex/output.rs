//! What the streams of a connection have appended, on its way out.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use super::{HIGH_WATER, Shared};
use crate::h2::Role;
use crate::net::{self, Stream};

/// From so many streams on, what they append waits for what the others are about to append.
const CROWD: usize = 4;

/// Frames that are being written.
#[derive(Default)]
pub(crate) struct Output {
    writing: net::Output,
    /// It has waited for a crowd already.
    gathered: bool,
}

impl Output {
    /// Whether frames are being written.
    pub(crate) fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// Whether the other side is to take something.
    pub(crate) fn is_busy(&self) -> bool {
        !self.writing.is_flushed()
    }

    /// Gives the buffer back, while nothing is being written.
    pub(crate) fn release(&mut self) {
        self.writing.release();
    }

    /// Writes what the streams have appended, in a crowd once all of them had the chance to. `progress` is set when a
    /// byte left.
    pub(crate) fn poll<R: Role>(
        &mut self,
        stream: &mut Stream,
        shared: &Shared<R>,
        cx: &mut Context<'_>,
        progress: &mut bool,
    ) -> Poll<io::Result<()>> {
        let (waiting, streams) = {
            let state = shared.borrow();
            (state.out.len(), state.connection.open_streams())
        };
        let hurry = waiting >= HIGH_WATER || self.is_writing() || streams < CROWD;
        if waiting > 0 && !hurry && !std::mem::replace(&mut self.gathered, true) {
            // Polled again when everything that is ready now has run.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        self.gathered = false;
        self.poll_write(stream, shared, cx, progress)
    }

    /// Writes everything. `progress` is set when a byte left.
    pub(crate) fn poll_write<R: Role>(
        &mut self,
        stream: &mut Stream,
        shared: &Shared<R>,
        cx: &mut Context<'_>,
        progress: &mut bool,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.writing.poll_hand_over(stream, cx, progress))?;
            let state = &mut *shared.borrow();
            if state.out.is_empty() {
                break;
            }
            self.writing.refill(&mut state.out);
            state.pass_turn();
        }
        self.writing.poll_write_all(stream, cx, progress)
    }
}
