//! A connection as an RS makes it: responses, refusals, what is an error of the connection and of a stream; and both
//! sides of this codec with each other.

use http::{Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::h1::HeadError;

const OK: &[(&str, &str)] = &[(":status", "200")];

/// The client's side, what comes in and what goes out.
struct Asking {
    connection: Connection<Client>,
    input: BytesMut,
    out: Vec<u8>,
}

/// What has happened, in words; content that follows content is one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Response(usize, ResponseHead, bool, Option<u64>),
    Interim(usize, u16),
    Malformed(usize, HeadError),
    Leaving(Vec<usize>),
    Data(usize, Vec<u8>),
    Ended(usize, Option<Headers>),
    Reset(usize, u32),
    Other,
}

impl Asking {
    /// Greeted by a server with these settings.
    fn new(settings: &[u8]) -> Self {
        let mut out = Vec::new();
        let connection = Connection::connect(limits(), &mut out);
        assert!(out.starts_with(PREFACE));
        out.clear();
        let mut asking = Self { connection, input: BytesMut::new(), out };
        asking.good(frame(kind::SETTINGS, 0, 0, settings));
        asking.out.clear();
        asking
    }

    fn open(&mut self, method: Method, end: bool) -> usize {
        let head =
            RequestHead { method, target: "/".into(), authority: "a".into(), ..RequestHead::default() };
        self.connection.open(&head, "http", None, end, &mut self.out).unwrap().index()
    }

    fn get(&mut self) -> usize {
        self.open(Method::GET, true)
    }

    fn take_into(&mut self, heard: &mut Vec<Heard>) -> Result<(), ConnectionError> {
        loop {
            let next = match self.connection.receive(&mut self.input, &mut self.out)? {
                Event::NeedMore => return Ok(()),
                Event::Head(Answered::Response { slot, head, ended, length }) => {
                    Heard::Response(slot.index(), *head, ended, length)
                }
                Event::Head(Answered::Interim { slot, head }) => {
                    Heard::Interim(slot.index(), head.status.as_u16())
                }
                Event::Head(Answered::Malformed { slot, error }) => Heard::Malformed(slot.index(), error),
                Event::Head(Answered::Leaving { refused }) => {
                    let mut refused: Vec<_> = refused.into_iter().map(Slot::index).collect();
                    refused.sort_unstable();
                    Heard::Leaving(refused)
                }
                Event::Data { slot, bytes } => {
                    let content = self.input.split_to(bytes);
                    self.connection.passed_on(slot, bytes, 0, &mut self.out);
                    match heard.last_mut() {
                        Some(Heard::Data(last, before)) if *last == slot.index() => {
                            before.extend_from_slice(&content);
                            continue;
                        }
                        _ => Heard::Data(slot.index(), content.to_vec()),
                    }
                }
                Event::Ended { slot, trailers } => Heard::Ended(slot.index(), trailers),
                Event::Reset { slot, code } => Heard::Reset(slot.index(), code),
                Event::Window { .. } | Event::Windows | Event::ConnectionWindow | Event::Alive => {
                    Heard::Other
                }
            };
            heard.push(next);
        }
    }

    fn feed(&mut self, bytes: impl AsRef<[u8]>) -> Result<Vec<Heard>, ConnectionError> {
        let mut heard = Vec::new();
        self.input.extend_from_slice(bytes.as_ref());
        self.take_into(&mut heard).map(|()| heard)
    }

    fn good(&mut self, bytes: impl AsRef<[u8]>) -> Vec<Heard> {
        self.feed(bytes).unwrap()
    }
}

fn answer(stream: u32, fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, block(fields))
}

fn head_of(fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead { version: crate::message::Version::Http2, ..ResponseHead::default() };
    for (name, value) in fields {
        head.headers.append(name, value);
    }
    head
}

#[test]
fn the_beginning() {
    let mut out = Vec::new();
    Connection::connect(limits(), &mut out);
    let settings = [setting(2, 0), setting(4, 100_000), setting(6, 4096)].concat();
    let expected = [PREFACE, &frame(kind::SETTINGS, 0, 0, settings), &update(0, 100_000 - 65_535)].concat();
    assert_eq!(out, expected);
}

