//! The body of a request while it is not known whether the RS will take the request at all: what was sent of it is kept,
//! as long as that is little, for an RS may refuse with the first bytes on their way (RFC 9113 8.7).

use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};

use crate::body::{Body, Moved, Source};
use crate::error::Error;
use crate::message::Headers;
use crate::net::Output;

/// Most bytes of a body that are kept.
const KEPT: usize = 64 << 10;

/// A body that is being sent.
pub(super) struct Replay {
    body: Body,
    length: Option<u64>,
    /// Everything that was sent of it, unless that was too much.
    kept: Option<Vec<u8>>,
    /// The end was sent, with these trailers.
    end: Option<Option<Headers>>,
}

impl Replay {
    pub(super) fn new(body: Body) -> Self {
        let end = body.is_empty().then_some(None);
        Self { length: body.length(), kept: Some(Vec::new()), end, body }
    }

    /// Whether nothing is left to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.end.is_some()
    }

    /// Bytes of the whole body, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// As [`Body::poll_into`]; nothing else is in `part`.
    pub(super) fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Output,
        most: usize,
    ) -> Poll<Result<Moved, Error>> {
        let moved = ready!(self.body.poll_into(cx, part, most, false))?;
        match &mut self.kept {
            Some(kept) if kept.len() + part.len() <= KEPT => {
                part.pieces().for_each(|piece| kept.extend_from_slice(piece))
            }
            kept => *kept = None,
        }
        self.end = match &moved {
            Moved::Data(_) => None,
            Moved::Last(_) => Some(None),
            Moved::Trailers(trailers) => Some(Some(trailers.clone())),
        };
        Poll::Ready(Ok(moved))
    }

    /// Keeps nothing more: the RS has taken the request.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// The whole body, if it can be sent once more.
    pub(super) fn again(self) -> Option<Body> {
        let Self { body, length, kept, end } = self;
        let kept = Bytes::from(kept?);
        if kept.is_empty() && matches!(end, None | Some(None)) {
            return Some(body);
        }
        Some(Body::stream(Box::new(Again { kept, length, body, end })))
    }
}

/// A body whose beginning was sent before.
struct Again {
    kept: Bytes,
    length: Option<u64>,
    body: Body,
    end: Option<Option<Headers>>,
}

impl Again {
    /// What is left of the beginning, at most `most` bytes; or the end where nothing is behind it.
    fn next(&mut self, most: usize) -> Option<(Bytes, Moved)> {
        let piece = self.kept.split_to(most.min(self.kept.len()));
        let bytes = piece.len() as u64;
        let moved = match (&mut self.end, self.kept.has_remaining()) {
            (Some(None), false) => Moved::Last(bytes),
            _ if bytes > 0 => Moved::Data(bytes),
            (Some(Some(trailers)), _) => Moved::Trailers(std::mem::take(trailers)),
            (None | Some(None), _) => return None,
        };
        Some((piece, moved))
    }
}

impl Source for Again {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        let Some((piece, moved)) = self.next(most) else {
            return self.body.poll_into(cx, output, most, chunked);
        };
        if !piece.is_empty() {
            output.push_body(piece, chunked);
        }
        Poll::Ready(Ok(moved))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Pieces, and trailers at the end.
    struct Pieces(Vec<Vec<u8>>, Option<Headers>);

    impl Source for Pieces {
        fn poll_into(
            &mut self,
            _: &mut Context<'_>,
            output: &mut Output,
            most: usize,
            chunked: bool,
        ) -> Poll<Result<Moved, Error>> {
            if self.0.is_empty() {
                return Poll::Ready(Ok(self.1.take().map_or(Moved::Last(0), Moved::Trailers)));
            }
            let mut piece = self.0.remove(0);
            if piece.len() > most {
                self.0.insert(0, piece.split_off(most));
            }
            let length = piece.len() as u64;
            output.push_body(piece.into(), chunked);
            Poll::Ready(Ok(Moved::Data(length)))
        }

        fn length(&self) -> Option<u64> {
            None
        }
    }

    fn step(
        next: impl FnOnce(&mut Context<'_>, &mut Output) -> Poll<Result<Moved, Error>>,
        out: &mut Vec<u8>,
    ) -> Moved {
        let mut part = Output::default();
        let moved = next(&mut Context::from_waker(Waker::noop()), &mut part);
        part.pieces().for_each(|piece| out.extend_from_slice(piece));
        match moved {
            Poll::Ready(Ok(moved)) => moved,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_body_comes_again_from_its_beginning_wherever_it_was_left() {
        let mut sum = Headers::new();
        sum.append("sum", "1");
        for trailers in [None, Some(sum)] {
            for steps in 0..6 {
                let pieces = vec![b"abc".to_vec(), b"def".to_vec(), b"g".to_vec()];
                let mut replay = Replay::new(Body::stream(Box::new(Pieces(pieces, trailers.clone()))));
                let mut sent = Vec::new();
                for _ in 0..steps {
                    if !replay.is_sent() {
                        step(|cx, part| replay.poll_into(cx, part, 2), &mut sent);
                    }
                }
                let mut again = replay.again().unwrap();
                let mut out = Vec::new();
                let end = loop {
                    match step(|cx, part| again.poll_into(cx, part, 2, false), &mut out) {
                        Moved::Data(_) => {}
                        Moved::Last(_) => break None,
                        Moved::Trailers(trailers) => break Some(trailers),
                    }
                };
                assert_eq!((out, end), (b"abcdefg".to_vec(), trailers.clone()), "after {steps}");
            }
        }
    }

    #[test]
    fn a_large_body_does_not_come_again() {
        let body = || Body::full(vec![b'x'; KEPT + 1]);
        let mut replay = Replay::new(body());
        step(|cx, part| replay.poll_into(cx, part, KEPT), &mut Vec::new());
        assert!(replay.again().is_some());
        let mut replay = Replay::new(body());
        step(|cx, part| replay.poll_into(cx, part, usize::MAX), &mut Vec::new());
        assert!(replay.is_sent() && replay.again().is_none());
    }
}
