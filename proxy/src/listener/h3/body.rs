//! The body of a request, taken from its stream as its reader asks for it.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;

use super::receiver::{Next, Receiver};
use super::sender::Sender;
use crate::body::{Moved, Source};
use crate::error::Error;
use crate::message::ResponseHead;
use crate::net::Output;

pub(super) struct RequestBody {
    pub(super) receiver: Rc<RefCell<Receiver>>,
    pub(super) sender: Rc<RefCell<Sender>>,
    /// What has come already.
    pub(super) first: Option<Next>,
    /// Bytes that the limit still allows.
    pub(super) left: u64,
    pub(super) length: Option<u64>,
    /// The client waits for 100.
    pub(super) expects: bool,
}

impl RequestBody {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(Bytes),
    ) -> Poll<Result<Moved, Error>> {
        if std::mem::take(&mut self.expects) {
            self.sender.borrow_mut().send_interim(cx, &ResponseHead::new(StatusCode::CONTINUE));
        }
        let next = match self.first.take() {
            Some(Next::Data(mut data)) if data.len() > most => {
                let rest = data.split_off(most);
                self.first = Some(Next::Data(rest));
                Next::Data(data)
            }
            Some(next) => next,
            None => ready!(self.receiver.borrow_mut().poll_next(cx, most))?,
        };
        Poll::Ready(match next {
            Next::Data(data) => {
                let bytes = data.len() as u64;
                self.left = self.left.checked_sub(bytes).ok_or(Error::BodyTooLarge)?;
                take(data);
                Ok(Moved::Data(bytes))
            }
            Next::Trailers(trailers) if !trailers.is_empty() => Ok(Moved::Trailers(trailers)),
            Next::Trailers(_) | Next::End => Ok(Moved::Last(0)),
            // The codec gives one head.
            Next::Head(_) => Err(Error::Internal),
        })
    }
}

impl Source for RequestBody {
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        most: usize,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        self.poll_piece(cx, most, |data| output.push_body(data, chunked))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn awaits_continue(&self) -> bool {
        self.expects
    }
}