#[test]
fn requests_as_they_are_sent() {
    let mut asking = Asking::new(&[]);
    let mut decoder = hpack::Decoder::new(4096);
    for (stream, method, scheme, target, length) in [
        (1, Method::GET, "http", "/", None),
        (3, Method::POST, "https", "/a?b", Some(5)),
        (5, Method::PATCH, "http", "/", None),
        (7, Method::GET, "http", "/", None),
    ] {
        let mut head = RequestHead {
            method: method.clone(),
            target: target.into(),
            authority: "a.test".into(),
            ..RequestHead::default()
        };
        for (name, value) in [("Connection", "TE"), ("TE", "trailers"), ("X-Own", "1"), ("Upgrade", "x")] {
            head.headers.append(name, value);
        }
        asking.connection.open(&head, scheme, length, length.is_none(), &mut asking.out).unwrap();
        let bytes = std::mem::take(&mut asking.out);
        let frame = FrameHead::parse(&bytes).unwrap();
        let flags = if length.is_none() { END } else { flag::END_HEADERS };
        assert_eq!((frame.kind, frame.flags, frame.stream), (kind::HEADERS, flags, stream));
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder.decode(&bytes[9..], |name, value| fields.push((text(name), text(value)))).unwrap();
        let mut expected = vec![
            (":method", method.as_str()),
            (":scheme", scheme),
            (":authority", "a.test"),
            (":path", target),
            ("te", "trailers"),
            ("x-own", "1"),
        ];
        let length = length.map(|length: u64| length.to_string());
        expected.extend(length.as_ref().map(|length| ("content-length", length.as_str())));
        assert!(fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(expected), "{fields:?}");
        // What repeats becomes one octet.
        assert!(stream == 1 || !bytes.windows(6).any(|six| six == b"a.test"));
    }
}

#[test]
fn responses_in_all_their_forms() {
    let mut asking = Asking::new(&[]);
    let slot = asking.get();
    let heard = asking.good(
        [
            answer(1, &[(":status", "103"), ("link", "</a>")], flag::END_HEADERS),
            answer(1, &[(":status", "200"), ("x", "y"), ("content-length", "3")], flag::END_HEADERS),
            data(1, "ab"),
            last_data(1, "c"),
        ]
        .concat(),
    );
    let head = head_of(&[("x", "y"), ("content-length", "3")]);
    assert_eq!(
        heard,
        [
            Heard::Interim(slot, 103),
            Heard::Response(slot, head, false, Some(3)),
            Heard::Data(slot, b"abc".to_vec()),
            Heard::Ended(slot, None)
        ]
    );
    // Trailers, or nothing but them.
    let (one, two) = (asking.open(Method::POST, false), asking.open(Method::POST, false));
    let sum = head_of(&[("grpc-status", "0")]);
    let heard = asking.good(
        [
            answer(3, OK, flag::END_HEADERS),
            data(3, "x"),
            answer(3, &[("grpc-status", "0")], END),
            answer(5, &[(":status", "200"), ("grpc-status", "0")], END),
        ]
        .concat(),
    );
    assert_eq!(
        heard,
        [
            Heard::Response(one, head_of(&[]), false, None),
            Heard::Data(one, b"x".to_vec()),
            Heard::Ended(one, Some(sum.headers.clone())),
            Heard::Response(two, sum, true, Some(0)),
        ]
    );
    // No content, whatever the head says of it.
    for (method, status) in [(Method::HEAD, "200"), (Method::GET, "304"), (Method::GET, "204")] {
        let mut asking = Asking::new(&[]);
        let slot = asking.open(method, true);
        let fields = [(":status", status), ("content-length", "9")];
        let mut head = head_of(&fields[1..]);
        head.status = StatusCode::from_bytes(status.as_bytes()).unwrap();
        let heard = asking.good(answer(1, &fields, flag::END_HEADERS));
        assert_eq!(heard, [Heard::Response(slot, head, false, Some(0))]);
        assert_eq!(asking.good(data(1, "x")), [Heard::Reset(slot, 1)]);
    }
}

