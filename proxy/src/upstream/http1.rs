//! One request and one response of HTTP/1.1 on one connection to an RS, inside the request's own task.
//!
//! Whoever asks for the response head or for the next piece of its body also moves the request body along:
//! no second task, no channel, and no more of either body in memory than one read.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use http::{Method, StatusCode};

use super::{OnInterim, Place};
use crate::body::{Body, Moved, Source};
use crate::error::Error;
use crate::h1::{self, Decoded, Decoder, Framing};
use crate::message::{RequestHead, ResponseHead};
use crate::net::{BLOCK, Io, Output, clock};
use crate::state::Grant;

/// Bytes of a request body that are gathered for one write, which the RS wakes up for: four packets of TCP.
const GATHER: usize = 5 * BLOCK;
/// Most interim (1xx) responses before the final one.
const INTERIM: usize = 16;
/// How long an RS that was told that the client waits for 100 is waited for: it may never have heard of it
/// (RFC 9110 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);

/// The exchange. Dropped before its end, it closes the connection; at a clean end it gives it back.
pub(crate) struct Exchange {
    io: Option<Box<Io>>,
    place: Place,
    method: Method,
    upload: Upload,
    client_timeout: Duration,
    waiting: Waiting,
    interim: usize,
    received: bool,
    decoder: Decoder,
    framing: Framing,
    keep_alive: bool,
}

/// The request body on its way.
enum Upload {
    /// Not before the RS wants it: the client waits for 100.
    Held {
        body: Body,
        framing: Framing,
    },
    Sending {
        body: Body,
        framing: Framing,
    },
    Sent,
    /// The RS takes nothing more; its response may still come.
    Broken,
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

impl Exchange {
    /// Begins: the head is written as soon as somebody asks for the response. Where the client waits for 100, the head
    /// says so, and the body follows when the RS has agreed.
    pub(crate) fn new(
        mut io: Box<Io>,
        place: Place,
        head: &RequestHead,
        body: Body,
        client_timeout: Duration,
    ) -> Box<Self> {
        let framing = match body.length() {
            Some(0) if needs_length(&head.method) => Framing::Length(0),
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        h1::write_request(head, framing, io.output.tail());
        let upload = match body {
            body if body.is_empty() => Upload::Sent,
            body if body.awaits_continue() => Upload::Held { body, framing },
            body => Upload::Sending { body, framing },
        };
        Box::new(Self {
            io: Some(io),
            place,
            method: head.method.clone(),
            upload,
            client_timeout,
            waiting: Waiting::Nobody,
            interim: 0,
            received: false,
            decoder: Decoder::new(Framing::None, &h1::Limits::default()),
            framing: Framing::None,
            keep_alive: false,
        })
    }

    /// The head of the final response, or 101. Of interim ones, 100 is for the exchange itself and all others are
    /// handed to `interim`.
    pub(crate) async fn head(&mut self, interim: &mut OnInterim<'_>) -> Result<Box<ResponseHead>, Error> {
        poll_fn(|cx| self.poll_head(cx, interim)).await
    }

    /// Whether any byte of a response has come.
    pub(crate) fn received(&self) -> bool {
        self.received
    }

    /// The connection, with whatever came behind the head of a 101, and its room at the RS. None while the RS has not got
    /// all of the request: the rest would reach it as the other protocol.
    pub(crate) fn into_upgraded(mut self: Box<Self>) -> Option<(Box<Io>, Option<Grant>)> {
        let sent = matches!(self.upload, Upload::Sent);
        let io = self.io.take().filter(|io| sent && io.output.is_empty())?;
        Some((io, self.place.grant.take()))
    }

    /// The body of the response.
    pub(crate) fn into_body(mut self: Box<Self>) -> Body {
        match self.framing {
            Framing::None | Framing::Length(0) => {
                // An upload that is still going on ends here: the response is complete without it.
                self.give_back();
                Body::empty()
            }
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => Body::stream(self),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut OnInterim<'_>,
    ) -> Poll<Result<Box<ResponseHead>, Error>> {
        loop {
            let mut progress = false;
            let upload = self.poll_upload(cx, &mut progress)?;
            if let Some(head) = self.parse_head(cx, interim)? {
                self.forgo();
                return Poll::Ready(Ok(head));
            }
            if upload.is_ready() && matches!(self.upload, Upload::Sending { .. }) {
                // The RS has just agreed to it.
                continue;
            }
            let Some(io) = &mut self.io else { return Poll::Ready(Err(Error::Internal)) };
            match io.poll_read_head(cx) {
                Poll::Ready(Ok(1..)) => {
                    self.received = true;
                    self.waiting = Waiting::Nobody;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Error::UpstreamClosed)),
                Poll::Pending => {
                    let error = ready!(self.poll_patience(cx, upload, progress));
                    if self.waiting != Waiting::ServerToContinue {
                        return Poll::Ready(Err(error));
                    }
                    self.release();
                }
            }
        }
    }

    fn parse_head(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut OnInterim<'_>,
    ) -> Result<Option<Box<ResponseHead>>, Error> {
        loop {
            let Some(io) = &mut self.io else { return Err(Error::Internal) };
            if io.input.is_empty() {
                return Ok(None);
            }
            let mut head = ResponseHead::spare();
            let limits = h1::Limits::default();
            let meta = h1::parse_response(&io.input, &limits, &self.method, &mut head);
            let Some(meta) = meta.map_err(Error::UpstreamHead)? else { return Ok(None) };
            io.input.advance(meta.consumed);
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                self.decoder = Decoder::new(meta.framing, &limits);
                self.framing = meta.framing;
                self.keep_alive = meta.keep_alive;
                return Ok(Some(head));
            }
            self.interim += 1;
            if self.interim > INTERIM {
                return Err(Error::UpstreamInterim);
            }
            match head.status {
                StatusCode::CONTINUE => self.release(),
                _ => interim(cx, &mut head),
            }
            head.give_back();
        }
    }

