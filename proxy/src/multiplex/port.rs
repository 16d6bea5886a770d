//! What one stream's task is told by that of its connection.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use crate::body::Moved;
use crate::error::Error;
use crate::message::{Headers, ResponseHead};
use crate::net::Output;

/// Content below this size is copied: otherwise it would keep everything that came in one read with it.
const COPY_BELOW: usize = 4096;
/// Pieces that were copied are put together up to this size.
const GATHERED: usize = 64 << 10;

/// What comes next of the body of a message.
pub(crate) enum Piece {
    /// Content, and whether nothing follows.
    Data(Bytes, bool),
    /// The end, with the trailer section.
    End(Option<Headers>),
}

impl Piece {
    /// Moves it into an output, as a chunk of its own where the framing asks for it.
    pub(crate) fn into_output(self, output: &mut Output, chunked: bool) -> Moved {
        match self {
            Self::Data(data, last) => {
                let bytes = data.len() as u64;
                output.push_body(data, chunked);
                if last { Moved::Last(bytes) } else { Moved::Data(bytes) }
            }
            Self::End(Some(trailers)) => Moved::Trailers(trailers),
            Self::End(None) => Moved::Last(0),
        }
    }
}

/// What one stream's task is told.
#[derive(Default)]
pub(crate) struct Port {
    pub(super) task: Option<Waker>,
    /// Content that has come and was not passed on.
    content: VecDeque<Bytes>,
    /// Small pieces behind it.
    gathered: Vec<u8>,
    pub(crate) trailers: Option<Headers>,
    /// Nothing more comes.
    pub(crate) ended: bool,
    /// Why the stream is over: the other side does not want it any more, or is gone.
    pub(crate) reset: Option<Error>,
    /// The head of a response, and the length of its content where that is known.
    pub(crate) head: Option<(Box<ResponseHead>, Option<u64>)>,
    /// Interim responses that wait, and their number so far.
    pub(crate) interim: Vec<ResponseHead>,
    pub(crate) interim_count: usize,
    /// What comes is thrown away, up to so many bytes.
    pub(crate) discard: Option<usize>,
    pub(super) blocked: bool,
}

impl Port {
    /// Takes content in.
    pub(crate) fn push(&mut self, data: BytesMut) {
        if data.len() < COPY_BELOW {
            self.gathered.extend_from_slice(&data);
        }
        if data.len() >= COPY_BELOW || self.gathered.len() >= GATHERED {
            self.settle();
        }
        if data.len() >= COPY_BELOW {
            self.content.push_back(data.freeze());
        }
    }

    /// The next content that has come, at most so many bytes.
    pub(super) fn pop(&mut self, most: usize) -> Option<Bytes> {
        if self.content.is_empty() {
            self.settle();
        }
        match self.content.front_mut() {
            Some(front) if front.len() > most => Some(front.split_to(most)),
            _ => self.content.pop_front(),
        }
    }

    /// Forgets all content; how much it was.
    pub(crate) fn clear(&mut self) -> usize {
        let waiting = self.waiting();
        self.content.clear();
        self.gathered.clear();
        waiting
    }

    fn settle(&mut self) {
        if !self.gathered.is_empty() {
            self.content.push_back(std::mem::take(&mut self.gathered).into());
        }
    }

    /// Bytes of content that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.content.iter().map(Bytes::len).sum::<usize>() + self.gathered.len()
    }

    /// Whether the stream stands in line for room.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Wakes the stream's task.
    pub(crate) fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}
