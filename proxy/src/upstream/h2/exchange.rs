//! One request and one response on one stream, inside the request's own task.
//!
//! Whoever asks for the response head or for the next piece of its body also moves the request body along, so that both
//! flow at the same time; the windows of both sides pass on how fast the slower one is.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::super::{OnInterim, Place};
use super::Link;
use super::replay::Replay;
use crate::body::{Body, Moved, Source};
use crate::config::Protocol;
use crate::error::Error;
use crate::grpc;
use crate::h1::HeadError;
use crate::h2::Slot;
use crate::message::{RequestHead, ResponseHead};
use crate::multiplex::Piece;
use crate::net::{Output, Watchdog, clock};

/// How long an RS that was told that the client waits for 100 is waited for (RFC 9110 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);

/// The exchange. Dropped before its end, it resets the stream.
pub(crate) struct Exchange {
    stream: Stream,
    place: Place,
    /// The request body on its way.
    upload: Replay,
    client_timeout: Duration,
    /// When the client wants to hear nothing more (gRPC).
    deadline: Option<Instant>,
    waiting: Waiting,
    watchdog: Watchdog,
    /// What the RS had said when the wait began.
    heard: u64,
    /// The body is not sent before the RS wants it: the client waits for 100.
    held: bool,
    /// Whether the head of the response has come.
    begun: bool,
    length: Option<u64>,
}

/// Whom the exchange waits for; each has a patience of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nobody,
    Client,
    ServerToTake,
    ServerToContinue,
    ServerToAnswer,
}

/// A stream, released when it is dropped; or why there is none.
struct Stream {
    link: Rc<Link>,
    slot: Result<Slot, Error>,
}

impl Stream {
    fn open(link: Rc<Link>, head: &RequestHead, length: Option<u64>, end: bool) -> Self {
        let state = &mut *link.shared.borrow();
        let slot = if link.gone.get() {
            Err(Error::UpstreamRefused)
        } else if !state.connection.takes(head) {
            Err(Error::Head(HeadError::HeadTooLarge))
        } else {
            let opened = state.connection.open(head, link.scheme, length, end, state.out.tail());
            state.appended();
            opened.ok_or(Error::UpstreamRefused)
        };
        Self { link: Rc::clone(&link), slot }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(slot) = self.slot {
            self.link.shared.borrow().release(slot);
        }
    }
}

impl Exchange {
    /// Begins: the head leaves at once.
    pub(crate) fn new(
        link: Rc<Link>,
        place: Place,
        head: &RequestHead,
        body: Body,
        client_timeout: Duration,
    ) -> Box<Self> {
        let held = body.awaits_continue();
        let upload = Replay::new(body);
        let end = upload.is_sent();
        let length = upload.length().filter(|_| !end);
        let is_grpc = place.view.pool(place.pool).protocol == Protocol::Grpc;
        let deadline = if is_grpc { grpc::timeout(&head.headers) } else { None };
        Box::new(Self {
            stream: Stream::open(link, head, length, end),
            place,
            upload,
            client_timeout,
            deadline: deadline.map(|time| clock::now() + time),
            waiting: Waiting::Nobody,
            watchdog: Watchdog::default(),
            heard: 0,
            held,
            begun: false,
            length: None,
        })
    }

    /// The head of the final response. Of interim ones, 100 is for the exchange itself and all others are handed to
    /// `interim`.
    pub(crate) async fn head(&mut self, interim: &mut OnInterim<'_>) -> Result<Box<ResponseHead>, Error> {
        poll_fn(|cx| self.poll_head(cx, interim)).await
    }

    /// Whether anything of a response has come.
    pub(crate) fn received(&self) -> bool {
        self.begun
    }

    /// The body of the request, where it can be sent once more.
    pub(crate) fn reclaim(self) -> Option<Body> {
        self.upload.again()
    }

