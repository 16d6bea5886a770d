//! WebSocket over HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220): CONNECT of the client becomes an Upgrade toward the RS, and
//! 101 becomes 200. What is handed on looks like the request of an HTTP/1.1 client, so that routes and RS see no
//! difference.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, StatusCode};
use socket2::SockRef;
use tokio::io::AsyncWrite;

use super::handler::Response;
use super::websocket_key::Key;
use crate::body::{Body, Moved, Source};
use crate::error::Error;
use crate::message::RequestHead;
use crate::multiplex::HIGH_WATER;
use crate::net::{self, Io, Output};

/// Makes a request of the client's CONNECT that an RS of HTTP/1.1 understands.
pub(super) fn as_upgrade(head: &mut RequestHead, key: &Key) {
    head.method = Method::GET;
    head.headers.append("Upgrade", "websocket");
    head.headers.set("Sec-WebSocket-Key", key.text());
}

/// Makes a response of the RS's 101 that the client understands, whose body is what comes from the RS; what `up` brings
/// goes there.
pub(super) fn join(io: Box<Io>, up: Body, response: &mut Response) -> Up {
    let io = Server(Rc::new(RefCell::new(io)));
    response.head.status = StatusCode::OK;
    response.head.headers.remove("sec-websocket-accept");
    response.body = Body::stream(Box::new(Down(io.clone())));
    Up { io, body: up, end: End::NotYet }
}

/// What the client gets instead of a response that does not open a WebSocket although it looks like that.
pub(super) fn refused(response: Response) -> Response {
    let error = Error::UpstreamUpgrade;
    let mut failed = Response::failed(&error);
    failed.record = response.record.map(|mut record| {
        record.status = failed.head.status.as_u16();
        record.reason = Some(error);
        record
    });
    failed
}

/// The connection to the RS, which both directions use.
#[derive(Clone)]
pub(super) struct Server(Rc<RefCell<Box<Io>>>);

impl Server {
    /// A stream that is reset becomes a connection that is reset (RFC 8441 5).
    pub(super) fn cut(&self) {
        if let net::Stream::Plain(stream) = &self.0.borrow().stream {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// From the client to the RS.
pub(super) struct Up {
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
    /// The connection to the RS.
    pub(super) fn server(&self) -> Server {
        self.io.clone()
    }

    /// Ready when this direction has ended and the RS was told.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Poll<Result<(), Error>> {
        let broken = |_| Error::UpstreamClosed;
        let io = &mut **self.io.0.borrow_mut();
        loop {
            let written = io.poll_write(cx, progress).map_err(broken)?;
            match self.end {
                End::NotYet if io.output.len() >= HIGH_WATER => return Poll::Pending,
                End::NotYet => {
                    match ready!(self.body.poll_into(cx, &mut io.output, usize::MAX, false))? {
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

impl Source for Down {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        let io = &mut **self.0.0.borrow_mut();
        if io.input.is_empty() {
            ready!(io.poll_read_head(cx)).map_err(|_| Error::UpstreamClosed)?;
        }
        let length = io.input.len().min(most);
        if length == 0 {
            return Poll::Ready(Ok(Moved::Last(0)));
        }
        output.push_body_from(&mut io.input, length, chunked);
        Poll::Ready(Ok(Moved::Data(length as u64)))
    }

    fn length(&self) -> Option<u64> {
        None
    }
}
