//! The state of one connection, and what either side sends on it.

use std::marker::PhantomData;

use crate::field::is_connection_specific;
use crate::h1;
use crate::message::{Headers, ResponseHead};

use super::error::{Code, ConnectionError};
use super::flow::{ReceiveWindow, SendWindow};
use super::frame::{self, FrameHead, MAX_PAYLOAD, flag, kind};
use super::hpack::{Decoder, Encoder};
use super::receive::{Block, Data};
use super::role::{Role, Server};
use super::settings::{self, Peer};
use super::streams::{Slot, Streams};

/// Size of the client's compression table: the default, which needs no setting (RFC 9113 6.5.2).
const TABLE_SIZE: usize = 4096;
/// The window every connection begins with (RFC 9113 6.9.2).
const FIRST_WINDOW: u32 = 65_535;
/// How much a client may make us do for nothing before the connection ends: refused streams and frames that move
/// nothing, each worth one; what moves something pays back.
const PATIENCE: u32 = 2000;
/// How many more requests than were answered a client may give up, or make us give up, before the connection ends: they
/// cost an RS far more than the client. Only answers pay back.
const LOSSES: u32 = 500;
/// What the end of the grace period is told by (RFC 9113 6.8).
const GRACE: [u8; 8] = *b"goodbye\0";
/// What an idle client is asked with.
const ALIVE: [u8; 8] = *b"alive?\0\0";

/// What a connection may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Streams at a time.
    pub streams: u32,
    /// Window of a stream at first, bytes.
    pub stream_window: u32,
    /// Window of the connection at first, bytes: several streams whose readers are slow leave room for others.
    pub connection_window: u32,
    /// Window that a stream or the connection may grow to, bytes.
    pub largest_window: u32,
    /// Bytes and fields of a head, bytes of a target and of trailers.
    pub head: h1::Limits,
}

/// One side of a connection.
#[derive(Debug)]
pub struct Connection<R = Server> {
    pub(super) limits: Limits,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) streams: Streams,
    /// The largest stream number so far; only clients open streams.
    pub(super) last_id: u32,
    pub(super) peer: Peer,
    pub(super) send: SendWindow,
    pub(super) receive_window: ReceiveWindow,
    /// The preface has come, and the first SETTINGS.
    pub(super) greeted: bool,
    pub(super) settled: bool,
    pub(super) block: Option<Block>,
    pub(super) data: Option<Data>,
    patience: u32,
    losses: u32,
    leaving: Leaving,
    role: PhantomData<R>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Announced; streams that are on their way already are served.
    Announced,
    /// No stream behind this one is served.
    Final(u32),
}

impl Connection {
    /// Begins: the settings are the first thing that is sent (RFC 9113 3.4).
    pub fn new(limits: Limits, out: &mut Vec<u8>) -> Self {
        let own =
            [(settings::MAX_CONCURRENT_STREAMS, limits.streams), (settings::ENABLE_CONNECT_PROTOCOL, 1)];
        Self::begin(&own, limits, out)
    }

    /// Appends an interim response (RFC 9113 8.1).
    pub fn send_interim(&mut self, slot: Slot, head: &ResponseHead, out: &mut Vec<u8>) {
        let start = self.begin_block(out);
        self.encode_head(head, &Headers::new(), out);
        self.end_block(slot, start, false, out);
    }

    /// Appends the head of a final response. With `end` nothing follows.
    pub fn send_head(
        &mut self,
        slot: Slot,
        head: &ResponseHead,
        extra: &Headers,
        end: bool,
        out: &mut Vec<u8>,
    ) {
        let start = self.begin_block(out);
        self.encode_head(head, extra, out);
        self.end_block(slot, start, end, out);
        self.satisfied(2);
        self.losses = self.losses.saturating_sub(1);
    }
}

