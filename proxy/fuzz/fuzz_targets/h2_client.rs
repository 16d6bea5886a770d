//! Whatever an RS sends means the same in one piece and cut anywhere, and never more than a bounded answer.

#![no_main]

use bytes::BytesMut;
use http::Method;
use libfuzzer_sys::fuzz_target;
use proxy::{
    h1,
    h2::{Client, Connection, ConnectionError, Event, Limits},
    message::RequestHead,
};

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

fuzz_target!(|input: &[u8]| {
    let Some((cut, frames)) = input.split_first() else { return };
    let cut = usize::from(*cut).max(1);
    let bytes = [SETTINGS, frames].concat();
    let whole = take(&bytes, bytes.len());
    assert!(whole.1.len() <= 1000 + 40 * bytes.len());
    // Where windows are granted again depends on the pieces.
    if bytes.len() < 30_000 {
        assert_eq!(whole, take(&bytes, cut));
    }
});

/// What has happened, in words, and what is said, when four requests are under way.
fn take(bytes: &[u8], cut: usize) -> (Result<Vec<String>, ConnectionError>, Vec<u8>) {
    let limits = Limits {
        streams: 8,
        stream_window: 1 << 16,
        connection_window: 1 << 17,
        largest_window: 1 << 20,
        head: h1::Limits::default(),
    };
    let mut out = Vec::new();
    let mut connection = Connection::<Client>::connect(limits, &mut out);
    for (method, end) in [(Method::GET, true), (Method::HEAD, true), (Method::POST, false), (Method::PUT, true)] {
        let head = RequestHead { method, target: "/".into(), authority: "a".into(), ..RequestHead::default() };
        connection.open(&head, "https", None, end, &mut out);
    }
    let mut input = BytesMut::new();
    let mut seen = Vec::new();
    let mut last = None;
    for piece in bytes.chunks(cut) {
        input.extend_from_slice(piece);
        loop {
            let event = match connection.receive(&mut input, &mut out) {
                Ok(event) => event,
                Err(error) => return (Err(error), out),
            };
            match event {
                Event::NeedMore => break,
                Event::Data { slot, bytes } => {
                    let data = input.split_to(bytes);
                    connection.passed_on(slot, bytes, 0, &mut out);
                    let words = format!("{data:?}");
                    match seen.last_mut().filter(|_| last.replace(slot) == Some(slot)) {
                        Some(before) => *before = format!("{before}{words}").replace("\"b\"", ""),
                        None => seen.push(words),
                    }
                }
                event => {
                    last = None;
                    seen.push(format!("{event:?}"));
                }
            }
        }
    }
    (Ok(seen), out)
}
