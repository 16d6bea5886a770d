//! The body of a message, taken off the front of a buffer as it arrives (RFC 9112 6 and 7). Data is split off
//! and never copied or collected; only a trailer section is waited for as a whole. A body whose end did
//! not arrive is an error and never looks complete.

use bytes::{Buf as _, Bytes, BytesMut};

use super::{BodyError, Framing, HeadError, Limits, lines, scan, syntax};
use crate::message::{Headers, is};

/// Most fields in a trailer section: a few checksums and states are what trailers carry.
const MOST_TRAILERS: usize = 64;

/// Takes one body apart. Made for each message anew.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of chunk extensions still allowed.
    extension_left: usize,
    trailer_bytes: usize,
    trailers: usize,
}

/// What a step has taken off the front of the input, or with `D = usize` found there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded<D = Bytes> {
    /// Bytes of the body, at least one.
    Data(D),
    /// The trailer section, without the fields that do not belong there; at least one field. [`Decoded::End`] follows.
    Trailers(Headers),
    /// The body is complete. What is left of the input belongs to the next message.
    End,
    /// Read more and append it to the input, of which an incomplete trailer section may be left.
    NeedMore,
}

/// Where in the body the next byte stands. The number beside a chunk line is the size it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    Size {
        size: u64,
        digits: u8,
    },
    /// White space behind a size; only an extension may follow.
    Blank(u64),
    Extension(u64),
    SizeLf(u64),
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    Trailers,
    Done,
    Failed(BodyError),
}

impl Decoder {
    /// For a body of this framing.
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            extension_left: limits.extension_bytes,
            trailer_bytes: limits.trailer_bytes,
            trailers: limits.fields.min(MOST_TRAILERS),
        }
    }

    /// Takes the next piece off the front of `input`; never a byte behind the end of the body.
    ///
    /// # Errors
    ///
    /// [`BodyError`] when the chunks are malformed or beyond the limits, and the same for every later call.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, BodyError> {
        Ok(match self.locate(input, usize::MAX)? {
            Decoded::Data(length) => Decoded::Data(input.split_to(length).freeze()),
            Decoded::Trailers(trailers) => Decoded::Trailers(trailers),
            Decoded::End => Decoded::End,
            Decoded::NeedMore => Decoded::NeedMore,
        })
    }

    /// Like [`Decoder::decode`], but leaves data where it is: so many bytes at the front of `input`, at most
    /// `most`, belong to the body, and the caller takes them off before it asks again.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::decode`].
    pub fn locate(&mut self, input: &mut BytesMut, most: usize) -> Result<Decoded<usize>, BodyError> {
        self.step(input, most).inspect_err(|&error| self.state = State::Failed(error))
    }

    /// The peer closed: whether the body was complete. One that lasts until the close is complete by that.
    ///
    /// # Errors
    ///
    /// [`BodyError::Truncated`] when it was not, or what [`Decoder::decode`] said before.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => {
                self.state = State::Failed(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    /// Whether the end has been taken off the input.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data that certainly follow: the rest of the body or of the chunk. `None` when unknown.
    pub fn remaining_hint(&self) -> Option<u64> {
        match self.state {
            State::Length(left) | State::Chunk(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    fn step(&mut self, input: &mut BytesMut, most: usize) -> Result<Decoded<usize>, BodyError> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                State::Failed(error) => return Err(error),
                State::Trailers => return self.take_trailers(input),
                _ if input.is_empty() => return Ok(Decoded::NeedMore),
                State::UntilClose => return Ok(Decoded::Data(input.len().min(most))),
                State::Length(left) => {
                    let (data, left) = front(input, left, most);
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Decoded::Data(data));
                }
                State::Chunk(left) => {
                    let (data, left) = front(input, left, most);
                    self.state = if left == 0 { State::ChunkCr } else { State::Chunk(left) };
                    return Ok(Decoded::Data(data));
                }
                _ => self.take_chunk_line(input)?,
            }
        }
    }

    /// What lies between the data of two chunks: the end of one and the size of the next.
    fn take_chunk_line(&mut self, input: &mut BytesMut) -> Result<(), BodyError> {
        let mut taken = 0;
        for &byte in input.iter() {
            self.state = match self.state {
                State::Chunk(_) | State::Trailers => break,
                state => self.after_chunk_line_byte(state, byte)?,
            };
            taken += 1;
        }
        input.advance(taken);
        Ok(())
    }

    fn after_chunk_line_byte(&mut self, state: State, byte: u8) -> Result<State, BodyError> {
        const MOST_DIGITS: u8 = 16;
        match (state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
                if digits < MOST_DIGITS =>
            {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Ok(State::Size { size: size << 4 | digit, digits: digits + 1 })
            }
            (State::Size { size, digits: 1.. }, b'\r') => Ok(State::SizeLf(size)),
            (State::Size { digits: 1.., .. }, b'\n') => Err(BodyError::LineEnd),
            (State::Size { size, digits: 1.. }, b';') | (State::Blank(size), b';') => {
                self.count_extension()?;
                Ok(State::Extension(size))
            }
            (State::Size { size, digits: 1.. }, b' ' | b'\t') | (State::Blank(size), b' ' | b'\t') => {
                self.count_extension()?;
                Ok(State::Blank(size))
            }
            (State::Extension(size), b'\r') => Ok(State::SizeLf(size)),
            (State::Extension(_), b'\n') => Err(BodyError::LineEnd),
            (State::Extension(size), _) if scan::is_value(byte) => {
                self.count_extension()?;
                Ok(State::Extension(size))
            }
            (State::Extension(_), _) => Err(BodyError::Extension),
            (State::SizeLf(0), b'\n') => Ok(State::Trailers),
            (State::SizeLf(size), b'\n') => Ok(State::Chunk(size)),
            (State::ChunkCr, b'\r') => Ok(State::ChunkLf),
            (State::ChunkLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::SizeLf(_) | State::ChunkCr | State::ChunkLf, _) => Err(BodyError::LineEnd),
            _ => Err(BodyError::ChunkSize),
        }
    }

    fn count_extension(&mut self) -> Result<(), BodyError> {
        self.extension_left = self.extension_left.checked_sub(1).ok_or(BodyError::ExtensionsTooLong)?;
        Ok(())
    }

    fn take_trailers(&mut self, input: &mut BytesMut) -> Result<Decoded<usize>, BodyError> {
        match **input {
            [] | [b'\r'] => return Ok(Decoded::NeedMore),
            [b'\r', b'\n', ..] => {
                input.advance(2);
                self.state = State::Done;
                return Ok(Decoded::End);
            }
            [b'\r' | b'\n', ..] => return Err(BodyError::Trailers),
            _ => {}
        }
        let section = input.get(..self.trailer_bytes).unwrap_or(input);
        if !syntax::has_empty_line(section) {
            return if input.len() < self.trailer_bytes {
                Ok(Decoded::NeedMore)
            } else {
                Err(BodyError::TrailersTooLarge)
            };
        }
        let mut trailers = Headers::new();
        let length = lines::fields(section, self.trailers, |line| {
            if !forbidden_trailer(line.name) {
                trailers.append(line.name, line.value);
            }
        });
        let length = match length {
            Ok(Some(length)) => length,
            Err(HeadError::TooManyFields) => return Err(BodyError::TrailersTooLarge),
            Ok(None) | Err(_) => return Err(BodyError::Trailers),
        };
        input.advance(length);
        self.state = State::Done;
        Ok(if trailers.is_empty() { Decoded::End } else { Decoded::Trailers(trailers) })
    }
}

