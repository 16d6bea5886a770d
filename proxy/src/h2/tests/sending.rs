//! Responses and windows, and how a connection is left.

use http::StatusCode;

use super::*;

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

        wire.connection.send_data(slot, 3, false, &mut wire.out);
        wire.out.extend_from_slice(b"abc");
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
    // An interim response in front of the final one.
    let slot = wire.open(get(9));
    let hints = ResponseHead::new(StatusCode::EARLY_HINTS);
    wire.connection.send_interim(slot, &hints, &mut wire.out);
    wire.connection.send_head(slot, &ResponseHead::new(StatusCode::OK), &Headers::new(), true, &mut wire.out);
    let answers = wire.answers();
    assert_eq!([(answers[0].0, answers[0].1), (answers[1].0, answers[1].1)], [(1, 4), (1, END)]);
    wire.connection.release(slot, &mut wire.out);
    // Over for both sides: nothing is reset.
    assert_eq!(wire.connection.open_streams(), 0);
    let slot = wire.open(post(11, &[]));
    wire.connection.send_head(slot, &ResponseHead::new(StatusCode::OK), &Headers::new(), true, &mut wire.out);
    assert_eq!(wire.answers()[0].1, END);
    wire.connection.release(slot, &mut wire.out);
    wire.assert_reset(11, Code::Cancel);
}

#[test]
fn windows_for_what_is_sent() {
    let send = |wire: &mut Wire, slot, bytes: usize| {
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
