//! Responses are compressed as they stream: in the request's own task, a piece at a time, and with everything let go
//! that is complete as soon as the RS pauses, so that a slow stream is not held back.
//!
//! # Memory
//!
//! A compressor works in a window of at most [`WINDOW_LOG`] bits, whatever the length of the response, and a worker has
//! at most [`MOST`] of them: further responses pass as they are. Levels are those at which a proxy is still
//! quicker than most networks.

use std::io::{self, Write as _};
use std::task::{Context, Poll, ready};

use brotli::CompressorWriter as Brotli;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::write::GzEncoder as Gzip;
use http::Method;
use zstd::stream::write::Encoder as Zstd;

use super::under_way::{Count, UnderWay};
use crate::body::{Body, Moved, Source};
use crate::error::Error;
use crate::listener::Response;
use crate::message::{Headers, ResponseHead};
use crate::net::Output;
use crate::rule::{Algorithm, Compress};

/// Most responses that one worker compresses at a time.
const MOST: usize = 256;
/// 256 KiB: more finds little more in a page, and each stream would hold it.
const WINDOW_LOG: u8 = 18;
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: i32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// Bytes that are compressed in one go.
const PIECE: usize = 16 << 10;
/// Bytes of a compressed response that are passed on in one go, unless it pauses or ends.
const GATHER: usize = 4 << 10;
/// Bytes after which other connections have their turn, although nothing has come out yet.
const TURN: usize = 256 << 10;

/// The compressors of one worker.
#[derive(Debug, Default)]
pub(crate) struct Compressors(Count);

impl Compressors {
    /// Compresses the response where that is its rule's wish and `wanted` by the client.
    pub(super) fn apply(
        &self,
        compress: &Compress,
        wanted: Option<Algorithm>,
        method: &Method,
        response: &mut Response,
    ) {
        let length = match *method {
            Method::HEAD => told_length(&response.head),
            _ => response.body.length(),
        };
        if !compress.concerns(&response.head, length) {
            return;
        }
        Compress::mark_varying(&mut response.head.headers);
        let Some(algorithm) = wanted else { return };
        if *method != Method::HEAD {
            let Some(under_way) = self.0.begin(MOST) else { return };
            let Ok(encoder) = Encoder::new(algorithm, length) else { return };
            let plain = std::mem::replace(&mut response.body, Body::empty());
            response.body = Body::stream(Box::new(Compressed::new(plain, encoder, under_way)));
        }
        Compress::mark_compressed(algorithm, &mut response.head.headers);
    }
}

/// The length that a response to HEAD tells.
fn told_length(head: &ResponseHead) -> Option<u64> {
    std::str::from_utf8(head.headers.get("content-length")?).ok()?.parse().ok()
}

