//! What ends a connection, and what ends a stream.

use super::*;

#[test]
fn the_beginning() {
    let mut out = Vec::new();
    Connection::new(limits(), &mut out);
    let mut wire = Wire { out, ..Wire::silent() };
    let settings = [setting(3, 4), setting(8, 1), setting(4, 100_000), setting(6, 4096)].concat();
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
