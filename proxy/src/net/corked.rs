//! A stream that gathers what is written to it until it is flushed: HTTP/2 writes frame by frame, and each write on
//! its own would be a TLS record and a system call of its own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;

/// Most bytes that are gathered: one TLS record (RFC 8446 5.1).
const MOST: usize = 16 << 10;
/// Most pieces of one write.
const PIECES: usize = 16;

/// The stream with what waits for the flush.
pub(crate) struct Corked {
    stream: Stream,
    waiting: Vec<u8>,
    /// Bytes of it that are written already.
    written: usize,
}

impl Corked {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, waiting: Vec::new(), written: 0 }
    }

    fn left(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// Writes what waits, with more pieces behind it; ready with the bytes of these that were taken.
    fn poll_through(&mut self, cx: &mut Context<'_>, more: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let left = self.left();
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let waiting = self.waiting.get(self.written..).unwrap_or_default();
            let all = [IoSlice::new(waiting)].into_iter().chain(more.iter().copied());
            let mut count = 0;
            for (piece, slice) in pieces.iter_mut().zip(all.filter(|slice| !slice.is_empty())) {
                *piece = slice;
                count += 1;
            }
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            let pieces = pieces.get(..count).unwrap_or_default();
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, pieces))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written.min(left);
            if self.left() == 0 {
                self.waiting.clear();
                self.written = 0;
                if more.is_empty() || written > left {
                    return Poll::Ready(Ok(written - left));
                }
            }
        }
    }
}

impl AsyncRead for Corked {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if this.waiting.len() + length > MOST {
            return this.poll_through(cx, bufs);
        }
        for buf in bufs {
            this.waiting.extend_from_slice(buf);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_through(cx, &[]))?;
        if this.waiting.capacity() > 0 {
            // An idle connection holds no buffer.
            this.waiting = Vec::new();
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_through(cx, &[]))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
