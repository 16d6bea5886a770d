//! Requests and control streams in one piece and in any pieces; what is written is read by the rules.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::h1::{self, HeadError};
use crate::message::{Headers, ResponseHead};

const GET: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/p")];

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    super::frame::put_head(kind, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = Vec::new();
    qpack::prefix(&mut section);
    for (name, value) in fields {
        qpack::encode(name.as_bytes(), value.as_bytes(), &mut section);
    }
    frame(1, &section)
}

fn with(field: (&str, &str)) -> Vec<u8> {
    head(&[GET, &[field]].concat())
}

/// What happens on a stream, in words, when its bytes come in pieces of these sizes. Content is put together.
fn played(bytes: &[u8], mut sizes: impl Iterator<Item = usize>) -> (Vec<String>, Result<(), RequestError>) {
    let limits = h1::Limits { head_bytes: 2000, trailer_bytes: 500, ..h1::Limits::default() };
    let mut stream = RequestStream::default();
    let mut seen = Vec::<String>::new();
    let mut content = Vec::new();
    let mut rest = bytes;
    loop {
        let (piece, behind) =
            rest.split_at(sizes.next().unwrap_or(rest.len()).clamp(1, rest.len().max(1)).min(rest.len()));
        rest = behind;
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match stream.receive(&mut input, &limits, usize::MAX) {
                Ok(Event::NeedMore) => break,
                Ok(Event::Data(data)) => {
                    assert!(!data.is_empty());
                    content.extend_from_slice(&data);
                }
                Ok(event) => {
                    if !content.is_empty() {
                        seen.push(format!("{:?}", Bytes::from(std::mem::take(&mut content))));
                    }
                    seen.push(format!("{event:?}"));
                }
                Err(error) => {
                    seen.push(format!("{:?}", Bytes::from(content)));
                    return (seen, Err(error));
                }
            }
        }
        assert!(input.is_empty() && stream.kept() <= limits.head_bytes);
        if rest.is_empty() {
            seen.push(format!("{:?}", Bytes::from(content)));
            return (seen, stream.end());
        }
    }
}

fn ended(bytes: &[u8]) -> Result<(), RequestError> {
    played(bytes, std::iter::empty()).1
}

#[test]
fn a_request_with_content_and_trailers() {
    let bytes = [
        with(("cookie", "a=1")),
        frame(0, b"hel"),
        frame(0x21, b"skipped"),
        frame(0, b""),
        frame(0, b"lo"),
        head(&[("x-sum", "1"), ("content-length", "5")]),
    ];
    let (seen, end) = played(&bytes.concat(), std::iter::empty());
    assert_eq!(end, Ok(()));
    let [request, content, trailers, _] = &seen[..] else { panic!("{seen:?}") };
    assert!(
        request.contains("Http3") && request.contains("a.test") && request.contains("expects: false"),
        "{request}"
    );
    assert_eq!(content, "b\"hello\"");
    // What must not be in trailers is left out.
    let mut sum = Headers::new();
    sum.append("x-sum", "1");
    assert_eq!(*trailers, format!("{:?}", Event::Trailers(sum)));
}

#[test]
fn content_is_given_in_pieces_as_large_as_wanted() {
    let mut stream = RequestStream::default();
    let mut input = Bytes::from([head(GET), frame(0, b"hello")].concat());
    let limits = h1::Limits::default();
    assert!(matches!(stream.receive(&mut input, &limits, 2), Ok(Event::Head(_))));
    for wanted in [&b"he"[..], b"ll", b"o"] {
        let Ok(Event::Data(data)) = stream.receive(&mut input, &limits, 2) else { panic!("no content") };
        assert_eq!(data, wanted);
    }
    assert!(matches!(stream.receive(&mut input, &limits, 2), Ok(Event::NeedMore)));
}

