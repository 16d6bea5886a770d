//! TLS toward clients: a session of rustls on a TCP connection. What has to be said is gathered until it is flushed or
//! nothing else can be done, so that session tickets leave with the first response and close_notify with the last.

use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Plaintext that may wait, encrypted, for the client.
const BUFFER: usize = 64 << 10;

/// A connection on which the handshake is complete.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    session: ServerConnection,
    /// The client has closed its side, cleanly or not.
    ended: bool,
    closing: bool,
}

impl TlsStream {
    /// Waits for the client's part of the handshake.
    ///
    /// # Errors
    /// Where the client leaves or the two cannot agree; it has been told why then.
    pub(crate) async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = Self { tcp, session, ended: false, closing: false };
        stream.session.set_buffer_limit(Some(BUFFER));
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// What the two have agreed on.
    pub(crate) fn session(&self) -> &ServerConnection {
        &self.session
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            ready!(self.poll_leave(cx))?;
            if ready!(self.poll_arrive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in what the client has sent; 0 at its end.
    fn poll_arrive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = match self.session.read_tls(&mut Blocking { tcp: &mut self.tcp, cx }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            read => read?,
        };
        if let Err(error) = self.session.process_new_packets() {
            // The alert says why; whether it arrives makes no difference any more.
            let _ = self.poll_leave(cx);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(read))
    }

    /// Moves what is decrypted into the buffer; false where nothing is, and more may come.
    fn take_plaintext(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            let mut reader = self.session.reader();
            let record = match reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(buf.filled().len() > before);
                }
                record => record?,
            };
            // Nothing: the client has said that it ends here.
            let length = record.len().min(buf.remaining());
            if length == 0 {
                break;
            }
            buf.put_slice(record.get(..length).unwrap_or_default());
            reader.consume(length);
        }
        Ok(true)
    }

    /// Tells the client that nothing follows, and writes everything.
    pub(crate) fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closing, true) {
            self.session.send_close_notify();
        }
        self.poll_leave(cx)
    }

    /// Writes everything that is encrypted.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Blocking { tcp: &mut self.tcp, cx }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => written?,
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.take_plaintext(buf)? {
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            match this.poll_arrive(cx) {
                Poll::Ready(read) => this.ended = read? == 0,
                Poll::Pending => {
                    // Nobody knows when something else is to leave.
                    if let Poll::Ready(Err(error)) = this.poll_leave(cx) {
                        return Poll::Ready(Err(error));
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            match this.session.writer().write_vectored(bufs)? {
                0 => ready!(this.poll_leave(cx))?,
                taken => return Poll::Ready(Ok(taken)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_leave(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_goodbye(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

/// The TCP connection as rustls wants it.
struct Blocking<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Blocking<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        or_would_block(Pin::new(&mut *self.tcp).poll_read(self.cx, &mut buf))?;
        Ok(buf.filled().len())
    }
}

impl Write for Blocking<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.tcp).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
