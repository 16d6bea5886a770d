//! Heads whose message has ended, kept by each thread to be used again: their memory is warm, and an idle
//! connection needs none of its own.

use std::cell::RefCell;

use super::{RequestHead, ResponseHead};

/// Most heads of each kind that a thread keeps.
const MOST: usize = 64;
/// Most bytes of text in a head that is kept.
const LARGEST: usize = 8 << 10;

/// Boxes, because a head moves several times on its way.
type Spare<T> = RefCell<Vec<Box<T>>>;

thread_local! {
    static REQUESTS: Spare<RequestHead> = const { RefCell::new(Vec::new()) };
    static RESPONSES: Spare<ResponseHead> = const { RefCell::new(Vec::new()) };
}

impl RequestHead {
    /// An empty head, if possible with the memory of one that was used before.
    pub(crate) fn spare() -> Box<Self> {
        REQUESTS.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Gives the memory to the next message.
    pub(crate) fn give_back(mut self: Box<Self>) {
        if self.headers.size_hint() + self.target.capacity() + self.authority.capacity() > LARGEST {
            return;
        }
        self.clear();
        REQUESTS.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(self)
            }
        });
    }
}

impl ResponseHead {
    /// An empty head, if possible with the memory of one that was used before.
    pub(crate) fn spare() -> Box<Self> {
        RESPONSES.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Gives the memory to the next message.
    pub(crate) fn give_back(mut self: Box<Self>) {
        if self.headers.size_hint() > LARGEST {
            return;
        }
        self.headers.clear();
        RESPONSES.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(self)
            }
        });
    }
}
