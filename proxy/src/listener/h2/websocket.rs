//! WebSocket over HTTP/2 (RFC 8441): CONNECT of the client becomes an Upgrade toward the RS, and 101 becomes 200. What
//! is handed on looks like the request of an HTTP/1.1 client, so that routes and RS see no difference.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use http::{Method, StatusCode};
use socket2::SockRef;
use tokio::io::AsyncWrite;

use super::super::handler::{Handler, Response, Switched};
use super::stream::{Content, Stream, Streams};
use super::websocket_key::Key;
use crate::body::{Body, Counter, Moved, Source};
use crate::error::Error;
use crate::h2::Slot;
use crate::message::RequestHead;
use crate::multiplex::{HIGH_WATER, Step};
use crate::net::{self, Io, Output, Watchdog, clock};

impl<H: Handler + 'static> Streams<H>
where
    H::Connection: 'static,
{
    /// Begins to open a WebSocket.
    pub(super) fn open(&self, slot: Slot, mut head: Box<RequestHead>, ended: bool) {
        let Some(key) = Key::random() else { return self.refuse(slot, head, Error::Internal) };
        head.method = Method::GET;
        head.headers.append("Upgrade", "websocket");
        head.headers.set("Sec-WebSocket-Key", key.text());
        let mut received = Counter::default();
        let up = self.body(slot, Content { ended, length: None, expects: false }, u64::MAX, &mut received);
        let mut request = self.request(slot, head, Body::empty(), received);
        request.upgrade = true;
        let stream = self.stream(slot);
        let (handler, connection) = (Rc::clone(&self.handler), Rc::clone(&self.connection));
        tokio::task::spawn_local(async move {
            let handled = stream.unless_reset(handler.handle(&connection, request)).await;
            let Some(mut response) = handled else { return };
            match response.switched.take() {
                Some(switched) if key.is_answered_by(&response.head.headers) => {
                    stream.switch(response, switched, up).await;
                }
                None if !response.head.status.is_success() => stream.respond(response, &Method::GET).await,
                // It would mean to the client that the WebSocket is open.
                _ => stream.respond(refused(response), &Method::GET).await,
            }
        });
    }
}

/// What the client gets instead of a response that does not open a WebSocket although it looks like that.
fn refused(response: Response) -> Response {
    let error = Error::UpstreamUpgrade;
    let mut failed = Response::failed(&error);
    failed.record = response.record.map(|mut record| {
        record.status = failed.head.status.as_u16();
        record.reason = Some(error);
        record
    });
    failed
}

impl Stream {
    /// Tells the client that the WebSocket is open, and copies until both directions have ended, one side fails or
    /// nothing has moved for too long. A direction that has not ended then is reset with the stream.
    async fn switch(self, mut response: Response, switched: Switched, up: Body) {
        let Switched { io, idle, grant: _held } = switched;
        let io = Rc::new(RefCell::new(io));
        response.head.status = StatusCode::OK;
        response.head.headers.remove("sec-websocket-accept");
        response.body = Body::stream(Box::new(Down(Rc::clone(&io))));
        let up = Up { io: Rc::clone(&io), body: up, end: End::NotYet };
        let mut sent = 0;
        let copied = match self.send_head(&response, &Method::GET) {
            Ok(_) => self.copy(up, &mut response.body, idle, &mut sent).await,
            Err(error) => Err(error),
        };
        if copied == Err(Error::ClientGone)
            && let net::Stream::Plain(stream) = &io.borrow().stream
        {
            // A stream that is reset becomes a connection that is reset (RFC 8441 5).
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        if let Some(record) = &mut response.record {
            record.status = response.head.status.as_u16();
            record.ended(sent, copied.err());
        }
    }

    async fn copy(&self, mut up: Up, down: &mut Body, idle: Duration, sent: &mut u64) -> Result<(), Error> {
        let mut watchdog = Watchdog::default();
        watchdog.feed(clock::now(), idle);
        let mut down_ended = false;
        poll_fn(|cx| {
            let mut progress = false;
            let going_up = up.poll(cx, &mut progress)?;
            while !down_ended && let Poll::Ready(step) = self.poll_send(cx, down) {
                let Step { bytes, end } = step?;
                *sent += bytes;
                down_ended = end;
                progress = true;
            }
            if going_up.is_ready() && down_ended {
                return Poll::Ready(Ok(()));
            }
            if progress {
                watchdog.feed(clock::now(), idle);
            }
            watchdog.poll_expired(cx).map(Ok)
        })
        .await
    }
}

/// The connection to the RS, which both directions use.
type Server = Rc<RefCell<Box<Io>>>;

/// From the client to the RS.
struct Up {
    io: Server,
    body: Body,
    end: End,
}

enum End {
    NotYet,
    Reached,
    PassedOn,
}

impl Up {
    /// Ready when this direction has ended and the RS was told.
    fn poll(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Poll<Result<(), Error>> {
        let broken = |_| Error::UpstreamClosed;
        let io = &mut **self.io.borrow_mut();
        loop {
            let written = io.poll_write(cx, progress).map_err(broken)?;
            match self.end {
                End::NotYet if io.output.len() >= HIGH_WATER => return Poll::Pending,
                End::NotYet => {
                    match ready!(self.body.poll_into(cx, &mut io.output, false))? {
                        Moved::Data(_) => {}
                        Moved::Last(_) | Moved::Trailers(_) => self.end = End::Reached,
                    }
                    *progress = true;
                }
                End::Reached => {
                    ready!(written);
                    ready!(Pin::new(&mut io.stream).poll_shutdown(cx)).map_err(broken)?;
                    self.end = End::PassedOn;
                }
                End::PassedOn => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// From the RS to the client.
struct Down(Server);

impl Down {
    /// What has come, at most `most` bytes of it, for `take`.
    fn poll_moved(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&mut Io, usize),
    ) -> Poll<Result<Moved, Error>> {
        let io = &mut **self.0.borrow_mut();
        if io.input.is_empty() {
            ready!(io.poll_read_head(cx)).map_err(|_| Error::UpstreamClosed)?;
        }
        let length = io.input.len().min(most);
        if length == 0 {
            return Poll::Ready(Ok(Moved::Last(0)));
        }
        take(io, length);
        Poll::Ready(Ok(Moved::Data(length as u64)))
    }
}

impl Source for Down {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        self.poll_moved(cx, usize::MAX, |io, length| output.push_body_from(&mut io.input, length, chunked))
    }

    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        most: usize,
    ) -> Poll<Result<Moved, Error>> {
        self.poll_moved(cx, most, |io, length| {
            out.extend_from_slice(io.input.get(..length).unwrap_or_default());
            io.input.advance(length);
        })
    }

    fn length(&self) -> Option<u64> {
        None
    }
}
