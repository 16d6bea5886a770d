//! What leaves on a request stream.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::SendStream;

use super::code;
use crate::error::Error;
use crate::h3::{self, Code};
use crate::message::ResponseHead;

/// The sending side of a request stream. Unless it was finished, it is reset in the end: a response that is cut off must
/// not look complete.
pub(crate) struct Sender {
    stream: SendStream,
    /// What QUIC has not taken yet.
    queue: VecDeque<Bytes>,
    over: bool,
}

impl Sender {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, queue: VecDeque::new(), over: false }
    }

    /// Sends an interim response, unless the client is slow to take what waits for it. What does not leave at once
    /// leaves with the final one.
    pub(in crate::listener) fn send_interim(&mut self, cx: &mut Context<'_>, head: &ResponseHead) {
        if self.queue.is_empty() && !self.over {
            self.push(h3::interim(head));
            // An error shows again with the final response.
            let _ = self.poll_flush(cx, &mut false);
        }
    }

    /// Appends to what is to leave.
    pub(super) fn push(&mut self, bytes: impl Into<Bytes>) {
        self.queue.push_back(bytes.into());
    }

    /// Gives everything to QUIC, which takes so much and no more; `progress` is set when it takes something.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        progress: &mut bool,
    ) -> Poll<Result<(), Error>> {
        while !self.queue.is_empty() {
            let written = {
                let writing = pin!(self.stream.write_chunks(self.queue.make_contiguous()));
                ready!(writing.poll(cx)).map_err(|_| Error::ClientGone)?
            };
            *progress = true;
            self.queue.drain(..written.chunks);
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing follows.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.over = true;
        self.stream.finish().map_err(|_| Error::ClientGone)
    }

    /// Whether everything there is has been handed over, or given up.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Ready when the client wants nothing more, is gone, or has everything.
    pub(super) fn stopped(&self) -> impl Future<Output = bool> + 'static {
        let stopped = self.stream.stopped();
        async move { matches!(stopped.await, Ok(None)) }
    }

    /// Gives up what has not left.
    pub(super) fn reset(&mut self, reason: Code) {
        if !std::mem::replace(&mut self.over, true) {
            self.queue.clear();
            // One that is over already cannot be reset, and need not.
            let _ = self.stream.reset(code(reason));
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.reset(Code::Internal);
    }
}
