//! The client's side: requests out, heads of responses in (RFC 9113 8).

use http::{Method, StatusCode};

use crate::field::head::{FIELD_COST, Response};
use crate::field::is_connection_specific;
use crate::h1::HeadError;
use crate::message::{RequestHead, ResponseHead};

use super::connection::{Connection, Limits};
use super::error::{Code, ConnectionError};
use super::flow::{ReceiveWindow, SendWindow};
use super::receive::{Event, PREFACE, Received};
use super::role::{Client, Role};
use super::settings;
use super::streams::{Slot, Stream};

/// Above this number no stream is opened: a new connection has room (RFC 9113 5.1.1).
const LAST_STREAM: u32 = 0x7fff_fffd;

/// What a server answers.
#[derive(Debug)]
pub enum Answered {
    /// A response begins. It has content unless `ended`; of `length` bytes, where that is known.
    Response {
        /// Its stream.
        slot: Slot,
        /// The head.
        head: Box<ResponseHead>,
        /// Whether nothing follows.
        ended: bool,
        /// Bytes of content.
        length: Option<u64>,
    },
    /// An interim response (RFC 9110 15.2).
    Interim {
        /// Its stream.
        slot: Slot,
        /// The head.
        head: Box<ResponseHead>,
    },
    /// What is no response; the stream is over.
    Malformed {
        /// The stream.
        slot: Slot,
        /// Why.
        error: HeadError,
    },
    /// The server takes no further streams, and has done nothing for some (RFC 9113 6.8).
    Leaving {
        /// These, which are over.
        refused: Vec<Slot>,
    },
}

impl Connection<Client> {
    /// Begins: the preface, and the settings (RFC 9113 3.4).
    pub fn connect(limits: Limits, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        Self::begin(&[(settings::ENABLE_PUSH, 0)], limits, out)
    }

    /// Whether the server takes one more stream now.
    pub fn can_open(&self) -> bool {
        let most = self.peer.streams.min(self.limits.streams);
        !self.has_left() && self.streams.len() < most as usize && self.last_id < LAST_STREAM
    }

    /// Whether a server that says how large a field section may be takes this one (RFC 9113 10.5.1).
    pub fn takes(&self, head: &RequestHead) -> bool {
        let Some(most) = self.peer.list_size else { return true };
        let pseudo = [head.method.as_str(), &head.authority, &head.target, "https"];
        let names = ":method:authority:path:scheme".len();
        let first = names + pseudo.iter().map(|text| text.len() + FIELD_COST).sum::<usize>();
        let cost = |(name, value): (&[u8], &[u8])| name.len() + value.len() + FIELD_COST;
        first + head.headers.iter().map(cost).sum::<usize>() <= most as usize
    }

    /// Opens a stream with the head of a request, whose content has `length` bytes where that is to be said. With
    /// `end` nothing follows. Nothing happens where no stream can be opened.
    pub fn open(
        &mut self,
        head: &RequestHead,
        scheme: &str,
        length: Option<u64>,
        end: bool,
        out: &mut Vec<u8>,
    ) -> Option<Slot> {
        if !self.can_open() {
            return None;
        }
        // The first is 1, and every other one is the server's (RFC 9113 5.1.1).
        self.last_id += if self.last_id == 0 { 1 } else { 2 };
        let slot = self.streams.insert(Stream {
            id: self.last_id,
            remote_ended: false,
            local_ended: false,
            reset: false,
            awaits_head: true,
            is_head: head.method == Method::HEAD,
            send: SendWindow::new(self.peer.initial_window),
            receive: ReceiveWindow::new(self.limits.stream_window, self.limits.largest_window),
            length_left: None,
        });
        let start = self.begin_block(out);
        self.encoder.request(head.method.as_str(), scheme, &head.authority, &head.target, out);
        for (name, value) in head.headers.iter().filter(|(name, _)| !is_connection_specific(name)) {
            self.encoder.encode(name, value, out);
        }
        if let Some(length) = length {
            self.encoder.encode(b"content-length", length.to_string().as_bytes(), out);
        }
        self.end_block(slot, start, end, out);
        self.satisfied(2);
        Some(slot)
    }
}

impl Role for Client {
    const IS_CLIENT: bool = true;
    type Head = Answered;

    /// An interim response, a response, or the trailer section of one.
    fn block(
        connection: &mut Connection<Self>,
        id: u32,
        ended: bool,
        block: &[u8],
        out: &mut Vec<u8>,
    ) -> Received<Self> {
        if connection.is_idle(id) {
            return Err(ConnectionError::protocol("HEADERS for a stream that was not opened"));
        }
        let Some(slot) = connection.streams.find(id) else {
            // It may have been on its way when the stream was reset.
            connection.decode(block, |_, _| {})?;
            return connection.tired().map(|()| None);
        };
        if !connection.streams.get(slot).is_some_and(|stream| stream.awaits_head) {
            return connection.trailers(id, ended, block, out);
        }
        let mut response = Response::new(&connection.limits.head);
        connection.decode(block, |name, value| response.field(name, value))?;
        connection.satisfied(2);
        let read = response.finish();
        let Some(stream) = connection.streams.get_mut(slot) else { return Ok(None) };
        let answered = read.and_then(|(head, length)| {
            if head.status.is_informational() {
                // No protocol is switched to in HTTP/2 (RFC 9113 8.6).
                let fits = !ended && head.status != StatusCode::SWITCHING_PROTOCOLS;
                return if fits { Ok(Answered::Interim { slot, head }) } else { Err(HeadError::StatusLine) };
            }
            let bodiless =
                stream.is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            let length = if bodiless { Some(0) } else { length };
            if ended && length.is_some_and(|length| length > 0) {
                return Err(HeadError::Length);
            }
            stream.awaits_head = false;
            stream.remote_ended = ended;
            stream.length_left = length;
            Ok(Answered::Response { slot, head, ended, length: if ended { Some(0) } else { length } })
        });
        connection.streams.settle(slot);
        Ok(Some(Event::Head(match answered {
            Ok(answered) => answered,
            Err(error) => {
                connection.reset(slot, Code::Protocol, out);
                Answered::Malformed { slot, error }
            }
        })))
    }

    fn goaway(connection: &mut Connection<Self>, last: u32) -> Option<Event<Answered>> {
        connection.has_ended();
        let refused: Vec<Slot> = connection.streams.above(last).collect();
        for &slot in &refused {
            if let Some(stream) = connection.streams.get_mut(slot) {
                stream.reset = true;
            }
            connection.streams.settle(slot);
        }
        Some(Event::Head(Answered::Leaving { refused }))
    }
}
