//! What comes on a request stream.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::RecvStream;

use super::code;
use super::connection::Link;
use crate::error::Error;
use crate::h3::{Asked, Code, Event, RequestError, RequestStream};
use crate::message::Headers;

/// Most bytes that are taken from QUIC at a time.
const PIECE: usize = 64 << 10;

/// The receiving side of a request stream.
pub(super) struct Receiver {
    link: Rc<Link>,
    stream: RecvStream,
    codec: RequestStream,
    input: Bytes,
    /// Bytes of a section that the connection counts.
    kept: usize,
    /// The trailer section, until it is certain that nothing follows.
    trailers: Option<Headers>,
    ended: bool,
    /// The client has reset the stream, or broken its rules; with which code its response is given up.
    failed: Option<Code>,
}

/// What comes next.
pub(super) enum Next {
    Head(Asked),
    Data(Bytes),
    Trailers(Headers),
    End,
}

impl Receiver {
    pub(super) fn new(link: Rc<Link>, stream: RecvStream) -> Self {
        let codec = RequestStream::default();
        Self { link, stream, codec, input: Bytes::new(), kept: 0, trailers: None, ended: false, failed: None }
    }

    /// With which code the response is to be given up, as nothing more comes of the request.
    pub(super) fn failure(&self) -> Option<Code> {
        self.failed
    }

    /// What comes next; of content, at most `most` bytes.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<Next, Error>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(self.trailers.take().map_or(Next::End, Next::Trailers)));
            }
            if self.failed.is_some() {
                return Poll::Ready(Err(Error::ClientGone));
            }
            let event = match self.codec.receive(&mut self.input, &self.link.limits.codec, most) {
                Ok(event) => event,
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            };
            let kept = self.codec.kept();
            if kept != self.kept {
                self.link.keeps(kept, std::mem::replace(&mut self.kept, kept));
            }
            match event {
                Event::Head(asked) => return Poll::Ready(Ok(Next::Head(asked))),
                Event::Data(data) => return Poll::Ready(Ok(Next::Data(data))),
                Event::Trailers(trailers) => {
                    self.trailers = Some(trailers);
                    continue;
                }
                Event::NeedMore => {}
            }
            let chunk = pin!(self.stream.read_chunk(PIECE, true)).poll(cx);
            match ready!(chunk) {
                Ok(Some(chunk)) => self.input = chunk.bytes,
                Ok(None) => match self.codec.end() {
                    Ok(()) => self.ended = true,
                    Err(error) => return Poll::Ready(Err(self.fail(error))),
                },
                Err(_) => {
                    self.failed = Some(Code::RequestCancelled);
                }
            }
        }
    }

    fn fail(&mut self, error: RequestError) -> Error {
        self.failed = Some(match error {
            RequestError::Connection(error) => {
                self.link.fail(error);
                error.code
            }
            RequestError::Stream(code) => {
                self.stop(code);
                code
            }
        });
        Error::ClientGone
    }

    /// Nothing more is wanted.
    pub(super) fn stop(&mut self, reason: Code) {
        if !self.ended {
            // One that has ended, or was reset, need not be stopped.
            let _ = self.stream.stop(code(reason));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.link.keeps(0, self.kept);
        self.stop(Code::NoError);
    }
}
