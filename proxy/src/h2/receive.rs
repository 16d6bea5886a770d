//! What the other side sends: frames to events (RFC 9113 6), and which of them are errors.

use bytes::{Buf as _, BytesMut};

use crate::error::Error;
use crate::field::head::{Request, Trailers};
use crate::h1::HeadError;
use crate::message::{Headers, RequestHead, Version};

use super::connection::Connection;
use super::error::{Code, ConnectionError};
use super::flow::{ReceiveWindow, SendWindow};
use super::frame::{self, FrameHead, MAX_PAYLOAD, flag, kind};
use super::role::{Role, Server};
use super::settings;
use super::streams::{Slot, Stream};

/// What every client says first (RFC 9113 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most CONTINUATION frames of one block: no client sends small ones.
const MOST_CONTINUATIONS: u32 = 64;

/// What has happened; `H` is what field blocks begin on this side.
#[derive(Debug)]
pub enum Event<H> {
    /// Come again with more input.
    NeedMore,
    /// A message begins, or what else only this side hears of.
    Head(H),
    /// Content of a message: so many bytes at the front of the input, which the caller takes off.
    Data {
        /// Its stream.
        slot: Slot,
        /// At least one.
        bytes: usize,
    },
    /// The message is complete.
    Ended {
        /// Its stream.
        slot: Slot,
        /// The trailer section.
        trailers: Option<Headers>,
    },
    /// The stream is over: the other side does not want it any more, or has broken its rules.
    Reset {
        /// The stream.
        slot: Slot,
        /// The error code (RFC 9113 7), of whoever has reset it.
        code: u32,
    },
    /// More may be sent on one stream.
    Window {
        /// The stream.
        slot: Slot,
    },
    /// More may be sent on any stream.
    Windows,
    /// More may be sent on all streams together.
    ConnectionWindow,
    /// The other side is still there.
    Alive,
}

/// What a client asks.
#[derive(Debug)]
pub enum Asked {
    /// A request begins. It has content unless `ended`; of `length` bytes, where that is known. With the method CONNECT
    /// it asks for a WebSocket (RFC 8441).
    Request {
        /// Its stream.
        slot: Slot,
        /// The head.
        head: Box<RequestHead>,
        /// Whether nothing follows.
        ended: bool,
        /// Content-Length.
        length: Option<u64>,
        /// Whether the client waits for 100 before it sends content.
        expects: bool,
    },
    /// A request that is not one; it gets an answer all the same.
    Refused {
        /// Its stream.
        slot: Slot,
        /// What could be read of the head.
        head: Box<RequestHead>,
        /// Whether nothing follows.
        ended: bool,
        /// Why.
        error: Error,
    },
}

/// A field block whose end has not come (RFC 9113 4.3).
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ended: bool,
    bytes: Vec<u8>,
    continuations: u32,
}

/// A DATA frame whose end has not come.
#[derive(Debug)]
pub(super) struct Data {
    /// `None` where nobody wants the content any more.
    slot: Option<Slot>,
    left: usize,
    padding: usize,
    ended: bool,
}

/// An event, where there is one to tell.
pub(super) type Received<R> = Result<Option<Event<<R as Role>::Head>>, ConnectionError>;

