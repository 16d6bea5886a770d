//! The task of one request stream: a request to the handler, its response to the client.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Method;

use super::super::handler::{Handler, Refused, Request, Response};
use super::super::interim::Interim;
use super::super::outgoing;
use super::body::RequestBody;
use super::connection::{Link, Open};
use super::receiver::{Next, Receiver};
use super::sender::Sender;
use crate::apart::apart;
use crate::body::{Body, Counter, Moved};
use crate::error::Error;
use crate::h1::HeadError;
use crate::h3::{self, Asked, Code};
use crate::message::RequestHead;
use crate::net::{Output, Watchdog, clock};

/// How long the end of a request without Content-Length is awaited whose method has no content, before it counts as one
/// with content.
const END: Duration = Duration::from_secs(1);
/// Bytes of a response after which other streams have their turn, however quick this one is.
const TURN: u64 = 512 << 10;

/// One request stream.
pub(super) struct Stream<H: Handler> {
    pub(super) link: Rc<Link>,
    pub(super) handler: Rc<H>,
    pub(super) connection: Rc<H::Connection>,
    pub(super) receiver: Rc<RefCell<Receiver>>,
    pub(super) sender: Rc<RefCell<Sender>>,
    /// Ready when the client wants no response any more, or has it.
    pub(super) stopped: Pin<Box<dyn Future<Output = bool>>>,
    /// Patience with a client that is to take a response.
    sending: Watchdog,
    /// It has come before the handshake was complete: somebody else may have sent it again.
    early: bool,
    _open: Open,
}

/// A request, or what becomes of one that is none.
enum Read {
    Request(Request),
    Refused(Refused),
    /// A WebSocket is to be opened.
    Open(Box<RequestHead>),
    /// Nobody waits for an answer.
    Lost,
}

impl Read {
    /// What may be done twice, and says so to the RS; everything else has to come again when the handshake is complete (RFC
    /// 8470 3, 5.1, 5.2).
    fn early(self) -> Self {
        match self {
            Self::Request(mut request) if is_safe(&request.head.method) && request.body.is_empty() => {
                request.head.headers.set("Early-Data", "1");
                Self::Request(request)
            }
            Self::Request(Request { head, .. }) | Self::Open(head) => {
                Self::Refused(Refused { head: Some(head), error: Error::TooEarly })
            }
            Self::Refused(_) | Self::Lost => self,
        }
    }
}

/// Methods that change nothing (RFC 9110 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

impl<H: Handler> Stream<H> {
    pub(super) fn new(
        link: &Rc<Link>,
        handler: Rc<H>,
        connection: Rc<H::Connection>,
        (send, receive): (quinn::SendStream, quinn::RecvStream),
    ) -> Self {
        let (early, sender) = (receive.is_0rtt(), Sender::new(send));
        Self {
            stopped: Box::pin(sender.stopped()),
            receiver: Rc::new(RefCell::new(Receiver::new(Rc::clone(link), receive))),
            sender: Rc::new(RefCell::new(sender)),
            handler,
            connection,
            sending: Watchdog::default(),
            early,
            _open: Open::new(link),
            link: Rc::clone(link),
        }
    }

    /// Serves it to its end.
    pub(super) async fn serve(mut self) {
        let arrival = tokio::time::timeout(self.link.limits.header_timeout, self.read());
        let read = arrival.await.unwrap_or_else(|_| Read::Refused(Error::ClientTimeout.into()));
        let read = if self.early { read.early() } else { read };
        let (response, method) = match read {
            Read::Request(request) => {
                let method = request.head.method.clone();
                let handler = Rc::clone(&self.handler);
                let connection = Rc::clone(&self.connection);
                let handled = {
                    let handling = pin!(handler.handle(&connection, request));
                    self.unless_stopped(handling).await
                };
                let Some(mut response) = handled else { return self.give_up() };
                // Whoever has cut its request short, or broken its rules, waits for no answer.
                if self.receiver.borrow().failure().is_some() {
                    if let Some(record) = &mut response.record {
                        record.ended(0, Some(Error::ClientGone));
                    }
                    return self.give_up();
                }
                (response, method)
            }
            Read::Refused(refused) => {
                let method = refused.head.as_ref().map_or(Method::GET, |head| head.method.clone());
                (self.handler.refuse(&self.connection, refused), method)
            }
            // Apart, because it is large and seldom.
            Read::Open(head) => return apart(|| self.open(head)).await,
            Read::Lost => return self.give_up(),
        };
        self.respond(response, &method).await;
    }

