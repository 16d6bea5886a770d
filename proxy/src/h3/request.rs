//! A request on its stream (RFC 9114 4.1): HEADERS, content in DATA frames, maybe a trailer section.

use bytes::{Buf as _, Bytes};

use super::error::{Code, ConnectionError};
use super::frame::{FrameHead, Partial, kind};
use super::qpack;
use crate::error::Error;
use crate::field::head::{Request, Trailers};
use crate::h1::{self, HeadError};
use crate::message::{Headers, RequestHead, Version};

/// Frames on one stream that bring nothing: of types that nobody knows, and empty ones.
const MOST_IDLE_FRAMES: u32 = 1000;
/// Bytes of frames that nobody knows, on one stream.
const MOST_SKIPPED: u64 = 256 << 10;

/// What has come.
#[derive(Debug)]
pub enum Event {
    /// Come again with more input.
    NeedMore,
    /// The head of the request.
    Head(Asked),
    /// Content; not empty.
    Data(Bytes),
    /// The trailer section; nothing but the end of the stream may follow.
    Trailers(Headers),
}

/// What a client asks.
#[derive(Debug)]
pub enum Asked {
    /// A request.
    Request {
        /// The head.
        head: Box<RequestHead>,
        /// Content-Length.
        length: Option<u64>,
        /// Whether the client waits for 100 before it sends content.
        expects: bool,
    },
    /// A request that is not one; it gets an answer all the same (RFC 9114 4.1.2).
    Refused {
        /// What could be read of the head.
        head: Box<RequestHead>,
        /// Why.
        error: Error,
    },
}

/// Why a stream cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The whole connection ends.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Only this stream does.
    #[error("HTTP/3 stream error {0:?}")]
    Stream(Code),
}

/// The receiving side of one request stream.
#[derive(Debug)]
pub struct RequestStream {
    stage: Stage,
    partial: Partial,
    payload: Payload,
    section: Vec<u8>,
    /// Bytes of the content that Content-Length still promises.
    length_left: Option<u64>,
    idle_frames: u32,
    skipped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Content,
    /// Behind the trailer section.
    Behind,
}

/// The frame whose payload comes, and how much of it.
#[derive(Debug, Clone, Copy)]
enum Payload {
    None,
    Data(u64),
    Section(u64),
    Skipped(u64),
}

impl Default for RequestStream {
    fn default() -> Self {
        Self {
            stage: Stage::Head,
            partial: Partial::default(),
            payload: Payload::None,
            section: Vec::new(),
            length_left: None,
            idle_frames: 0,
            skipped: 0,
        }
    }
}

impl RequestStream {
    /// Bytes that are kept until the rest of their field section has come.
    pub fn kept(&self) -> usize {
        self.section.len()
    }

    /// Whether the head is still to come.
    pub fn awaits_head(&self) -> bool {
        self.stage == Stage::Head
    }

    /// Takes what comes next off the front of the input; of content, at most `most` bytes, which are not 0.
    ///
    /// # Errors
    /// Where the client breaks the rules. A request that is only malformed is no error here.
    pub fn receive(
        &mut self,
        input: &mut Bytes,
        limits: &h1::Limits,
        most: usize,
    ) -> Result<Event, RequestError> {
        loop {
            match self.payload {
                Payload::None => {
                    let mut rest = &input[..];
                    let head = self.partial.take(&mut rest);
                    input.advance(input.len() - rest.len());
                    let Some(head) = head else { return Ok(Event::NeedMore) };
                    if let Some(event) = self.begin(head, limits)? {
                        return Ok(event);
                    }
                }
                Payload::Data(0) | Payload::Skipped(0) => self.payload = Payload::None,
                _ if input.is_empty() && !matches!(self.payload, Payload::Section(0)) => {
                    return Ok(Event::NeedMore);
                }
                Payload::Data(left) => {
                    let data = input.split_to(at_most(left, input.len().min(most)));
                    self.payload = Payload::Data(left - data.len() as u64);
                    return Ok(Event::Data(data));
                }
                Payload::Skipped(left) => {
                    let skipped = at_most(left, input.len());
                    input.advance(skipped);
                    self.payload = Payload::Skipped(left - skipped as u64);
                }
                Payload::Section(left) => {
                    let part = input.split_to(at_most(left, input.len()));
                    let left = left - part.len() as u64;
                    self.payload = Payload::Section(left);
                    // The usual section comes in one piece and is not copied.
                    let section = match (left, self.section.is_empty()) {
                        (0, true) => part,
                        (0, false) => {
                            self.section.extend_from_slice(&part);
                            std::mem::take(&mut self.section).into()
                        }
                        _ => {
                            self.section.extend_from_slice(&part);
                            continue;
                        }
                    };
                    self.payload = Payload::None;
                    return self.section(&section, limits);
                }
            }
        }
    }