impl<R: Role> Connection<R> {
    /// Takes the next frame, or as much of its content as is there, off the front of the input. What has to be said
    /// in answer is appended to the output.
    ///
    /// # Errors
    ///
    /// Those of the connection (RFC 9113 5.4.1): tell the other side with [`Connection::fail`] and close.
    pub fn receive(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> Result<Event<R::Head>, ConnectionError> {
        loop {
            if !self.greeted {
                let length = input.len().min(PREFACE.len());
                if input.get(..length) != PREFACE.get(..length) {
                    return Err(ConnectionError::protocol("not the preface of HTTP/2"));
                }
                if length < PREFACE.len() {
                    return Ok(Event::NeedMore);
                }
                input.advance(length);
                self.greeted = true;
            }
            if self.data.is_some() {
                match self.content(input, out) {
                    Some(event) => return Ok(event),
                    None => continue,
                }
            }
            let Some(head) = FrameHead::parse(input) else { return Ok(Event::NeedMore) };
            self.check(head)?;
            if head.kind == kind::DATA {
                match self.begin_data(head, input, out)? {
                    Some(event) => return Ok(event),
                    None => continue,
                }
            }
            let end = frame::HEAD + head.length;
            let Some(payload) = input.get(frame::HEAD..end) else { return Ok(Event::NeedMore) };
            let event = self.frame(head, payload, out)?;
            input.advance(end);
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    /// What is an error whatever the payload says.
    fn check(&self, head: FrameHead) -> Result<(), ConnectionError> {
        if head.length > MAX_PAYLOAD {
            return Err(ConnectionError::size("a frame larger than allowed"));
        }
        if !self.settled && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(ConnectionError::protocol("the first frame is not SETTINGS"));
        }
        match &self.block {
            Some(block) if head.kind != kind::CONTINUATION || head.stream != block.stream => {
                Err(ConnectionError::protocol("a field block is interrupted"))
            }
            None if head.kind == kind::CONTINUATION => {
                Err(ConnectionError::protocol("CONTINUATION without a field block"))
            }
            _ => Ok(()),
        }
    }

    fn frame(&mut self, head: FrameHead, payload: &[u8], out: &mut Vec<u8>) -> Received<R> {
        let exactly = |length: usize| match payload.len() == length {
            true => Ok(()),
            false => Err(ConnectionError::size("a frame of a wrong length")),
        };
        let of_stream = |wanted: bool| match (head.stream != 0) == wanted {
            true => Ok(()),
            false => Err(ConnectionError::protocol(
                "a frame for stream 0 that belongs to a stream, or the reverse",
            )),
        };
        match head.kind {
            kind::HEADERS => {
                of_stream(true)?;
                self.headers(head, payload, out)
            }
            kind::CONTINUATION => self.continuation(head, payload, out),
            kind::PRIORITY => {
                of_stream(true)?;
                exactly(5)?;
                self.tired().map(|()| None)
            }
            kind::RST_STREAM => {
                of_stream(true)?;
                exactly(4)?;
                self.reset_by_peer(head.stream, payload)
            }
            kind::SETTINGS => {
                of_stream(false)?;
                self.settings(head, payload, out)
            }
            kind::PING => {
                of_stream(false)?;
                exactly(8)?;
                if head.has(flag::ACK) {
                    self.acknowledged(payload, out);
                    return Ok(Some(Event::Alive));
                }
                frame::write(kind::PING, flag::ACK, 0, payload, out);
                self.tired().map(|()| None)
            }
            kind::GOAWAY => {
                of_stream(false)?;
                let &[l1, l2, l3, l4, _, _, _, _, ..] = payload else {
                    return Err(ConnectionError::size("GOAWAY of a wrong length"));
                };
                self.tired()?;
                Ok(R::goaway(self, u32::from_be_bytes([l1, l2, l3, l4]) & 0x7fff_ffff))
            }
            kind::WINDOW_UPDATE => {
                exactly(4)?;
                self.window_update(head.stream, payload, out)
            }
            kind::PUSH_PROMISE => Err(ConnectionError::protocol("nobody may push")),
            // What nobody knows is skipped (RFC 9113 4.1).
            _ => self.tired().map(|()| None),
        }
    }

    // ------------------------------------------------------------------------------------------------ content

    /// Begins a DATA frame (RFC 9113 6.1), unless more of its head has to come first.
    fn begin_data(&mut self, head: FrameHead, input: &mut BytesMut, out: &mut Vec<u8>) -> Received<R> {
        if self.is_idle(head.stream) {
            return Err(ConnectionError::protocol("DATA for a stream that was not opened"));
        }
        let padded = usize::from(head.has(flag::PADDED));
        if head.length < padded {
            return Err(ConnectionError::size("DATA without its padding length"));
        }
        let padding = match padded {
            0 => 0,
            _ => match input.get(frame::HEAD) {
                Some(&padding) => usize::from(padding),
                None => return Ok(Some(Event::NeedMore)),
            },
        };
        let Some(left) = (head.length - padded).checked_sub(padding) else {
            return Err(ConnectionError::protocol("more padding than payload"));
        };
        input.advance(frame::HEAD + padded);
        if !self.receive_window.take(head.length) {
            return Err(ConnectionError::new(Code::FlowControl, "more content than the connection's window"));
        }
        if R::IS_CLIENT {
            // What one reader leaves lying may not stop the others: each stream's own window bounds it.
            self.grant(head.length, out);
        }
        let ended = head.has(flag::END_STREAM);
        if left == 0 && !ended {
            self.tired()?;
        } else {
            self.satisfied(1);
        }
        let (slot, event) = match self.accept_data(head, left, ended, out)? {
            Ok(slot) => (slot, None),
            Err(event) => (None, Some(event)),
        };
        let unwanted = head.length - left;
        if unwanted > 0 {
            self.skipped(slot, unwanted, out);
        }
        self.data = Some(Data { slot, left, padding, ended });
        Ok(event)
    }

    /// The stream that the content is for, if it may still get any; or the end of the stream.
    fn accept_data(
        &mut self,
        head: FrameHead,
        content: usize,
        ended: bool,
        out: &mut Vec<u8>,
    ) -> Result<Result<Option<Slot>, Event<R::Head>>, ConnectionError> {
        let found = self.streams.find(head.stream);
        let Some((slot, stream)) = found.and_then(|slot| Some((slot, self.streams.get_mut(slot)?))) else {
            // It may have been on its way when the stream was reset.
            self.tired()?;
            return Ok(Ok(None));
        };
        if stream.remote_ended {
            return Err(ConnectionError::new(Code::StreamClosed, "DATA behind the end of its stream"));
        }
        if stream.awaits_head {
            return self.give_up(slot, Code::Protocol, out).map(Err);
        }
        if !stream.receive.take(head.length) {
            return self.give_up(slot, Code::FlowControl, out).map(Err);
        }
        if let Some(left) = &mut stream.length_left {
            // Content-Length and content must agree (RFC 9113 8.1.1).
            match left.checked_sub(content as u64) {
                Some(rest) if rest == 0 || !ended => *left = rest,
                _ => return self.give_up(slot, Code::Protocol, out).map(Err),
            }
        }
        Ok(Ok(Some(slot)))
    }

    /// Content that nobody will pass on counts as passed on.
    fn skipped(&mut self, slot: Option<Slot>, bytes: usize, out: &mut Vec<u8>) {
        match slot {
            Some(slot) => self.passed_on(slot, bytes, 0, out),
            None if R::IS_CLIENT => {}
            None => self.grant(bytes, out),
        }
    }

    /// The next piece of the DATA frame under way; `None` where there is nothing to tell.
    fn content(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Option<Event<R::Head>> {
        let data = self.data.as_mut()?;
        let wanted = data.slot.filter(|&slot| self.streams.get(slot).is_some_and(|stream| !stream.reset));
        if data.left > 0 {
            let bytes = input.len().min(data.left);
            if bytes == 0 {
                return Some(Event::NeedMore);
            }
            data.left -= bytes;
            let Some(slot) = wanted else {
                input.advance(bytes);
                let slot = data.slot;
                self.skipped(slot, bytes, out);
                return None;
            };
            return Some(Event::Data { slot, bytes });
        }
        let padding = input.len().min(data.padding);
        input.advance(padding);
        data.padding -= padding;
        if data.padding > 0 {
            return Some(Event::NeedMore);
        }
        let Data { slot, ended, .. } = self.data.take()?;
        let slot = slot?;
        let stream = self.streams.get_mut(slot)?;
        if stream.reset || !ended {
            return None;
        }
        stream.remote_ended = true;
        self.streams.settle(slot);
        Some(Event::Ended { slot, trailers: None })
    }

    // -------------------------------------------------------------------------------------------------- heads

    /// HEADERS: a request, or the trailer section of one (RFC 9113 6.2).
    fn headers(&mut self, head: FrameHead, payload: &[u8], out: &mut Vec<u8>) -> Received<R> {
        if head.stream.is_multiple_of(2) {
            return Err(ConnectionError::protocol("a stream number of the server's"));
        }
        let short = ConnectionError::size("HEADERS of a wrong length");
        let (padding, rest) = match head.has(flag::PADDED) {
            true => {
                payload.split_first().map(|(&padding, rest)| (usize::from(padding), rest)).ok_or(short)?
            }
            false => (0, payload),
        };
        // Priorities are advice that is not taken (RFC 9113 5.3.2).
        let rest = if head.has(flag::PRIORITY) { rest.get(5..).ok_or(short)? } else { rest };
        let fragment = rest
            .len()
            .checked_sub(padding)
            .and_then(|end| rest.get(..end))
            .ok_or(ConnectionError::protocol("more padding than payload"))?;
        let ended = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return R::block(self, head.stream, ended, fragment, out);
        }
        self.block = Some(Block { stream: head.stream, ended, bytes: fragment.to_vec(), continuations: 0 });
        Ok(None)
    }

    fn continuation(&mut self, head: FrameHead, payload: &[u8], out: &mut Vec<u8>) -> Received<R> {
        let Some(mut block) = self.block.take() else { return Ok(None) };
        block.continuations += 1;
        block.bytes.extend_from_slice(payload);
        if block.continuations > MOST_CONTINUATIONS
            || block.bytes.len() > self.limits.head.head_bytes + MAX_PAYLOAD
        {
            return Err(ConnectionError::new(Code::EnhanceYourCalm, "a field block without end"));
        }
        if head.has(flag::END_HEADERS) {
            return R::block(self, block.stream, block.ended, &block.bytes, out);
        }
        self.block = Some(block);
        Ok(None)
    }

    /// Decodes a whole field block, whatever it is for: the compression has a state (RFC 7541 2.2).
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), ConnectionError> {
        let broken = |_| ConnectionError::new(Code::Compression, "a field block that cannot be decoded");
        self.decoder.decode(block, field).map_err(broken)
    }

    /// A field block behind the head of its message.
    pub(super) fn trailers(&mut self, id: u32, ended: bool, block: &[u8], out: &mut Vec<u8>) -> Received<R> {
        let mut trailers = Trailers::new(&self.limits.head);
        self.decode(block, |name, value| trailers.field(name, value))?;
        let Some(slot) = self.streams.find(id) else {
            self.tired()?;
            frame::write_reset(id, Code::StreamClosed, out);
            return Ok(None);
        };
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(None) };
        if stream.remote_ended {
            return Err(ConnectionError::new(Code::StreamClosed, "HEADERS behind the end of their stream"));
        }
        if !ended || trailers.malformed || stream.length_left.is_some_and(|left| left > 0) {
            return self.give_up(slot, Code::Protocol, out).map(Some);
        }
        stream.remote_ended = true;
        self.streams.settle(slot);
        let headers = trailers.headers;
        Ok(Some(Event::Ended { slot, trailers: (!headers.is_empty()).then_some(headers) }))
    }

