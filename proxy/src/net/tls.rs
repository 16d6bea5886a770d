//! TLS on either side: a session of rustls on a TCP connection. What has to be said is gathered until it is flushed or
//! nothing else can be done, so that session tickets leave with the first response and close_notify with the last.

use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BytesMut};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{AcceptedAlert, Acceptor};
use rustls::{ClientConfig, ClientConnection, Connection, HandshakeKind, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{BLOCK, spare};

/// The plaintext of a record; whoever has room for it reads a body.
const RECORD: usize = 16 << 10;
/// A read from which on much comes, and more than one record is taken from the socket at once: of each such read TCP tells
/// the sender, who wakes up for it. It is what rustls asks for at first.
const MUCH: usize = 4 << 10;

/// A connection on which the handshake is complete.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    session: Connection,
    /// Records that were read for a reader of much and are still to be taken apart.
    ahead: BytesMut,
    /// The last read has found much.
    flows: bool,
    /// The other side has closed its side, cleanly or not.
    ended: bool,
    closing: bool,
}

impl TlsStream {
    /// Makes a handshake with a client.
    ///
    /// # Errors
    /// Where the client leaves or the two cannot agree; it has been told why then.
    pub(crate) async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        Self::begin(tcp, session.into()).await
    }

    /// Makes a handshake with a client as the name that it asks for (SNI) wants.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub(crate) async fn accept_by(
        mut tcp: TcpStream,
        choose: impl FnOnce(Option<&str>) -> Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let mut acceptor = Acceptor::default();
        let accepted = loop {
            let read =
                std::future::poll_fn(|cx| match acceptor.read_tls(&mut Blocking { tcp: &mut tcp, cx }) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                    read => Poll::Ready(read),
                });
            if read.await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => break accepted,
                Err((error, alert)) => return Err(refuse(&mut tcp, error, alert)),
            }
        };
        let config = choose(accepted.client_hello().server_name());
        match accepted.into_connection(config) {
            Ok(session) => Self::begin(tcp, session.into()).await,
            Err((error, alert)) => Err(refuse(&mut tcp, error, alert)),
        }
    }

    /// Makes a handshake with a server, whose certificate is to be for `name`.
    ///
    /// # Errors
    /// Where the server leaves or the two cannot agree: what rustls has to say is inside then.
    pub(crate) async fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::begin(tcp, session.into()).await
    }

    async fn begin(tcp: TcpStream, mut session: Connection) -> io::Result<Self> {
        session.set_buffer_limit(Some(BLOCK));
        let mut stream = Self::resumed(tcp, session);
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// A session whose handshake is complete, on its connection.
    pub(super) fn resumed(tcp: TcpStream, session: Connection) -> Self {
        Self { tcp, session, ahead: BytesMut::new(), flows: false, ended: false, closing: false }
    }

    /// Connection and session apart; nothing where the session has something left to say, or to hear.
    pub(super) fn into_parts(self) -> Option<(TcpStream, Connection)> {
        (!self.session.wants_write() && self.ahead.is_empty()).then_some((self.tcp, self.session))
    }

    /// The TCP connection below.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The name that a client has asked for (SNI).
    pub(crate) fn server_name(&self) -> Option<&str> {
        match &self.session {
            Connection::Server(session) => session.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// The certificates that the other side has shown.
    pub(crate) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.peer_certificates()
    }

    /// Whether an earlier session was taken up again.
    pub(crate) fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The protocol that the two have agreed on (ALPN).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// Whether the connection is open and the other side has not said anything, but maybe for the session itself.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(self).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            ready!(self.poll_leave(cx))?;
            if ready!(self.poll_arrive(cx, false))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in what the other side has sent, in `bulk` where more than one record is wanted; 0 at its end.
    fn poll_arrive(&mut self, cx: &mut Context<'_>, bulk: bool) -> Poll<io::Result<usize>> {
        if bulk && self.flows && self.ahead.is_empty() {
            if !self.ahead.try_reclaim(BLOCK) {
                self.ahead = spare::take();
            }
            let read = pin!(self.tcp.read_buf(&mut self.ahead)).poll(cx);
            self.flows = self.ahead.len() >= MUCH;
            if read.is_pending() {
                spare::keep(std::mem::take(&mut self.ahead));
            }
            ready!(read)?;
        }
        let read = if self.ahead.is_empty() {
            // Whoever reads a head, or finds nothing, needs no such buffer.
            spare::keep(std::mem::take(&mut self.ahead));
            let read = match self.session.read_tls(&mut Blocking { tcp: &mut self.tcp, cx }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                read => read?,
            };
            self.flows = read >= MUCH;
            read
        } else {
            let read = self.session.read_tls(&mut self.ahead.as_ref())?;
            self.ahead.advance(read);
            read
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
            // Nothing: the other side has said that it ends here.
            let length = record.len().min(buf.remaining());
            if length == 0 {
                break;
            }
            buf.put_slice(record.get(..length).unwrap_or_default());
            reader.consume(length);
        }
        Ok(true)
    }

    /// Tells the other side that nothing follows, and writes everything.
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
        let bulk = buf.remaining() >= RECORD;
        let before = buf.filled().len();
        loop {
            let taken = this.take_plaintext(buf);
            if buf.filled().len() > before {
                // An error shows again when nothing is before it.
                let more = taken.is_ok() && buf.remaining() >= RECORD && !this.ahead.is_empty();
                match more && matches!(this.poll_arrive(cx, true), Poll::Ready(Ok(1..))) {
                    true => continue,
                    false => return Poll::Ready(Ok(())),
                }
            }
            if taken? {
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            match this.poll_arrive(cx, bulk) {
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

/// Tells a client why there is no handshake, as far as the socket takes it at once.
fn refuse(tcp: &mut TcpStream, error: rustls::Error, mut alert: AcceptedAlert) -> io::Error {
    // Whether it arrives makes no difference any more.
    let _ = alert.write(&mut Blocking { tcp, cx: &mut Context::from_waker(Waker::noop()) });
    io::Error::new(io::ErrorKind::InvalidData, error)
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
