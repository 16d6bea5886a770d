//! Copies of requests to another pool. Nobody waits for them: a copy that cannot keep up is cut, never the original.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;

use super::ask::ask;
use super::under_way::Count;
use crate::access_log::Record;
use crate::body::{Body, Moved, Source};
use crate::error::Error;
use crate::message::Headers;
use crate::net::Output;
use crate::state::View;
use crate::upstream::Upstreams;

/// Most copies under way in one worker; further requests are not copied.
const MOST: usize = 1024;
/// Bytes of a body that may wait for the RS of the copy.
const MOST_WAITING: usize = 1 << 20;

/// The copies of one worker.
#[derive(Debug, Default)]
pub(crate) struct Mirrors(Count);

impl Mirrors {
    /// Sends a copy of the request in `record` to an RS of this pool; returns the body for the original.
    pub(super) fn copy(
        &self,
        view: &Rc<View>,
        upstreams: &Rc<Upstreams>,
        pool: usize,
        record: &Record,
        body: Body,
    ) -> Body {
        let Some(head) = record.head.as_deref() else { return body };
        let Some(under_way) = self.0.begin(MOST) else { return body };
        let (body, copy) = tee(body);
        let (view, upstreams, mut head, client) =
            (Rc::clone(view), Rc::clone(upstreams), head.clone(), record.client);
        // Whether the content comes is the original's business.
        head.headers.remove("expect");
        tokio::task::spawn_local(async move {
            // What becomes of a copy concerns nobody.
            if let Ok((exchange, _)) = ask(&view, &upstreams, pool, &head, client, copy).await {
                let _ = exchange.into_body().skip().await;
            }
            drop(under_way);
        });
        body
    }
}

/// The body itself, and a copy of it that comes into being as the original is read.
fn tee(body: Body) -> (Body, Body) {
    if body.is_empty() {
        return (body, Body::empty());
    }
    let shared = Rc::new(RefCell::new(Shared::default()));
    let length = body.length();
    let original = Original { body, shared: Rc::clone(&shared) };
    (Body::stream(Box::new(original)), Body::stream(Box::new(Copy { shared, length })))
}

#[derive(Default)]
struct Shared {
    pieces: VecDeque<Bytes>,
    waiting: usize,
    ending: Option<Ending>,
    waker: Option<Waker>,
}

/// How the original came to its end.
enum Ending {
    Complete(Option<Headers>),
    /// It broke off, or the copy was too slow.
    Cut,
}

impl Shared {
    fn push(&mut self, piece: Bytes) {
        if self.ending.is_some() {
            return;
        }
        self.waiting += piece.len();
        self.pieces.push_back(piece);
        if self.waiting > MOST_WAITING {
            self.end(Ending::Cut);
        } else if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The original was moved along; its content is in here already.
    fn moved(&mut self, moved: &Result<Moved, Error>) {
        match moved {
            Ok(Moved::Data(_)) => {}
            Ok(Moved::Last(_)) => self.end(Ending::Complete(None)),
            Ok(Moved::Trailers(trailers)) => self.end(Ending::Complete(Some(trailers.clone()))),
            Err(_) => self.end(Ending::Cut),
        }
    }

    /// What comes next of the copy, with its content taken by `take`, at most `most` bytes of it.
    fn poll_next(
        &mut self,
        cx: &Context<'_>,
        most: usize,
        take: impl FnOnce(Bytes),
    ) -> Poll<Result<Moved, Error>> {
        if matches!(self.ending, Some(Ending::Cut)) {
            return Poll::Ready(Err(Error::ClientGone));
        }
        if let Some(mut piece) = self.pieces.pop_front() {
            if piece.len() > most {
                self.pieces.push_front(piece.split_off(most));
            }
            self.waiting -= piece.len();
            let length = piece.len() as u64;
            take(piece);
            return Poll::Ready(Ok(Moved::Data(length)));
        }
        match &self.ending {
            Some(Ending::Complete(None)) => Poll::Ready(Ok(Moved::Last(0))),
            Some(Ending::Complete(Some(trailers))) => Poll::Ready(Ok(Moved::Trailers(trailers.clone()))),
            Some(Ending::Cut) | None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

struct Original {
    body: Body,
    shared: Rc<RefCell<Shared>>,
}

impl Source for Original {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        let mut piece = Output::default();
        let moved = ready!(self.body.poll_into(cx, &mut piece, most, false));
        let mut shared = self.shared.borrow_mut();
        for bytes in piece.into_pieces() {
            output.push_body(bytes.clone(), chunked);
            shared.push(bytes);
        }
        shared.moved(&moved);
        Poll::Ready(moved)
    }

    fn length(&self) -> Option<u64> {
        self.body.length()
    }

    fn awaits_continue(&self) -> bool {
        self.body.awaits_continue()
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        self.shared.borrow_mut().end(Ending::Cut);
    }
}

struct Copy {
    shared: Rc<RefCell<Shared>>,
    length: Option<u64>,
}

impl Source for Copy {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        self.shared.borrow_mut().poll_next(cx, most, |piece| output.push_body(piece, chunked))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}
