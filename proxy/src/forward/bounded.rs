//! A request body with a limit of its rule's own.

use std::task::{Context, Poll, ready};

use crate::body::{Body, Moved, Source};
use crate::error::Error;
use crate::net::Output;

/// The body, which fails where more than `most` bytes come.
///
/// # Errors
/// At once where its length says so.
pub(super) fn bounded(body: Body, most: u64) -> Result<Body, Error> {
    match body.length() {
        Some(length) if length > most => Err(Error::BodyTooLarge),
        Some(_) => Ok(body),
        None => Ok(Body::stream(Box::new(Bounded { body, left: most }))),
    }
}

struct Bounded {
    body: Body,
    left: u64,
}

impl Bounded {
    fn admit(&mut self, moved: Moved) -> Result<Moved, Error> {
        if let Moved::Data(bytes) | Moved::Last(bytes) = &moved {
            self.left = self.left.checked_sub(*bytes).ok_or(Error::BodyTooLarge)?;
        }
        Ok(moved)
    }
}

impl Source for Bounded {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        let moved = ready!(self.body.poll_into(cx, output, most, chunked))?;
        Poll::Ready(self.admit(moved))
    }

    fn length(&self) -> Option<u64> {
        None
    }

    fn awaits_continue(&self) -> bool {
        self.body.awaits_continue()
    }
}
