//! The task of one stream: a request to the handler, its response to the client.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, StatusCode};

use super::super::date;
use super::super::handler::{Handler, Refused, Request, Response};
use super::body::RequestBody;
use super::shared::{HIGH_WATER, Shared, State};
use crate::body::{Body, Counter, Moved};
use crate::error::Error;
use crate::h2::{Code, DATA_HEAD, Slot};
use crate::message::{Headers, RequestHead};
use crate::net::{Watchdog, clock};
use crate::state::Limits;

/// How long, and for how many bytes, the body of a request that was answered early is read on: a reset at once makes
/// some clients, curl 7.88 among them, forget the response that came before it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 10;

/// What the streams of a connection are served with.
pub(super) struct Streams<H: Handler> {
    pub(super) handler: Rc<H>,
    pub(super) connection: Rc<H::Connection>,
    pub(super) shared: Rc<Shared>,
    pub(super) limits: Rc<Limits>,
}

impl<H: Handler + 'static> Streams<H>
where
    H::Connection: 'static,
{
    /// Begins to serve a request.
    pub(super) fn serve(&self, slot: Slot, head: Box<RequestHead>, ended: bool, length: Option<u64>) {
        let method = head.method.clone();
        let mut received = Counter::default();
        let body = if ended {
            Body::empty()
        } else if length.is_some_and(|length| length > self.limits.body_size) {
            return self.refuse(slot, head, Error::BodyTooLarge);
        } else {
            received = Counter::new(0);
            let shared = Rc::clone(&self.shared);
            Body::stream(Box::new(RequestBody { shared, slot, left: self.limits.body_size, length }))
                .counted(received.clone())
        };
        let request = Request { head, body, upgrade: false, arrived: clock::now(), received };
        let stream = self.stream(slot);
        let (handler, connection) = (Rc::clone(&self.handler), Rc::clone(&self.connection));
        tokio::task::spawn_local(async move {
            let handled = stream.unless_reset(handler.handle(&connection, request)).await;
            if let Some(response) = handled {
                stream.respond(response, &method).await;
            }
        });
    }

    /// Answers what is no request, or one that is not handed on.
    pub(super) fn refuse(&self, slot: Slot, head: Box<RequestHead>, error: Error) {
        let method = head.method.clone();
        let response = self.handler.refuse(&self.connection, Refused { head: Some(head), error });
        let stream = self.stream(slot);
        tokio::task::spawn_local(async move { stream.respond(response, &method).await });
    }

    fn stream(&self, slot: Slot) -> Stream {
        Stream {
            shared: Rc::clone(&self.shared),
            slot,
            send_timeout: self.limits.send_timeout,
            sending: Watchdog::default(),
        }
    }
}

/// One stream; released when its task ends, however that comes about.
struct Stream {
    shared: Rc<Shared>,
    slot: Slot,
    send_timeout: Duration,
    /// Patience with a client that is to open its window.
    sending: Watchdog,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.borrow().release(self.slot);
    }
}

