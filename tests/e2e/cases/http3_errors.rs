//! HTTP/3 byte by byte: which mistakes end the connection or a stream, with which code, and what is merely skipped.

use serde_json::{Value, json};

use crate::harness::h3::{H3, frame, headers, hex};
use crate::harness::{Case, Need, Origin, Program};

use super::{site, site_with};

const NEEDS: &[Need] = &[Need::Aioquic];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("http3_errors::of_requests_are_told_by_their_code", NEEDS, of_requests),
        Case::needing("http3_errors::of_streams_of_the_client_are_told_by_their_code", NEEDS, of_own_streams),
        Case::needing("http3_errors::what_nobody_knows_is_skipped", NEEDS, unknown),
        Case::needing("http3_errors::requests_that_are_reset_at_once_end_the_connection", NEEDS, rapid_reset),
        Case::needing("http3_errors::heads_that_never_end_are_bounded", NEEDS, heads),
        Case::needing("http3_errors::a_head_that_does_not_come_is_answered", NEEDS, slow),
    ]
}

const FIELDS: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];

/// HEADERS of GET, or of a request with this field too.
fn get(field: Option<(&str, &str)>) -> String {
    headers(&FIELDS.into_iter().chain(field).collect::<Vec<_>>())
}

/// What comes of these streams on a connection of its own, with the usual streams of the client or without.
fn sent(program: &Program, usual: bool, streams: Value, drip: bool) -> Value {
    let mut client = H3::with(program, json!({"h3": usual}));
    client.ask(json!({"do": "raw", "streams": streams, "drip": drip}))
}

fn of_requests() {
    // Waits for the whole request before it answers.
    let origin = Origin::serving(|_| crate::harness::origin::ok("rs"));
    let program = site(&origin).start();
    let empty = get(None);
    let posted = get(Some(("content-length", "3")));
    let connection: &[(&str, String, u64)] = &[
        ("DATA before the head", frame(0, b"x"), 0x105),
        (
            "DATA behind trailers",
            [&empty, &frame(0, b"x"), &headers(&[("x", "1")]), &frame(0, b"x")].map(String::as_str).concat(),
            0x105,
        ),
        (
            "a third head",
            [&empty, &headers(&[("x", "1")]), &headers(&[("y", "1")])].map(String::as_str).concat(),
            0x105,
        ),
        ("SETTINGS on a request", frame(4, b""), 0x105),
        ("GOAWAY on a request", frame(7, &[0]), 0x105),
        ("MAX_PUSH_ID on a request", frame(0xd, &[0]), 0x105),
        ("CANCEL_PUSH on a request", frame(3, &[0]), 0x105),
        ("PUSH_PROMISE", frame(5, &[0, 0, 0]), 0x105),
        ("PRIORITY of HTTP/2", frame(2, &[0; 5]), 0x105),
        ("PING of HTTP/2", frame(6, &[0; 8]), 0x105),
        ("an end within a frame", "0105".into(), 0x106),
        ("an end within a frame's head", format!("{empty}40"), 0x106),
        ("an index that is not static", frame(1, &[0, 0, 0x80]), 0x200),
        ("a section that needs entries", frame(1, &[2, 0, 0xd1]), 0x200),
        ("an index behind the table", frame(1, &[0, 0, 0xff, 36]), 0x200),
        ("a base before the first entry", frame(1, &[0, 0x80, 0xd1]), 0x200),
        ("a damaged string", frame(1, &[0, 0, 0x23, b'a']), 0x200),
        ("a damaged code", frame(1, &[0, 0, 0x29, 0x00, 0x00]), 0x200),
    ];
    for (what, bytes, code) in connection {
        for drip in [false, true] {
            let got = sent(&program, true, json!([{"raw": bytes, "end": true}]), drip);
            assert_eq!(got["closed"]["code"], *code, "{what}: {got}");
            assert_eq!(got["closed"]["transport"], false, "{what}: {got}");
        }
    }
    let stream: &[(&str, String, u64)] = &[
        ("nothing", String::new(), 0x10d),
        ("a frame that nobody knows", frame(0x21, b"x"), 0x10d),
        ("less than Content-Length", format!("{posted}{}", frame(0, b"ab")), 0x10e),
        ("more than Content-Length", format!("{posted}{}", frame(0, b"abcd")), 0x10e),
        (
            "malformed trailers",
            [&empty, &frame(0, b"x"), &headers(&[(":path", "/")])].map(String::as_str).concat(),
            0x10e,
        ),
    ];
    for (what, bytes, code) in stream {
        let got = sent(&program, true, json!([{"raw": bytes, "end": true}]), false);
        assert!(got["closed"].is_null(), "{what}: {got}");
        let ended = [&got["resets"]["0"], &got["stops"]["0"]];
        assert!(ended.contains(&&json!(code)), "{what}: {got}");
    }
}

