//! Records that are sealed and on their way out.

use std::cell::RefCell;

use super::super::BLOCK;

/// Bytes of a buffer for the records of bodies, a [`BLOCK`] and one more; those of small messages get one of their own size.
const LARGE: usize = BLOCK + (17 << 10);
/// From so many bytes on a large buffer is taken.
const MUCH: usize = 1 << 10;
/// Most that a thread keeps: 1 MiB.
const MOST: usize = 16;

thread_local! {
    /// Large buffers that were written, full of what was in them: nobody has to fill them with zeros again.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A queue of bytes, which takes no memory while it is empty.
#[derive(Default)]
pub(super) struct Sealed {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Sealed {
    /// What waits.
    pub(super) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// So many bytes behind what waits, to be filled.
    pub(super) fn append(&mut self, length: usize) -> &mut [u8] {
        let end = self.end + length;
        if end > self.bytes.len() {
            self.grow(end);
        }
        let start = std::mem::replace(&mut self.end, end);
        self.bytes.get_mut(start..end).unwrap_or_default()
    }

    fn grow(&mut self, length: usize) {
        if !(MUCH..=LARGE).contains(&length) || self.bytes.len() >= LARGE {
            return self.bytes.resize(length, 0);
        }
        let mut large = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LARGE]);
        if let Some(place) = large.get_mut(..self.end) {
            place.copy_from_slice(self.bytes.get(..self.end).unwrap_or_default());
        }
        self.bytes = large;
    }

    /// So many bytes of what waits were written.
    pub(super) fn advance(&mut self, written: usize) {
        self.start = self.end.min(self.start + written);
        if self.is_empty() {
            let bytes = std::mem::take(self).bytes;
            if bytes.len() == LARGE {
                SPARE.with_borrow_mut(|spare| {
                    if spare.len() < MOST {
                        spare.push(bytes);
                    }
                });
            }
        }
    }
}
