//! WebSocket over HTTP/2 (RFC 8441): CONNECT of the client becomes an Upgrade toward the RS, and 101 becomes 200. What
//! is handed on looks like the request of an HTTP/1.1 client, so that routes and RS see no difference.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::Method;

use super::super::handler::{Handler, Response, Switched};
use super::super::websocket::{self, Up};
use super::super::websocket_key::Key;
use super::stream::{Content, Stream, Streams};
use crate::body::{Body, Counter};
use crate::error::Error;
use crate::h2::Slot;
use crate::message::RequestHead;
use crate::multiplex::Step;
use crate::net::{Watchdog, clock};

impl<H: Handler + 'static> Streams<H>
where
    H::Connection: 'static,
{
    /// Begins to open a WebSocket.
    pub(super) fn open(&self, slot: Slot, mut head: Box<RequestHead>, ended: bool) {
        let Some(key) = Key::random() else { return self.refuse(slot, head, Error::Internal) };
        websocket::as_upgrade(&mut head, &key);
        let mut received = Counter::default();
        let up = self.body(slot, Content { ended, length: None, expects: false }, u64::MAX, &mut received);
        let mut request = self.request(slot, head, Body::empty(), received);
        request.upgrade = true;
        let stream = self.stream(slot);
        let (handler, connection) = (Rc::clone(&self.handler), Rc::clone(&self.connection));
        tokio::task::spawn_local(async move {
            let handled = {
                let handling = pin!(handler.handle(&connection, request));
                stream.unless_reset(handling).await
            };
            let Some(mut response) = handled else { return };
            match response.switched.take() {
                Some(switched) if key.is_answered_by(&response.head.headers) => {
                    stream.switch(response, switched, up).await;
                }
                None if !response.head.status.is_success() => stream.respond(response, &Method::GET).await,
                // It would mean to the client that the WebSocket is open.
                _ => stream.respond(websocket::refused(response), &Method::GET).await,
            }
        });
    }
}

impl Stream {
    /// Tells the client that the WebSocket is open, and copies until both directions have ended, one side fails or
    /// nothing has moved for too long. A direction that has not ended then is reset with the stream.
    async fn switch(self, mut response: Response, switched: Switched, up: Body) {
        let Switched { io, idle, grant: _held } = switched;
        let up = websocket::join(io, up, &mut response);
        let server = up.server();
        let mut sent = 0;
        let copied = match self.send_head(&response, &Method::GET) {
            Ok(_) => self.copy(up, &mut response.body, idle, &mut sent).await,
            Err(error) => Err(error),
        };
        if copied == Err(Error::ClientGone) {
            server.cut();
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