    /// The client sends nothing more.
    ///
    /// # Errors
    /// Where something was to follow.
    pub fn end(&self) -> Result<(), RequestError> {
        if self.partial.has_begun()
            || !matches!(self.payload, Payload::None | Payload::Data(0) | Payload::Skipped(0))
        {
            return Err(ConnectionError::new(Code::Frame, "a stream ends within a frame").into());
        }
        match (self.stage, self.length_left) {
            (Stage::Head, _) => Err(RequestError::Stream(Code::RequestIncomplete)),
            (_, Some(1..)) => Err(RequestError::Stream(Code::Message)),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, head: FrameHead, limits: &h1::Limits) -> Result<Option<Event>, RequestError> {
        let unexpected = |reason| Err(ConnectionError::new(Code::FrameUnexpected, reason).into());
        match head.kind {
            kind::DATA if self.stage != Stage::Content => {
                return unexpected("DATA before the head or behind the trailers of a message");
            }
            kind::DATA => {
                if head.length == 0 {
                    self.idle()?;
                }
                // Content-Length and content must agree (RFC 9114 4.1.2).
                if let Some(left) = &mut self.length_left {
                    *left = left.checked_sub(head.length).ok_or(RequestError::Stream(Code::Message))?;
                }
                self.payload = Payload::Data(head.length);
            }
            kind::HEADERS if self.stage == Stage::Behind => {
                return unexpected("HEADERS behind the trailers of a message");
            }
            kind::HEADERS => return self.begin_section(head.length, limits),
            kind::CANCEL_PUSH | kind::SETTINGS | kind::PUSH_PROMISE | kind::GOAWAY | kind::MAX_PUSH_ID => {
                return unexpected("a frame of the control stream, or a promise, on a request stream");
            }
            _ if head.is_of_http2() => return unexpected("a frame of HTTP/2"),
            // What nobody knows is skipped (RFC 9114 9).
            _ => {
                self.idle()?;
                self.skipped = self.skipped.saturating_add(head.length);
                if self.skipped > MOST_SKIPPED {
                    let reason = "too much content of frames that nobody knows";
                    return Err(ConnectionError::new(Code::ExcessiveLoad, reason).into());
                }
                self.payload = Payload::Skipped(head.length);
            }
        }
        Ok(None)
    }

    /// Begins a field section. One that is larger than its fields may be, together, is not even read.
    fn begin_section(&mut self, length: u64, limits: &h1::Limits) -> Result<Option<Event>, RequestError> {
        let most = if self.stage == Stage::Head { limits.head_bytes } else { limits.trailer_bytes };
        if length > most as u64 {
            if self.stage != Stage::Head {
                return Err(RequestError::Stream(Code::Message));
            }
            self.stage = Stage::Behind;
            self.payload = Payload::Skipped(length);
            let error = Error::Head(HeadError::HeadTooLarge);
            let head = Request::new(Version::Http3, limits).finish().head;
            return Ok(Some(Event::Head(Asked::Refused { head, error })));
        }
        self.payload = Payload::Section(length);
        Ok(None)
    }

    fn section(&mut self, section: &[u8], limits: &h1::Limits) -> Result<Event, RequestError> {
        let undecodable =
            |_| ConnectionError::new(Code::QpackDecompression, "a field section that cannot be decoded");
        if self.stage == Stage::Head {
            self.stage = Stage::Content;
            let mut request = Request::new(Version::Http3, limits);
            qpack::decode(section, |name, value| request.field(name, value)).map_err(undecodable)?;
            let read = request.finish();
            return Ok(Event::Head(match read.flaw {
                Some(error) => Asked::Refused { head: read.head, error },
                None => {
                    self.length_left = read.length;
                    Asked::Request { head: read.head, length: read.length, expects: read.expects }
                }
            }));
        }
        self.stage = Stage::Behind;
        let mut trailers = Trailers::new(limits);
        qpack::decode(section, |name, value| trailers.field(name, value)).map_err(undecodable)?;
        if trailers.malformed || self.length_left.is_some_and(|left| left > 0) {
            return Err(RequestError::Stream(Code::Message));
        }
        Ok(Event::Trailers(trailers.headers))
    }

    /// A frame has come that brings nothing.
    fn idle(&mut self) -> Result<(), ConnectionError> {
        self.idle_frames += 1;
        match self.idle_frames <= MOST_IDLE_FRAMES {
            true => Ok(()),
            false => Err(ConnectionError::new(Code::ExcessiveLoad, "too many frames that bring nothing")),
        }
    }
}

/// So many bytes, or as many as there are.
fn at_most(left: u64, have: usize) -> usize {
    usize::try_from(left).map_or(have, |left| left.min(have))
}
