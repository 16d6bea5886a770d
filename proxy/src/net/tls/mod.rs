//! TLS on either side: a session on a TCP connection. What has to be said is gathered until it is flushed or nothing else can
//! be done, so that session tickets leave with the first response and close_notify with the last.
//!
//! rustls makes the handshake, checks certificates and keeps the keys; records are sealed and opened here.

mod handshake;
mod record;
mod sealed;
mod session;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BytesMut};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub(super) use self::session::Session;
use super::{MUCH, RECORD_ROOM, spare};

/// Room on the stack for one read of a head.
const HEAD_READ: usize = 8 << 10;

/// A connection on which the handshake is complete.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    session: Session,
    /// Records that have come and are still to be opened.
    ahead: BytesMut,
    /// What was opened and found no room with the reader.
    opened: BytesMut,
    /// The last read has found much: more than one record is taken from the socket at once then. Of each read TCP tells the
    /// sender, who wakes up for it.
    flows: bool,
    closing: bool,
    /// What the handshake has told; nothing after a rest.
    facts: Option<Box<Facts>>,
}

/// What is known of the other side since the handshake.
struct Facts {
    server_name: Option<Box<str>>,
    peer_certificates: Option<Vec<CertificateDer<'static>>>,
    protocol: Option<Box<[u8]>>,
    is_resumed: bool,
}

impl TlsStream {
    /// Makes a handshake with a client as the name that it asks for (SNI) wants.
    ///
    /// # Errors
    /// Where the client leaves or the two cannot agree; it has been told why then.
    pub(crate) async fn accept(
        tcp: TcpStream,
        choose: impl FnOnce(Option<&str>) -> Arc<ServerConfig>,
    ) -> io::Result<Self> {
        handshake::accept(tcp, choose).await
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
        handshake::connect(tcp, config, name).await
    }

    /// A session on its connection, of which so much has come already.
    fn new(tcp: TcpStream, session: Session, ahead: BytesMut, facts: Option<Box<Facts>>) -> Self {
        Self { tcp, session, ahead, opened: BytesMut::new(), flows: false, closing: false, facts }
    }

    /// A session that has rested, on its connection.
    pub(super) fn resumed(tcp: TcpStream, session: Session) -> Self {
        Self::new(tcp, session, BytesMut::new(), None)
    }

    /// Connection and session apart; nothing where the session has something left to say, or to hear.
    pub(super) fn into_parts(self) -> Option<(TcpStream, Session)> {
        let is_at_rest = self.session.is_at_rest() && self.ahead.is_empty() && self.opened.is_empty();
        is_at_rest.then_some((self.tcp, self.session))
    }

    /// The TCP connection below.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The name that a client has asked for (SNI).
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.facts.as_ref()?.server_name.as_deref()
    }

    /// The certificates that the other side has shown.
    pub(crate) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.facts.as_ref()?.peer_certificates.as_deref()
    }

    /// Whether an earlier session was taken up again.
    pub(crate) fn is_resumed(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.is_resumed)
    }

    /// The protocol that the two have agreed on (ALPN).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.facts.as_ref()?.protocol.as_deref()
    }

    /// Whether the connection is open and the other side has not said anything, but maybe for the session itself.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(self).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Takes in what the other side has sent, in `bulk` where more than one record is wanted. Small records are opened at
    /// once, larger ones wait in `ahead`.
    fn poll_arrive(
        &mut self,
        cx: &mut Context<'_>,
        bulk: bool,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bulk = bulk && self.flows;
        let read = if self.ahead.is_empty() && !bulk {
            // Whoever reads a head, or finds nothing, needs no buffer.
            spare::keep(std::mem::take(&mut self.ahead));
            let mut space = [MaybeUninit::uninit(); HEAD_READ];
            let mut input = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut input))?;
            let mut rest = input.filled();
            let opened = open(&mut self.session, &mut rest, buf, &mut self.opened);
            self.ahead.extend_from_slice(rest);
            opened?;
            input.filled().len()
        } else {
            self.make_room(bulk);
            let read = pin!(self.tcp.read_buf(&mut self.ahead)).poll(cx);
            if read.is_pending() && self.ahead.is_empty() {
                spare::keep(std::mem::take(&mut self.ahead));
            }
            ready!(read)?
        };
        self.flows = read >= MUCH;
        match read {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn make_room(&mut self, bulk: bool) {
        if !bulk {
            self.ahead.reserve(MUCH);
        } else if self.ahead.capacity() - self.ahead.len() < RECORD_ROOM
            && !self.ahead.try_reclaim(RECORD_ROOM)
        {
            let mut ahead = spare::take();
            ahead.extend_from_slice(&self.ahead);
            self.ahead = ahead;
        }
    }

    /// Moves what has been opened, and what can be, into the buffer.
    fn take_in(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let length = self.opened.len().min(buf.remaining());
        buf.put_slice(&self.opened.split_to(length));
        if self.opened.is_empty() {
            // Its memory goes with it.
            self.opened = BytesMut::new();
        }
        let mut rest = self.ahead.as_ref();
        let result = open(&mut self.session, &mut rest, buf, &mut self.opened);
        let used = self.ahead.len() - rest.len();
        self.ahead.advance(used);
        result
    }

    /// Tells the other side that nothing follows, and writes everything.
    pub(crate) fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closing, true) {
            self.session.say_goodbye();
        }
        self.poll_leave(cx)
    }

    /// Writes everything that is sealed.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = self.session.out();
        while !out.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, out.waiting()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Opens the records at the front of the input that are whole, as far as the reader has room for them; one that has room for
/// none gets what fits of it, and the rest is left in `opened`.
fn open(
    session: &mut Session,
    input: &mut &[u8],
    buf: &mut ReadBuf<'_>,
    opened: &mut BytesMut,
) -> io::Result<()> {
    let before = buf.filled().len();
    while buf.remaining() > 0 && opened.is_empty() {
        let Some(record) = session.next_record(input).map_err(broken)? else { break };
        let room = session.room(&record);
        if room <= buf.remaining() {
            let length = session.open(&record, buf.initialize_unfilled_to(room)).map_err(broken)?;
            buf.advance(length);
        } else if buf.filled().len() > before {
            break;
        } else {
            let mut content = BytesMut::zeroed(room);
            let length = session.open(&record, &mut content).map_err(broken)?;
            content.truncate(length);
            buf.put_slice(&content.split_to(length.min(buf.remaining())));
            *opened = content;
        }
        *input = record.rest;
    }
    Ok(())
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let bulk = buf.remaining() >= RECORD_ROOM;
        let before = buf.filled().len();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut arrived = this.take_in(buf);
            if arrived.is_ok() && buf.filled().len() == before && !this.session.has_ended() {
                match this.poll_arrive(cx, bulk, buf) {
                    Poll::Ready(result) => arrived = result,
                    Poll::Pending => {
                        // Nobody knows when something else is to leave.
                        return match this.poll_leave(cx) {
                            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                            _ => Poll::Pending,
                        };
                    }
                }
            }
            // An error shows again when nothing is before it.
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if arrived.is_err() {
                // The alert says why; whether it arrives makes no difference any more.
                let _ = this.poll_leave(cx);
            }
            arrived?;
            if this.session.has_ended() {
                return Poll::Ready(Ok(()));
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
            match this.session.write(bufs).map_err(broken)? {
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