fn of_own_streams() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let control = |rest: String| format!("00{}{rest}", frame(4, &[]));
    for (what, bytes, end, code) in [
        ("no SETTINGS", format!("00{}", frame(7, &[0])), false, 0x10a),
        ("SETTINGS twice", control(frame(4, &[])), false, 0x105),
        ("a setting twice", format!("00{}", frame(4, &[6, 1, 6, 1])), false, 0x109),
        ("a setting of HTTP/2", format!("00{}", frame(4, &[3, 1])), false, 0x109),
        ("a setting that is no switch", format!("00{}", frame(4, &[8, 2])), false, 0x109),
        ("half a setting", format!("00{}", frame(4, &[6])), false, 0x106),
        ("DATA", control(frame(0, b"x")), false, 0x105),
        ("HEADERS", control(get(None)), false, 0x105),
        ("PUSH_PROMISE", control(frame(5, &[0])), false, 0x105),
        ("PING of HTTP/2", control(frame(6, &[0; 8])), false, 0x105),
        ("a push that was never promised", control(frame(3, &[0])), false, 0x108),
        ("MAX_PUSH_ID that goes backwards", control(frame(13, &[9]) + &frame(13, &[8])), false, 0x108),
        ("GOAWAY that goes forwards", control(frame(7, &[8]) + &frame(7, &[9])), false, 0x108),
        ("GOAWAY without a number", control(frame(7, &[])), false, 0x106),
        ("GOAWAY with more than a number", control(frame(7, &[0, 0])), false, 0x106),
        ("a frame far too large", control("0740ffff".replace("40ffff", "8000ffff")), false, 0x107),
        ("an end of the control stream", control(String::new()), true, 0x104),
        ("a push", "01".into(), false, 0x103),
        ("a capacity above 0", hex(&[2, 0x21]), false, 0x201),
        ("an entry", hex(&[2, 0xc0, 1, b'a']), false, 0x201),
        ("a copy", hex(&[2, 0x00]), false, 0x201),
        ("an end of the encoder stream", "02".into(), true, 0x104),
        ("an acknowledgement of a section", hex(&[3, 0x80]), false, 0x202),
        ("an increment", hex(&[3, 0x01]), false, 0x202),
        ("an increment of 0", hex(&[3, 0x00]), false, 0x202),
        ("an end of the decoder stream", "03".into(), true, 0x104),
    ] {
        for drip in [false, true] {
            let streams = json!([{"uni": true, "raw": bytes, "end": end}]);
            let got = sent(&program, false, streams, drip);
            assert_eq!(got["closed"]["code"], code, "{what}: {got}");
        }
    }
    for (what, kind) in [("control", "000400"), ("encoder", "02"), ("decoder", "03")] {
        let got = sent(&program, true, json!([{"uni": true, "raw": kind}]), false);
        assert_eq!(got["closed"]["code"], 0x103, "a second {what} stream: {got}");
    }
}

