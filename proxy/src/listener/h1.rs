//! HTTP/1.1 toward clients: one task, one connection, one request after the other.
//!
//! Every malformed request is answered here, through the same error and log as any other; an idle
//! connection holds no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::departure::Departure;
use super::handler::{Handler, Refused, Request, Response, Switched};
use super::interim::Interim;
use super::{date, tunnel};
use crate::access_log::Record;
use crate::body::{Body, Counter, Moved, Source};
use crate::drain::Draining;
use crate::error::Error;
use crate::h1::{self, Decoded, Decoder, Framing, RequestMeta};
use crate::message::{Known, RequestHead, ResponseHead, Version};
use crate::net::{BLOCK, Io, Output, Watchdog, clock};
use crate::state::Limits;

/// Bytes of a response after which other connections have their turn, however quick this one is.
const TURN: u64 = 512 << 10;
/// What is read and thrown away of a request that was answered early, so that the client sees the
/// answer and not a reset (RFC 9112 9.6).
const LINGER_BYTES: usize = 256 << 10;
const LINGER_TIME: Duration = Duration::from_secs(2);
/// What a connection that was just made gets to say something, once the drain has started.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Serves a connection until it ends.
pub(crate) async fn serve<H: Handler>(
    io: Io,
    limits: &Limits,
    handler: &H,
    connection: &H::Connection,
    draining: Draining,
) {
    let client =
        Client { io, decoder: Decoder::new(Framing::None, &limits.codec), body_left: 0, expects: false };
    let client = Rc::new(RefCell::new(client));
    let mut session = Session {
        client,
        limits,
        draining,
        first: true,
        left: limits.keepalive_requests,
        answering: Watchdog::default(),
        sending: Watchdog::default(),
    };
    loop {
        let (response, facts) = match session.read_head().await {
            Ok(None) => return,
            Ok(Some((request, facts))) => {
                let arrived = request.arrived;
                let handling = pin!(handler.handle(connection, request));
                let handled = session.unless_gone(handling, facts.version, arrived).await;
                let Some(response) = handled else { return };
                (response, facts)
            }
            Err(refused) => (handler.refuse(connection, refused), Facts::of_no_request()),
        };
        session.first = false;
        session.left = session.left.saturating_sub(1);
        match session.respond(response, &facts).await {
            Some(Next::Request) => {}
            Some(Next::Close) | None => return,
            Some(Next::Linger) => return session.linger().await,
            Some(Next::Switch(switched, record)) => return session.switch(switched, record).await,
        }
    }
}

/// What the connection is made of while a request is under way; the request's body reads from it while
/// its response is written to it.
pub(crate) struct Client {
    io: Io,
    decoder: Decoder,
    /// Bytes of the body that the limit still allows.
    body_left: u64,
    /// The client waits for 100 before it sends its body.
    expects: bool,
}

struct Session<'a> {
    client: Rc<RefCell<Client>>,
    limits: &'a Limits,
    draining: Draining,
    first: bool,
    /// Requests that this connection may still bring.
    left: u32,
    /// Patience with a client that is to take a response, and with one that may be gone before there is one; the one with
    /// a client that is to send a request is the connection's own. All are kept, so that their timers are set rarely.
    sending: Watchdog,
    answering: Watchdog,
}

/// What the form of the response depends on.
struct Facts {
    method: Method,
    version: Version,
    keep_alive: bool,
    /// It was no request that could be read: nobody knows what else is on its way.
    refused: bool,
}

impl Facts {
    fn of_no_request() -> Self {
        Self { method: Method::GET, version: Version::Http11, keep_alive: false, refused: true }
    }
}

/// What becomes of the connection behind a response.
enum Next {
    Request,
    Close,
    /// Closed, but what comes meanwhile is read.
    Linger,
    Switch(Switched, Option<Box<Record>>),
}