/// How many of `left` bytes are at the front of the input, at most `most`, and how many are left of them then.
fn front(input: &[u8], left: u64, most: usize) -> (usize, u64) {
    let length = usize::try_from(left).map_or(input.len(), |left| left.min(input.len())).min(most);
    (length, left - length as u64)
}

/// Fields that decide about framing, routing, authentication, or how content is processed (RFC 9110 6.5.1):
/// whoever merges trailers into the head would obey them after everybody else has passed the message.
pub(crate) fn forbidden_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: [&str; 36] = [
        "accept-encoding",
        "age",
        "authorization",
        "cache-control",
        "client-cert",
        "client-cert-chain",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "expires",
        "forwarded",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
    ];
    let start = name.get(..12).unwrap_or_default();
    is(start, b"x-forwarded-")
        || is(start, b"x-ssl-client")
        || FORBIDDEN.iter().any(|forbidden| is(name, forbidden.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, the trailers, and what is left behind the body.
    type Whole = (Vec<u8>, Option<Headers>, Vec<u8>);

    fn run(framing: Framing, text: &[u8]) -> Result<Whole, BodyError> {
        let mut decoder = Decoder::new(framing, &Limits::default());
        let mut input = BytesMut::from(text);
        let (mut data, mut trailers) = (Vec::new(), None);
        loop {
            match decoder.decode(&mut input)? {
                Decoded::Data(piece) => {
                    assert!(!piece.is_empty());
                    data.extend_from_slice(&piece);
                }
                Decoded::Trailers(fields) => trailers = Some(fields),
                Decoded::End => {
                    assert!(decoder.is_done() && decoder.finish().is_ok());
                    return Ok((data, trailers, input.to_vec()));
                }
                Decoded::NeedMore => decoder.finish()?,
            }
        }
    }

    #[test]
    fn each_framing_ends_where_it_says() {
        assert_eq!(run(Framing::None, b"next"), Ok((vec![], None, b"next".to_vec())));
        assert_eq!(run(Framing::Length(0), b"next"), Ok((vec![], None, b"next".to_vec())));
        assert_eq!(run(Framing::Length(3), b"abcnext"), Ok((b"abc".to_vec(), None, b"next".to_vec())));
        assert_eq!(run(Framing::UntilClose, b"abc"), Ok((b"abc".to_vec(), None, vec![])));
        assert_eq!(run(Framing::Length(4), b"abc"), Err(BodyError::Truncated));
        assert_eq!(run(Framing::Length(u64::MAX), b"abc"), Err(BodyError::Truncated));
    }

    #[test]
    fn chunks_that_are_taken() {
        for (text, data) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
            (b"0003\r\nabc\r\n2;x=\"y z\"\r\nde\r\n000\r\n\r\n", b"abcde"),
            (b"A \t;ext\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
            (b"0000000000000001\r\n\n\r\n0\r\nContent-Length: 3\r\n\r\n", b"\n"),
        ] {
            let text = [text, b"next"].concat();
            assert_eq!(run(Framing::Chunked, &text), Ok((data.to_vec(), None, b"next".to_vec())), "{text:?}");
        }
    }

    #[test]
    fn chunks_that_are_refused() {
        use BodyError::*;
        let long = [b"1;".as_slice(), &[b'x'; 5000], b"\r\na\r\n0\r\n\r\n"].concat();
        let many = [b"1;abc\r\na\r\n".repeat(1100).as_slice(), b"0\r\n\r\n"].concat();
        let trailers = [b"0\r\nA: ".as_slice(), &[b'x'; 9000], b"\r\n\r\n"].concat();
        let fields = [b"0\r\n".as_slice(), &b"A: b\r\n".repeat(65), b"\r\n"].concat();
        for (text, error) in [
            (&b""[..], Truncated),
            (b"3\r\nab", Truncated),
            (b"3\r\nabc\r\n", Truncated),
            (b"3\r\nabc\r\n0\r\n", Truncated),
            (b"0\r\nA: b\r\n", Truncated),
            (b"\r\n", ChunkSize),
            (b";a\r\n", ChunkSize),
            (b"g\r\n", ChunkSize),
            (b"0x1\r\na", ChunkSize),
            (b"+1\r\na", ChunkSize),
            (b"-1\r\na", ChunkSize),
            (b" 1\r\na", ChunkSize),
            (b"1 \r\na", ChunkSize),
            (b"1 2\r\na", ChunkSize),
            (b"00000000000000001\r\na", ChunkSize),
            (b"10000000000000000\r\na", ChunkSize),
            (b"1\na\n0\n\n", LineEnd),
            (b"1\r\r\na", LineEnd),
            (b"1\rX", LineEnd),
            (b"1;a\nb\r\na", LineEnd),
            (b"1;a\rb\r\na", LineEnd),
            (b"1;a\0\r\na", Extension),
            (b"1\r\nab\r\n", LineEnd),
            (b"1\r\na\n0\r\n", LineEnd),
            (b"1\r\na\rX", LineEnd),
            (&long, ExtensionsTooLong),
            (&many, ExtensionsTooLong),
            (b"0\r\n\n", Trailers),
            (b"0\r\n\rX", Trailers),
            (b"0\r\nA: b\n\r\n", Trailers),
            (b"0\r\nA: b\r\n\n", Trailers),
            (b"0\r\nA: b\n\n", Trailers),
            (b"0\r\nA: b\nC: d\r\n\r\n", Trailers),
            (b"0\r\nA : b\r\n\r\n", Trailers),
            (b"0\r\nA: b\r\n c\r\n\r\n", Trailers),
            (b"0\r\nA: b\0\r\n\r\n", Trailers),
            (&trailers, TrailersTooLarge),
            (&fields, TrailersTooLarge),
        ] {
            assert_eq!(run(Framing::Chunked, text), Err(error), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn trailers_come_without_those_that_do_not_belong_there() {
        let text =
            b"0\r\ngrpc-status: 0\r\nHost: a\r\nX-Forwarded-For: b\r\nset-cookie: c\r\nEtag: \"d\"\r\n\
              X-SSL-Client-Verify: SUCCESS\r\nClient-Cert: :AA==:\r\n\r\n";
        let (_, trailers, _) = run(Framing::Chunked, text).unwrap();
        let trailers = trailers.unwrap();
        let expected = [(&b"grpc-status"[..], &b"0"[..]), (b"Etag", b"\"d\"")];
        assert_eq!(trailers.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn data_is_split_off_and_an_error_stays() {
        let mut decoder = Decoder::new(Framing::Chunked, &Limits::default());
        let mut input = BytesMut::from(&b"5\r\nabcde\r\nX"[..]);
        let address = input.as_ptr() as usize;
        let Ok(Decoded::Data(data)) = decoder.decode(&mut input) else { panic!("no data") };
        assert_eq!(data.as_ptr() as usize, address + 3);
        assert_eq!(decoder.decode(&mut input), Err(BodyError::ChunkSize));
        assert_eq!(decoder.decode(&mut BytesMut::from(&b"0\r\n\r\n"[..])), Err(BodyError::ChunkSize));
        assert_eq!(decoder.finish(), Err(BodyError::ChunkSize));
    }
}