#[test]
fn what_is_no_response() {
    let headers = flag::END_HEADERS;
    for (fields, flags, error) in [
        (&[("x", "y")][..], END, HeadError::StatusLine),
        (&[("x", "y"), (":status", "200")], END, HeadError::FieldName),
        (&[(":status", "200"), (":status", "200")], END, HeadError::FieldName),
        (&[(":status", "20")], END, HeadError::StatusLine),
        (&[(":status", "101")], headers, HeadError::StatusLine),
        (&[(":status", "100")], END, HeadError::StatusLine),
        (&[(":status", "200"), (":path", "/")], END, HeadError::FieldName),
        (&[(":status", "200"), ("X", "y")], END, HeadError::FieldName),
        (&[(":status", "200"), ("x", "y\r\nz: a")], END, HeadError::FieldValue),
        (&[(":status", "200"), ("connection", "close")], END, HeadError::FieldName),
        (&[(":status", "200"), ("transfer-encoding", "chunked")], headers, HeadError::FieldName),
        (&[(":status", "200"), ("content-length", "1")], END, HeadError::Length),
        (&[(":status", "200"), ("content-length", "x")], END, HeadError::Length),
        (
            &[(":status", "200"), ("content-length", "1"), ("content-length", "1")],
            END,
            HeadError::RepeatedLength,
        ),
        (&[(":status", "200"), ("x", &"y".repeat(5000))], END, HeadError::HeadTooLarge),
        (
            &[(":status", "200"); 1].iter().chain(&[("x", "y"); 17]).copied().collect::<Vec<_>>(),
            END,
            HeadError::TooManyFields,
        ),
    ] {
        let mut asking = Asking::new(&[]);
        let slot = asking.get();
        asking.out.clear();
        let heard = asking.good(answer(1, fields, flags));
        assert_eq!(heard, [Heard::Malformed(slot, error)], "{fields:?}");
        assert_eq!(asking.out, frame(kind::RST_STREAM, 0, 1, [0, 0, 0, 1]), "{fields:?}");
        // What was on its way is nothing to anybody.
        assert_eq!(asking.good([data(1, "x"), answer(1, OK, END)].concat()), []);
    }
    for (behind, what) in
        [(data(1, "ab"), "too long"), (last_data(1, ""), "too short"), (answer(1, &[("x", "y")], END), "cut")]
    {
        let mut asking = Asking::new(&[]);
        let slot = asking.get();
        asking.good(answer(1, &[(":status", "200"), ("content-length", "1")], flag::END_HEADERS));
        assert_eq!(asking.good(behind), [Heard::Reset(slot, 1)], "{what}");
    }
}

#[test]
fn errors_of_the_connection() {
    for (bytes, code) in [
        (frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, [0, 0, 0, 2]), Code::Protocol),
        (answer(3, OK, END), Code::Protocol),
        (answer(2, OK, END), Code::Protocol),
        (data(3, "x"), Code::Protocol),
        (reset(3), Code::Protocol),
        (frame(kind::GOAWAY, 0, 0, [0; 7]), Code::FrameSize),
        (frame(kind::HEADERS, END, 1, [0x80]), Code::Compression),
        (update(0, 0x7fff_ffff), Code::FlowControl),
        ([answer(1, OK, END), data(1, "x")].concat(), Code::StreamClosed),
        ([0; 9].repeat(3000), Code::Protocol),
        (frame(kind::PING, 0, 0, [0; 8]).repeat(3000), Code::EnhanceYourCalm),
    ] {
        let mut asking = Asking::new(&[]);
        // One more, so that the first is remembered where both have ended.
        asking.open(Method::POST, false);
        let error = asking.feed(&bytes).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        asking.out.clear();
        asking.connection.fail(error, &mut asking.out);
        // No stream of the server's was ever served.
        assert_eq!(
            asking.out,
            frame(kind::GOAWAY, 0, 0, [&[0; 4][..], &(code as u32).to_be_bytes()].concat())
        );
        assert!(!asking.connection.can_open());
    }
}

#[test]
fn refusals() {
    let mut asking = Asking::new(&[]);
    let slots: Vec<_> = (0..4).map(|_| asking.get()).collect();
    assert!(!asking.connection.can_open(), "no more than the limit");
    // A single one, and what is behind the last one that is served.
    assert_eq!(asking.good(frame(kind::RST_STREAM, 0, 3, [0, 0, 0, 7])), [Heard::Reset(slots[1], 7)]);
    let goaway = |last: u32| frame(kind::GOAWAY, 0, 0, [&last.to_be_bytes()[..], &[0; 4]].concat());
    assert_eq!(asking.good(goaway(0x7fff_ffff)), [Heard::Leaving(vec![])]);
    assert_eq!(asking.good(goaway(1)), [Heard::Leaving(vec![slots[2], slots[3]])]);
    assert_eq!(asking.good(goaway(1)), [Heard::Leaving(vec![])]);
    // The first is served to its end.
    let heard =
        asking.good([answer(1, OK, flag::END_HEADERS), last_data(1, "x"), answer(5, OK, END)].concat());
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(!asking.connection.can_open());
}

