//! A connection, with TLS or without, as one type: everything above is compiled once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::TlsStream;
use super::tls::Session;

/// A connection to a client or an RS.
pub(crate) enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS, after its handshake.
    Tls(Box<TlsStream>),
}

/// A connection between two messages, apart from any thread.
#[derive(Debug)]
pub(crate) struct Resting {
    tcp: std::net::TcpStream,
    session: Option<Box<Session>>,
}

impl Resting {
    /// Whether the other side has neither closed the connection nor said something unasked, as far as can be seen
    /// from outside the session.
    pub(crate) fn is_quiet(&self) -> bool {
        match self.tcp.peek(&mut [0]) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(bytes) => bytes > 0 && self.session.is_some(),
        }
    }

    /// The connection, for this thread.
    pub(crate) fn wake(self) -> io::Result<Stream> {
        let tcp = TcpStream::from_std(self.tcp)?;
        Ok(match self.session {
            None => Stream::Plain(tcp),
            Some(session) => Stream::Tls(Box::new(TlsStream::resumed(tcp, *session))),
        })
    }
}

impl Stream {
    /// The TCP connection below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.tcp(),
        }
    }

    /// Whether TLS is spoken on it.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether an idle connection is open and silent: one that was closed, or on which something came unasked, is
    /// useless (RFC 9112 9.3, 9.2).
    pub(crate) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(tcp) => {
                matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => stream.is_quiet(),
        }
    }

    /// The connection apart from this thread; nothing where it cannot rest.
    pub(crate) fn rest(self) -> Option<Resting> {
        let (tcp, session) = match self {
            Self::Plain(tcp) => (tcp, None),
            Self::Tls(stream) => {
                let (tcp, session) = stream.into_parts()?;
                (tcp, Some(Box::new(session)))
            }
        };
        Some(Resting { tcp: tcp.into_std().ok()?, session })
    }

    /// Whether the TCP connection has failed since anybody asked or used it: the other side has reset it, or is gone.
    pub(crate) fn has_failed(&self) -> bool {
        !matches!(self.tcp().take_error(), Ok(None))
    }

    /// Writes everything, and tells the other side in its protocol that nothing follows; the TCP connection stays.
    pub(crate) fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_goodbye(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
