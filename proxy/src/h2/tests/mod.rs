//! A connection as a client makes it, byte by byte: what is an error of the connection, of a stream, or only an answer;
//! what floods cost; what is sent; and that bytes in pieces mean the same as bytes at once.

mod client;
mod errors;
mod floods;
mod pieces;
mod requests;
mod sending;

use bytes::{Buf as _, BytesMut};

use super::frame::{FrameHead, MAX_PAYLOAD, flag, kind};
use super::*;
use crate::h1;
use crate::message::{Headers, RequestHead, ResponseHead};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END: u8 = flag::END_STREAM | flag::END_HEADERS;
/// A request without content.
const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/")];

fn limits() -> Limits {
    let head = h1::Limits { head_bytes: 4096, fields: 16, target_bytes: 100, ..h1::Limits::default() };
    Limits { streams: 4, stream_window: 100_000, connection_window: 100_000, largest_window: 400_000, head }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [&FrameHead { length: payload.len(), kind, flags, stream }.bytes()[..], payload].concat()
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A field block of literals that no table keeps.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            match text.len() {
                length @ ..127 => out.push(length as u8),
                length => {
                    let mut rest = length - 127;
                    out.push(127);
                    while rest >= 128 {
                        out.push(rest as u8 | 128);
                        rest /= 128;
                    }
                    out.push(rest as u8);
                }
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

fn get(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, END, stream, block(GET))
}

fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, block(&[POST, more].concat()))
}

fn data(stream: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    frame(kind::DATA, 0, stream, content)
}

fn last_data(stream: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    frame(kind::DATA, flag::END_STREAM, stream, content)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, [0, 0, 0, 8])
}

fn update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

/// A connection, what comes in and what goes out.
struct Wire {
    connection: Connection,
    input: BytesMut,
    out: Vec<u8>,
}

/// What has happened, in words; content that follows content is one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Request(usize, RequestHead, bool, Option<u64>),
    Refused(usize, bool, String),
    Data(usize, Vec<u8>),
    Ended(usize, Option<Headers>),
    Reset(usize),
    Window(usize),
    Windows,
    ConnectionWindow,
    Alive,
}

impl Wire {
    /// Nothing has come yet; the own settings are taken off the output.
    fn silent() -> Self {
        let mut out = Vec::new();
        let connection = Connection::new(limits(), &mut out);
        out.clear();
        Self { connection, input: BytesMut::new(), out }
    }

    /// Settled.
    fn new() -> Self {
        let mut wire = Self::silent();
        wire.input.extend_from_slice(PREFACE);
        wire.input.extend_from_slice(&frame(kind::SETTINGS, 0, 0, []));
        assert_eq!(wire.take().unwrap(), []);
        assert_eq!(wire.answers(), [(kind::SETTINGS, flag::ACK, 0, vec![])]);
        wire
    }

    /// Everything that is in the input, all content passed on at once.
    fn take(&mut self) -> Result<Vec<Seen>, ConnectionError> {
        let mut seen = Vec::new();
        self.take_into(&mut seen).map(|()| seen)
    }

    fn take_into(&mut self, seen: &mut Vec<Seen>) -> Result<(), ConnectionError> {
        loop {
            let event = match self.connection.receive(&mut self.input, &mut self.out)? {
                Event::NeedMore => return Ok(()),
                Event::Head(Asked::Request { slot, head, ended, length, .. }) => {
                    Seen::Request(slot.index(), *head, ended, length)
                }
                Event::Head(Asked::Refused { slot, ended, error, .. }) => {
                    Seen::Refused(slot.index(), ended, error.code().to_owned())
                }
                Event::Data { slot, bytes } => {
                    assert!(bytes > 0 && bytes <= self.input.len());
                    let content = self.input.split_to(bytes);
                    self.connection.passed_on(slot, bytes, 0, &mut self.out);
                    match seen.last_mut() {
                        Some(Seen::Data(last, before)) if *last == slot.index() => {
                            before.extend_from_slice(&content);
                            continue;
                        }
                        _ => Seen::Data(slot.index(), content.to_vec()),
                    }
                }
                Event::Ended { slot, trailers } => Seen::Ended(slot.index(), trailers),
                Event::Reset { slot, .. } => Seen::Reset(slot.index()),
                Event::Window { slot } => Seen::Window(slot.index()),
                Event::Windows => Seen::Windows,
                Event::ConnectionWindow => Seen::ConnectionWindow,
                Event::Alive => Seen::Alive,
            };
            seen.push(event);
        }
    }

    fn feed(&mut self, bytes: impl AsRef<[u8]>) -> Result<Vec<Seen>, ConnectionError> {
        self.input.extend_from_slice(bytes.as_ref());
        self.take()
    }

    /// Feeds what is no error of the connection.
    fn good(&mut self, bytes: impl AsRef<[u8]>) -> Vec<Seen> {
        self.feed(bytes).unwrap()
    }

    /// Feeds a request on a stream and returns its slot.
    fn open(&mut self, bytes: impl AsRef<[u8]>) -> Slot {
        self.input.extend_from_slice(bytes.as_ref());
        match self.connection.receive(&mut self.input, &mut self.out).unwrap() {
            Event::Head(Asked::Request { slot, .. } | Asked::Refused { slot, .. }) => slot,
            event => panic!("{event:?}"),
        }
    }

    /// Takes the frames off the output.
    fn answers(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut rest = &std::mem::take(&mut self.out)[..];
        while let Some(head) = FrameHead::parse(rest) {
            let end = 9 + head.length;
            frames.push((head.kind, head.flags, head.stream, rest[9..end].to_vec()));
            rest.advance(end);
        }
        assert!(rest.is_empty());
        frames
    }

    /// The only thing in the output is RST_STREAM.
    fn assert_reset(&mut self, stream: u32, code: Code) {
        let code = (code as u32).to_be_bytes().to_vec();
        assert_eq!(self.answers(), [(kind::RST_STREAM, 0, stream, code)]);
    }
}

fn request(seen: &[Seen]) -> &RequestHead {
    match seen {
        [Seen::Request(_, head, ..)] => head,
        _ => panic!("{seen:?}"),
    }
}