impl Stream {
    /// The outcome, or nothing once the stream is over.
    async fn unless_reset<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if self.shared.borrow().listen(self.slot, cx) {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Sends a response and ends the stream.
    async fn respond(mut self, mut response: Response, method: &Method) {
        let mut sent = 0;
        let done = self.send(&mut response, method, &mut sent).await;
        if let Some(record) = &mut response.record {
            record.ended(sent, done.err());
        }
        let Response { head, record, body, .. } = response;
        drop((record, body));
        head.give_back();
        match done {
            Ok(()) => self.linger().await,
            Err(error) => {
                let code = if error == Error::ClientTimeout { Code::Cancel } else { Code::Internal };
                let State { connection, out, .. } = &mut *self.shared.borrow();
                connection.reset(self.slot, code, out);
            }
        }
    }

    async fn send(&mut self, response: &mut Response, method: &Method, sent: &mut u64) -> Result<(), Error> {
        let status = response.head.status;
        let bodiless = *method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || status.is_informational();
        let mut extra = Headers::new();
        if !response.head.headers.contains("date") {
            extra.append("date", date::now());
        }
        if let Some(length) = response.body.length().filter(|_| !bodiless)
            && !response.head.headers.contains("content-length")
        {
            extra.append("content-length", length.to_string());
        }
        let end = bodiless || response.body.is_empty();
        {
            let state = &mut *self.shared.borrow();
            if state.port(self.slot).reset {
                return Err(Error::ClientGone);
            }
            let State { connection, out, .. } = state;
            connection.send_head(self.slot, &response.head, &extra, end, out);
            state.appended();
        }
        if end {
            return Ok(());
        }
        let mut waiting = false;
        poll_fn(|cx| {
            loop {
                match self.poll_send(cx, &mut response.body) {
                    Poll::Ready(Ok(Step { bytes, end })) => {
                        *sent += bytes;
                        waiting = false;
                        if end {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if self.shared.borrow().connection.room(self.slot) > 0 => {
                        waiting = false;
                        return Poll::Pending;
                    }
                    Poll::Pending => {
                        if !std::mem::replace(&mut waiting, true) {
                            self.sending.feed(clock::now(), self.send_timeout);
                        }
                        return self.sending.poll_expired(cx).map(|()| Err(Error::ClientTimeout));
                    }
                }
            }
        })
        .await
    }

    /// Appends a frame of content, or waits until there is some and it may be sent.
    fn poll_send(&self, cx: &mut Context<'_>, body: &mut Body) -> Poll<Result<Step, Error>> {
        let mut state = self.shared.borrow();
        if state.listen(self.slot, cx) {
            return Poll::Ready(Err(Error::ClientGone));
        }
        let room = state.connection.room(self.slot);
        if state.connection.stream_window(self.slot) == 0 {
            // The client tells when this stream may go on; the others need not wait for that.
            state.pass_turn();
            return Poll::Pending;
        }
        if room == 0 || state.out.len() >= HIGH_WATER {
            state.block(self.slot);
        }
        if state.port(self.slot).is_blocked() {
            return Poll::Pending;
        }
        // Without the state: the response may move the request's body along, which reads from it.
        drop(state);
        let mut taken = self.shared.take_output();
        let start = taken.out.len();
        taken.out.extend_from_slice(&[0; DATA_HEAD]);
        let moved = body.poll_copy(cx, &mut taken.out, room);
        let out = &mut taken.out;
        let mut state = self.shared.borrow();
        let connection = &mut state.connection;
        let step = match moved {
            Poll::Ready(Ok(Moved::Data(bytes))) => {
                connection.send_data(self.slot, bytes as usize, false, out);
                Poll::Ready(Ok(Step { bytes, end: false }))
            }
            Poll::Ready(Ok(Moved::Last(bytes))) => {
                connection.send_data(self.slot, bytes as usize, true, out);
                Poll::Ready(Ok(Step { bytes, end: true }))
            }
            Poll::Ready(Ok(Moved::Trailers(trailers))) => {
                out.truncate(start);
                connection.send_trailers(self.slot, &trailers, out);
                Poll::Ready(Ok(Step { bytes: 0, end: true }))
            }
            Poll::Ready(Err(error)) => {
                out.truncate(start);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                out.truncate(start);
                Poll::Pending
            }
        };
        taken.keep = taken.out.len();
        drop(state);
        drop(taken);
        let state = &mut *self.shared.borrow();
        if !state.out.is_empty() {
            state.appended();
        }
        if state.has_blocked() {
            // Everybody a frame in turn.
            state.pass_turn();
            if let Poll::Ready(Ok(Step { end: false, .. })) = step {
                state.block(self.slot);
            }
        }
        step
    }

    /// Keeps the rest of a request's body for a moment behind its response.
    async fn linger(&self) {
        {
            let state = &mut *self.shared.borrow();
            let port = state.port(self.slot);
            if port.ended || port.reset {
                return;
            }
            port.discard = Some(LINGER_BYTES);
            let unread = port.clear();
            let State { connection, out, .. } = state;
            connection.passed_on(self.slot, unread, 0, out);
            state.appended();
        }
        let over = poll_fn(|cx| {
            let state = &mut *self.shared.borrow();
            let reset = state.listen(self.slot, cx);
            let port = state.port(self.slot);
            if reset || port.ended || port.discard == Some(0) { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = tokio::time::timeout(LINGER, over).await;
        let State { connection, out, .. } = &mut *self.shared.borrow();
        connection.reset(self.slot, Code::NoError, out);
    }
}

/// A frame that was appended.
struct Step {
    bytes: u64,
    end: bool,
}