    /// Reads the head, and as much behind it as tells whether there is content.
    async fn read(&self) -> Read {
        let next = || poll_fn(|cx| self.receiver.borrow_mut().poll_next(cx, usize::MAX));
        let (head, length, expects) = match next().await {
            Ok(Next::Head(Asked::Request { head, length, expects })) => (head, length, expects),
            Ok(Next::Head(Asked::Refused { head, error })) => {
                return Read::Refused(Refused { head: Some(head), error });
            }
            Ok(_) | Err(_) => return Read::Lost,
        };
        if head.method == Method::CONNECT {
            return Read::Open(head);
        }
        if length.is_some_and(|length| length > self.link.limits.body_size) {
            return Read::Refused(Refused { head: Some(head), error: Error::BodyTooLarge });
        }
        if length == Some(0) {
            return Read::Request(self.request(head, Body::empty(), Counter::default()));
        }
        // The end comes with the head, but nothing says so before it is there.
        let bodiless = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
        let patience = if length.is_none() && bodiless && !expects { END } else { Duration::ZERO };
        let first = match tokio::time::timeout(patience, next()).await {
            Ok(Ok(Next::End)) if length.is_none() => {
                return Read::Request(self.request(head, Body::empty(), Counter::default()));
            }
            Ok(Ok(first)) => Some(first),
            Ok(Err(_)) if self.receiver.borrow().failure() == Some(Code::Message) => {
                let error = Error::Head(HeadError::Length);
                return Read::Refused(Refused { head: Some(head), error });
            }
            Ok(Err(_)) => return Read::Lost,
            Err(_) => None,
        };
        let received = Counter::new(0);
        let body = self.body(first, self.link.limits.body_size, (length, expects), &received);
        Read::Request(self.request(head, body, received))
    }

    /// The content of a request, of which `limit` bytes are allowed: with what has come of it already, its length where that
    /// is known, and whether the client waits for 100.
    pub(super) fn body(
        &self,
        first: Option<Next>,
        limit: u64,
        (length, expects): (Option<u64>, bool),
        received: &Counter,
    ) -> Body {
        let (receiver, sender) = (Rc::clone(&self.receiver), Rc::clone(&self.sender));
        let body = RequestBody { receiver, sender, first, left: limit, length, expects };
        Body::stream(Box::new(body)).counted(received.clone())
    }

    pub(super) fn request(&self, head: Box<RequestHead>, body: Body, received: Counter) -> Request {
        let interim = Interim::Http3(Rc::clone(&self.sender));
        Request { head, body, upgrade: false, interim, arrived: clock::now(), received }
    }

    /// The outcome, or nothing once the client does not want it any more.
    pub(super) async fn unless_stopped<F: Future>(&mut self, mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => self.stopped.as_mut().poll(cx).map(|_| None),
        })
        .await
    }

    /// Nobody waits for the response.
    pub(super) fn give_up(self) {
        self.link.lost();
        let code = self.receiver.borrow().failure().unwrap_or(Code::RequestCancelled);
        self.sender.borrow_mut().reset(code);
        self.receiver.borrow_mut().stop(code);
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
            Ok(()) => {
                self.link.answered();
                // Whatever of the request was not wanted (RFC 9114 4.1).
                self.receiver.borrow_mut().stop(Code::NoError);
                self.wait_until_confirmed().await;
            }
            Err(error) => {
                self.link.lost();
                let code =
                    if error == Error::ClientTimeout { Code::RequestCancelled } else { Code::Internal };
                let code = self.receiver.borrow().failure().unwrap_or(code);
                self.sender.borrow_mut().reset(code);
                self.receiver.borrow_mut().stop(code);
            }
        }
    }

    /// The connection must not end before the client has everything.
    pub(super) async fn wait_until_confirmed(&mut self) {
        let _ = tokio::time::timeout(self.link.limits.send_timeout, &mut self.stopped).await;
    }

    async fn send(&mut self, response: &mut Response, method: &Method, sent: &mut u64) -> Result<(), Error> {
        let (extra, mut end) = outgoing::extra(response, method, None);
        self.sender.borrow_mut().push(h3::response(&response.head, &extra));
        let (mut waiting, mut turn) = (false, 0);
        poll_fn(|cx| {
            loop {
                let mut progress = false;
                let flushed = self.sender.borrow_mut().poll_flush(cx, &mut progress)?;
                if flushed.is_pending() {
                    if progress || !std::mem::replace(&mut waiting, true) {
                        self.sending.feed(clock::now(), self.link.limits.send_timeout);
                    }
                    return self.sending.poll_expired(cx).map(|()| Err(Error::ClientTimeout));
                }
                waiting = false;
                if end {
                    return Poll::Ready(self.sender.borrow_mut().finish());
                }
                if turn > TURN {
                    turn = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match self.poll_piece(cx, &mut response.body) {
                    Poll::Ready(piece) => {
                        let (bytes, last) = piece?;
                        *sent += bytes;
                        turn += bytes;
                        end = last;
                    }
                    Poll::Pending => {
                        return self.stopped.as_mut().poll(cx).map(|_| Err(Error::ClientGone));
                    }
                }
            }
        })
        .await
    }

    /// Appends the next piece of content as a frame: bytes of it, and whether nothing follows.
    pub(super) fn poll_piece(
        &self,
        cx: &mut Context<'_>,
        body: &mut Body,
    ) -> Poll<Result<(u64, bool), Error>> {
        let mut output = Output::default();
        let moved = ready!(body.poll_into(cx, &mut output, usize::MAX, false))?;
        let sender = &mut *self.sender.borrow_mut();
        Poll::Ready(Ok(match moved {
            Moved::Data(bytes) | Moved::Last(bytes) => {
                if bytes > 0 {
                    let mut head = Vec::new();
                    h3::data_head(output.len(), &mut head);
                    sender.push(head);
                    output.into_pieces().for_each(|piece| sender.push(piece));
                }
                (bytes, matches!(moved, Moved::Last(_)))
            }
            Moved::Trailers(trailers) => {
                sender.push(h3::trailers(&trailers));
                (0, true)
            }
        }))
    }
}