    /// The body of the response.
    pub(crate) fn into_body(self: Box<Self>) -> Body {
        // An upload that is still going on ends here where the response is complete without it.
        if self.length == Some(0) { Body::empty() } else { Body::stream(self) }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut OnInterim<'_>,
    ) -> Poll<Result<Box<ResponseHead>, Error>> {
        let slot = self.stream.slot?;
        loop {
            let mut progress = false;
            let upload = self.poll_upload(cx, slot, &mut progress)?;
            let (interims, head, reset) = {
                let state = &mut *self.stream.link.shared.borrow();
                let reset = state.listen(slot, cx);
                let port = state.port(slot);
                (std::mem::take(&mut port.interim), port.head.take(), reset)
            };
            let mut agreed = false;
            for mut head in interims {
                progress = true;
                match head.status {
                    StatusCode::CONTINUE => agreed |= std::mem::take(&mut self.held),
                    _ => interim(cx, &mut head),
                }
            }
            match (head, reset) {
                (Some((head, length)), _) => {
                    self.begun = true;
                    self.upload.forget();
                    self.waiting = Waiting::Nobody;
                    self.length = length;
                    return Poll::Ready(Ok(head));
                }
                (None, Some(error)) => return Poll::Ready(Err(error)),
                (None, None) if agreed => {}
                (None, None) => {
                    let error = ready!(self.poll_patience(cx, upload, progress));
                    if self.waiting != Waiting::ServerToContinue || error == Error::Deadline {
                        return Poll::Ready(Err(error));
                    }
                    // It may never have heard of 100.
                    self.held = false;
                }
            }
        }
    }

    /// Moves the request body along: ready when there is nothing left to do. Errors are the client's; that the RS takes
    /// no more shows when its response is read.
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        slot: Slot,
        progress: &mut bool,
    ) -> Result<Poll<()>, Error> {
        let shared = &self.stream.link.shared;
        let upload = &mut self.upload;
        while !(self.held || upload.is_sent()) {
            if shared.borrow().port(slot).reset.is_some() {
                return Ok(Poll::Ready(()));
            }
            match shared.poll_send(slot, cx, |cx, part, most| upload.poll_into(cx, part, most)) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(step) => {
                    step?;
                    *progress = true;
                }
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Nothing can be done now: fires when the one who is waited for has taken too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>, upload: Poll<()>, progress: bool) -> Poll<Error> {
        let pool = self.place.view.pool(self.place.pool);
        let link = &self.stream.link;
        let (waiting, patience, error) = match upload {
            Poll::Pending if self.is_stuck() => {
                (Waiting::ServerToTake, pool.send_timeout, Error::UpstreamSendTimeout)
            }
            // Once the RS has answered, both may be silent for as long as the RS alone.
            Poll::Pending if self.begun => {
                (Waiting::ServerToAnswer, pool.read_timeout, Error::UpstreamTimeout)
            }
            Poll::Pending => (Waiting::Client, self.client_timeout, Error::ClientTimeout),
            Poll::Ready(()) if self.held && !self.begun => {
                (Waiting::ServerToContinue, CONTINUE, Error::UpstreamTimeout)
            }
            Poll::Ready(()) => (Waiting::ServerToAnswer, pool.read_timeout, Error::UpstreamTimeout),
        };
        if progress || waiting != self.waiting {
            let now = clock::now();
            self.waiting = waiting;
            self.heard = link.heard.get();
            let left = self.deadline.map(|deadline| deadline.saturating_duration_since(now));
            self.watchdog.feed(now, left.map_or(patience, |left| left.min(patience)));
        }
        ready!(self.watchdog.poll_expired(cx));
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Poll::Ready(Error::Deadline);
        }
        if !matches!(waiting, Waiting::Client | Waiting::ServerToContinue) && link.heard.get() == self.heard {
            // Nothing came for anybody: the next request had better have a connection of its own.
            link.retire();
        }
        Poll::Ready(error)
    }

    /// Whether the RS takes no more of the request now.
    fn is_stuck(&self) -> bool {
        let Ok(slot) = self.stream.slot else { return false };
        let state = &mut *self.stream.link.shared.borrow();
        state.connection.room(slot) == 0 || state.port(slot).is_blocked()
    }

    /// The next piece of the response's body.
    fn poll_piece(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<Piece, Error>> {
        let slot = self.stream.slot?;
        let mut progress = false;
        let upload = self.poll_upload(cx, slot, &mut progress)?;
        let (piece, reset) = {
            let state = &mut *self.stream.link.shared.borrow();
            let reset = state.listen(slot, cx);
            (state.receive(slot, most), reset)
        };
        match (piece, reset) {
            (Some(piece), _) => {
                self.waiting = Waiting::Nobody;
                Poll::Ready(Ok(piece))
            }
            (None, Some(error)) => Poll::Ready(Err(error)),
            (None, None) => Poll::Ready(match ready!(self.poll_patience(cx, upload, progress)) {
                // A client of gRPC looks for the reason in the trailers.
                Error::Deadline => Ok(Piece::End(Some(grpc::trailers(&Error::Deadline)))),
                error => Err(error),
            }),
        }
    }
}

impl Source for Exchange {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        Poll::Ready(Ok(ready!(self.poll_piece(cx, most))?.into_output(output, chunked)))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}
