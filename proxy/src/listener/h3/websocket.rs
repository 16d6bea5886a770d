//! WebSocket over HTTP/3 (RFC 9220).

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::Method;

use super::super::handler::{Handler, Refused, Response, Switched};
use super::super::outgoing;
use super::super::websocket::{self, Up};
use super::super::websocket_key::Key;
use super::stream::Stream;
use crate::body::{Body, Counter};
use crate::error::Error;
use crate::h3::{self, Code};
use crate::message::RequestHead;
use crate::net::{Watchdog, clock};

impl<H: Handler> Stream<H> {
    /// Opens a WebSocket, and serves it to its end.
    pub(super) async fn open(mut self, mut head: Box<RequestHead>) {
        let Some(key) = Key::random() else {
            let refused = Refused { head: Some(head), error: Error::Internal };
            let response = self.handler.refuse(&self.connection, refused);
            return self.respond(response, &Method::GET).await;
        };
        websocket::as_upgrade(&mut head, &key);
        let received = Counter::new(0);
        let up = self.body(None, u64::MAX, (None, false), &received);
        let mut request = self.request(head, Body::empty(), received);
        request.upgrade = true;
        let (handler, connection) = (Rc::clone(&self.handler), Rc::clone(&self.connection));
        let handled = {
            let handling = pin!(handler.handle(&connection, request));
            self.unless_stopped(handling).await
        };
        let Some(mut response) = handled else { return self.give_up() };
        match response.switched.take() {
            Some(switched) if key.is_answered_by(&response.head.headers) => {
                self.switch(response, switched, up).await;
            }
            None if !response.head.status.is_success() => self.respond(response, &Method::GET).await,
            // It would mean to the client that the WebSocket is open.
            _ => self.respond(websocket::refused(response), &Method::GET).await,
        }
    }

    /// Tells the client that the WebSocket is open, and copies until both directions have ended, one side fails or
    /// nothing has moved for too long. A direction that has not ended then is reset with the stream.
    async fn switch(mut self, mut response: Response, switched: Switched, up: Body) {
        let Switched { io, idle, grant: _held } = switched;
        let up = websocket::join(io, up, &mut response);
        let server = up.server();
        let (extra, _) = outgoing::extra(&response, &Method::GET, None);
        self.sender.borrow_mut().push(h3::response(&response.head, &extra));
        let mut sent = 0;
        let copied = self.copy(up, &mut response.body, idle, &mut sent).await;
        if copied == Err(Error::ClientGone) {
            server.cut();
        }
        if let Some(record) = &mut response.record {
            record.status = response.head.status.as_u16();
            record.ended(sent, copied.err());
        }
        self.link.answered();
        if copied.is_ok() && self.sender.borrow().is_over() {
            // What has been said has to arrive before the connection may end.
            self.wait_until_confirmed().await;
        }
        self.sender.borrow_mut().reset(Code::RequestCancelled);
        self.receiver.borrow_mut().stop(Code::RequestCancelled);
    }

    async fn copy(
        &mut self,
        mut up: Up,
        down: &mut Body,
        idle: Duration,
        sent: &mut u64,
    ) -> Result<(), Error> {
        let mut watchdog = Watchdog::default();
        watchdog.feed(clock::now(), idle);
        let (mut down_ended, mut finished) = (false, false);
        poll_fn(|cx| {
            let mut progress = false;
            let going_up = up.poll(cx, &mut progress)?;
            while !finished && self.sender.borrow_mut().poll_flush(cx, &mut progress)?.is_ready() {
                if down_ended {
                    self.sender.borrow_mut().finish()?;
                    finished = true;
                    break;
                }
                let Poll::Ready(piece) = self.poll_piece(cx, down) else { break };
                let (bytes, last) = piece?;
                *sent += bytes;
                down_ended = last;
                progress = true;
            }
            if going_up.is_ready() && finished {
                return Poll::Ready(Ok(()));
            }
            if !finished && self.stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Error::ClientGone));
            }
            if progress {
                watchdog.feed(clock::now(), idle);
            }
            watchdog.poll_expired(cx).map(Ok)
        })
        .await
    }
}