    // ------------------------------------------------------------------------------------------------ control

    fn reset_by_peer(&mut self, id: u32, payload: &[u8]) -> Received<R> {
        let code = payload.first_chunk().map_or(0, |&code| u32::from_be_bytes(code));
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("RST_STREAM for a stream that was not opened"));
        }
        self.tired()?;
        let Some(slot) = self.streams.find(id) else { return Ok(None) };
        self.lost()?;
        if let Some(stream) = self.streams.get_mut(slot) {
            stream.reset = true;
        }
        self.streams.settle(slot);
        Ok(Some(Event::Reset { slot, code }))
    }

    fn settings(&mut self, head: FrameHead, payload: &[u8], out: &mut Vec<u8>) -> Received<R> {
        if head.has(flag::ACK) {
            return match payload.is_empty() {
                true => self.tired().map(|()| None),
                false => Err(ConnectionError::size("an acknowledgement of SETTINGS with a payload")),
            };
        }
        self.tired()?;
        self.settled = true;
        let changed = self.peer.apply(payload)?;
        if let Some(size) = changed.table_size {
            self.encoder.limit(size);
        }
        settings::write_ack(out);
        if changed.window == 0 {
            return Ok(None);
        }
        if !self.streams.iter_mut().all(|stream| stream.send.add(changed.window)) {
            return Err(ConnectionError::new(Code::FlowControl, "a window beyond 2^31-1"));
        }
        Ok(Some(Event::Windows))
    }

    fn window_update(&mut self, id: u32, payload: &[u8], out: &mut Vec<u8>) -> Received<R> {
        let &[i1, i2, i3, i4] = payload else {
            return Err(ConnectionError::size("WINDOW_UPDATE of a wrong length"));
        };
        let increment = u32::from_be_bytes([i1, i2, i3, i4]) & 0x7fff_ffff;
        self.tired()?;
        if id == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE by nothing"));
            }
            if !self.send.add(increment.into()) {
                return Err(ConnectionError::new(Code::FlowControl, "a window beyond 2^31-1"));
            }
            return Ok(Some(Event::ConnectionWindow));
        }
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("WINDOW_UPDATE for a stream that was not opened"));
        }
        let Some(slot) = self.streams.find(id) else { return Ok(None) };
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(None) };
        let code = match increment {
            0 => Some(Code::Protocol),
            _ => (!stream.send.add(increment.into())).then_some(Code::FlowControl),
        };
        match code {
            None => Ok(Some(Event::Window { slot })),
            Some(code) => self.give_up(slot, code, out).map(Some),
        }
    }

    // ------------------------------------------------------------------------------------------------ streams

    /// Whether no frame but HEADERS and PRIORITY can be meant for a stream of this number (RFC 9113 5.1).
    pub(super) fn is_idle(&self, id: u32) -> bool {
        id > self.last_id || id.is_multiple_of(2)
    }

    /// Ends a stream on which the other side has made an error (RFC 9113 5.4.2).
    pub(super) fn give_up(
        &mut self,
        slot: Slot,
        code: Code,
        out: &mut Vec<u8>,
    ) -> Result<Event<R::Head>, ConnectionError> {
        self.lost()?;
        self.reset(slot, code, out);
        Ok(Event::Reset { slot, code: code as u32 })
    }
}