    /// The RS wants the body, or is taken to.
    fn release(&mut self) {
        self.upload = match std::mem::replace(&mut self.upload, Upload::Sent) {
            Upload::Held { body, framing } => Upload::Sending { body, framing },
            upload => upload,
        };
    }

    /// The RS has answered without the body, which it gets no more: the client may not send it (RFC 9110 10.1.1).
    fn forgo(&mut self) {
        if matches!(self.upload, Upload::Held { .. }) {
            self.upload = Upload::Broken;
        }
    }

    /// Moves the request body along: ready when there is nothing left to do, pending on the client or the RS.
    /// Errors are the client's; that the RS takes no more shows when its response is read.
    fn poll_upload(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Result<Poll<()>, Error> {
        let is_over = matches!(self.upload, Upload::Sent | Upload::Broken);
        if is_over && self.io.as_ref().is_none_or(|io| io.output.is_flushed()) {
            return Ok(Poll::Ready(()));
        }
        loop {
            let source = self.poll_gather(cx, progress)?;
            let Some(io) = &mut self.io else { return Ok(Poll::Ready(())) };
            match io.poll_write(cx, progress) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.upload = Upload::Broken;
                    io.output = Output::default();
                    return Ok(Poll::Ready(()));
                }
            }
            if source.is_pending() || !matches!(self.upload, Upload::Sending { .. }) {
                return Ok(source);
            }
        }
    }

