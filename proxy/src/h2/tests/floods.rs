//! What costs us more than the client is bounded, and a client that is of use does not notice.

use http::StatusCode;

use super::*;

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
    type Round<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let all: [(&str, u32, Round<'_>); 12] = [
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
        wire.connection.send_data(slot, 1, false, &mut wire.out);
        wire.out.push(0);
        // Each response is given up, after two updates and a priority.
        wire.good([update(0, 1), update(stream, 1), frame(0x10, 0, 0, "u=1"), reset(stream)].concat());
        wire.connection.release(slot, &mut wire.out);
        wire.out.clear();
    }
}
