//! A connection as a client makes it, byte by byte: what is an error of the connection, of a stream, or only an answer;
//! what floods cost; what is sent; and that bytes in pieces mean the same as bytes at once.

use bytes::{Buf as _, BytesMut};
use http::StatusCode;
use proptest::prelude::*;

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
    Limits { streams: 4, stream_window: 100_000, largest_window: 400_000, head }
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
                Event::Request { slot, head, ended, length } => {
                    Seen::Request(slot.index(), *head, ended, length)
                }
                Event::Refused { slot, ended, error, .. } => {
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
                Event::Reset { slot } => Seen::Reset(slot.index()),
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
            Event::Request { slot, .. } | Event::Refused { slot, .. } => slot,
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

#[test]
fn the_beginning() {
    let mut out = Vec::new();
    Connection::new(limits(), &mut out);
    let mut wire = Wire { out, ..Wire::silent() };
    let settings = [setting(3, 4), setting(4, 100_000), setting(6, 4096)].concat();
    let more = (100_000_u32 - 65_535).to_be_bytes().to_vec();
    assert_eq!(wire.answers(), [(kind::SETTINGS, 0, 0, settings), (kind::WINDOW_UPDATE, 0, 0, more)]);
    for (bytes, code) in [
        (&b"GET / HTTP/1.1\r\n"[..], Code::Protocol),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", Code::Protocol),
        (&[PREFACE, &get(1)].concat(), Code::Protocol),
        (&[PREFACE, &frame(kind::PING, 0, 0, [0; 8])].concat(), Code::Protocol),
        (&[PREFACE, &frame(99, 0, 0, [])].concat(), Code::Protocol),
        (&[PREFACE, &frame(kind::SETTINGS, flag::ACK, 0, [])].concat(), Code::Protocol),
        (&[PREFACE, PREFACE].concat(), Code::FrameSize),
    ] {
        assert_eq!(Wire::silent().feed(bytes).unwrap_err().code, code, "{bytes:?}");
    }
    let mut wire = Wire::silent();
    for &byte in PREFACE {
        assert!(wire.connection.awaits_head());
        assert_eq!(wire.feed([byte]), Ok(vec![]));
    }
    assert_eq!(wire.feed(frame(kind::SETTINGS, 0, 0, setting(0xabcd, 7))), Ok(vec![]));
    assert!(!wire.connection.awaits_head());
}

/// Behind a GET on stream 1 and a POST on stream 3 that is not over.
#[test]
fn errors_of_the_connection() {
    use Code::*;
    let headers = |flags, stream| frame(kind::HEADERS, flags, stream, block(GET));
    let open = headers(0, 5);
    let pushed = |name, value| frame(kind::SETTINGS, 0, 0, setting(name, value));
    for (what, bytes, code) in [
        ("a frame too large", frame(kind::DATA, 0, 3, vec![0; MAX_PAYLOAD + 1]), FrameSize),
        ("an unknown one too large", frame(99, 0, 3, vec![0; MAX_PAYLOAD + 1]), FrameSize),
        ("DATA in a block", [&open[..], &data(3, "a")].concat(), Protocol),
        ("HEADERS in a block", [&open[..], &open].concat(), Protocol),
        ("PING in a block", [&open[..], &frame(kind::PING, 0, 0, [0; 8])].concat(), Protocol),
        ("an unknown frame in a block", [&open[..], &frame(99, 0, 5, [])].concat(), Protocol),
        ("another block", [&open[..], &frame(kind::CONTINUATION, 4, 3, [])].concat(), Protocol),
        ("CONTINUATION alone", frame(kind::CONTINUATION, 4, 5, []), Protocol),
        ("CONTINUATION behind the end", [&headers(END, 5)[..], &frame(9, 4, 5, [])].concat(), Protocol),
        ("HEADERS on stream 0", headers(END, 0), Protocol),
        ("HEADERS on stream 2", headers(END, 2), Protocol),
        ("HEADERS on stream 6", headers(END, 6), Protocol),
        ("HEADERS behind the end", headers(END, 1), StreamClosed),
        ("DATA on stream 0", data(0, "a"), Protocol),
        ("DATA on stream 2", data(2, "a"), Protocol),
        ("DATA on an idle stream", data(5, "a"), Protocol),
        ("DATA behind the end", data(1, "a"), StreamClosed),
        ("DATA of padding alone", frame(kind::DATA, flag::PADDED, 3, [1]), Protocol),
        ("DATA with too much padding", frame(kind::DATA, flag::PADDED, 3, [3, 0, 0]), Protocol),
        ("DATA without its padding length", frame(kind::DATA, flag::PADDED, 3, []), FrameSize),
        ("HEADERS with too much padding", frame(kind::HEADERS, END | flag::PADDED, 5, [2, 0x82]), Protocol),
        ("HEADERS without its padding length", frame(kind::HEADERS, END | flag::PADDED, 5, []), FrameSize),
        ("HEADERS with a cut priority", frame(kind::HEADERS, END | flag::PRIORITY, 5, [0; 4]), FrameSize),
        ("a block with index 0", frame(kind::HEADERS, END, 5, [0x80]), Compression),
        ("a cut block", frame(kind::HEADERS, END, 5, [0, 9]), Compression),
        ("a block of trailers with index 0", frame(kind::HEADERS, END, 3, [0x80]), Compression),
        ("a table larger than allowed", frame(kind::HEADERS, END, 5, [0x3f, 0xe2, 0x1f]), Compression),
        ("PRIORITY on stream 0", frame(kind::PRIORITY, 0, 0, [0; 5]), Protocol),
        ("PRIORITY of 4 bytes", frame(kind::PRIORITY, 0, 3, [0; 4]), FrameSize),
        ("RST_STREAM on stream 0", reset(0), Protocol),
        ("RST_STREAM on stream 2", reset(2), Protocol),
        ("RST_STREAM on an idle stream", reset(5), Protocol),
        ("RST_STREAM of 3 bytes", frame(kind::RST_STREAM, 0, 3, [0; 3]), FrameSize),
        ("RST_STREAM of 5 bytes", frame(kind::RST_STREAM, 0, 3, [0; 5]), FrameSize),
        ("SETTINGS on a stream", frame(kind::SETTINGS, 0, 3, []), Protocol),
        ("SETTINGS of 5 bytes", frame(kind::SETTINGS, 0, 0, [0; 5]), FrameSize),
        ("SETTINGS with ACK and a payload", frame(kind::SETTINGS, flag::ACK, 0, setting(3, 1)), FrameSize),
        ("ENABLE_PUSH 2", pushed(2, 2), Protocol),
        ("INITIAL_WINDOW_SIZE 2^31", pushed(4, 1 << 31), FlowControl),
        ("MAX_FRAME_SIZE 16383", pushed(5, 16_383), Protocol),
        ("MAX_FRAME_SIZE 2^24", pushed(5, 1 << 24), Protocol),
        (
            "a window that SETTINGS make too large",
            [update(3, 0x7fff_ffff - 65_535), pushed(4, 65_536)].concat(),
            FlowControl,
        ),
        ("PUSH_PROMISE", frame(kind::PUSH_PROMISE, 4, 3, [0; 4]), Protocol),
        ("PING on a stream", frame(kind::PING, 0, 3, [0; 8]), Protocol),
        ("PING of 7 bytes", frame(kind::PING, 0, 0, [0; 7]), FrameSize),
        ("PING of 9 bytes", frame(kind::PING, flag::ACK, 0, [0; 9]), FrameSize),
        ("GOAWAY on a stream", frame(kind::GOAWAY, 0, 3, [0; 8]), Protocol),
        ("GOAWAY of 7 bytes", frame(kind::GOAWAY, 0, 0, [0; 7]), FrameSize),
        ("WINDOW_UPDATE of 3 bytes", frame(kind::WINDOW_UPDATE, 0, 3, [0; 3]), FrameSize),
        ("WINDOW_UPDATE of the connection by 0", update(0, 0), Protocol),
        ("WINDOW_UPDATE by 0 but for the reserved bit", update(0, 1 << 31), Protocol),
        ("WINDOW_UPDATE beyond 2^31-1", update(0, 0x7fff_ffff - 65_534), FlowControl),
        ("WINDOW_UPDATE on stream 2", update(2, 1), Protocol),
        ("WINDOW_UPDATE on an idle stream", update(5, 1), Protocol),
    ] {
        let mut wire = Wire::new();
        wire.good([get(1), post(3, &[])].concat());
        let error = wire.feed(&bytes).expect_err(what);
        assert_eq!(error.code, code, "{what}: {error}");
        wire.out.clear();
        wire.connection.fail(error, &mut wire.out);
        let [(kind::GOAWAY, 0, 0, payload)] = &wire.answers()[..] else { panic!("{what}") };
        assert_eq!(payload[4..], (code as u32).to_be_bytes(), "{what}");
    }
}

#[test]
fn errors_of_a_stream() {
    let mismatch = |declared, frames: &[Vec<u8>]| {
        [&post(1, &[("content-length", declared)])[..], &frames.concat()].concat()
    };
    let trailers = |flags, fields: &[(&str, &str)]| frame(kind::HEADERS, flags, 1, block(fields));
    for (what, bytes, code) in [
        ("more than its length", mismatch("3", &[data(1, "abcd")]), Code::Protocol),
        ("more in two frames", mismatch("3", &[data(1, "abc"), data(1, "d")]), Code::Protocol),
        ("less than its length", mismatch("3", &[last_data(1, "ab")]), Code::Protocol),
        ("nothing at all", mismatch("3", &[last_data(1, "")]), Code::Protocol),
        (
            "less before trailers",
            mismatch("3", &[data(1, "ab"), trailers(END, &[("a", "b")])]),
            Code::Protocol,
        ),
        ("trailers without end", [post(1, &[]), trailers(4, &[("a", "b")])].concat(), Code::Protocol),
        (
            "trailers with a pseudo-header",
            [post(1, &[]), trailers(END, &[(":path", "/")])].concat(),
            Code::Protocol,
        ),
        ("trailers in upper case", [post(1, &[]), trailers(END, &[("A", "b")])].concat(), Code::Protocol),
        ("trailers too many", [post(1, &[]), trailers(END, &[("a", "b"); 17])].concat(), Code::Protocol),
        ("WINDOW_UPDATE by 0", [get(1), update(1, 0)].concat(), Code::Protocol),
        ("a window beyond 2^31-1", [get(1), update(1, 0x7fff_ffff - 65_534)].concat(), Code::FlowControl),
    ] {
        let mut wire = Wire::new();
        let seen = wire.good(&bytes);
        assert_eq!(seen.last(), Some(&Seen::Reset(0)), "{what}: {seen:?}");
        wire.assert_reset(1, code);
        // Whatever comes for it now has been on its way.
        assert_eq!(
            wire.good([data(1, "abc"), update(1, 1), reset(1), last_data(1, "d")].concat()),
            [],
            "{what}"
        );
        assert_eq!(wire.answers(), [], "{what}");
        // The others do not notice.
        assert_eq!(wire.good(get(3)).len(), 1, "{what}");
    }
}

#[test]
fn the_end_of_a_stream_is_told_before_the_rest_of_its_frame_has_come() {
    let mut wire = Wire::new();
    let bytes = [post(1, &[("content-length", "3")]), data(1, "abcd")].concat();
    let (now, later) = bytes.split_at(bytes.len() - 2);
    assert_eq!(wire.good(now).last(), Some(&Seen::Reset(0)));
    wire.assert_reset(1, Code::Protocol);
    assert_eq!(wire.good(later), []);
    assert_eq!(wire.answers(), []);
}

#[test]
fn a_stream_has_a_window_and_so_has_the_connection() {
    let fill = |wire: &mut Wire, stream: u32, mut bytes: usize| {
        while bytes > 0 {
            let now = bytes.min(MAX_PAYLOAD);
            wire.input.extend_from_slice(&data(stream, vec![b'x'; now]));
            bytes -= now;
        }
        // Nobody passes it on.
        loop {
            match wire.connection.receive(&mut wire.input, &mut wire.out)? {
                Event::NeedMore => return Ok(()),
                Event::Data { bytes, .. } => wire.input.advance(bytes),
                Event::Reset { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    };
    let mut wire = Wire::new();
    wire.open(post(1, &[]));
    fill(&mut wire, 1, 100_000).unwrap();
    assert_eq!(wire.answers(), []);
    wire.open(post(3, &[]));
    let error: ConnectionError = fill(&mut wire, 3, 1).unwrap_err();
    assert_eq!(error.code, Code::FlowControl);

    // Where the connection allows more than the stream.
    let mut wire = Wire::new();
    let slot = wire.open(post(1, &[]));
    wire.connection.passed_on(slot, 0, 0, &mut wire.out);
    wire.good(data(1, vec![0; 16_000]));
    for _ in 0..3 {
        wire.good(data(1, vec![0; 16_000]));
    }
    let granted: u32 = wire
        .answers()
        .iter()
        .filter(|(kind, _, stream, _)| (*kind, *stream) == (kind::WINDOW_UPDATE, 0))
        .map(|(.., payload)| u32::from_be_bytes(payload[..].try_into().unwrap()))
        .sum();
    assert_eq!(granted, 64_000 + 100_000, "what was passed on, and as much again for a reader that keeps up");
    wire.open(post(3, &[]));
    fill(&mut wire, 3, 100_001).unwrap();
    wire.assert_reset(3, Code::FlowControl);
    fill(&mut wire, 3, 60_000).unwrap();
}

#[test]
fn what_is_skipped() {
    let mut wire = Wire::new();
    for bytes in [
        frame(99, 0xff, 77, "anything"),
        frame(kind::PRIORITY, 0, 9, [0; 5]),
        frame(kind::PRIORITY, 0, 2, [0; 5]),
        frame(kind::GOAWAY, 0, 0, [0; 20]),
        frame(kind::SETTINGS, flag::ACK, 0, []),
    ] {
        assert_eq!(wire.good(bytes), []);
        assert_eq!(wire.answers(), []);
    }
    // The reserved bit, unknown flags, padding and a priority.
    let mut padded = vec![2];
    padded.extend_from_slice(&[0x80, 0, 0, 9, 1]);
    padded.extend_from_slice(&block(POST));
    padded.extend_from_slice(&[0, 0]);
    let flags = flag::END_HEADERS | flag::PADDED | flag::PRIORITY | 0x80;
    assert_eq!(request(&wire.good(frame(kind::HEADERS, flags, 0x8000_0001, padded))).target, "/");
    let padded = frame(kind::DATA, END | flag::PADDED, 1, b"\x03abc\0\0\0");
    assert_eq!(wire.good(padded), [Seen::Data(0, b"abc".to_vec()), Seen::Ended(0, None)]);
    assert_eq!(wire.good(frame(kind::PING, 0x80, 0, [7; 8])), []);
    assert_eq!(wire.answers(), [(kind::PING, flag::ACK, 0, vec![7; 8])]);
    assert_eq!(wire.good(frame(kind::PING, flag::ACK, 0, [7; 8])), [Seen::Alive]);
    let parts = block(GET);
    let (first, rest) = parts.split_at(7);
    let parts = [
        frame(kind::HEADERS, flag::END_STREAM, 3, first),
        frame(kind::CONTINUATION, 0, 3, []),
        frame(kind::CONTINUATION, flag::END_HEADERS, 3, rest),
    ];
    assert_eq!(request(&wire.good(parts.concat())).authority, "a");
}

#[test]
fn requests_that_are_taken() {
    let take = |fields: &[(&str, &str)]| {
        let mut wire = Wire::new();
        let seen = wire.good(frame(kind::HEADERS, END, 1, block(fields)));
        let head = request(&seen).clone();
        let fields = head.headers.iter().map(|(name, value)| {
            format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        });
        (head.method.to_string(), head.target, head.authority, fields.collect::<String>())
    };
    let with = |more: &[(&'static str, &'static str)]| take(&[GET, more].concat());
    let plain = |fields: &str| ("GET".to_owned(), "/".to_owned(), "a".to_owned(), fields.to_owned());
    assert_eq!(with(&[]), plain(""));
    assert_eq!(with(&[("host", "a")]), plain(""));
    assert_eq!(take(&[GET[0], GET[1], GET[3], ("host", "a")]), plain(""));
    assert_eq!(with(&[("te", "Trailers"), ("x", "")]), plain("te: Trailers\nx: \n"));
    assert_eq!(with(&[("cookie", "a=b")]), plain("cookie: a=b\n"));
    assert_eq!(with(&[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")]), plain("x: y\ncookie: a=b; c=d\n"));
    assert_eq!(with(&[("content-length", "0")]), plain("content-length: 0\n"));
    let options = [(":method", "OPTIONS"), (":scheme", "x+y"), (":path", "*"), (":authority", "[::1]:8")];
    assert_eq!(take(&options), ("OPTIONS".into(), "*".into(), "[::1]:8".into(), String::new()));
    let length = [(":method", "PUT"), (":path", "/?"), (":scheme", "https"), (":authority", "a")];
    let fields = frame(kind::HEADERS, 4, 1, block(&[&length[..], &[("content-length", "007")]].concat()));
    let [Seen::Request(0, _, false, Some(7))] = Wire::new().good(fields)[..] else { panic!() };
}

#[test]
fn requests_that_get_an_answer_all_the_same() {
    let long = "x".repeat(4096);
    let path = format!("/{}", "x".repeat(100));
    let many = [("x", "y"); 17];
    let get = |more: &[(&'static str, &'static str)]| [GET, more].concat();
    for (fields, code) in [
        (vec![], "bad_request_line"),
        (GET[1..].to_vec(), "bad_request_line"),
        (vec![GET[0], GET[2], GET[3]], "bad_request_line"),
        (vec![GET[0], GET[1], GET[2]], "bad_request_line"),
        (vec![GET[0], GET[1], GET[3]], "bad_host"),
        (get(&[(":method", "GET")]), "bad_field_name"),
        (get(&[(":path", "/")]), "bad_field_name"),
        (get(&[(":status", "200")]), "bad_field_name"),
        (get(&[(":protocol", "websocket")]), "bad_field_name"),
        (get(&[(":", "")]), "bad_field_name"),
        (vec![GET[0], GET[1], ("x", "y"), GET[2], GET[3]], "bad_field_name"),
        (get(&[("X", "y")]), "bad_field_name"),
        (get(&[("", "y")]), "bad_field_name"),
        (get(&[("x y", "z")]), "bad_field_name"),
        (get(&[("x:y", "z")]), "bad_field_name"),
        (get(&[("x\r\ny", "z")]), "bad_field_name"),
        (get(&[("x", " y")]), "bad_field_value"),
        (get(&[("x", "y\r\nz: a")]), "bad_field_value"),
        (get(&[("x", "y\nz")]), "bad_field_value"),
        (get(&[("x", "y\0")]), "bad_field_value"),
        (get(&[("connection", "close")]), "bad_field_name"),
        (get(&[("keep-alive", "1")]), "bad_field_name"),
        (get(&[("proxy-connection", "close")]), "bad_field_name"),
        (get(&[("transfer-encoding", "chunked")]), "bad_field_name"),
        (get(&[("upgrade", "websocket")]), "bad_field_name"),
        (get(&[("te", "gzip")]), "bad_field_value"),
        (get(&[("te", "trailers, gzip")]), "bad_field_value"),
        (get(&[("content-length", "1"), ("content-length", "1")]), "repeated_length"),
        (get(&[("content-length", "1, 1")]), "bad_length"),
        (get(&[("content-length", "-1")]), "bad_length"),
        (get(&[("content-length", "18446744073709551616")]), "bad_length"),
        // It has no content.
        (get(&[("content-length", "1")]), "bad_length"),
        (get(&[("host", "b")]), "bad_host"),
        (get(&[("host", "a"), ("host", "a")]), "bad_host"),
        (get(&[("host", "a b")]), "bad_host"),
        (vec![GET[0], GET[1], GET[3], (":authority", "")], "bad_host"),
        (vec![GET[0], GET[1], GET[3], (":authority", "u@a")], "bad_host"),
        (vec![GET[0], GET[1], GET[3], (":authority", "a/b")], "bad_host"),
        (vec![GET[0], GET[1], GET[2], (":path", "")], "bad_target"),
        (vec![GET[0], GET[1], GET[2], (":path", "*")], "bad_target"),
        (vec![GET[0], GET[1], GET[2], (":path", "a")], "bad_target"),
        (vec![GET[0], GET[1], GET[2], (":path", "https://a/")], "bad_target"),
        (vec![GET[0], GET[1], GET[2], (":path", "/a#b")], "bad_target"),
        (vec![GET[0], GET[1], GET[2], (":path", "/a b")], "bad_target"),
        (vec![GET[0], GET[1], GET[2], (":path", "/ HTTP/1.1\r\nx: y")], "bad_target"),
        (vec![GET[0], GET[1], GET[2], (":path", &path)], "target_too_long"),
        (vec![GET[1], GET[2], GET[3], (":method", "G T")], "bad_request_line"),
        (vec![GET[1], GET[2], GET[3], (":method", "")], "bad_request_line"),
        (vec![GET[1], GET[2], GET[3], (":method", "CONNECT")], "connect_refused"),
        (vec![GET[2], (":method", "CONNECT")], "connect_refused"),
        ([GET, &many].concat(), "too_many_fields"),
        (vec![GET[0], GET[1], GET[2], GET[3], ("x", &long)], "head_too_large"),
    ] {
        let mut wire = Wire::new();
        let seen = wire.good(frame(kind::HEADERS, END, 1, block(&fields)));
        assert_eq!(seen, [Seen::Refused(0, true, code.to_owned())], "{fields:?}");
        // And the connection goes on.
        assert_eq!(wire.good(self::get(3)).len(), 1);
        let seen = Wire::new().good([frame(kind::HEADERS, 4, 1, block(&fields)), data(1, "abc")].concat());
        let length_is_all = fields.last() == Some(&("content-length", "1")) && code == "bad_length";
        if !length_is_all {
            assert_eq!(seen[0], Seen::Refused(0, false, code.to_owned()), "{fields:?}");
        }
    }
}

#[test]
fn trailers() {
    let mut wire = Wire::new();
    let fields = frame(kind::HEADERS, END, 1, block(&[("x-sum", "1"), ("content-length", "3"), ("te", "x")]));
    let seen = wire.good([post(1, &[("content-length", "3")]), data(1, "abc"), fields].concat());
    let Some(Seen::Ended(0, Some(trailers))) = seen.last() else { panic!("{seen:?}") };
    assert_eq!(trailers.iter().collect::<Vec<_>>(), [(&b"x-sum"[..], &b"1"[..])]);
    let empty = frame(kind::HEADERS, END, 3, []);
    assert_eq!(wire.good([post(3, &[]), empty].concat()).last(), Some(&Seen::Ended(1, None)));
    // Over: what comes behind is an error again.
    assert_eq!(wire.feed(data(3, "a")).unwrap_err().code, Code::StreamClosed);
}

/// Feeds the same again and again, released as if a task did it; how often until the connection ends.
fn flood(wire: &mut Wire, mut bytes: impl FnMut(u32) -> Vec<u8>) -> u32 {
    for round in 0..100_000 {
        wire.out.clear();
        let mut seen = Vec::new();
        wire.input.extend_from_slice(&bytes(round));
        let taken = wire.take_into(&mut seen);
        for slot in (0..4).map(Slot::of) {
            wire.connection.release(slot, &mut wire.out);
        }
        assert!(wire.out.len() < 1000, "an answer of {} bytes", wire.out.len());
        if let Err(error) = taken {
            assert_eq!(error.code, Code::EnhanceYourCalm, "{error}");
            return round;
        }
    }
    u32::MAX
}

#[test]
fn floods_end_the_connection() {
    let next = |round: u32| 2 * round + 1;
    let ping = frame(kind::PING, 0, 0, [0; 8]);
    let rapid = |round| [get(next(round)), reset(next(round))].concat();
    let zero = |round| [get(next(round)), update(next(round), 0)].concat();
    let short = |round| [post(next(round), &[("content-length", "9")]), last_data(next(round), "a")].concat();
    let excuse = |round| [post(next(round), &[]), data(next(round), "a"), reset(next(round))].concat();
    let unended = |round| {
        let trailers = frame(kind::HEADERS, flag::END_HEADERS, next(round), []);
        [post(next(round), &[]), trailers].concat()
    };
    let settings = frame(kind::SETTINGS, 0, 0, setting(4, 1));
    let all: [(&str, u32, &dyn Fn(u32) -> Vec<u8>); 12] = [
        ("PING", 2000, &|_| ping.clone()),
        ("SETTINGS", 2000, &|_| settings.clone()),
        ("acknowledgements", 2000, &|_| frame(kind::SETTINGS, flag::ACK, 0, [])),
        ("PRIORITY", 2000, &|_| frame(kind::PRIORITY, 0, 1, [0; 5])),
        ("unknown frames", 2000, &|_| frame(0xfa, 0, 0, [])),
        ("small windows", 2000, &|_| update(0, 1)),
        ("empty DATA", 2000, &|round| if round == 0 { post(1, &[]) } else { frame(0, 8, 1, [2, 0, 0]) }),
        ("streams that are reset", 500, &rapid),
        ("streams that have to be reset, by a window", 500, &zero),
        ("streams that have to be reset, by a length", 500, &short),
        ("streams that have to be reset, by trailers", 500, &unended),
        ("streams that are reset behind content", 500, &excuse),
    ];
    for (what, bound, bytes) in all {
        let rounds = flood(&mut Wire::new(), bytes);
        assert!(rounds <= bound + 1, "{what}: {rounds}");
        assert!(rounds >= bound / 2, "{what}: {rounds}");
    }
    // Streams that are refused, since nobody releases the first ones.
    let mut wire = Wire::new();
    for stream in 0..4 {
        wire.good(post(next(stream), &[]));
    }
    let refused = (4..).find(|&stream| match wire.feed(get(next(stream))) {
        Ok(seen) => {
            assert_eq!(seen, []);
            wire.assert_reset(next(stream), Code::RefusedStream);
            false
        }
        Err(error) => {
            assert_eq!(error.code, Code::EnhanceYourCalm);
            true
        }
    });
    assert!(refused.is_some_and(|stream| stream < 2100));
}

#[test]
fn a_block_without_end_ends_the_connection() {
    for size in [0, 1, 1000, MAX_PAYLOAD] {
        let mut wire = Wire::new();
        wire.good(frame(kind::HEADERS, 0, 1, []));
        let ended = (0..).find(|_| match wire.feed(frame(kind::CONTINUATION, 0, 1, vec![0; size])) {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.code, Code::EnhanceYourCalm);
                true
            }
        });
        assert!(ended.is_some_and(|frames| frames <= 64), "{size}");
    }
}

#[test]
fn a_client_that_is_of_use_is_not_cut_off() {
    let mut wire = Wire::new();
    let head = ResponseHead::new(StatusCode::OK);
    for round in 0..10_000 {
        let stream = 2 * round + 1;
        let slot = wire.open(get(stream));
        wire.connection.send_head(slot, &head, &Headers::new(), false, &mut wire.out);
        wire.out.resize(wire.out.len() + DATA_HEAD + 1, 0);
        wire.connection.send_data(slot, 1, false, &mut wire.out);
        // Each response is given up, after two updates and a priority.
        wire.good([update(0, 1), update(stream, 1), frame(0x10, 0, 0, "u=1"), reset(stream)].concat());
        wire.connection.release(slot, &mut wire.out);
        wire.out.clear();
    }
}

#[test]
fn responses() {
    let mut wire = Wire::new();
    let mut decoder = hpack::Decoder::new(4096);
    // Smaller and larger than a frame; the second response meets the table of the first.
    for (stream, value) in [(1, "v".repeat(40_000)), (3, "v".repeat(16)), (5, "w".repeat(16_384))] {
        let slot = wire.open(get(stream));
        let mut head = ResponseHead::new(StatusCode::IM_A_TEAPOT);
        for (name, value) in [("Server", "s"), ("X-Long", &value), ("Connection", "x"), ("Upgrade", "y")] {
            head.headers.append(name, value);
        }
        let mut extra = Headers::new();
        extra.append("date", "today");
        wire.connection.send_head(slot, &head, &extra, false, &mut wire.out);
        let frames = wire.answers();
        let last = frames.len() - 1;
        assert_eq!(last, value.len() / MAX_PAYLOAD);
        let mut block = Vec::new();
        for (number, (kind, flags, on, part)) in frames.into_iter().enumerate() {
            assert_eq!(kind, if number == 0 { kind::HEADERS } else { kind::CONTINUATION });
            assert_eq!((on, flags), (stream, if number == last { flag::END_HEADERS } else { 0 }));
            assert!(part.len() <= MAX_PAYLOAD);
            block.extend_from_slice(&part);
        }
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder.decode(&block, |name, value| fields.push((text(name), text(value)))).unwrap();
        let expected = [(":status", "418"), ("server", "s"), ("x-long", &value), ("date", "today")]
            .map(|(n, v)| (n.into(), v.into()));
        assert_eq!(fields, expected);

        wire.out.extend_from_slice(&[0; DATA_HEAD]);
        wire.out.extend_from_slice(b"abc");
        wire.connection.send_data(slot, 3, false, &mut wire.out);
        let mut trailers = Headers::new();
        trailers.append("X-Sum", "3");
        wire.connection.send_trailers(slot, &trailers, &mut wire.out);
        wire.connection.release(slot, &mut wire.out);
        let frames = wire.answers();
        assert_eq!(frames[0], (kind::DATA, 0, stream, b"abc".to_vec()));
        assert_eq!((frames[1].0, frames[1].1, frames[1].2, frames.len()), (kind::HEADERS, END, stream, 2));
        decoder
            .decode(&frames[1].3, |name, value| assert_eq!((name, value), (&b"x-sum"[..], &b"3"[..])))
            .unwrap();
    }
    // Over for both sides: nothing is reset.
    assert_eq!(wire.connection.open_streams(), 0);
    let slot = wire.open(post(7, &[]));
    wire.connection.send_head(slot, &ResponseHead::new(StatusCode::OK), &Headers::new(), true, &mut wire.out);
    assert_eq!(wire.answers()[0].1, END);
    wire.connection.release(slot, &mut wire.out);
    wire.assert_reset(7, Code::Cancel);
}

#[test]
fn windows_for_what_is_sent() {
    let send = |wire: &mut Wire, slot, bytes: usize| {
        wire.out.extend_from_slice(&[0; DATA_HEAD]);
        wire.out.resize(wire.out.len() + bytes, 0);
        wire.connection.send_data(slot, bytes, false, &mut wire.out);
        wire.out.clear();
    };
    let mut wire = Wire::new();
    let (one, two) = (wire.open(get(1)), wire.open(get(3)));
    assert_eq!(wire.connection.room(one), MAX_PAYLOAD);
    for _ in 0..3 {
        send(&mut wire, one, MAX_PAYLOAD);
    }
    assert_eq!((wire.connection.stream_window(one), wire.connection.window()), (16_383, 16_383));
    assert_eq!(wire.connection.stream_window(two), 65_535);
    assert_eq!(wire.connection.room(two), 16_383);
    // The window of the first becomes negative.
    assert_eq!(wire.good(frame(kind::SETTINGS, 0, 0, setting(4, 1000))), [Seen::Windows]);
    assert_eq!((wire.connection.stream_window(one), wire.connection.stream_window(two)), (0, 1000));
    assert_eq!(wire.good(update(1, 48_152)), [Seen::Window(one.index())]);
    assert_eq!(wire.connection.room(one), 0);
    assert_eq!(wire.good(update(1, 1)), [Seen::Window(one.index())]);
    assert_eq!(wire.connection.room(one), 1);
    send(&mut wire, two, 1000);
    assert_eq!(wire.connection.room(two), 0);
    assert_eq!(wire.good(frame(kind::SETTINGS, 0, 0, setting(4, 1001))), [Seen::Windows]);
    assert_eq!((wire.connection.room(one), wire.connection.room(two)), (2, 1));
    assert_eq!(wire.good(update(0, 0x7fff_ffff - 15_383)), [Seen::ConnectionWindow]);
    assert_eq!(wire.connection.window(), 0x7fff_ffff);
    // The same settings again change nothing, and a new stream begins with them.
    assert_eq!(wire.good(frame(kind::SETTINGS, 0, 0, setting(4, 1001))), []);
    let three = wire.open(get(5));
    assert_eq!(wire.connection.room(three), 1001);
}

/// Content of all kinds, far more than any window: each byte is granted again.
#[test]
fn no_window_leaks() {
    let mut wire = Wire::new();
    let mut left = 100_000_i64;
    let mut moved = 0;
    for round in 0..6000_u32 {
        let stream = 2 * round + 1;
        let length = [1, 300, 9000, MAX_PAYLOAD - 256][round as usize % 4];
        let content = vec![b'x'; length];
        let padded = [&[255][..], &content, &[0; 255]].concat();
        let (declared, frames) = match round % 7 {
            0 => ("999999", data(stream, &content)),
            1 => ("999999", frame(kind::DATA, flag::PADDED, stream, &padded)),
            2 => ("0", frame(kind::DATA, flag::PADDED, stream, &padded)),
            3 => ("999999", last_data(stream, &content)),
            4 => ("999999", [data(stream, &content), reset(stream), data(stream, &padded)].concat()),
            5 => ("999999", [update(stream, 0), data(stream, &content)].concat()),
            _ => ("bad", data(stream, &content)),
        };
        let slot = wire.open(post(stream, &[("content-length", declared)]));
        let head = ResponseHead::new(StatusCode::OK);
        wire.connection.send_head(slot, &head, &Headers::new(), false, &mut wire.out);
        for cut in [0..frames.len() / 2, frames.len() / 2..frames.len()] {
            wire.good(&frames[cut]);
            // Also while a frame is under way.
            if round % 3 == 0 {
                wire.connection.release(slot, &mut wire.out);
            }
        }
        wire.connection.release(slot, &mut wire.out);
        for (kind, _, on, payload) in wire.answers() {
            if (kind, on) == (kind::WINDOW_UPDATE, 0) {
                left += i64::from(u32::from_be_bytes(payload[..].try_into().unwrap()));
            }
        }
        let of_data = |mut rest: &[u8]| {
            let mut bytes = 0;
            while let Some(head) = FrameHead::parse(rest) {
                bytes += if head.kind == kind::DATA { head.length } else { 0 };
                rest.advance(9 + head.length);
            }
            bytes as i64
        };
        left -= of_data(&frames);
        moved += of_data(&frames);
        // An update comes when half of the window was passed on.
        assert!(left >= 50_000, "round {round}: {left}");
    }
    assert!(moved > 20 << 20);
    assert_eq!(wire.connection.open_streams(), 0);
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let mut wire = Wire::new();
    let slots: Vec<_> = (0..4).map(|number| wire.open(post(2 * number + 1, &[]))).collect();
    assert_eq!(wire.good(get(9)), []);
    wire.assert_reset(9, Code::RefusedStream);
    // It is closed, and the compression has gone on.
    let keeping = [&[0x40, 1, b'k', 1, b'v'][..], &block(GET)].concat();
    assert_eq!(wire.good(frame(kind::HEADERS, END, 11, &keeping)), []);
    wire.assert_reset(11, Code::RefusedStream);
    assert_eq!(wire.good([data(9, "abc"), reset(9)].concat()), []);
    wire.good(reset(1));
    assert_eq!(wire.good(get(13)), [], "a slot is given up by whoever has it");
    wire.assert_reset(13, Code::RefusedStream);
    wire.connection.release(slots[0], &mut wire.out);
    assert_eq!(wire.answers(), []);
    let kept = [&block(GET)[..], &[0xbe]].concat();
    let seen = wire.good(frame(kind::HEADERS, END, 15, kept));
    assert_eq!(request(&seen).headers.get("k"), Some(&b"v"[..]));
}

#[test]
fn leaving() {
    let goaway = |last: u32, code: Code| {
        (kind::GOAWAY, 0, 0, [last.to_be_bytes(), (code as u32).to_be_bytes()].concat())
    };
    let mut wire = Wire::new();
    let first = wire.open(get(1));
    wire.connection.leave(&mut wire.out);
    wire.connection.leave(&mut wire.out);
    let ping = (kind::PING, 0, 0, b"goodbye\0".to_vec());
    assert_eq!(wire.answers(), [goaway(0x7fff_ffff, Code::NoError), ping]);
    assert!(!wire.connection.has_left());
    assert_eq!(wire.good(frame(kind::PING, flag::ACK, 0, b"alive?\0\0")), [Seen::Alive]);
    assert_eq!(wire.good(get(3)).len(), 1, "it was on its way");
    assert!(!wire.connection.has_left());
    assert_eq!(wire.good(frame(kind::PING, flag::ACK, 0, b"goodbye\0")), [Seen::Alive]);
    assert!(wire.connection.has_left());
    assert_eq!(wire.answers(), [goaway(3, Code::NoError)]);
    // Ignored, content and all; the others go on.
    assert_eq!(wire.good([post(5, &[]), data(5, "abc"), reset(5)].concat()), []);
    assert_eq!(wire.answers(), []);
    assert_eq!(wire.good(update(1, 1)), [Seen::Window(first.index())]);
    wire.connection.leave_now(&mut wire.out);
    wire.connection.leave(&mut wire.out);
    assert_eq!(wire.answers(), []);
    // What was said about streams that are not served is not taken back.
    let error = wire.feed(data(7, "a")).unwrap_err();
    wire.connection.fail(error, &mut wire.out);
    assert_eq!(wire.answers(), [goaway(3, Code::Protocol)]);

    let mut wire = Wire::new();
    wire.connection.leave_now(&mut wire.out);
    assert_eq!(wire.answers(), [goaway(0, Code::NoError)]);
    assert_eq!(wire.good(get(1)), []);
    // A PING of the client's own means nothing.
    let mut wire = Wire::new();
    wire.good(frame(kind::PING, flag::ACK, 0, b"goodbye\0"));
    assert!(!wire.connection.has_left());
}

/// Frames that a client might send, right and wrong.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![3 => (0_u32..6).prop_map(|number| 2 * number + 1), 1 => 0_u32..12];
    let content = proptest::collection::vec(any::<u8>(), 0..40);
    let fields = prop_oneof![
        Just(block(GET)),
        Just(block(POST)),
        Just(block(&[POST, &[("content-length", "3")]].concat())),
        Just([&[0x40, 1, b'k', 1, b'v'][..], &block(GET)].concat()),
        Just([&block(GET)[..], &[0xbe]].concat()),
        Just(block(&[("x-sum", "1")])),
        content.clone(),
    ];
    prop_oneof![
        4 => (stream.clone(), fields, prop_oneof![3 => Just(END), 2 => Just(4_u8), 1 => Just(0), 1 => Just(1)])
            .prop_map(|(stream, fields, flags)| frame(kind::HEADERS, flags, stream, fields)),
        4 => (stream.clone(), content.clone(), 0_u8..2).prop_map(|(stream, content, end)| frame(0, end, stream, content)),
        2 => (stream.clone(), content.clone(), 0_u8..9).prop_map(|(stream, content, padding)| {
            let padded = [&[padding][..], &content, &vec![0; padding.into()]].concat();
            frame(kind::DATA, flag::PADDED, stream, padded)
        }),
        1 => (stream.clone(), any::<u32>()).prop_map(|(stream, increment)| update(stream, increment >> 8)),
        1 => stream.clone().prop_map(reset),
        1 => Just(frame(kind::PING, 0, 0, b"12345678")),
        1 => (0_u16..7, 0_u32..3).prop_map(|(name, value)| frame(kind::SETTINGS, 0, 0, setting(name, value))),
        1 => (stream.clone(), content.clone(), prop_oneof![Just(4_u8), Just(0)])
            .prop_map(|(stream, content, flags)| frame(kind::CONTINUATION, flags, stream, content)),
        1 => (0_u8..12, any::<u8>(), stream, content)
            .prop_map(|(kind, flags, stream, content)| frame(kind, flags, stream, content)),
    ]
}

/// Everything that happens and everything that is said, when the bytes come in pieces of these sizes.
fn played(bytes: &[u8], mut sizes: impl Iterator<Item = usize>) -> (Vec<Seen>, Option<Code>, Vec<u8>) {
    let (mut wire, mut seen, mut rest) = (Wire::silent(), Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = later;
        wire.input.extend_from_slice(piece);
        if let Err(error) = wire.take_into(&mut seen) {
            return (seen, Some(error.code), wire.out);
        }
    }
    (seen, None, wire.out)
}

proptest! {
    #[test]
    fn bytes_mean_the_same_in_any_pieces(
        frames in proptest::collection::vec(any_frame(), 0..12), sizes in proptest::collection::vec(1_usize..60, 1..20),
    ) {
        let bytes = [PREFACE, &frame(kind::SETTINGS, 0, 0, []), &frames.concat()].concat();
        let whole = played(&bytes, std::iter::once(bytes.len()));
        prop_assert_eq!(&played(&bytes, std::iter::repeat(1)), &whole);
        prop_assert_eq!(&played(&bytes, sizes.into_iter().cycle()), &whole);
        for cut in 0..bytes.len() {
            prop_assert_eq!(&played(&bytes, [cut, bytes.len()].into_iter()), &whole);
        }
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), valid in proptest::collection::vec(any_frame(), 0..4)) {
        let bytes = [PREFACE, &frame(kind::SETTINGS, 0, 0, []), &valid.concat(), &bytes].concat();
        let (seen, _, out) = played(&bytes, std::iter::once(bytes.len()));
        prop_assert!(seen.len() <= bytes.len() && out.len() <= 40 * bytes.len());
    }
}