    /// Queues what there is of the request body, so that it leaves at once: pending on the client.
    fn poll_gather(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Result<Poll<()>, Error> {
        let Some(io) = &mut self.io else { return Ok(Poll::Ready(())) };
        while let Upload::Sending { body, framing } = &mut self.upload
            && io.output.len() < GATHER
        {
            let chunked = *framing == Framing::Chunked;
            let moved = match body.poll_into(cx, &mut io.output, usize::MAX, chunked) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(moved) => moved?,
            };
            *progress = true;
            let trailers = match moved {
                Moved::Data(_) => continue,
                Moved::Trailers(trailers) => Some(trailers),
                Moved::Last(_) => None,
            };
            if chunked {
                h1::write_last_chunk(trailers.as_ref(), io.output.tail());
            }
            self.upload = Upload::Sent;
        }
        Ok(Poll::Ready(()))
    }

    /// Nothing can be done now: fires when the one who is waited for has taken too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>, upload: Poll<()>, progress: bool) -> Poll<Error> {
        let pool = self.place.view.pool(self.place.pool);
        let unsent = self.io.as_ref().is_some_and(|io| !io.output.is_empty());
        let (waiting, patience, error) = match upload {
            Poll::Pending if unsent => (Waiting::ServerToTake, pool.send_timeout, Error::UpstreamSendTimeout),
            Poll::Pending => (Waiting::Client, self.client_timeout, Error::ClientTimeout),
            Poll::Ready(()) if matches!(self.upload, Upload::Held { .. }) => {
                (Waiting::ServerToContinue, CONTINUE, Error::UpstreamTimeout)
            }
            Poll::Ready(()) => (Waiting::ServerToAnswer, pool.read_timeout, Error::UpstreamTimeout),
        };
        let Some(io) = &mut self.io else { return Poll::Ready(Error::Internal) };
        if progress || waiting != self.waiting {
            self.waiting = waiting;
            io.watchdog.feed(clock::now(), patience);
        }
        io.watchdog.poll_expired(cx).map(|()| error)
    }

    /// Hands a connection on which everything ended cleanly to the next request.
    fn give_back(&mut self) {
        self.place.grant = None;
        let Some(io) = self.io.take() else { return };
        let clean = io.input.is_empty() && io.output.is_empty() && matches!(self.upload, Upload::Sent);
        if clean && self.keep_alive {
            self.place.upstreams.put(io, &self.place.view, self.place.pool, self.place.server);
        }
    }
}

impl Exchange {
    /// What comes next of the body, with at most `most` bytes of data left in the input; reads when nothing is there.
    fn poll_located(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<Decoded<usize>, Error>> {
        loop {
            let Some(io) = &mut self.io else { return Poll::Ready(Ok(Decoded::End)) };
            match self.decoder.locate(&mut io.input, most).map_err(Error::UpstreamBody)? {
                Decoded::NeedMore => {}
                located => {
                    self.waiting = Waiting::Nobody;
                    return Poll::Ready(Ok(located));
                }
            }
            let mut progress = false;
            let upload = self.poll_upload(cx, &mut progress)?;
            let Some(io) = &mut self.io else { return Poll::Ready(Ok(Decoded::End)) };
            match io.poll_read_body(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    self.keep_alive = false;
                    self.decoder.finish().map_err(|_| Error::UpstreamClosed)?;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Error::UpstreamClosed)),
                Poll::Pending => return self.poll_patience(cx, upload, progress).map(Err),
            }
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
        let mut moved = 0;
        match ready!(self.poll_located(cx, most))? {
            Decoded::Data(length) => {
                if let Some(io) = &mut self.io {
                    output.push_body_from(&mut io.input, length, chunked);
                    moved = length as u64;
                }
                if !self.decoder.is_done() {
                    return Poll::Ready(Ok(Moved::Data(moved)));
                }
            }
            Decoded::Trailers(trailers) => return Poll::Ready(Ok(Moved::Trailers(trailers))),
            Decoded::End | Decoded::NeedMore => {}
        }
        // Behind the last piece the connection is free again.
        self.give_back();
        Poll::Ready(Ok(Moved::Last(moved)))
    }

    fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }
}

/// Methods whose request says `Content-Length: 0` when there is no content (RFC 9110 8.6).
fn needs_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}
