//! Requests that are taken, and those that get an answer all the same.

use super::*;

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
    assert_eq!(with(&[("host", "A")]), plain(""));
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
    let connect = |more: &[(&'static str, &'static str)]| {
        [&[(":method", "CONNECT"), GET[1], GET[2], GET[3]][..], more].concat()
    };
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
        (connect(&[(":protocol", "websocket"), (":protocol", "websocket")]), "bad_field_name"),
        (connect(&[("x", "y"), (":protocol", "websocket")]), "bad_field_name"),
        (connect(&[(":protocol", "connect-udp")]), "connect_refused"),
        (connect(&[(":protocol", "")]), "connect_refused"),
        (connect(&[(":protocol", "websocket"), ("content-length", "0")]), "connect_refused"),
        (vec![GET[2], (":method", "CONNECT"), (":protocol", "websocket")], "bad_request_line"),
        (get(&[("expect", "magic")]), "unknown_expectation"),
        (get(&[("expect", "100-continue, magic")]), "unknown_expectation"),
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
fn a_websocket_is_a_request_that_goes_on() {
    let fields =
        [(":method", "CONNECT"), (":protocol", "WebSocket"), (":scheme", "https"), (":path", "/"), GET[2]];
    let mut wire = Wire::new();
    let seen =
        wire.good([frame(kind::HEADERS, 4, 1, block(&fields)), data(1, "abc"), last_data(1, "d")].concat());
    let [Seen::Request(0, head, false, None), Seen::Data(0, content), Seen::Ended(0, None)] = &seen[..]
    else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (head.method.as_str(), head.target.as_str(), content.as_slice()),
        ("CONNECT", "/", &b"abcd"[..])
    );
}

#[test]
fn who_waits_for_100() {
    for (fields, ended, awaited) in [
        (&[("expect", "100-continue")][..], false, true),
        (&[("expect", "100-Continue")], false, true),
        (&[("expect", "100-continue")], true, false),
        (&[], false, false),
    ] {
        let mut wire = Wire::new();
        let flags = flag::END_HEADERS | if ended { flag::END_STREAM } else { 0 };
        wire.input.extend_from_slice(&frame(kind::HEADERS, flags, 1, block(&[POST, fields].concat())));
        let event = wire.connection.receive(&mut wire.input, &mut wire.out).unwrap();
        let Event::Head(Asked::Request { expects, .. }) = event else { panic!("{event:?}") };
        assert_eq!(expects, awaited, "{fields:?} {ended}");
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