impl<R: Role> Connection<R> {
    /// Begins with these settings besides those of every side.
    pub(super) fn begin(own: &[(u16, u32)], limits: Limits, out: &mut Vec<u8>) -> Self {
        let list_size = u32::try_from(limits.head.head_bytes).unwrap_or(u32::MAX);
        settings::write_own(own, limits.stream_window, list_size, out);
        let window = limits.connection_window.max(FIRST_WINDOW + 1);
        frame::write_window_update(0, window - FIRST_WINDOW, out);
        Self {
            decoder: Decoder::new(TABLE_SIZE),
            encoder: Encoder::new(),
            streams: Streams::default(),
            last_id: 0,
            peer: Peer::default(),
            send: SendWindow::new(FIRST_WINDOW),
            receive_window: ReceiveWindow::new(window, limits.largest_window),
            greeted: R::IS_CLIENT,
            settled: false,
            block: None,
            data: None,
            patience: PATIENCE,
            losses: 0,
            leaving: Leaving::No,
            role: PhantomData,
            limits,
        }
    }

    /// Streams that are not released.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether the rest of a head is awaited.
    pub fn awaits_head(&self) -> bool {
        !self.settled || self.block.is_some()
    }

    /// Whether content of a message is under way.
    pub fn receives_content(&self) -> bool {
        self.data.is_some()
    }

    /// Appends the trailer section of a message; nothing follows.
    pub fn send_trailers(&mut self, slot: Slot, trailers: &Headers, out: &mut Vec<u8>) {
        let start = self.begin_block(out);
        for (name, value) in trailers.iter() {
            self.encoder.encode(name, value, out);
        }
        self.end_block(slot, start, true, out);
    }

    /// Bytes of content that the other side takes on a stream.
    pub fn stream_window(&self, slot: Slot) -> usize {
        self.streams.get(slot).map_or(0, |stream| stream.send.room())
    }

    /// Bytes of content that the other side takes on all streams together.
    pub fn window(&self) -> usize {
        self.send.room()
    }

    /// Bytes of content that may be sent in the next frame of a stream.
    pub fn room(&self, slot: Slot) -> usize {
        self.stream_window(slot).min(self.window()).min(self.peer.max_payload)
    }

    /// Appends the head of a DATA frame, behind which so many bytes of content are to follow.
    pub fn send_data(&mut self, slot: Slot, length: usize, end: bool, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.send.take(length);
        stream.local_ended |= end;
        self.send.take(length);
        let flags = if end { flag::END_STREAM } else { 0 };
        let head = FrameHead { length, kind: kind::DATA, flags, stream: stream.id };
        out.extend_from_slice(&head.bytes());
        self.satisfied(4);
        self.streams.settle(slot);
    }

    /// Ends a stream that is not over yet (RFC 9113 6.4).
    pub fn reset(&mut self, slot: Slot, code: Code, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        if !(stream.reset || stream.local_ended && stream.remote_ended) {
            frame::write_reset(stream.id, code, out);
        }
        stream.reset = true;
        self.streams.settle(slot);
    }

    /// Forgets a stream, whose slot may be given to another one then.
    pub fn release(&mut self, slot: Slot, out: &mut Vec<u8>) {
        self.reset(slot, Code::Cancel, out);
        self.streams.release(slot);
    }

    /// Content of a message was passed on, while `waiting` bytes of the stream were not yet: the other side may send
    /// more.
    pub fn passed_on(&mut self, slot: Slot, bytes: usize, waiting: usize, out: &mut Vec<u8>) {
        if !R::IS_CLIENT
            && let Some(grant) = self.receive_window.pass_on(bytes, waiting)
        {
            frame::write_window_update(0, grant, out);
        }
        let Some(stream) = self.streams.get_mut(slot) else { return };
        if stream.remote_ended || stream.reset {
            return;
        }
        if let Some(grant) = stream.receive.pass_on(bytes, waiting) {
            frame::write_window_update(stream.id, grant, out);
        }
    }

    /// The other side may send so much more on all streams together.
    pub(super) fn grant(&mut self, bytes: usize, out: &mut Vec<u8>) {
        if let Some(grant) = self.receive_window.pass_on(bytes, 0) {
            frame::write_window_update(0, grant, out);
        }
    }

    /// The largest number of a stream of the other side that is served.
    fn last_served(&self) -> u32 {
        if R::IS_CLIENT { 0 } else { self.last_id }
    }

    /// Takes no further stream, for the other side has said so or this one has.
    pub(super) fn has_ended(&mut self) {
        self.leaving = Leaving::Final(self.last_served());
    }

