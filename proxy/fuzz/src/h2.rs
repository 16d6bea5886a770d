//! Bytes behind a valid preface mean the same in one piece and cut anywhere, and never more than a bounded answer.

use std::fmt::Debug;

use bytes::BytesMut;
use proxy::{
    h1,
    h2::{Connection, ConnectionError, Event, Limits, Role, Server},
};

const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Panics where that does not hold.
pub fn check(input: &[u8]) {
    both_ways(BEGINNING, input, |out| Connection::<Server>::new(limits(), out));
}

/// Feeds a connection with `beginning` and what is behind the first byte of `input`, whole and in pieces as long as that
/// byte says.
pub(super) fn both_ways<R: Role>(
    beginning: &[u8],
    input: &[u8],
    begin: impl Fn(&mut Vec<u8>) -> Connection<R>,
) where
    R::Head: Debug,
{
    let Some((cut, frames)) = input.split_first() else { return };
    let cut = usize::from(*cut).max(1);
    let bytes = [beginning, frames].concat();
    let whole = take(&bytes, bytes.len(), &begin);
    assert!(whole.1.len() <= 1000 + 40 * bytes.len());
    // Where windows are granted again depends on the pieces.
    if bytes.len() < 30_000 {
        assert_eq!(whole, take(&bytes, cut, &begin));
    }
}

/// Small enough to be reached.
pub(super) fn limits() -> Limits {
    Limits {
        streams: 8,
        stream_window: 1 << 16,
        connection_window: 1 << 17,
        largest_window: 1 << 20,
        head: h1::Limits::default(),
    }
}

/// What has happened, in words, and what is said.
fn take<R: Role>(
    bytes: &[u8],
    cut: usize,
    begin: impl Fn(&mut Vec<u8>) -> Connection<R>,
) -> (Result<Vec<String>, ConnectionError>, Vec<u8>)
where
    R::Head: Debug,
{
    let mut out = Vec::new();
    let mut connection = begin(&mut out);
    let mut input = BytesMut::new();
    let mut seen: Vec<String> = Vec::new();
    let mut last = None;
    for piece in bytes.chunks(cut) {
        input.extend_from_slice(piece);
        loop {
            let event = match connection.receive(&mut input, &mut out) {
                Ok(event) => event,
                Err(error) => return (Err(error), out),
            };
            let (content, words) = match event {
                Event::NeedMore => break,
                Event::Data { slot, bytes } => {
                    let data = input.split_to(bytes);
                    connection.passed_on(slot, bytes, 0, &mut out);
                    let words = data.escape_ascii().to_string();
                    let same = last.replace(slot) == Some(slot);
                    if let Some(before) = seen.last_mut().filter(|_| same) {
                        before.push_str(&words);
                        continue;
                    }
                    (true, words)
                }
                event => (false, format!("{event:?}")),
            };
            if !content {
                last = None;
            }
            seen.push(words);
        }
    }
    (Ok(seen), out)
}
