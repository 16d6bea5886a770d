//! Clients of HTTP/2 that make much work with little: the connection ends, and others do not notice.

use crate::harness::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PADDED, PING, SETTINGS, block, frame, get,
    request, update,
};
use crate::harness::{Case, Origin, Program, Request};

use super::site;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("http2_floods::frames_that_move_nothing_end_the_connection", nothing),
        Case::new("http2_floods::a_block_without_end_ends_the_connection", continuation),
        Case::new("http2_floods::a_block_that_grows_when_decoded_is_refused", bomb),
        Case::new("http2_floods::crumbs_of_cookie_are_bounded", crumbs),
    ]
}

const PRIORITY: u8 = 2;
const CONTINUATION: u8 = 9;

/// Sends the same again and again until the connection ends; with which code.
fn flood(client: &mut Frames, bytes: &[u8]) -> u32 {
    for _ in 0..100 {
        // The program may have closed already, and may have told why.
        if client.try_send(bytes.repeat(50)).is_err() {
            break;
        }
    }
    loop {
        let frame = client.next().expect("GOAWAY before the end");
        if frame.kind == GOAWAY {
            return frame.number(4);
        }
    }
}

fn assert_others_are_served(program: &Program) {
    assert_eq!(program.ask("http", &Request::get("a.test", "/").close()).text(), "rs");
}

fn nothing() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    for (what, bytes) in [
        ("PING", frame(PING, 0, 0, [0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 1])),
        ("acknowledgements", frame(SETTINGS, ACK, 0, [])),
        ("PRIORITY", frame(PRIORITY, 0, 1, [0; 5])),
        ("unknown frames", frame(0xfa, 0, 0, [])),
        ("small windows", update(0, 1)),
        ("empty DATA", frame(DATA, PADDED, 1, [2, 0, 0])),
    ] {
        let mut client = Frames::connect(&program, 1 << 20);
        client.send(request(1, "POST", "/", false));
        assert_eq!(flood(&mut client, &bytes), 11, "{what}");
        assert_others_are_served(&program);
    }
}

fn continuation() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    for (size, count) in [(0, 70), (1, 70), (16_384, 8)] {
        let mut client = Frames::connect(&program, 1 << 20);
        client.send(
            [frame(HEADERS, 0, 1, []), frame(CONTINUATION, 0, 1, vec![0; size]).repeat(count)].concat(),
        );
        assert_eq!(client.goaway(), 11, "{size}");
        assert_others_are_served(&program);
    }
    assert!(origin.received().iter().all(|request| request.field("host") == Some("a.test")));
}

/// A field that is kept once and named by a byte each time.
fn bomb() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let before = program.resident();
    let mut client = Frames::connect(&program, 1 << 20);
    let mut fields =
        block(&[(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")]);
    // A literal with incremental indexing: 1 byte of name, 4000 of value.
    fields.extend_from_slice(&[0x40, 1, b'x', 127, 0xa1, 0x1e]);
    fields.extend_from_slice(&[b'y'; 4000]);
    fields.extend_from_slice(&[0x80 | 62; 10_000]);
    for stream in (1..200).step_by(2) {
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
        assert_eq!(client.response(stream).0, 431);
    }
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "the program has grown by {grown} bytes");
    client.send(get(201, "/"));
    assert_eq!(client.response(201).0, 200);
    assert_eq!(origin.received().len(), 1);
}

fn crumbs() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    let ask = |client: &mut Frames, stream: u32, count: usize| {
        let head = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];
        let fields = [&head[..], &vec![("cookie", "a=b"); count]].concat();
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block(&fields)));
        client.response(stream).0
    };
    // What browsers send, and what nobody does.
    assert_eq!(ask(&mut client, 1, 200), 200);
    assert_eq!(origin.only().field("cookie").unwrap().len(), 200 * "a=b; ".len() - 2);
    assert_eq!(ask(&mut client, 3, 1000), 200);
    let empty =
        block(&[(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")]);
    // The name alone, by its number in the table of the protocol, and no value: each costs 32 bytes beyond its own
    // (RFC 9113 6.5.2).
    let many = [&empty[..], &[0x0f, 0x11, 0].repeat(4000)].concat();
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 5, many));
    assert_eq!(client.response(5).0, 431);
    assert_eq!(origin.received().len(), 2);
}
