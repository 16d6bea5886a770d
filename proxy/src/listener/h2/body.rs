//! The body of a request, taken from the stream's port as its reader asks for it.

use std::rc::Rc;
use std::task::{Context, Poll};

use crate::body::{Moved, Source};
use crate::error::Error;
use crate::h2::Slot;
use crate::net::Output;

use super::shared::{Shared, State};

pub(super) struct RequestBody {
    pub(super) shared: Rc<Shared>,
    pub(super) slot: Slot,
    /// Bytes that the limit still allows.
    pub(super) left: u64,
    pub(super) length: Option<u64>,
}

impl Source for RequestBody {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        let state = &mut *self.shared.borrow();
        let reset = state.listen(self.slot, cx);
        let port = state.port(self.slot);
        let Some(data) = port.pop() else {
            return match (reset, port.ended) {
                (true, _) => Poll::Ready(Err(Error::ClientGone)),
                (false, true) => {
                    Poll::Ready(Ok(port.trailers.take().map_or(Moved::Last(0), Moved::Trailers)))
                }
                (false, false) => Poll::Pending,
            };
        };
        let (bytes, waiting) = (data.len(), port.waiting());
        let last = port.ended && waiting == 0 && port.trailers.is_none();
        let before = state.out.len();
        let State { connection, out, .. } = state;
        connection.passed_on(self.slot, bytes, waiting, out);
        if state.out.len() > before {
            state.appended();
        }
        self.left = self.left.checked_sub(bytes as u64).ok_or(Error::BodyTooLarge)?;
        output.push_body(data, chunked);
        let moved = bytes as u64;
        Poll::Ready(Ok(if last { Moved::Last(moved) } else { Moved::Data(moved) }))
    }

    fn poll_copy(&mut self, _: &mut Context<'_>, _: &mut Vec<u8>, _: usize) -> Poll<Result<Moved, Error>> {
        // A request is never the body of a response.
        Poll::Ready(Err(Error::Internal))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}