impl Role for Server {
    const IS_CLIENT: bool = false;
    type Head = Asked;

    /// A request, or the trailer section of one.
    fn block(
        connection: &mut Connection,
        id: u32,
        ended: bool,
        block: &[u8],
        out: &mut Vec<u8>,
    ) -> Received<Self> {
        if id <= connection.last_id {
            return connection.trailers(id, ended, block, out);
        }
        connection.last_id = id;
        let mut request = Request::new(Version::Http2, &connection.limits.head);
        connection.decode(block, |name, value| request.field(name, value))?;
        if connection.has_left() {
            return connection.tired().map(|()| None);
        }
        if connection.streams.len() >= connection.limits.streams as usize {
            connection.tired()?;
            frame::write_reset(id, Code::RefusedStream, out);
            return Ok(None);
        }
        let read = request.finish();
        let window = connection.limits.stream_window;
        let slot = connection.streams.insert(Stream {
            id,
            remote_ended: ended,
            local_ended: false,
            reset: false,
            awaits_head: false,
            is_head: false,
            send: SendWindow::new(connection.peer.initial_window),
            receive: ReceiveWindow::new(window, connection.limits.largest_window),
            length_left: read.length.filter(|_| !ended),
        });
        let mismatch = ended && read.length.is_some_and(|length| length > 0);
        let flaw = read.flaw.or(mismatch.then_some(Error::Head(HeadError::Length)));
        Ok(Some(Event::Head(match flaw {
            Some(error) => Asked::Refused { slot, head: read.head, ended, error },
            None => {
                let expects = read.expects && !ended;
                Asked::Request { slot, head: read.head, ended, length: read.length, expects }
            }
        })))
    }

    fn goaway(_: &mut Connection, _: u32) -> Option<Event<Asked>> {
        None
    }
}
