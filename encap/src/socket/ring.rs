//! A receive ring: memory that the kernel puts frames into, so that small frames need no system call each
//! (packet(7), Documentation/networking/packet_mmap.rst, version 2).
//!
//! The ring has slots for frames of its link, ordinary or jumbo ones. A larger frame, as the kernel merges them, is put into
//! the receive queue of the socket, and its slot says so; the order is that of the slots.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::option;
use crate::wire::virtio;

/// For links of up to 1510 bytes, and of up to 9254. The kernel maps a ring only as a whole, so that the number of bytes
/// tells which one it is.
const ORDINARY: Shape = Shape { slot_bytes: 1600, blocks: 64 };
const JUMBO: Shape = Shape { slot_bytes: 9344, blocks: 96 };
/// What stands in front of a packet in its slot: the kernel's header (76 with what it aligns) and the link header.
const OVERHEAD: usize = 90;
/// A slot lies in one block whole.
const BLOCK_BYTES: usize = 64 << 10;

// linux/if_packet.h
const PACKET_RX_RING: i32 = 5;
const PACKET_COPY_THRESH: i32 = 7;
const PACKET_VERSION: i32 = 10;
const TPACKET_V2: i32 = 1;
const STATUS_KERNEL: u32 = 0;
const STATUS_USER: u32 = 1;
const STATUS_COPY: u32 = 1 << 1;

/// `tpacket2_hdr`.
#[repr(C)]
struct Header {
    status: u32,
    /// Bytes of the frame, and of the part of it in the slot.
    len: u32,
    snaplen: u32,
    /// Where the link header and the network header stand.
    mac: u16,
    net: u16,
    /// Time stamp and VLAN tag.
    rest: [u32; 4],
}

const _: () = assert!(size_of::<Header>() == 32);
const _: () = assert!(ORDINARY.slot_bytes.is_multiple_of(64) && JUMBO.slot_bytes.is_multiple_of(64));
const _: () = assert!(ORDINARY.blocks != JUMBO.blocks);

/// The memory of a ring, which the kernel holds from the start: enough for some milliseconds at 10 Gb/s.
struct Shape {
    /// A multiple of a cache line.
    slot_bytes: usize,
    blocks: usize,
}

impl Shape {
    /// That for a link, unless it has packets that would not fit.
    fn of(mtu: u32) -> Option<Self> {
        [ORDINARY, JUMBO].into_iter().find(|shape| mtu as usize + OVERHEAD <= shape.slot_bytes)
    }

    const fn bytes(&self) -> usize {
        self.blocks * BLOCK_BYTES
    }

    const fn slots(&self) -> usize {
        self.blocks * (BLOCK_BYTES / self.slot_bytes)
    }

    /// Where a slot, numbered below [`Shape::slots`], starts in the mapping.
    const fn offset_of(&self, slot: usize) -> usize {
        let per_block = BLOCK_BYTES / self.slot_bytes;
        slot / per_block * BLOCK_BYTES + slot % per_block * self.slot_bytes
    }
}

/// Bytes of the ring of a socket on a link with this MTU; 0 where it gets none.
pub fn ring_bytes(mtu: u32) -> usize {
    Shape::of(mtu).map_or(0, |shape| shape.bytes())
}

/// A ring that is mapped.
#[derive(Debug)]
pub(super) struct Ring {
    memory: NonNull<u8>,
    is_jumbo: bool,
    /// The slot that is filled next, or is the first of those taken.
    first: usize,
    /// Where the frame of each slot taken is.
    places: Vec<Place>,
}

/// Where a frame is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// In the ring, from its virtio header on: the offset in the mapping, and bytes.
    Here(usize, usize),
    /// In the receive queue, with this number, counted from 0 for those taken together.
    Queued(usize),
    /// It was too large, and the receive queue was full.
    Lost,
}

/// A frame of the ring.
pub(super) enum Frame<'a> {
    /// From its virtio header on.
    Here(&'a mut [u8]),
    /// The next one of the receive queue.
    Queued,
    /// It was too large, and the receive queue was full.
    Lost,
}

/// Gives a packet socket a ring, unless its link has packets that would not fit. To be called before it is bound, and
/// after the socket has been told of virtio headers. Where the kernel has no memory the socket goes without.
///
/// # Errors
/// When the kernel refuses the version.
pub(super) fn set_up(socket: impl AsFd, mtu: u32) -> io::Result<()> {
    let Some(shape) = Shape::of(mtu) else { return Ok(()) };
    let socket = socket.as_fd();
    option::set_number(socket, libc::SOL_PACKET, PACKET_VERSION, TPACKET_V2)?;
    option::set_number(socket, libc::SOL_PACKET, PACKET_COPY_THRESH, 1)?;
    // tpacket_req: size and number of blocks, size and number of slots.
    let request = [BLOCK_BYTES, shape.blocks, shape.slot_bytes, shape.slots()];
    let request = request.map(|number| (number as u32).to_ne_bytes());
    match option::set_bytes(socket, libc::SOL_PACKET, PACKET_RX_RING, &request.concat()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => Ok(()),
        result => result,
    }
}