    /// Serves no further stream, whether or not the client has confirmed that it knows.
    pub fn leave_now(&mut self, out: &mut Vec<u8>) {
        if !self.has_left() {
            self.has_ended();
            frame::write_goaway(self.last_served(), Code::NoError, out);
        }
    }

    /// Announces that this side leaves: the client opens no further streams, and those on their way are served
    /// until it has confirmed (RFC 9113 6.8).
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Announced;
            frame::write_goaway(0x7fff_ffff, Code::NoError, out);
            frame::write(kind::PING, 0, 0, &GRACE, out);
        }
    }

    /// Whether no further stream is served.
    pub fn has_left(&self) -> bool {
        matches!(self.leaving, Leaving::Final(_))
    }

    /// Ends the connection for a reason.
    pub fn fail(&mut self, error: ConnectionError, out: &mut Vec<u8>) {
        // What was said once about streams that are not served is not taken back (RFC 9113 6.8).
        let last = if let Leaving::Final(last) = self.leaving { last } else { self.last_served() };
        self.leaving = Leaving::Final(last);
        frame::write_goaway(last, error.code, out);
    }

    /// Asks whether the client is still there.
    pub fn ask_alive(&self, out: &mut Vec<u8>) {
        frame::write(kind::PING, 0, 0, &ALIVE, out);
    }

    /// A PING of ours came back.
    pub(super) fn acknowledged(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if payload == GRACE && self.leaving == Leaving::Announced {
            self.leave_now(out);
        }
    }

    /// The other side has made us do something for nothing.
    pub(super) fn tired(&mut self) -> Result<(), ConnectionError> {
        let flood = ConnectionError::new(Code::EnhanceYourCalm, "too many frames that move nothing");
        self.patience = self.patience.checked_sub(1).ok_or(flood)?;
        Ok(())
    }

    /// The client has given up a request, or made us do so, by frames that are as cheap as they can be. An RS may: it
    /// was asked.
    pub(super) fn lost(&mut self) -> Result<(), ConnectionError> {
        if R::IS_CLIENT {
            return Ok(());
        }
        self.losses += 1;
        match self.losses <= LOSSES {
            true => Ok(()),
            false => Err(ConnectionError::new(Code::EnhanceYourCalm, "too many requests that are given up")),
        }
    }

    /// The other side has been of use.
    pub(super) fn satisfied(&mut self, worth: u32) {
        self.patience = (self.patience + worth).min(PATIENCE);
    }

    fn encode_head(&mut self, head: &ResponseHead, extra: &Headers, out: &mut Vec<u8>) {
        self.encoder.status(head.status.as_u16(), out);
        for (name, value) in head.headers.iter().chain(extra.iter()) {
            if !is_connection_specific(name) {
                self.encoder.encode(name, value, out);
            }
        }
    }

    pub(super) fn begin_block(&mut self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.extend_from_slice(&[0; frame::HEAD]);
        self.encoder.begin(out);
        start
    }

    /// Puts the heads of HEADERS and, where the block is too large for one frame, CONTINUATION before its parts
    /// (RFC 9113 4.3).
    pub(super) fn end_block(&mut self, slot: Slot, start: usize, end: bool, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(slot) else { return out.truncate(start) };
        stream.local_ended |= end;
        let id = stream.id;
        let first = start + frame::HEAD;
        let length = out.len().saturating_sub(first);
        let end_stream = if end { flag::END_STREAM } else { 0 };
        let whole = length <= MAX_PAYLOAD;
        let flags = end_stream | if whole { flag::END_HEADERS } else { 0 };
        let head = FrameHead { length: length.min(MAX_PAYLOAD), kind: kind::HEADERS, flags, stream: id };
        if let Some(place) = out.get_mut(start..first) {
            place.copy_from_slice(&head.bytes());
        }
        if !whole {
            let rest = out.split_off(first + MAX_PAYLOAD);
            let mut parts = rest.chunks(MAX_PAYLOAD).peekable();
            while let Some(part) = parts.next() {
                let flags = if parts.peek().is_none() { flag::END_HEADERS } else { 0 };
                frame::write(kind::CONTINUATION, flags, id, part, out);
            }
        }
        self.streams.settle(slot);
    }
}