#[test]
fn as_many_and_as_large_as_the_server_takes() {
    let mut asking = Asking::new(&[setting(3, 1), setting(6, 200)].concat());
    let mut head = RequestHead { target: "/".into(), authority: "a".into(), ..RequestHead::default() };
    assert!(asking.connection.takes(&head));
    head.headers.append("x", "y".repeat(20));
    assert!(!asking.connection.takes(&head));
    let slot = asking.get();
    assert!(!asking.connection.can_open());
    asking.good(answer(1, OK, END));
    asking.connection.release(Slot::of(slot as u32), &mut asking.out);
    assert!(asking.connection.can_open());
    asking.good(frame(kind::SETTINGS, 0, 0, setting(3, 0)));
    assert!(!asking.connection.can_open());
}

#[test]
fn content_that_lies_around_stops_only_its_own_stream() {
    let mut asking = Asking::new(&[]);
    let slots = [asking.get(), asking.get()];
    asking.good([answer(1, OK, flag::END_HEADERS), answer(3, OK, flag::END_HEADERS)].concat());
    asking.out.clear();
    // Nobody reads stream 1.
    for _ in 0..6 {
        asking.input.extend_from_slice(&data(1, [0; 16_384]));
        while let Event::Data { bytes, .. } =
            asking.connection.receive(&mut asking.input, &mut asking.out).unwrap()
        {
            bytes::Buf::advance(&mut asking.input, bytes);
        }
    }
    assert!(asking.out.windows(9).any(|head| head == [0, 0, 4, 8, 0, 0, 0, 0, 0]), "no window was granted");
    assert!(!asking.out.windows(9).any(|head| head == [0, 0, 4, 8, 0, 0, 0, 0, 1]), "of the stream neither");
    assert_eq!(asking.good(data(3, "x")), [Heard::Data(slots[1], b"x".to_vec())]);
    // Beyond its window it may not go.
    assert_eq!(asking.good(data(1, [0; 2000])), [Heard::Reset(slots[0], 3)]);
}

/// Frames that a server might send, right and wrong.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![3 => (0_u32..4).prop_map(|number| 2 * number + 1), 1 => 0_u32..12];
    let content = proptest::collection::vec(any::<u8>(), 0..40);
    let fields = prop_oneof![
        Just(block(OK)),
        Just(block(&[(":status", "100")])),
        Just(block(&[(":status", "200"), ("content-length", "3")])),
        Just([&block(OK)[..], &[0x40, 1, b'k', 1, b'v'][..]].concat()),
        Just([&block(OK)[..], &[0xbe]].concat()),
        Just(block(&[("grpc-status", "0")])),
        content.clone(),
    ];
    let flags = prop_oneof![2 => Just(END), 3 => Just(4_u8), 1 => Just(0), 1 => Just(1)];
    prop_oneof![
        5 => (stream.clone(), fields, flags)
            .prop_map(|(stream, fields, flags)| frame(kind::HEADERS, flags, stream, fields)),
        4 => (stream.clone(), content.clone(), 0_u8..2)
            .prop_map(|(stream, content, end)| frame(0, end, stream, content)),
        1 => (stream.clone(), any::<u32>()).prop_map(|(stream, by)| update(stream, by >> 8)),
        1 => (stream.clone(), 0_u32..14)
            .prop_map(|(stream, code)| frame(kind::RST_STREAM, 0, stream, code.to_be_bytes())),
        1 => (0_u16..7, 0_u32..3).prop_map(|(name, value)| frame(kind::SETTINGS, 0, 0, setting(name, value))),
        1 => (0_u32..9).prop_map(|last| frame(kind::GOAWAY, 0, 0, [&last.to_be_bytes()[..], &[0; 4]].concat())),
        1 => (0_u8..12, any::<u8>(), stream, content)
            .prop_map(|(kind, flags, stream, content)| frame(kind, flags, stream, content)),
    ]
}

