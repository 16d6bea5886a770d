//! The body of a message, as a stream of frames that is never collected.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::error::Error;
use crate::message::Headers;

/// One piece of a body.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Bytes of the content; never empty.
    Data(Bytes),
    /// The trailer section (RFC 9110 6.5); the last frame.
    Trailers(Headers),
}

/// Where the frames of a streamed body come from.
pub(crate) trait Source {
    /// The next frame; `None` behind the last one.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>>;

    /// Bytes still to come, where that is known.
    fn length(&self) -> Option<u64>;
}

/// A body. Reading it is what makes its sender go on (backpressure); dropping it unread ends the sender.
pub(crate) struct Body {
    kind: Kind,
    counter: Option<Rc<Cell<u64>>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream(Box<dyn Source>),
}

impl Body {
    /// No content.
    pub(crate) const fn empty() -> Self {
        Self { kind: Kind::Empty, counter: None }
    }

    /// Content that is there already.
    pub(crate) fn full(content: impl Into<Bytes>) -> Self {
        let content = content.into();
        let kind = if content.is_empty() { Kind::Empty } else { Kind::Full(content) };
        Self { kind, counter: None }
    }

    /// Content that comes from elsewhere.
    pub(crate) fn stream(source: impl Source + 'static) -> Self {
        Self { kind: Kind::Stream(Box::new(source)), counter: None }
    }

    /// Adds the bytes of every data frame to `counter` as they are read.
    pub(crate) fn counted(mut self, counter: Rc<Cell<u64>>) -> Self {
        self.counter = Some(counter);
        self
    }

    /// Whether it is certain that no frame comes.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    /// Whether frames come from elsewhere, and so may depend on what else is under way.
    pub(crate) fn is_streamed(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }

    /// Bytes still to come, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.kind {
            Kind::Empty => Some(0),
            Kind::Full(content) => Some(content.len() as u64),
            Kind::Stream(source) => source.length(),
        }
    }

    /// The next frame; `None` behind the last one.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        let frame = match &mut self.kind {
            Kind::Empty => None,
            Kind::Full(content) => {
                let content = std::mem::take(content);
                self.kind = Kind::Empty;
                Some(Ok(Frame::Data(content)))
            }
            Kind::Stream(source) => ready!(source.poll_frame(cx)),
        };
        if let (Some(counter), Some(Ok(Frame::Data(data)))) = (&self.counter, &frame) {
            counter.set(counter.get() + data.len() as u64);
        }
        Poll::Ready(frame)
    }

    /// The next frame; `None` behind the last one.
    ///
    /// # Errors
    /// Where the sender failed or left.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame, Error>> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }
}
