//! A chunked body means the same in one piece and cut anywhere.

use bytes::BytesMut;
use proxy::h1::{BodyError, Decoded, Decoder, Framing, Limits};

/// Panics where that does not hold.
pub fn check(input: &[u8]) {
    let Some((cut, text)) = input.split_first() else { return };
    let cut = usize::from(*cut).max(1);
    assert_eq!(decode(text, text.len().max(1)), decode(text, cut));
}

/// The data, the number of trailers, and the bytes behind the body.
fn decode(text: &[u8], cut: usize) -> Result<(Vec<u8>, usize, usize), BodyError> {
    let mut decoder = Decoder::new(Framing::Chunked, &Limits::default());
    let (mut input, mut data, mut trailers, mut taken) = (BytesMut::new(), Vec::new(), 0, 0);
    for piece in text.chunks(cut) {
        input.extend_from_slice(piece);
        taken += piece.len();
        loop {
            match decoder.decode(&mut input)? {
                Decoded::Data(piece) => data.extend_from_slice(&piece),
                Decoded::Trailers(fields) => trailers = fields.len(),
                Decoded::End => return Ok((data, trailers, text.len() - taken + input.len())),
                Decoded::NeedMore => break,
            }
        }
    }
    decoder.finish().map(|()| unreachable!("a chunked body ends with End"))
}
