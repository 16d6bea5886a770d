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

    fn length(&self) -> Option<u64> {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::BytesMut;

    use super::*;
    use crate::h1;
    use crate::h2::{Connection, Event, Limits};

    const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// As far as the windows of the client are concerned, it was passed on.
    #[test]
    fn content_that_is_too_large_uses_up_no_window() {
        let window = 1 << 17;
        let limits = Limits {
            streams: 9,
            stream_window: window,
            connection_window: window,
            largest_window: window,
            head: h1::Limits::default(),
        };
        let shared = Shared::new(Connection::new(limits, &mut Vec::new()), Vec::new());
        let mut input = BytesMut::from(BEGINNING);
        for id in [1, 3, 5, 7, 9] {
            // POST https://a/, and 16 KiB.
            input.extend_from_slice(&[0, 0, 6, 1, 4, 0, 0, 0, id, 0x83, 0x87, 0x84, 0x01, 1, b'a']);
            input.extend_from_slice(&[0, 64, 0, 0, 0, 0, 0, 0, id]);
            input.extend_from_slice(&[b'x'; 16 << 10]);
            let slot = {
                let State { connection, out, .. } = &mut *shared.borrow();
                let event = connection.receive(&mut input, out).unwrap();
                let Event::Request { slot, .. } = event else { panic!("{event:?}") };
                let event = connection.receive(&mut input, out).unwrap();
                assert!(matches!(event, Event::Data { bytes: 16_384, .. }), "{event:?}");
                slot
            };
            shared.borrow().port(slot).push(input.split_to(16 << 10));
            let mut body = RequestBody { shared: Rc::clone(&shared), slot, left: 1000, length: None };
            let mut output = Output::default();
            let moved = body.poll_into(&mut Context::from_waker(Waker::noop()), &mut output, false);
            assert!(matches!(moved, Poll::Ready(Err(Error::BodyTooLarge))) && output.is_empty());
            shared.borrow().release(slot);
        }
        let state = shared.borrow();
        let granted = state.out.windows(9).any(|head| head == [0, 0, 4, 8, 0, 0, 0, 0, 0]);
        assert!(granted, "{:?}", state.out);
    }
}
