//! Buffers that bodies were read into, kept by each thread to be used again. Given back to the allocator their pages go
//! back to the kernel, which has to find them and to fill them with zeros once more a moment later.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

use super::BLOCK;

/// Room for a [`BLOCK`], or for as many records of TLS, and less than another one behind it: what comes next begins a
/// buffer of its own.
const ROOM: usize = BLOCK + (16 << 10);
/// Most that a thread keeps: 2 MiB.
const MOST: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with [`ROOM`].
pub(super) fn take() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(ROOM))
}

/// Takes a buffer that nobody needs any more, if it is one of these and no part of it is still to be written.
pub(super) fn keep(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.try_reclaim(ROOM) && buffer.capacity() == ROOM {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(buffer);
            }
        });
    }
}

/// Takes the buffer that a piece which was written lay in, as [`keep`] does.
pub(super) fn keep_behind(piece: Bytes) {
    if let Ok(buffer) = piece.try_into_mut() {
        keep(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_once_its_last_piece_is_written() {
        let mut buffer = take();
        let place = buffer.as_ptr();
        buffer.extend_from_slice(&[1; ROOM]);
        let pieces = [buffer.split_to(100).freeze(), buffer.freeze()];
        for piece in pieces {
            assert!(SPARE.with_borrow(Vec::is_empty));
            keep_behind(piece);
        }
        let again = take();
        assert!(again.as_ptr() == place && again.is_empty() && again.capacity() == ROOM);
        keep(BytesMut::with_capacity(100));
        keep_behind(Bytes::from_static(b"text"));
        assert!(SPARE.with_borrow(Vec::is_empty));
    }
}