#[test]
fn malformed_requests_are_refused_and_no_errors() {
    for (fields, error) in [
        (&[(":method", "GET")][..], HeadError::RequestLine),
        (&[(":method", "GET"), (":scheme", "https"), (":path", "x"), (":authority", "a")], HeadError::Target),
        (&[GET, &[("connection", "close")]].concat(), HeadError::FieldName),
        (&[GET, &[(":path", "/")]].concat(), HeadError::FieldName),
        (&[GET, &[("x", "\0")]].concat(), HeadError::FieldValue),
        (&[GET, &[("x", &*"y".repeat(1990))]].concat(), HeadError::HeadTooLarge),
        (&[(":method", "CONNECT"), (":authority", "a:1")], HeadError::Connect),
    ] {
        let (seen, _) = played(&head(fields), std::iter::empty());
        let wanted = format!("error: {:?}", Error::Head(error));
        assert!(seen[0].contains("Refused") && seen[0].contains(&wanted), "{seen:?}");
    }
}

#[test]
fn errors_of_a_stream_and_of_the_connection() {
    let stream = |code| Err(RequestError::Stream(code));
    let posted = with(("content-length", "3"));
    for (bytes, end) in [
        (vec![], stream(Code::RequestIncomplete)),
        (frame(0x21, b"x"), stream(Code::RequestIncomplete)),
        (posted.clone(), stream(Code::Message)),
        ([posted.clone(), frame(0, b"ab")].concat(), stream(Code::Message)),
        ([posted.clone(), frame(0, b"abcd")].concat(), stream(Code::Message)),
        ([posted.clone(), frame(0, b"ab"), head(&[("x", "1")])].concat(), stream(Code::Message)),
        ([posted.clone(), frame(0, b"abc"), head(&[("x", "1")])].concat(), Ok(())),
        ([head(GET), head(&[("Upper", "1"), (":path", "/")])].concat(), stream(Code::Message)),
        ([head(GET), head(&[("x", &*"y".repeat(600))])].concat(), stream(Code::Message)),
        ([head(GET), head(&[])].concat(), Ok(())),
    ] {
        assert_eq!(ended(&bytes), end, "{bytes:x?}");
    }
    for (bytes, code) in [
        (frame(0, b"x"), Code::FrameUnexpected),
        ([head(GET), head(&[]), frame(0, b"x")].concat(), Code::FrameUnexpected),
        ([head(GET), head(&[]), head(&[])].concat(), Code::FrameUnexpected),
        (frame(4, b""), Code::FrameUnexpected),
        (frame(9, b""), Code::FrameUnexpected),
        (frame(1, &[0, 0, 0x80]), Code::QpackDecompression),
        (vec![1, 5, 0, 0], Code::Frame),
        (vec![0x40], Code::Frame),
        (frame(0x21, b"").repeat(1001), Code::ExcessiveLoad),
        ([head(GET), frame(0, b"").repeat(1001)].concat(), Code::ExcessiveLoad),
        (vec![0x21, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Code::ExcessiveLoad),
    ] {
        let end = ended(&bytes);
        assert!(
            matches!(end, Err(RequestError::Connection(error)) if error.code == code),
            "{bytes:x?} {end:?}"
        );
    }
}

#[test]
fn a_head_that_is_too_large_is_not_even_read() {
    let bytes = frame(1, &[0; 2001]);
    let (seen, _) = played(&bytes, std::iter::repeat(100));
    assert!(seen[0].contains("Refused") && seen[0].contains("HeadTooLarge"), "{seen:?}");
}

#[test]
fn what_is_sent() {
    assert_eq!(opening(65_536), [0, 4, 7, 6, 0x80, 1, 0, 0, 8, 1]);
    assert_eq!(goaway(8), [7, 1, 8]);
    assert_eq!(keep_alive(), [0x21, 0]);
    let mut head = ResponseHead::new(http::StatusCode::OK);
    head.headers.append("Connection", "x");
    head.headers.append("X-Letters", "Kept");
    let mut extra = Headers::new();
    extra.append("date", "now");
    let bytes = response(&head, &extra);
    let mut fields = Vec::new();
    qpack::decode(&bytes[2..], |name, value| fields.push((name.to_vec(), value.to_vec()))).unwrap();
    let texts =
        fields.iter().map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v)));
    assert_eq!(texts.collect::<Vec<_>>(), [":status=200", "x-letters=Kept", "date=now"]);
}