impl Ring {
    /// Maps the ring of a socket, or `None` when it has none.
    ///
    /// # Errors
    /// When there is no memory for the mapping.
    pub(super) fn map(socket: impl AsFd) -> io::Result<Option<Self>> {
        let socket = socket.as_fd();
        for is_jumbo in [false, true] {
            if let Some(memory) = map(socket, shape(is_jumbo).bytes())? {
                return Ok(Some(Self { memory, is_jumbo, first: 0, places: Vec::new() }));
            }
        }
        Ok(None)
    }

    /// Takes up to `most` frames, of which up to `most_queued` are in the receive queue; returns the number of these.
    /// What was taken before goes back to the kernel.
    pub(super) fn take(&mut self, most: usize, most_queued: usize) -> usize {
        self.release();
        let mut queued = 0;
        while self.places.len() < most && queued < most_queued {
            let slot = self.slot(self.places.len());
            let place = match self.status(slot).load(Ordering::Acquire) {
                status if status & STATUS_USER == 0 => break,
                status if status & STATUS_COPY != 0 => {
                    queued += 1;
                    Place::Queued(queued - 1)
                }
                _ => self.place(slot),
            };
            self.places.push(place);
        }
        queued
    }

    /// Where the frames taken are, in the order in which they arrived.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// A frame taken, unless it is not in the ring.
    pub(super) fn frame(&self, number: usize) -> Option<&[u8]> {
        let Some(&Place::Here(offset, len)) = self.places.get(number) else { return None };
        // SAFETY: places lie in the mapping, in slots that the kernel leaves alone until they are released, which needs
        // `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(self.memory.add(offset).as_ptr(), len) })
    }

    /// As `frame`, to be changed.
    pub(super) fn frame_mut(&mut self, number: usize) -> Option<&mut [u8]> {
        let Some(&Place::Here(offset, len)) = self.places.get(number) else { return None };
        // SAFETY: as above, and `&mut self` says that nothing else refers to it.
        Some(unsafe { std::slice::from_raw_parts_mut(self.memory.add(offset).as_ptr(), len) })
    }

    /// All frames taken, in the order in which they arrived.
    pub(super) fn frames(&mut self) -> impl Iterator<Item = Frame<'_>> {
        let memory = self.memory;
        self.places.iter().map(move |place| match *place {
            Place::Here(offset, len) => {
                // SAFETY: as above, and every slot occurs once, so that the frames do not overlap.
                Frame::Here(unsafe { std::slice::from_raw_parts_mut(memory.add(offset).as_ptr(), len) })
            }
            Place::Queued(_) => Frame::Queued,
            Place::Lost => Frame::Lost,
        })
    }

    /// Gives what was taken back to the kernel.
    fn release(&mut self) {
        for number in 0..self.places.len() {
            self.status(self.slot(number)).store(STATUS_KERNEL, Ordering::Release);
        }
        self.first = self.slot(self.places.len());
        self.places.clear();
    }

    /// Where the frame of a slot is that belongs to us.
    fn place(&self, slot: usize) -> Place {
        let offset = self.offset_of(slot);
        // SAFETY: a slot is aligned for its header, lies in the mapping, and the kernel leaves it alone until it is
        // released, which needs `&mut self`.
        let header = unsafe { self.memory.add(offset).cast::<Header>().read() };
        let (start, len) = (usize::from(header.mac), header.len as usize);
        let slot_bytes = shape(self.is_jumbo).slot_bytes;
        let is_inside = start >= size_of::<Header>() + virtio::LEN && start + len <= slot_bytes;
        if header.snaplen != header.len || !is_inside {
            return Place::Lost;
        }
        Place::Here(offset + start - virtio::LEN, virtio::LEN + len)
    }

    /// The slot so many places behind the first.
    fn slot(&self, number: usize) -> usize {
        let slot = self.first + number;
        // Constants, so that nothing is divided.
        if self.is_jumbo { slot % JUMBO.slots() } else { slot % ORDINARY.slots() }
    }

    /// Where a slot starts in the mapping.
    fn offset_of(&self, slot: usize) -> usize {
        if self.is_jumbo { JUMBO.offset_of(slot) } else { ORDINARY.offset_of(slot) }
    }

    fn status(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: the slot lies in the mapping, which lives as long as `self`; its first four bytes are the status, are
        // aligned, and are read and written by the kernel and by us as an atomic number only.
        unsafe { AtomicU32::from_ptr(self.memory.add(self.offset_of(slot)).as_ptr().cast()) }
    }
}

fn shape(is_jumbo: bool) -> Shape {
    if is_jumbo { JUMBO } else { ORDINARY }
}

/// Maps the ring of a socket, or nothing when it has none of this length.
fn map(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<Option<NonNull<u8>>> {
    // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            socket.as_raw_fd(),
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            error => Err(error),
        };
    }
    NonNull::new(memory.cast()).map(Some).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

// SAFETY: the mapping belongs to this value alone and can be used from any thread.
unsafe impl Send for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length, and nothing refers to it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), shape(self.is_jumbo).bytes()) };
    }
}
