//! The receive queue of a packet socket, read many frames at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Frames per system call.
pub(super) const AT_ONCE: usize = 64;
/// virtio header, Ethernet header, the largest IPv6 packet; rounded up to whole cache lines.
const SLOT_BYTES: usize = (10usize + 14 + 40 + 65_535).next_multiple_of(64);

/// Memory for the frames of one system call.
#[derive(Debug)]
pub(super) struct Queue {
    arena: Box<[u8]>,
    lengths: [usize; AT_ONCE],
    received: usize,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { arena: vec![0; AT_ONCE * SLOT_BYTES].into_boxed_slice(), lengths: [0; AT_ONCE], received: 0 }
    }

    /// Forgets the frames received.
    pub(super) fn clear(&mut self) {
        self.received = 0;
    }

    /// Number of frames.
    pub(super) fn len(&self) -> usize {
        self.received
    }

    /// Receives what is there, up to `most` frames more and as long as there is memory.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; `ENETDOWN` once after the interface went down.
    pub(super) fn receive(&mut self, socket: impl AsFd, most: usize) -> io::Result<()> {
        // SAFETY: iovec and mmsghdr are plain numbers and pointers, for which zero is valid.
        let mut vectors: [libc::iovec; AT_ONCE] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; AT_ONCE] = unsafe { std::mem::zeroed() };
        let most = most.min(AT_ONCE - self.received);
        let slots = self.arena.chunks_exact_mut(SLOT_BYTES).skip(self.received).take(most);
        for ((vector, header), slot) in vectors.iter_mut().zip(&mut headers).zip(slots) {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the first `most` headers point to one vector each and that to a slot of its own in the arena; all
        // outlive the call, and nothing else refers to the arena meanwhile.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                most as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let lengths = self.lengths.iter_mut().skip(self.received);
        for (length, header) in lengths.zip(&headers).take(received) {
            let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            *length = if cut { 0 } else { header.msg_len as usize };
        }
        self.received += received;
        Ok(())
    }

    /// The frame with this number, counted from 0.
    pub(super) fn frame(&self, number: usize) -> Option<&[u8]> {
        let length = self.lengths.get(..self.received)?.get(number)?;
        self.arena.get(number * SLOT_BYTES..)?.get(..*length)
    }

    /// As `frame`, to be changed.
    pub(super) fn frame_mut(&mut self, number: usize) -> Option<&mut [u8]> {
        let length = self.lengths.get(..self.received)?.get(number)?;
        self.arena.get_mut(number * SLOT_BYTES..)?.get_mut(..*length)
    }

    /// The frames received since it was cleared. One that did not fit is empty.
    pub(super) fn frames(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let slots = self.arena.chunks_exact_mut(SLOT_BYTES).zip(&self.lengths).take(self.received);
        slots.map(|(slot, length)| slot.get_mut(..*length).unwrap_or_default())
    }
}