/// A compressor that appends to a buffer of its own.
enum Encoder {
    Gzip(Gzip<Vec<u8>>),
    Brotli(Box<Brotli<Vec<u8>>>),
    Zstd(Zstd<'static, Vec<u8>>),
}

impl Encoder {
    /// With the length of the content, where that is known, zstd needs less memory for a small response. Brotli would
    /// take more for a large one.
    fn new(algorithm: Algorithm, length: Option<u64>) -> io::Result<Self> {
        let out = Vec::new();
        Ok(match algorithm {
            Algorithm::Gzip => Self::Gzip(Gzip::new(out, flate2::Compression::new(GZIP_LEVEL))),
            Algorithm::Brotli => {
                let parameters = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: WINDOW_LOG.into(),
                    ..BrotliEncoderParams::default()
                };
                Self::Brotli(Box::new(Brotli::with_params(out, PIECE, &parameters)))
            }
            Algorithm::Zstd => {
                let mut encoder = Zstd::new(out, ZSTD_LEVEL)?;
                encoder.window_log(WINDOW_LOG.into())?;
                encoder.set_pledged_src_size(length)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(content),
            Self::Brotli(encoder) => encoder.write_all(content),
            Self::Zstd(encoder) => encoder.write_all(content),
        }
    }

    /// Lets everything go that was written.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    /// What has come out.
    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    /// The rest.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// A body that is compressed while it is read.
struct Compressed {
    plain: Body,
    /// None when everything has been read.
    encoder: Option<Encoder>,
    /// What was read last.
    piece: Output,
    /// What has come out and was not passed on.
    ready: Bytes,
    /// Whether the encoder may hold something.
    holds: bool,
    trailers: Option<Headers>,
    _under_way: UnderWay,
}

impl Compressed {
    fn new(plain: Body, encoder: Encoder, under_way: UnderWay) -> Self {
        Self {
            plain,
            encoder: Some(encoder),
            piece: Output::default(),
            ready: Bytes::new(),
            holds: false,
            trailers: None,
            _under_way: under_way,
        }
    }

    /// Reads and compresses until something has come out, or everything is read.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut turn = 0;
        while self.ready.is_empty()
            && let Some(encoder) = &mut self.encoder
        {
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let moved = match self.plain.poll_into(cx, &mut self.piece, PIECE, false) {
                Poll::Ready(moved) => moved?,
                Poll::Pending if !std::mem::take(&mut self.holds) => return Poll::Pending,
                Poll::Pending => {
                    encoder.flush().map_err(failed)?;
                    self.ready = std::mem::take(encoder.out()).into();
                    continue;
                }
            };
            turn += self.piece.len();
            self.holds |= !self.piece.is_empty();
            for part in self.piece.pieces() {
                encoder.write(part).map_err(failed)?;
            }
            self.piece.clear();
            match moved {
                Moved::Data(_) => {
                    if encoder.out().len() >= GATHER {
                        self.ready = std::mem::take(encoder.out()).into();
                    }
                    continue;
                }
                Moved::Last(_) => {}
                Moved::Trailers(trailers) => self.trailers = Some(trailers),
            }
            if let Some(encoder) = self.encoder.take() {
                self.ready = encoder.finish().map_err(failed)?.into();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What is to be told about a piece of so many bytes that was passed on.
    fn moved(&mut self, bytes: usize) -> Moved {
        let bytes = bytes as u64;
        if self.encoder.is_some() || !self.ready.is_empty() {
            return Moved::Data(bytes);
        }
        match self.trailers.take() {
            None => Moved::Last(bytes),
            Some(trailers) if bytes == 0 => Moved::Trailers(trailers),
            trailers => {
                self.trailers = trailers;
                Moved::Data(bytes)
            }
        }
    }
}

impl Source for Compressed {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        ready!(self.poll_ready(cx))?;
        let piece = self.ready.split_to(most.min(self.ready.len()));
        let bytes = piece.len();
        if bytes > 0 {
            output.push_body(piece, chunked);
        }
        Poll::Ready(Ok(self.moved(bytes)))
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

/// Only memory can be short, or a length that was pledged is not kept: neither is the client's fault.
fn failed(_: io::Error) -> Error {
    Error::Internal
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::Gzip, Algorithm::Brotli, Algorithm::Zstd];

    /// Pieces, with a pause behind each that is `None`.
    struct Pieces(VecDeque<Option<Vec<u8>>>, Option<Headers>);

    impl Source for Pieces {
        fn poll_into(
            &mut self,
            _: &mut Context<'_>,
            output: &mut Output,
            most: usize,
            chunked: bool,
        ) -> Poll<Result<Moved, Error>> {
            match self.0.pop_front() {
                Some(None) => Poll::Pending,
                Some(Some(mut piece)) => {
                    let rest = piece.split_off(most.min(piece.len()));
                    if !rest.is_empty() {
                        self.0.push_front(Some(rest));
                    }
                    let length = piece.len() as u64;
                    output.push_body(piece.into(), chunked);
                    Poll::Ready(Ok(Moved::Data(length)))
                }
                None => Poll::Ready(Ok(match self.1.take() {
                    Some(trailers) => Moved::Trailers(trailers),
                    None => Moved::Last(0),
                })),
            }
        }

        fn length(&self) -> Option<u64> {
            None
        }
    }

    fn compressed(algorithm: Algorithm, pieces: &[Option<Vec<u8>>], trailers: Option<Headers>) -> Compressed {
        let plain = Body::stream(Box::new(Pieces(pieces.iter().cloned().collect(), trailers)));
        let under_way = Count::default().begin(1).unwrap();
        Compressed::new(plain, Encoder::new(algorithm, None).unwrap(), under_way)
    }

    fn decompressed(algorithm: Algorithm, mut coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        // Of an incomplete stream the beginning is read, and then comes an error.
        let _ = match algorithm {
            Algorithm::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut plain),
            Algorithm::Brotli => brotli::Decompressor::new(coded, 4096).read_to_end(&mut plain),
            Algorithm::Zstd => zstd::stream::read::Decoder::new(&mut coded).unwrap().read_to_end(&mut plain),
        };
        plain
    }

    /// Reads the next piece behind what is in `out`.
    fn read_piece(body: &mut Compressed, out: &mut Vec<u8>, most: usize) -> Poll<Result<Moved, Error>> {
        let mut output = Output::default();
        let moved =
            body.poll_into(&mut Context::from_waker(std::task::Waker::noop()), &mut output, most, false);
        output.pieces().for_each(|piece| out.extend_from_slice(piece));
        moved
    }

    /// Reads to the end with at most so many bytes at a time.
    fn read(mut body: Compressed, most: usize) -> (Vec<u8>, Option<Headers>) {
        let mut out = Vec::new();
        loop {
            let before = out.len();
            match read_piece(&mut body, &mut out, most) {
                Poll::Pending => {}
                Poll::Ready(Ok(Moved::Data(bytes))) => {
                    assert!(bytes as usize == out.len() - before && bytes as usize <= most && bytes > 0);
                }
                Poll::Ready(Ok(Moved::Last(_))) => return (out, None),
                Poll::Ready(Ok(Moved::Trailers(trailers))) => return (out, Some(trailers)),
                Poll::Ready(Err(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_pause_holds_nothing_back() {
        for algorithm in ALL {
            let pieces = [Some(b"first".to_vec()), None, None, Some(b" second".to_vec()), None];
            let mut body = compressed(algorithm, &pieces, None);
            let mut out = Vec::new();
            let mut seen = Vec::new();
            for _ in 0..6 {
                let _ = read_piece(&mut body, &mut out, usize::MAX);
                seen.push(String::from_utf8(decompressed(algorithm, &out)).unwrap());
            }
            seen.dedup();
            assert_eq!(seen, ["first", "first second"], "{algorithm:?}");
        }
    }

    #[test]
    fn trailers_stay_behind_the_content() {
        for algorithm in ALL {
            let mut trailers = Headers::new();
            trailers.append("X-Sum", "1");
            let (coded, found) =
                read(compressed(algorithm, &[Some(vec![b'a'; 5000])], Some(trailers.clone())), 7);
            assert_eq!((decompressed(algorithm, &coded).len(), found), (5000, Some(trailers)));
        }
    }

    #[test]
    fn much_that_comes_to_nothing_lets_others_have_their_turn() {
        let mut body = compressed(Algorithm::Zstd, &vec![Some(vec![0; PIECE]); 200], None);
        let first = read_piece(&mut body, &mut Vec::new(), usize::MAX);
        assert!(first.is_pending(), "{first:?}");
    }

    #[test]
    fn small_responses_of_known_length_come_out_whole() {
        for algorithm in ALL {
            let mut encoder = Encoder::new(algorithm, Some(2000)).unwrap();
            encoder.write(&[b'x'; 2000]).unwrap();
            assert_eq!(decompressed(algorithm, &encoder.finish().unwrap()), [b'x'; 2000]);
        }
    }

    proptest! {
        #[test]
        fn what_is_decompressed_is_what_was_sent(
            pieces in prop::collection::vec(
                prop::option::weighted(0.8, prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 1..20_000)),
                0..8,
            ),
            most in 1_usize..70_000,
        ) {
            let plain: Vec<u8> = pieces.iter().flatten().flatten().copied().collect();
            for algorithm in ALL {
                let (coded, _) = read(compressed(algorithm, &pieces, None), most);
                prop_assert_eq!(&decompressed(algorithm, &coded), &plain);
            }
        }
    }
}
