//! A stream with what was read from it and what is to be written to it.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::{BLOCK, MUCH, Output, RECORD_ROOM, Stream, Watchdog, spare};

/// Most of a body that is read at once from TLS: as many records as there are pieces in a [`BLOCK`].
const RECORDS: usize = 3 * RECORD_ROOM;
/// Room on the stack for one read of a head; an idle connection holds no buffer.
const HEAD_READ: usize = 8 << 10;

/// Buffers up to this size stay between two messages of a connection.
const KEEP: usize = 16 << 10;

/// One connection, its two buffers and our patience with it.
pub(crate) struct Io {
    pub(crate) stream: Stream,
    pub(crate) input: BytesMut,
    pub(crate) output: Output,
    /// The last read has found much.
    flows: bool,
    /// Patience with the other side; lives as long as the connection, so that its timer is set rarely.
    pub(crate) watchdog: Watchdog,
}

impl Io {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: Output::default(),
            flows: false,
            watchdog: Watchdog::default(),
        }
    }

    /// Reads what is there into the input by way of the stack: nothing is allocated while nothing comes.
    /// Ready with 0 at the end of the stream.
    pub(crate) fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [std::mem::MaybeUninit::uninit(); HEAD_READ];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        self.input.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Reads what is there into the input, with room for much where a body is expected or much has come before. Ready with 0
    /// at the end of the stream.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, body: bool) -> Poll<io::Result<usize>> {
        let read = ready!(if body || self.flows { self.poll_read_body(cx) } else { self.poll_read_head(cx) });
        self.flows = matches!(read, Ok(MUCH..));
        Poll::Ready(read)
    }

    /// Reads what is there into the input, up to a [`BLOCK`]. Ready with 0 at the end of the stream.
    pub(crate) fn poll_read_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let has_room = self.input.capacity() - self.input.len() >= RECORD_ROOM;
        if !has_room && !self.input.try_reclaim(RECORD_ROOM) {
            let mut input = spare::take();
            input.extend_from_slice(&self.input);
            input.reserve(RECORD_ROOM);
            self.input = input;
        }
        let most = if self.stream.is_tls() { RECORDS } else { BLOCK };
        pin!(self.stream.read_buf(&mut (&mut self.input).limit(most))).poll(cx)
    }

    /// Writes everything that waits; ready when nothing does. `progress` is set when a byte left.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Poll<io::Result<()>> {
        self.output.poll_write_all(&mut self.stream, cx, progress)
    }

    /// Writes everything that waits, and that nothing follows; the TCP connection stays. `progress` is set when a
    /// byte left.
    pub(crate) fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        progress: &mut bool,
    ) -> Poll<io::Result<()>> {
        ready!(self.output.poll_hand_over(&mut self.stream, cx, progress))?;
        ready!(self.stream.poll_goodbye(cx))?;
        self.output.poll_write_all(&mut self.stream, cx, progress)
    }

    /// Ends the sending direction (FIN, and close_notify on TLS).
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Gives back what a large body has left behind; small buffers stay for the next message.
    pub(crate) fn trim(&mut self) {
        if self.input.capacity() > KEEP || self.output.capacity() > KEEP {
            self.release();
        }
    }

    /// Gives the buffers back while the connection is idle.
    pub(crate) fn release(&mut self) {
        self.output.release();
        if self.input.is_empty() {
            spare::keep(std::mem::take(&mut self.input));
        }
    }
}
