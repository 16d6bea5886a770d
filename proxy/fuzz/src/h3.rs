//! Bytes on any stream of an HTTP/3 client mean the same in one piece and cut anywhere, and little of them is kept.

use bytes::Bytes;
use proxy::h1;
use proxy::h3::qpack::{DecoderStream, EncoderStream};
use proxy::h3::{Beginning, ControlStream, Event, RequestStream, Unidirectional};

/// Panics where that does not hold. The first byte says how large the pieces are, the second what the rest is.
pub fn check(input: &[u8]) {
    let [cut, what, bytes @ ..] = input else { return };
    let cut = usize::from(*cut).max(1);
    match what % 4 {
        0 => assert_eq!(request(bytes, bytes.len().max(1)), request(bytes, cut)),
        1 => assert_eq!(own(bytes, bytes.len().max(1)), own(bytes, cut)),
        2 => {
            let _ = proxy::h3::qpack::decode(bytes, |_, _| {});
        }
        _ => assert_eq!(behind_settings(bytes, bytes.len().max(1)), behind_settings(bytes, cut)),
    }
}

/// What happens on a request stream, in words.
fn request(bytes: &[u8], cut: usize) -> Vec<String> {
    let limits = h1::Limits { head_bytes: 1000, trailer_bytes: 500, ..h1::Limits::default() };
    let (mut stream, mut seen, mut content) = (RequestStream::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(cut) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match stream.receive(&mut input, &limits, usize::MAX) {
                Ok(Event::NeedMore) => break,
                Ok(Event::Data(data)) => content.extend_from_slice(&data),
                Ok(event) => seen.push(format!("{:?} {event:?}", Bytes::from(std::mem::take(&mut content)))),
                Err(error) => {
                    seen.push(format!("{:?} {error:?}", Bytes::from(content)));
                    return seen;
                }
            }
        }
        assert!(stream.kept() <= limits.head_bytes);
    }
    seen.push(format!("{:?} {:?}", Bytes::from(content), stream.end()));
    seen
}

/// How a stream of the client's own ends.
fn own(bytes: &[u8], cut: usize) -> String {
    let (mut beginning, mut kind) = (Beginning::default(), None);
    let mut control = ControlStream::default();
    let (mut encoder, mut decoder) = (EncoderStream::default(), DecoderStream::default());
    for mut piece in bytes.chunks(cut) {
        if kind.is_none() {
            kind = beginning.take(&mut piece);
        }
        let done = match kind {
            None => Ok(()),
            Some(0) => control.receive(piece),
            Some(2) => encoder.receive(piece),
            Some(3) => decoder.receive(piece),
            Some(other) => return format!("{:?}", Unidirectional::default().open(other)),
        };
        if let Err(error) = done {
            return format!("{error:?}");
        }
    }
    format!("{kind:?}")
}

/// How a control stream ends that begins well.
fn behind_settings(bytes: &[u8], cut: usize) -> String {
    let mut control = ControlStream::default();
    let settings = control.receive(&[4, 0]);
    let done = settings.and_then(|()| bytes.chunks(cut).try_for_each(|piece| control.receive(piece)));
    format!("{done:?}")
}
