//! What stands behind a connection: the proxy itself, the admin pages, the demo RS.

use bytes::Bytes;
use tokio::time::Instant;

use super::interim::Interim;
use crate::access_log::Record;
use crate::body::{Body, Counter};
use crate::error::Error;
use crate::message::{RequestHead, ResponseHead};
use crate::net::Io;
use crate::state::Grant;

/// A request as a listener hands it on.
pub(crate) struct Request {
    pub(crate) head: Box<RequestHead>,
    pub(crate) body: Body,
    /// The client asks to leave HTTP on this connection (RFC 9110 7.8).
    pub(crate) upgrade: bool,
    /// Where interim responses go.
    pub(crate) interim: Interim,
    /// When the head was complete, by the clock for deadlines.
    pub(crate) arrived: Instant,
    /// Bytes of the body read so far.
    pub(crate) received: Counter,
}

/// What is no request, or one that is not handed on.
pub(crate) struct Refused {
    /// The head, where it could be read.
    pub(crate) head: Option<Box<RequestHead>>,
    pub(crate) error: Error,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { head: None, error }
    }
}

/// What the client gets.
pub(crate) struct Response {
    pub(crate) head: Box<ResponseHead>,
    pub(crate) body: Body,
    /// The other end, when the head is 101.
    pub(crate) switched: Option<Switched>,
    /// Written to the access log when the response has ended.
    pub(crate) record: Option<Box<Record>>,
}

/// A connection that has left HTTP.
pub(crate) struct Switched {
    pub(crate) io: Box<Io>,
    /// Longest silence in both directions.
    pub(crate) idle: std::time::Duration,
    /// Its room at the RS.
    pub(crate) grant: Option<Grant>,
}

impl Response {
    /// A response with this body.
    pub(crate) fn new(head: Box<ResponseHead>, body: Body) -> Self {
        Self { head, body, switched: None, record: None }
    }

    /// A short text.
    pub(crate) fn text(status: http::StatusCode, kind: &str, text: impl Into<Bytes>) -> Self {
        let mut head = Box::new(ResponseHead::new(status));
        head.headers.append("Content-Type", kind);
        Self::new(head, Body::full(text))
    }

    /// The page for a request that failed: the status, and its reason in words and as a code.
    pub(crate) fn failed(error: &Error) -> Self {
        let status = error.status();
        let text = format!("{status}: {error} ({})\n", error.code());
        let mut response = Self::text(status, "text/plain; charset=utf-8", text);
        if let Some((name, value)) = error.field() {
            response.head.headers.append(name, value);
        }
        response
    }
}

/// Answers requests; one for all connections of a listener and worker.
pub(crate) trait Handler {
    /// Facts about a connection that the answers depend on.
    type Connection;

    /// The answer to a request.
    async fn handle(&self, connection: &Self::Connection, request: Request) -> Response;

    /// The answer to what is not handed on.
    fn refuse(&self, connection: &Self::Connection, refused: Refused) -> Response;
}
