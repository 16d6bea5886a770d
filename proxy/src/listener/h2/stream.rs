//! The task of one stream: a request to the handler, its response to the client.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;

use super::super::handler::{Handler, Refused, Request, Response};
use super::super::interim::Interim;
use super::super::outgoing;
use super::body::RequestBody;
use crate::body::{Body, Counter};
use crate::error::Error;
use crate::h2::{Code, Server, Slot};
use crate::message::RequestHead;
use crate::multiplex::{Shared, State, Step};
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
    pub(super) shared: Rc<Shared<Server>>,
    pub(super) limits: Rc<Limits>,
}

/// What is known of the content of a request.
pub(super) struct Content {
    /// There is none.
    pub(super) ended: bool,
    /// Content-Length.
    pub(super) length: Option<u64>,
    /// The client waits for 100.
    pub(super) expects: bool,
}

impl<H: Handler + 'static> Streams<H>
where
    H::Connection: 'static,
{
    /// Begins to serve a request.
    pub(super) fn serve(&self, slot: Slot, head: Box<RequestHead>, content: Content) {
        let method = head.method.clone();
        if method == Method::CONNECT {
            return self.open(slot, head, content.ended);
        }
        if content.length.is_some_and(|length| length > self.limits.body_size) {
            return self.refuse(slot, head, Error::BodyTooLarge);
        }
        let mut received = Counter::default();
        let body = self.body(slot, content, self.limits.body_size, &mut received);
        let request = self.request(slot, head, body, received);
        let stream = self.stream(slot);
        let (handler, connection) = (Rc::clone(&self.handler), Rc::clone(&self.connection));
        tokio::task::spawn_local(async move {
            let handled = {
                let handling = pin!(handler.handle(&connection, request));
                stream.unless_reset(handling).await
            };
            if let Some(response) = handled {
                stream.respond(response, &method).await;
            }
        });
    }

    /// The content of a request, of which `limit` bytes are allowed.
    pub(super) fn body(&self, slot: Slot, content: Content, limit: u64, received: &mut Counter) -> Body {
        let Content { ended, length, expects } = content;
        if ended {
            return Body::empty();
        }
        *received = Counter::new(0);
        let shared = Rc::clone(&self.shared);
        Body::stream(Box::new(RequestBody { shared, slot, left: limit, length, expects }))
            .counted(received.clone())
    }

    pub(super) fn request(
        &self,
        slot: Slot,
        head: Box<RequestHead>,
        body: Body,
        received: Counter,
    ) -> Request {
        let interim = Interim::Http2(Rc::clone(&self.shared), slot);
        Request { head, body, upgrade: false, interim, arrived: clock::now(), received }
    }

    /// Answers what is no request, or one that is not handed on.
    pub(super) fn refuse(&self, slot: Slot, head: Box<RequestHead>, error: Error) {
        let method = head.method.clone();
        let response = self.handler.refuse(&self.connection, Refused { head: Some(head), error });
        let stream = self.stream(slot);
        tokio::task::spawn_local(async move { stream.respond(response, &method).await });
    }

    pub(super) fn stream(&self, slot: Slot) -> Stream {
        Stream {
            shared: Rc::clone(&self.shared),
            slot,
            limits: Rc::clone(&self.limits),
            sending: Watchdog::default(),
        }
    }
}

/// One stream; released when its task ends, however that comes about.
pub(super) struct Stream {
    pub(super) shared: Rc<Shared<Server>>,
    pub(super) slot: Slot,
    limits: Rc<Limits>,
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
    pub(super) async fn unless_reset<F: Future>(&self, mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| {
            if self.shared.borrow().listen(self.slot, cx).is_some() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Sends a response and ends the stream.
    pub(super) async fn respond(mut self, mut response: Response, method: &Method) {
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
                connection.reset(self.slot, code, out.tail());
            }
        }
    }

    async fn send(&mut self, response: &mut Response, method: &Method, sent: &mut u64) -> Result<(), Error> {
        if self.send_head(response, method)? {
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
                            self.sending.feed(clock::now(), self.limits.send_timeout);
                        }
                        return self.sending.poll_expired(cx).map(|()| Err(Error::ClientTimeout));
                    }
                }
            }
        })
        .await
    }

    /// Appends the head of a response; whether nothing follows.
    pub(super) fn send_head(&self, response: &Response, method: &Method) -> Result<bool, Error> {
        let (extra, end) = outgoing::extra(response, method, self.limits.alt_svc.as_deref());
        let state = &mut *self.shared.borrow();
        if let Some(error) = state.port(self.slot).reset {
            return Err(error);
        }
        let State { connection, out, .. } = state;
        connection.send_head(self.slot, &response.head, &extra, end, out.tail());
        state.appended();
        Ok(end)
    }

    /// Appends a frame of content, or waits until there is some and it may be sent.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, body: &mut Body) -> Poll<Result<Step, Error>> {
        self.shared.poll_send(self.slot, cx, |cx, part, most| body.poll_into(cx, part, most, false))
    }

    /// Keeps the rest of a request's body for a moment behind its response.
    async fn linger(&self) {
        {
            let state = &mut *self.shared.borrow();
            let port = state.port(self.slot);
            if port.ended || port.reset.is_some() {
                return;
            }
            port.discard = Some(LINGER_BYTES);
            let unread = port.clear();
            let State { connection, out, .. } = state;
            connection.passed_on(self.slot, unread, 0, out.tail());
            state.appended();
        }
        let over = poll_fn(|cx| {
            let state = &mut *self.shared.borrow();
            let reset = state.listen(self.slot, cx).is_some();
            let port = state.port(self.slot);
            if reset || port.ended || port.discard == Some(0) { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = tokio::time::timeout(LINGER, over).await;
        let State { connection, out, .. } = &mut *self.shared.borrow();
        connection.reset(self.slot, Code::NoError, out.tail());
    }
}