fn unknown() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = H3::with(&program, json!({"h3": false}));
    // Reserved settings, frames and streams; instructions that change nothing; an early end of a stream of no kind.
    let settings = frame(4, &[0x21, 5, 0x40, 0x40, 7, 1, 0, 6, 9, 8, 1]);
    let got = client.ask(json!({"do": "raw", "patience": 1, "streams": [
        {"uni": true, "raw": format!("00{settings}{}{}{}", frame(0x21, b"abc"), frame(13, &[1]), frame(13, &[1]))},
        {"uni": true, "raw": hex(&[2, 0x20, 0x20])},
        {"uni": true, "raw": hex(&[3, 0x44, 0x7f, 0x80, 0x01])},
        {"uni": true, "raw": "", "end": true},
        {"uni": true, "raw": "21616263"},
        {"raw": format!("{}{}{}{}", frame(0x21, b"xyz"), get(None), frame(0x40, b""), frame(0, b"")), "end": true},
    ]}));
    assert!(got["closed"].is_null(), "{got}");
    let got = client.ask(json!({"do": "finish", "stream": 0, "patience": 2}));
    assert!(got["closed"].is_null() && got["ended"] == true && got["reset"].is_null(), "{got}");
    // H3_STREAM_CREATION_ERROR for the stream of a reserved type.
    assert_eq!(client.ask(json!({"do": "finish", "stream": 18, "patience": 1}))["stop"], 0x103);
    assert_eq!(origin.only().target(), "/");
    // Within bounds.
    let got = sent(&program, true, json!([{"raw": frame(0x21, b"").repeat(1001)}]), false);
    assert_eq!(got["closed"]["code"], 0x107, "{got}");
    let got =
        sent(&program, true, json!([{"raw": format!("{}{}", get(None), frame(0, b"").repeat(1001))}]), false);
    assert_eq!(got["closed"]["code"], 0x107, "{got}");
    let got = sent(&program, true, json!([{"raw": "21a0000000"}]), false);
    assert_eq!(got["closed"]["code"], 0x107, "{got}");
}

fn rapid_reset() {
    let origin = Origin::scripted(|peer| {
        peer.head()?;
        peer.rest().map(drop)
    });
    let program = site(&origin).start();
    let mut client = H3::connect(&program);
    let got = client.ask(json!({"do": "rapid", "count": 2000, "path": "/", "patience": 10}));
    assert_eq!(got["closed"]["code"], 0x107, "{got}");
    // Answers pay back.
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = H3::connect(&program);
    for _ in 0..6 {
        let got = client.ask(json!({"do": "rapid", "count": 100, "path": "/", "patience": 0.01}));
        assert!(got["closed"].is_null(), "{got}");
        client.requests((0..100).map(|_| json!({})).collect());
    }
}

fn heads() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "client_header_size: 16k", "").start();
    // The frame is to have 16000 bytes; all but the last come.
    let raw = format!("01{}{}", "7e80", "00".repeat(15_900));
    let streams: Vec<_> = (0..5).map(|_| json!({"raw": raw})).collect();
    let got = sent(&program, true, json!(streams), false);
    assert_eq!(got["closed"]["code"], 0x107, "{got}");
    let got = sent(&program, true, json!([{"raw": "01bfffffff"}]), false);
    assert!(got["closed"].is_null(), "{got}");
}

fn slow() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "client_header_timeout: 1s, client_body_timeout: 1s", "").start();
    let mut client = H3::connect(&program);
    let begun = client.ask(json!({"do": "begin", "raw": get(None)[..10], "end": false}));
    let got = client.ask(json!({"do": "finish", "stream": begun["stream"]}));
    assert_eq!(got["status"], 408, "{got}");
    let begun = client.ask(json!({"do": "begin", "method": "POST", "body": "a", "end": false}));
    let got = client.ask(json!({"do": "finish", "stream": begun["stream"]}));
    assert_eq!(got["status"], 408, "{got}");
    assert_eq!(client.get("/").0, 200);
}