/// Everything that happens and everything that is said, when the bytes come in pieces of these sizes.
fn played(bytes: &[u8], mut sizes: impl Iterator<Item = usize>) -> (Vec<Heard>, Option<Code>, Vec<u8>) {
    let (mut asking, mut heard, mut rest) = (Asking::new(&[]), Vec::new(), bytes);
    for method in [Method::GET, Method::HEAD, Method::POST] {
        let end = method != Method::POST;
        asking.open(method, end);
    }
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = later;
        asking.input.extend_from_slice(piece);
        if let Err(error) = asking.take_into(&mut heard) {
            return (heard, Some(error.code), asking.out);
        }
    }
    (heard, None, asking.out)
}

/// A request or response as it is to arrive: content in pieces, and trailers.
#[derive(Debug, Clone)]
struct Sent {
    pieces: Vec<Vec<u8>>,
    trailers: bool,
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let piece = proptest::collection::vec(any::<u8>(), 1..200);
    (proptest::collection::vec(piece, 0..4), any::<bool>())
        .prop_map(|(pieces, trailers)| Sent { pieces, trailers })
}

impl Sent {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && !self.trailers
    }

    /// Appends everything behind the head.
    fn send<R: Role>(&self, connection: &mut Connection<R>, slot: Slot, out: &mut Vec<u8>) {
        for (number, piece) in self.pieces.iter().enumerate() {
            let end = !self.trailers && number + 1 == self.pieces.len();
            connection.send_data(slot, piece.len(), end, out);
            out.extend_from_slice(piece);
        }
        if self.trailers {
            connection.send_trailers(slot, &head_of(&[("sum", "1")]).headers, out);
        }
    }
}

proptest! {
    #[test]
    fn bytes_mean_the_same_in_any_pieces(
        frames in proptest::collection::vec(any_frame(), 0..12), sizes in proptest::collection::vec(1_usize..60, 1..20),
    ) {
        let bytes = frames.concat();
        let whole = played(&bytes, std::iter::once(bytes.len()));
        prop_assert_eq!(&played(&bytes, std::iter::repeat(1)), &whole);
        prop_assert_eq!(&played(&bytes, sizes.into_iter().cycle()), &whole);
    }

    #[test]
    fn both_sides_understand_each_other(
        exchanges in proptest::collection::vec((any_sent(), any_sent()), 1..4), cut in 1_usize..50,
    ) {
        let mut asking = Asking::new(&[]);
        let mut wire = Wire::new();
        for (request, response) in &exchanges {
            let head = RequestHead {
                method: Method::POST, target: "/a".into(), authority: "a".into(), ..RequestHead::default()
            };
            let slot = asking.connection.open(&head, "https", None, request.is_empty(), &mut asking.out).unwrap();
            request.send(&mut asking.connection, slot, &mut asking.out);
            let mut seen = Vec::new();
            for piece in std::mem::take(&mut asking.out).chunks(cut) {
                seen.extend(wire.good(piece));
            }
            let content: Vec<u8> = seen.iter().filter_map(|seen| match seen {
                Seen::Data(_, content) => Some(&content[..]),
                _ => None,
            }).collect::<Vec<_>>().concat();
            prop_assert_eq!(content, request.pieces.concat());
            let Some(Seen::Request(number, ..)) = seen.first() else { panic!("{seen:?}") };
            let theirs = Slot::of(*number as u32);
            let head = ResponseHead::new(StatusCode::OK);
            wire.connection.send_head(theirs, &head, &Headers::new(), response.is_empty(), &mut wire.out);
            response.send(&mut wire.connection, theirs, &mut wire.out);
            wire.connection.release(theirs, &mut wire.out);
            let mut heard = Vec::new();
            for piece in std::mem::take(&mut wire.out).chunks(cut) {
                asking.input.extend_from_slice(piece);
                asking.take_into(&mut heard).unwrap();
            }
            let content: Vec<u8> = heard.iter().filter_map(|heard| match heard {
                Heard::Data(_, content) => Some(&content[..]),
                _ => None,
            }).collect::<Vec<_>>().concat();
            prop_assert_eq!(content, response.pieces.concat());
            let trailers = response.trailers.then(|| head_of(&[("sum", "1")]).headers);
            match response.is_empty() {
                true => prop_assert!(matches!(heard[..], [Heard::Response(_, _, true, Some(0))]), "{:?}", heard),
                false => prop_assert_eq!(heard.last(), Some(&Heard::Ended(slot.index(), trailers))),
            }
            asking.connection.release(slot, &mut asking.out);
            prop_assert_eq!(asking.connection.open_streams() + wire.connection.open_streams(), 0);
        }
    }
}
