//! Bytes waiting to be written: small pieces are gathered, large ones are never copied.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::spare;
use crate::h1;

/// From this size on a piece of a body is written from where it lies; below it, copying is cheaper than
/// one more element in the system call.
const COPY_BELOW: usize = 4096;
/// Written bytes that are given up while something waits behind them: with a reader that is always a little behind, there
/// always does. At least as much is written as is moved then.
const CLOSE_UP: usize = 16 << 10;
/// Most elements of one vectored write.
const SLICES: usize = 16;

/// A queue of bytes on their way out. Its owner stops reading while there is a lot in it.
#[derive(Default)]
pub(crate) struct Output {
    queue: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Bytes of the tail that are written already.
    written: usize,
    /// The stream has taken bytes that it may still hold: TLS encrypts into a buffer of its own.
    unflushed: bool,
}

impl Output {
    /// Room for small pieces behind everything that waits.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Appends a piece of a body.
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() < COPY_BELOW {
            self.tail.extend_from_slice(&data);
            return;
        }
        if self.tail.len() > self.written {
            let mut tail = Bytes::from(std::mem::take(&mut self.tail));
            tail.advance(self.written);
            self.queue.push_back(tail);
        } else {
            self.tail.clear();
        }
        self.written = 0;
        self.queue.push_back(data);
    }

    /// Appends a piece of a body, as a chunk of its own where the framing asks for it (RFC 9112 7.1).
    pub(crate) fn push_body(&mut self, data: Bytes, chunked: bool) {
        if chunked {
            h1::write_chunk_head(data.len(), &mut self.tail);
        }
        self.push(data);
        if chunked {
            self.tail.extend_from_slice(h1::CHUNK_END);
        }
    }

    /// Appends a piece of a body that is at the front of an input, and takes it off there.
    pub(crate) fn push_body_from(&mut self, input: &mut BytesMut, length: usize, chunked: bool) {
        if length >= COPY_BELOW {
            return self.push_body(input.split_to(length).freeze(), chunked);
        }
        if chunked {
            h1::write_chunk_head(length, &mut self.tail);
        }
        self.tail.extend_from_slice(input.get(..length).unwrap_or_default());
        input.advance(length);
        if chunked {
            self.tail.extend_from_slice(h1::CHUNK_END);
        }
    }

    /// Appends everything that waits in another one, which is empty then.
    pub(crate) fn append(&mut self, other: &mut Self) {
        for piece in other.queue.drain(..) {
            self.push(piece);
        }
        self.tail.extend_from_slice(other.tail.get(other.written..).unwrap_or_default());
        other.clear();
    }

    /// Forgets everything that waits.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.tail.clear();
        self.written = 0;
    }

    /// Takes everything that waits in another one and leaves it these buffers; only while nothing waits here.
    pub(crate) fn refill(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.queue, &mut other.queue);
        std::mem::swap(&mut self.tail, &mut other.tail);
        std::mem::swap(&mut self.written, &mut other.written);
    }

    /// Everything that waits, in pieces.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let tail = self.tail.get(self.written..).unwrap_or_default();
        self.queue.iter().map(Bytes::as_ref).chain((!tail.is_empty()).then_some(tail))
    }

    /// Everything that waits, in pieces.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        let mut tail = Bytes::from(self.tail);
        tail.advance(self.written);
        self.queue.into_iter().chain((!tail.is_empty()).then_some(tail))
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.iter().map(Bytes::len).sum::<usize>() + self.tail.len() - self.written
    }

    /// Whether nothing waits here; the stream may still hold something.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.tail.len() == self.written
    }

    /// Bytes of memory held for small pieces.
    pub(crate) fn capacity(&self) -> usize {
        self.tail.capacity()
    }

    /// Gives the memory back; only while nothing waits.
    pub(crate) fn release(&mut self) {
        if self.is_flushed() {
            *self = Self::default();
        }
    }

    /// Whether nothing waits, here or in the stream.
    pub(crate) fn is_flushed(&self) -> bool {
        self.is_empty() && !self.unflushed
    }

    /// Gives everything to the stream, which may still hold it then.
    pub(crate) fn poll_hand_over<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        progress: &mut bool,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(self.poll_write(stream, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *progress = true;
            self.unflushed = true;
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything and flushes the stream; ready when nothing waits. `progress` is set when a byte left.
    pub(crate) fn poll_write_all<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        progress: &mut bool,
    ) -> Poll<io::Result<()>> {
        if self.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_hand_over(stream, cx, progress))?;
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let tail = self.tail.get(self.written..).unwrap_or_default();
        if self.queue.is_empty() {
            return Pin::new(stream).poll_write(cx, tail);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(self.pieces()) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        Pin::new(stream).poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.queue.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            if let Some(piece) = self.queue.pop_front() {
                spare::keep_behind(piece);
            }
        }
        self.written = (self.written + written).min(self.tail.len());
        if self.written == self.tail.len() {
            self.tail.clear();
            self.written = 0;
        } else if self.written >= CLOSE_UP.max(self.tail.len() / 2) {
            self.tail.drain(..self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that takes a few bytes at a time.
    struct Slow(Vec<u8>);

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(1000);
            self.get_mut().0.extend_from_slice(&buf[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn everything_leaves_in_order() {
        let mut output = Output::default();
        let mut expected = Vec::new();
        for (size, byte) in [(10, b'a'), (5000, b'b'), (20, b'c'), (3, b'd'), (4096, b'e'), (7, b'f')] {
            output.push(Bytes::from(vec![byte; size]));
            expected.extend(vec![byte; size]);
        }
        assert_eq!(output.len(), expected.len());
        let mut stream = Slow(Vec::new());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut progress = false;
        assert!(output.poll_write_all(&mut stream, &mut cx, &mut progress).is_ready());
        assert!(progress && output.is_empty());
        assert_eq!(stream.0, expected);
    }

    /// A stream that holds what it takes until it is flushed, and cannot be flushed at first.
    #[derive(Default)]
    struct Holding {
        held: Vec<u8>,
        left: Vec<u8>,
        refusals: usize,
    }

    impl AsyncWrite for Holding {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.get_mut().held.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            if this.refusals > 0 {
                this.refusals -= 1;
                return Poll::Pending;
            }
            this.left.append(&mut this.held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A reader that is always a little behind: what it has taken does not stay here.
    #[test]
    fn what_is_written_takes_no_memory_while_more_comes() {
        let mut output = Output::default();
        let mut expected = Vec::new();
        let mut left = Vec::new();
        for round in 0..10_000 {
            let piece = vec![round as u8; 1000];
            output.tail().extend_from_slice(&piece);
            expected.extend(piece);
            if round >= 20 {
                let waiting: Vec<u8> = output.pieces().flatten().copied().take(1000).collect();
                left.extend_from_slice(&waiting);
                output.advance(waiting.len());
            }
            assert!(output.capacity() < 200_000, "{}", output.capacity());
        }
        left.extend(output.pieces().flatten());
        assert!(left == expected);
    }

    #[test]
    fn what_the_stream_holds_is_flushed_before_all_counts_as_written() {
        let mut output = Output::default();
        output.push(Bytes::from_static(b"the end of a response"));
        let mut stream = Holding { refusals: 2, ..Holding::default() };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..2 {
            assert!(output.poll_write_all(&mut stream, &mut cx, &mut false).is_pending());
            output.release();
        }
        assert!(output.poll_write_all(&mut stream, &mut cx, &mut false).is_ready());
        assert_eq!(stream.left, b"the end of a response");
    }
}
