//! The body of a request, taken from the stream's port as its reader asks for it.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::StatusCode;

use crate::body::{Moved, Source};
use crate::error::Error;
use crate::h2::{Server, Slot};
use crate::message::ResponseHead;
use crate::multiplex::{Piece, Shared};
use crate::net::Output;

pub(super) struct RequestBody {
    pub(super) shared: Rc<Shared<Server>>,
    pub(super) slot: Slot,
    /// Bytes that the limit still allows.
    pub(super) left: u64,
    pub(super) length: Option<u64>,
    /// The client waits for 100.
    pub(super) expects: bool,
}

impl RequestBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<Piece, Error>> {
        let state = &mut *self.shared.borrow();
        let reset = state.listen(self.slot, cx);
        if std::mem::take(&mut self.expects) {
            state.send_interim(self.slot, &ResponseHead::new(StatusCode::CONTINUE));
        }
        match (state.receive(self.slot, most), reset) {
            (Some(piece), _) => {
                if let Piece::Data(data, _) = &piece {
                    self.left = self.left.checked_sub(data.len() as u64).ok_or(Error::BodyTooLarge)?;
                }
                Poll::Ready(Ok(piece))
            }
            (None, Some(error)) => Poll::Ready(Err(error)),
            (None, None) => Poll::Pending,
        }
    }
}

impl Source for RequestBody {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        Poll::Ready(Ok(ready!(self.poll_piece(cx, most))?.into_output(output, chunked)))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn awaits_continue(&self) -> bool {
        self.expects
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::BytesMut;

    use super::*;
    use crate::h1;
    use crate::h2::{Asked, Connection, Event, Limits};
    use crate::multiplex::State;

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
        let shared = Shared::new(Connection::new(limits, &mut Vec::new()), Output::default());
        let mut input = BytesMut::from(BEGINNING);
        for id in [1, 3, 5, 7, 9] {
            // POST https://a/, and 16 KiB.
            input.extend_from_slice(&[0, 0, 6, 1, 4, 0, 0, 0, id, 0x83, 0x87, 0x84, 0x01, 1, b'a']);
            input.extend_from_slice(&[0, 64, 0, 0, 0, 0, 0, 0, id]);
            input.extend_from_slice(&[b'x'; 16 << 10]);
            let slot = {
                let State { connection, out, .. } = &mut *shared.borrow();
                let event = connection.receive(&mut input, out.tail()).unwrap();
                let Event::Head(Asked::Request { slot, .. }) = event else { panic!("{event:?}") };
                let event = connection.receive(&mut input, out.tail()).unwrap();
                assert!(matches!(event, Event::Data { bytes: 16_384, .. }), "{event:?}");
                slot
            };
            shared.borrow().port(slot).push(input.split_to(16 << 10));
            let mut body =
                RequestBody { shared: Rc::clone(&shared), slot, left: 1000, length: None, expects: false };
            let mut output = Output::default();
            let moved =
                body.poll_into(&mut Context::from_waker(Waker::noop()), &mut output, usize::MAX, false);
            assert!(matches!(moved, Poll::Ready(Err(Error::BodyTooLarge))) && output.is_empty());
            shared.borrow().release(slot);
        }
        let out = shared.borrow().out.tail().clone();
        let granted = out.windows(9).any(|head| head == [0, 0, 4, 8, 0, 0, 0, 0, 0]);
        assert!(granted, "{out:?}");
    }
}