#[test]
fn streams_of_the_client() {
    let mut streams = Unidirectional::default();
    for (kind, wanted) in [
        (0, Ok(Kind::Control)),
        (2, Ok(Kind::Encoder)),
        (3, Ok(Kind::Decoder)),
        (0x21, Ok(Kind::Unknown)),
        (0x21, Ok(Kind::Unknown)),
    ] {
        assert_eq!(streams.open(kind), wanted);
    }
    for kind in 0..4 {
        assert_eq!(streams.open(kind).map_err(|error| error.code), Err(Code::StreamCreation), "{kind}");
    }
    let mut beginning = Beginning::default();
    assert_eq!(beginning.take(&mut &[0x40][..]), None);
    let mut rest = &[0x21, 7][..];
    assert_eq!((beginning.take(&mut rest), rest), (Some(0x21), &[7][..]));
}

#[test]
fn a_control_stream_that_goes_on_for_ever_is_tiring() {
    let mut control = ControlStream::default();
    control.receive(&frame(4, &[])).unwrap();
    assert!(control.has_settled());
    let push = frame(13, &[1]);
    let floods = (0..20_000).find_map(|_| control.receive(&push).err());
    assert_eq!(floods.map(|error| error.code), Some(Code::ExcessiveLoad));
    // Not for who asks for something now and then.
    let mut control = ControlStream::default();
    control.receive(&frame(4, &[])).unwrap();
    for _ in 0..20_000 {
        control.receive(&push).unwrap();
        control.satisfied();
    }
}

/// Frames that a client might send, right and wrong.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let content = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        3 => Just(head(GET)),
        1 => Just(with(("content-length", "3"))),
        1 => Just(head(&[("x-sum", "1")])),
        4 => content.clone().prop_map(|content| frame(0, &content)),
        2 => (0_u64..0x30, content.clone()).prop_map(|(kind, content)| frame(kind, &content)),
        1 => content,
    ]
}

proptest! {
    #[test]
    fn pieces_mean_the_same(
        frames in proptest::collection::vec(any_frame(), 0..8),
        sizes in proptest::collection::vec(1_usize..30, 1..40),
    ) {
        let bytes = frames.concat();
        let whole = played(&bytes, std::iter::empty());
        prop_assert_eq!(&whole, &played(&bytes, sizes.iter().copied().cycle()));
        prop_assert_eq!(&whole, &played(&bytes, std::iter::repeat(1)));
    }

    #[test]
    fn pieces_of_a_control_stream_mean_the_same(
        frames in proptest::collection::vec(any_frame(), 0..8),
        numbers in proptest::collection::vec((3_u64..14, 0_u8..64), 0..8),
        sizes in proptest::collection::vec(1_usize..30, 1..40),
    ) {
        let numbers = numbers.iter().map(|(kind, number)| frame(*kind, &[*number]));
        let bytes = [frame(4, &[6, 63]), numbers.collect::<Vec<_>>().concat(), frames.concat()].concat();
        let whole = ControlStream::default().receive(&bytes);
        let mut control = ControlStream::default();
        let (mut rest, mut sizes) = (&bytes[..], sizes.iter().copied().cycle());
        let mut pieces = Ok(());
        while !rest.is_empty() && pieces.is_ok() {
            let (piece, behind) = rest.split_at(sizes.next().unwrap().min(rest.len()));
            rest = behind;
            pieces = control.receive(piece);
        }
        prop_assert_eq!(whole, pieces);
    }
}