impl Session<'_> {
    /// The next request; `None` when the client leaves, is idle for too long or we drain.
    async fn read_head(&mut self) -> Result<Option<(Request, Facts)>, Refused> {
        let mut head = RequestHead::spare();
        let Some(meta) = self.read_meta(&mut head).await? else { return Ok(None) };
        let mut client = self.client.borrow_mut();
        client.io.input.advance(meta.consumed);
        if matches!(meta.framing, Framing::Length(length) if length > self.limits.body_size) {
            return Err(Refused { head: Some(head), error: Error::BodyTooLarge });
        }
        client.decoder = Decoder::new(meta.framing, &self.limits.codec);
        client.body_left = self.limits.body_size;
        client.expects = meta.expect_continue;
        drop(client);
        let facts = Facts {
            method: head.method.clone(),
            version: head.version,
            keep_alive: meta.keep_alive,
            refused: false,
        };
        let mut received = Counter::default();
        let body = match meta.framing {
            Framing::None | Framing::Length(0) => Body::empty(),
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
                let length = match meta.framing {
                    Framing::Length(length) => Some(length),
                    Framing::None | Framing::Chunked | Framing::UntilClose => None,
                };
                received = Counter::new(0);
                Body::stream(Box::new(RequestBody { client: Rc::clone(&self.client), length }))
                    .counted(received.clone())
            }
        };
        let interim = match facts.version {
            Version::Http10 => Interim::Nobody,
            Version::Http11 | Version::Http2 | Version::Http3 => Interim::Http1(Rc::clone(&self.client)),
        };
        let request = Request { head, body, upgrade: meta.upgrade, interim, arrived: clock::now(), received };
        Ok(Some((request, facts)))
    }

    async fn read_meta(&mut self, head: &mut RequestHead) -> Result<Option<RequestMeta>, Error> {
        let mut begun = !self.client.borrow().io.input.is_empty();
        let idle = if self.first { self.limits.header_timeout } else { self.limits.keepalive_timeout };
        let patience = if begun { self.limits.header_timeout } else { idle };
        self.client.borrow_mut().io.watchdog.feed(clock::now(), patience);
        // The time for a head runs from its first byte and is not extended by more of them.
        let mut timed = begun;
        let mut last_call = false;
        poll_fn(|cx| {
            let mut client = self.client.borrow_mut();
            loop {
                if !client.io.input.is_empty() {
                    let parsed = h1::parse_request(&client.io.input, &self.limits.codec, head);
                    if let Some(meta) = parsed.map_err(Error::Head)? {
                        return Poll::Ready(Ok(Some(meta)));
                    }
                    if !timed {
                        timed = true;
                        client.io.watchdog.feed(clock::now(), self.limits.header_timeout);
                    }
                }
                match client.io.poll_read_head(cx) {
                    Poll::Ready(Ok(1..)) => {
                        begun = true;
                        continue;
                    }
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(None)),
                    Poll::Pending => {}
                }
                if !begun && !last_call && self.draining.poll_started(cx).is_ready() {
                    let idle = self.draining.handed_over().map_or(Duration::ZERO, |what| what.idle);
                    let patience = match self.first {
                        true => LAST_CALL.max(idle),
                        false => idle.min(self.limits.keepalive_timeout),
                    };
                    if patience.is_zero() {
                        return Poll::Ready(Ok(None));
                    }
                    last_call = true;
                    client.io.watchdog.feed(clock::now(), patience);
                }
                return match client.io.watchdog.poll_expired_alone(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) if begun => Poll::Ready(Err(Error::ClientTimeout)),
                    Poll::Ready(()) => Poll::Ready(Ok(None)),
                };
            }
        })
        .await
    }

    /// The outcome, or nothing once the client is gone.
    async fn unless_gone<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
        version: Version,
        arrived: Instant,
    ) -> Option<F::Output> {
        let mut departure = Departure::new(version, arrived, &mut self.answering);
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            let client = &mut *self.client.borrow_mut();
            // Before that, whoever reads the request's content takes note.
            match client.decoder.is_done() {
                true => departure.poll(cx, &mut client.io).map(|()| None),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Writes a response; `None` when it could not be completed and the connection is to be cut.
    async fn respond(&mut self, mut response: Response, facts: &Facts) -> Option<Next> {
        if let Some(switched) = response.switched.take() {
            h1::write_response(
                &response.head,
                Framing::None,
                true,
                facts.version,
                self.client.borrow_mut().io.output.tail(),
            );
            let sent = self.flush(false).await;
            return sent.ok().map(|()| Next::Switch(switched, response.record));
        }
        // A response that streams may still have the request's body streaming the other way.
        let streams = response.body.is_streamed();
        if !streams {
            self.discard_buffered();
        }
        // From here on a 100 would stand in the middle of the response. Whether a client that has got none sends its
        // content is not known (RFC 9110 10.1.1).
        let unasked = std::mem::take(&mut self.client.borrow_mut().expects);
        if response.head.headers.known(Known::Date).next().is_none() {
            response.head.headers.append("Date", date::now());
        }
        if let Some(alt_svc) = &self.limits.alt_svc
            && !response.head.headers.contains("alt-svc")
        {
            response.head.headers.append("Alt-Svc", alt_svc);
        }
        let framing = framing(&facts.method, facts.version, response.head.status, &response.body);
        // Nobody wants the rest of a request that is refused: the client may stop here (RFC 9112 9.3, 9.6).
        let goes_on = streams && !unasked && response.head.status.as_u16() < 400;
        let keep_alive = facts.keep_alive
            && (goes_on || self.client.borrow().decoder.is_done())
            && framing != Framing::UntilClose
            && self.left > 0
            && !self.draining.has_started();
        h1::write_response(
            &response.head,
            framing,
            keep_alive,
            facts.version,
            self.client.borrow_mut().io.output.tail(),
        );
        response.head.give_back();
        let mut sent = 0;
        let done = self.send_body(&mut response.body, framing, !keep_alive, &mut sent).await;
        if let Some(record) = &mut response.record {
            record.ended(sent, done.err());
        }
        done.ok()?;
        self.discard_buffered();
        let mut client = self.client.borrow_mut();
        client.io.trim();
        let complete = client.decoder.is_done();
        Some(match (keep_alive, complete) {
            (true, true) => Next::Request,
            // The client has said that it sends nothing more.
            (false, true) if !facts.keep_alive && !facts.refused && client.io.input.is_empty() => Next::Close,
            _ => Next::Linger,
        })
    }

    async fn send_body(
        &mut self,
        body: &mut Body,
        framing: Framing,
        last: bool,
        sent: &mut u64,
    ) -> Result<(), Error> {
        let chunked = framing == Framing::Chunked;
        if framing != Framing::None {
            let mut turn = 0;
            let trailers = loop {
                match self.next_piece(body, chunked).await? {
                    Moved::Data(bytes) => {
                        *sent += bytes;
                        turn += bytes;
                        if turn > TURN {
                            turn = 0;
                            tokio::task::yield_now().await;
                        }
                    }
                    Moved::Last(bytes) => {
                        *sent += bytes;
                        break None;
                    }
                    Moved::Trailers(section) => break Some(section),
                }
            };
            if chunked {
                h1::write_last_chunk(trailers.as_ref(), self.client.borrow_mut().io.output.tail());
            }
        }
        self.flush(last).await
    }

    /// Queues the next piece, while what waits is written; none is asked for while too much waits.
    async fn next_piece(&mut self, body: &mut Body, chunked: bool) -> Result<Moved, Error> {
        let mut waiting = false;
        poll_fn(|cx| {
            if self.client.borrow().io.output.len() < BLOCK
                && let Poll::Ready(moved) = self.poll_piece(cx, body, chunked)
            {
                return Poll::Ready(moved);
            }
            match self.poll_output(cx, false, &mut waiting)? {
                Poll::Pending => Poll::Pending,
                // All was written; the body was pending, or was not asked because too much waited.
                Poll::Ready(()) => self.poll_piece(cx, body, chunked),
            }
        })
        .await
    }

    fn poll_piece(&self, cx: &mut Context<'_>, body: &mut Body, chunked: bool) -> Poll<Result<Moved, Error>> {
        // Taken out of the client, because the response may move the request's body along, which reads from it.
        let mut output = std::mem::take(&mut self.client.borrow_mut().io.output);
        let moved = body.poll_into(cx, &mut output, usize::MAX, chunked);
        self.client.borrow_mut().io.output = output;
        moved
    }

    /// Writes everything; with `last` also that nothing follows.
    async fn flush(&mut self, last: bool) -> Result<(), Error> {
        let mut waiting = false;
        poll_fn(|cx| match self.poll_output(cx, last, &mut waiting) {
            Ok(poll) => poll.map(Ok),
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }

    fn poll_output(
        &mut self,
        cx: &mut Context<'_>,
        last: bool,
        waiting: &mut bool,
    ) -> Result<Poll<()>, Error> {
        let mut progress = false;
        let io = &mut self.client.borrow_mut().io;
        let written = match last {
            true => io.poll_write_last(cx, &mut progress),
            false => io.poll_write(cx, &mut progress),
        };
        match written {
            Poll::Ready(Ok(())) => {
                *waiting = false;
                return Ok(Poll::Ready(()));
            }
            Poll::Ready(Err(_)) => return Err(Error::ClientGone),
            Poll::Pending => {}
        }
        if progress || !*waiting {
            *waiting = true;
            self.sending.feed(clock::now(), self.limits.send_timeout);
        }
        match self.sending.poll_expired_alone(cx) {
            Poll::Ready(()) => Err(Error::ClientTimeout),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Throws away what has come of the body already and nobody wanted.
    fn discard_buffered(&mut self) {
        let client = &mut *self.client.borrow_mut();
        if client.expects || client.decoder.is_done() {
            return;
        }
        while matches!(
            client.decoder.decode(&mut client.io.input),
            Ok(Decoded::Data(_) | Decoded::Trailers(_))
        ) {}
    }

    /// Ends the sending direction and reads on for a moment.
    async fn linger(self) {
        let Some(client) = Rc::into_inner(self.client) else { return };
        let mut io = client.into_inner().io;
        let quiet = async {
            io.shutdown().await.ok()?;
            let mut left = LINGER_BYTES;
            while left > 0 {
                io.input.clear();
                let read = poll_fn(|cx| io.poll_read_head(cx)).await.ok().filter(|&read| read > 0)?;
                left = left.saturating_sub(read);
            }
            Some(())
        };
        let _ = tokio::time::timeout(LINGER_TIME, quiet).await;
    }

    async fn switch(self, switched: Switched, record: Option<Box<Record>>) {
        let Some(client) = Rc::into_inner(self.client) else { return };
        let moved = tunnel::copy(client.into_inner().io, switched).await;
        if let Some(mut record) = record {
            record.received = Counter::new(moved.up);
            record.ended(moved.down, None);
        }
    }
}

/// How the content of a response is delimited (RFC 9112 6.3).
fn framing(method: &Method, version: Version, status: StatusCode, body: &Body) -> Framing {
    let bodiless = method == Method::HEAD
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || status.is_informational();
    match body.length() {
        _ if bodiless => Framing::None,
        Some(length) => Framing::Length(length),
        None if version == Version::Http11 => Framing::Chunked,
        None => Framing::UntilClose,
    }
}

/// The body of a request, read from the connection as its reader asks for it.
struct RequestBody {
    client: Rc<RefCell<Client>>,
    length: Option<u64>,
}

impl Client {
    /// Writes an interim response, unless others wait for the client already. What does not leave at once leaves with
    /// the final one.
    pub(super) fn send_interim(&mut self, cx: &mut Context<'_>, head: &ResponseHead) {
        if self.io.output.is_empty() {
            h1::write_response(head, Framing::None, true, Version::Http11, self.io.output.tail());
            // An error shows again with the final response.
            let _ = self.io.poll_write(cx, &mut false);
        }
    }

    /// What comes next of the request's body, with at most `most` bytes of data left in the input; reads when nothing is
    /// there.
    fn poll_located(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<Decoded<usize>, Error>> {
        if std::mem::take(&mut self.expects) {
            self.io.output.tail().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            // What does not leave at once leaves with the response.
            if let Poll::Ready(Err(_)) = self.io.poll_write(cx, &mut false) {
                return Poll::Ready(Err(Error::ClientGone));
            }
        }
        loop {
            match self.decoder.locate(&mut self.io.input, most).map_err(Error::Body)? {
                Decoded::NeedMore => {}
                Decoded::Data(length) => {
                    let left = self.body_left.checked_sub(length as u64);
                    self.body_left = left.ok_or(Error::BodyTooLarge)?;
                    return Poll::Ready(Ok(Decoded::Data(length)));
                }
                located => return Poll::Ready(Ok(located)),
            }
            match self.io.poll_read_body(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Error::ClientGone)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Source for RequestBody {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        let client = &mut *self.client.borrow_mut();
        Poll::Ready(Ok(match ready!(client.poll_located(cx, most))? {
            Decoded::Data(length) => {
                output.push_body_from(&mut client.io.input, length, chunked);
                let moved = length as u64;
                if client.decoder.is_done() { Moved::Last(moved) } else { Moved::Data(moved) }
            }
            Decoded::Trailers(trailers) => Moved::Trailers(trailers),
            Decoded::End | Decoded::NeedMore => Moved::Last(0),
        }))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn awaits_continue(&self) -> bool {
        self.client.borrow().expects
    }
}
