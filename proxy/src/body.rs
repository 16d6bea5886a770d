//! The body of a message, as a stream of frames that is never collected.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::error::Error;
use crate::message::Headers;
use crate::net::Output;

/// What has become of the next piece of a body that is moved into an output.
#[derive(Debug)]
pub(crate) enum Moved {
    /// So many bytes of the content were appended; more may come.
    Data(u64),
    /// So many bytes of the content, maybe none, were appended, and nothing follows.
    Last(u64),
    /// The trailer section; nothing was appended and nothing follows.
    Trailers(Headers),
}

/// Where the frames of a streamed body come from.
pub(crate) trait Source {
    /// Moves the next piece, at most `most` bytes of it, into `output`, as a chunk of its own where the framing asks for it.
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>>;

    /// Bytes still to come, where that is known.
    fn length(&self) -> Option<u64>;

    /// Whether the sender waits for 100 (RFC 9110 10.1.1) and gets it when the first piece is asked for.
    fn awaits_continue(&self) -> bool {
        false
    }
}

/// A number of bytes that one side counts and another reads; costs nothing where nothing is counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counter(Option<Rc<Cell<u64>>>);

impl Counter {
    /// Begins with this number.
    pub(crate) fn new(number: u64) -> Self {
        Self(Some(Rc::new(Cell::new(number))))
    }

    fn add(&self, number: u64) {
        if let Some(count) = &self.0 {
            count.set(count.get() + number);
        }
    }

    /// The number so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.as_ref().map_or(0, |count| count.get())
    }
}

/// A body. Reading it is what makes its sender go on (backpressure); dropping it unread ends the sender.
pub(crate) struct Body {
    kind: Kind,
    counter: Counter,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream(Box<dyn Source>),
}

impl Body {
    /// No content.
    pub(crate) const fn empty() -> Self {
        Self { kind: Kind::Empty, counter: Counter(None) }
    }

    /// Content that is there already.
    pub(crate) fn full(content: impl Into<Bytes>) -> Self {
        let content = content.into();
        let kind = if content.is_empty() { Kind::Empty } else { Kind::Full(content) };
        Self { kind, counter: Counter(None) }
    }

    /// Content that comes from elsewhere.
    pub(crate) fn stream(source: Box<dyn Source>) -> Self {
        Self { kind: Kind::Stream(source), counter: Counter(None) }
    }

    /// The content, which leaves none.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::empty())
    }

    /// Adds the bytes of every data frame to `counter` as they are read.
    pub(crate) fn counted(mut self, counter: Counter) -> Self {
        self.counter = counter;
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

    /// Whether the sender waits for 100 (RFC 9110 10.1.1) and gets it when the first piece is asked for.
    pub(crate) fn awaits_continue(&self) -> bool {
        matches!(&self.kind, Kind::Stream(source) if source.awaits_continue())
    }

    /// Moves the next piece, at most `most` bytes of it, into `output`, as a chunk of its own where the framing asks for it.
    pub(crate) fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        let moved = match &mut self.kind {
            Kind::Empty => Moved::Last(0),
            Kind::Full(content) => {
                let piece = content.split_to(most.min(content.len()));
                let length = piece.len() as u64;
                output.push_body(piece, chunked);
                if content.is_empty() {
                    self.kind = Kind::Empty;
                    Moved::Last(length)
                } else {
                    Moved::Data(length)
                }
            }
            Kind::Stream(source) => ready!(source.poll_into(cx, output, most, chunked))?,
        };
        if let Moved::Data(bytes) | Moved::Last(bytes) = &moved {
            self.counter.add(*bytes);
        }
        Poll::Ready(Ok(moved))
    }

    /// Reads to the end and throws away what comes; the number of bytes.
    ///
    /// # Errors
    /// Where the sender failed or left.
    pub(crate) async fn skip(&mut self) -> Result<u64, Error> {
        let mut skipped = 0;
        loop {
            let mut output = Output::default();
            match std::future::poll_fn(|cx| self.poll_into(cx, &mut output, usize::MAX, false)).await? {
                Moved::Data(bytes) => skipped += bytes,
                Moved::Last(bytes) => return Ok(skipped + bytes),
                Moved::Trailers(_) => return Ok(skipped),
            }
        }
    }
}
