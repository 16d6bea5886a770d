//! Packets on their way to the network: one arena, no allocation per packet.
//!
//! The engine writes outer packets here; the socket edge sends them in one system call. In front of each packet there is
//! room for what the edge adds. A batch is bounded by the sizes it was made with, and by a number of frames.
//!
//! What is long and leaves as it came is not copied: a packet can have parts that lie in the frame it was made from,
//! which the batch keeps until it is cleared.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

/// Room in front of every packet, in bytes: a virtio header (10) and a link header (14).
pub const HEADROOM: usize = 24;
/// Most parts that a packet has: a datagram that is 64, headers and payload of each.
pub const MAX_PARTS: usize = 128;
/// Every packet starts at a multiple of this, in bytes.
const ALIGNMENT: usize = 8;
/// What a packet takes of the arena beside its own bytes, at most.
const OVERHEAD: usize = HEADROOM + ALIGNMENT - 1;
/// Most frames kept at a time: twice as many of 64 KiB as the engine collects before it sends.
const MAX_FRAMES: usize = 8;

/// A bounded list of outer packets, each beginning at its outer IP header.
pub struct Batch {
    arena: Box<[u8]>,
    packets: Vec<Entry>,
    /// What follows the first part of a packet, of all packets.
    parts: Vec<Part>,
    frames: Frames,
    max_bytes: usize,
    max_packets: usize,
    /// Where the last packet ends.
    used: usize,
    /// Bytes of all packets.
    bytes: usize,
}

/// The packet stands for several, to be cut by whoever sends it: all headers once, with the lengths of the whole, and then
/// the payloads one after the other. The checksum field of the TCP or UDP header at the end of the headers holds the
/// folded sum of the pseudo-header, not complemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// Bytes of payload per packet, at least 1; the last may have less. Of outer datagrams the kernel takes at most 64.
    pub size: u16,
    /// Bytes of all headers.
    pub headers: u16,
    /// The packet inside of GRE or of GRE-in-UDP that is cut; without, the outer UDP datagram is.
    pub inner: Option<InnerGso>,
}

/// What is cut inside of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InnerGso {
    /// What a virtio header calls it: TCP over IPv4 or IPv6, maybe with ECN, or UDP.
    pub gso_type: u8,
    /// Offset of the inner IP header in the packet.
    pub ip_at: u16,
    /// Offset of the inner TCP or UDP header in the packet.
    pub transport_at: u16,
    /// What follows the outer IP header.
    pub carrier: InnerCarrier,
}

/// To whom packets may be sent of which an inner one is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takers {
    /// They are cut before they are on the wire.
    Everybody,
    /// They get to the peer as they are: only to one that shows that it takes them.
    WhoSaysSo,
}

/// What a packet is cut inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InnerCarrier {
    /// GRE, without checksum and sequence number.
    Gre,
    /// The same in UDP, without a checksum of UDP or with one, which is open as that of the inner packet is.
    GreInUdp {
        /// Whether there is one.
        has_checksum: bool,
    },
}

/// A packet of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    batch: &'a Batch,
    entry: &'a Entry,
    /// Outer destination.
    pub destination: IpAddr,
    /// How to cut it, where it stands for several.
    pub gso: Option<Gso>,
}

/// The room in front of a packet of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Room<'a> {
    /// To be written by who sends the packet.
    pub bytes: &'a mut [u8; HEADROOM],
    /// Outer destination.
    pub destination: IpAddr,
    /// How to cut it, where it stands for several.
    pub gso: Option<Gso>,
}

#[derive(Debug)]
struct Entry {
    /// Where the room in front of it starts.
    start: usize,
    /// Where its first part ends, which begins behind that room.
    end: usize,
    /// Its other parts.
    parts: Range<usize>,
    len: usize,
    destination: IpAddr,
    gso: Option<Gso>,
}

/// Where a part lies.
#[derive(Debug)]
enum Part {
    Arena(Range<usize>),
    /// In the frame with this number.
    Frame(usize, Range<usize>),
}

/// Frames in which parts of packets lie.
#[derive(Default)]
struct Frames {
    kept: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Batch {
    /// A batch for at most `max_bytes` bytes in at most `max_packets` packets.
    pub fn new(max_bytes: usize, max_packets: usize) -> Self {
        let arena = vec![0; max_bytes + max_packets * OVERHEAD].into_boxed_slice();
        Self {
            arena,
            packets: Vec::with_capacity(max_packets),
            parts: Vec::new(),
            frames: Frames::default(),
            max_bytes,
            max_packets,
            used: 0,
            bytes: 0,
        }
    }

    /// Whether `packets` more packets of together `bytes` bytes fit.
    pub fn has_room(&self, bytes: usize, packets: usize) -> bool {
        self.max_bytes - self.bytes >= bytes && self.max_packets - self.packets.len() >= packets
    }

    /// Takes `len` bytes for one packet to `destination`, or `None` when the batch is full. The bytes
    /// hold whatever was there before: the caller writes every one of them.
    pub fn push(&mut self, len: usize, destination: IpAddr, gso: Option<Gso>) -> Option<&mut [u8]> {
        if !self.has_room(len, 1) {
            return None;
        }
        let start = self.used.next_multiple_of(ALIGNMENT);
        self.used = start + HEADROOM + len;
        self.bytes += len;
        let parts = self.parts.len()..self.parts.len();
        self.packets.push(Entry { start, end: self.used, parts, len, destination, gso });
        self.arena.get_mut(start + HEADROOM..self.used)
    }

    /// Adds `len` bytes to the packet pushed last, as [`Batch::push`] does.
    pub fn extend(&mut self, len: usize) -> Option<&mut [u8]> {
        let place = self.used..self.used + len;
        let last = self.packets.last_mut()?;
        let part = self.parts.get_mut(last.parts.clone()).unwrap_or_default().last_mut();
        if self.max_bytes - self.bytes < len {
            return None;
        }
        match part {
            Some(Part::Arena(part)) => part.end = place.end,
            None => last.end = place.end,
            Some(Part::Frame(..)) => self.add_part(Part::Arena(place.clone()))?,
        }
        self.used = place.end;
        self.count(len);
        self.arena.get_mut(place)
    }

    /// Adds a part of the frame that the packet pushed last is made from. `None` when the batch is full. Before the
    /// batch is used otherwise, [`Batch::keep`] is given that frame, or the packet is taken out again.
    pub fn refer(&mut self, range: Range<usize>) -> Option<()> {
        let len = range.len();
        if self.max_bytes - self.bytes < len {
            return None;
        }
        self.add_part(Part::Frame(self.frames.kept.len(), range))?;
        self.count(len);
        Some(())
    }

    /// Whether a frame can be kept.
    pub fn can_keep(&self) -> bool {
        self.frames.kept.len() < MAX_FRAMES
    }

    /// Takes the frame that parts of packets lie in, if there are any, and leaves another, empty one in its place.
    pub fn keep(&mut self, frame: &mut Vec<u8>) {
        let last = self.parts.iter().rev().find_map(|part| match part {
            Part::Frame(number, _) => Some(*number),
            Part::Arena(_) => None,
        });
        if last == Some(self.frames.kept.len()) {
            let spare = self.frames.spare.pop().unwrap_or_else(|| Vec::with_capacity(frame.capacity()));
            self.frames.kept.push(std::mem::replace(frame, spare));
        }
    }

    /// The packet with this number, counted from 0 in the order they were pushed.
    pub fn packet(&self, number: usize) -> Option<Packet<'_>> {
        let entry = self.packets.get(number)?;
        Some(Packet { batch: self, entry, destination: entry.destination, gso: entry.gso })
    }

    /// The packets in the order they were pushed.
    pub fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        (0..self.len()).map_while(|number| self.packet(number))
    }

    /// The rooms in front of the packets, in the order these were pushed.
    pub fn rooms_mut(&mut self) -> impl Iterator<Item = Room<'_>> {
        let mut rest = &mut self.arena[..];
        let mut offset = 0;
        self.packets.iter().map_while(move |&Entry { start, destination, gso, .. }| {
            let here = std::mem::take(&mut rest).get_mut(start - offset..)?;
            let (bytes, behind) = here.split_first_chunk_mut()?;
            rest = behind;
            offset = start + HEADROOM;
            Some(Room { bytes, destination, gso })
        })
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes of all packets, without the room in front of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Forgets the packets after the first `packets`.
    pub fn truncate(&mut self, packets: usize) {
        let Some(first) = self.packets.get(packets) else { return };
        (self.used, self.bytes) = (
            first.start,
            self.bytes - self.packets.iter().skip(packets).map(|entry| entry.len).sum::<usize>(),
        );
        self.parts.truncate(first.parts.start);
        self.packets.truncate(packets);
    }

    /// Forgets all packets; the memory is kept.
    pub fn clear(&mut self) {
        (self.used, self.bytes) = (0, 0);
        self.packets.clear();
        self.parts.clear();
        for mut frame in self.frames.kept.drain(..) {
            frame.clear();
            self.frames.spare.push(frame);
        }
    }

    /// Adds a part to the packet pushed last.
    fn add_part(&mut self, part: Part) -> Option<()> {
        let last = self.packets.last_mut().filter(|last| last.parts.len() + 1 < MAX_PARTS)?;
        self.parts.push(part);
        last.parts.end = self.parts.len();
        Some(())
    }

    /// Counts bytes added to the packet pushed last.
    fn count(&mut self, len: usize) {
        self.bytes += len;
        if let Some(last) = self.packets.last_mut() {
            last.len += len;
        }
    }
}

impl<'a> Packet<'a> {
    /// Where the packet lies, one part after the other, from its outer IP header on.
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.parts_with_room(0)
    }

    /// The same, with the last `room` bytes of what is in front, at most [`HEADROOM`].
    pub fn parts_with_room(&self, room: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Self { batch, entry, .. } = *self;
        let first = batch.arena.get(entry.start + HEADROOM - room.min(HEADROOM)..entry.end);
        let others = batch.parts.get(entry.parts.clone()).unwrap_or_default().iter();
        let others = others.map(|part| match part {
            Part::Arena(range) => batch.arena.get(range.clone()),
            Part::Frame(number, range) => {
                batch.frames.kept.get(*number).and_then(|frame| frame.get(range.clone()))
            }
        });
        std::iter::once(first).chain(others).map(Option::unwrap_or_default)
    }

    /// The packet in one piece, copied together when it has several parts.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        let parts: Vec<_> = self.parts().collect();
        match &parts[..] {
            [whole] => (*whole).into(),
            parts => parts.concat().into(),
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("packets", &self.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const B: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn filled(lengths: &[usize]) -> Batch {
        let mut batch = Batch::new(lengths.iter().sum(), lengths.len());
        for (number, len) in lengths.iter().enumerate() {
            let destination = if number % 2 == 0 { A } else { B };
            let gso = (number == 1).then_some(Gso { size: 7, headers: 28, inner: None });
            batch.push(*len, destination, gso).unwrap().fill(number as u8 + 1);
        }
        batch
    }

    #[test]
    fn what_it_was_made_for_fits_and_no_more() {
        let lengths = [1, 9, 0, 1500, 7, 33];
        let mut batch = filled(&lengths);
        assert_eq!((batch.len(), batch.bytes()), (6, 1550));
        assert!(!batch.has_room(0, 1) && batch.push(0, A, None).is_none());
        batch.truncate(5);
        assert_eq!((batch.len(), batch.bytes()), (5, 1517));
        assert!(batch.has_room(33, 1) && batch.push(200, A, None).is_none());
        batch.truncate(9);
        assert_eq!(batch.len(), 5, "nothing to forget");
        batch.clear();
        assert!(batch.is_empty() && batch.bytes() == 0 && batch.has_room(1550, 6));
    }

    #[test]
    fn the_room_in_front_belongs_to_one_packet_alone() {
        let lengths = [1, 9, 0, 1500, 7];
        let mut batch = filled(&lengths);
        assert_eq!(batch.rooms_mut().count(), lengths.len());
        for room in batch.rooms_mut() {
            room.bytes.fill(0xee);
            assert_eq!((room.bytes.as_ptr().addr() + HEADROOM) % ALIGNMENT, 0);
        }
        for (number, (packet, len)) in batch.packets().zip(lengths).enumerate() {
            assert_eq!(*packet.bytes(), vec![number as u8 + 1; len]);
            assert_eq!(packet.destination, if number % 2 == 0 { A } else { B });
            assert_eq!(packet.gso.is_some(), number == 1);
            for room in [0, 14, HEADROOM, 99] {
                let with_room: Vec<_> = packet.parts_with_room(room).collect();
                assert_eq!(
                    with_room.concat(),
                    [vec![0xee; room.min(HEADROOM)], packet.bytes().to_vec()].concat()
                );
            }
        }
    }

    #[test]
    fn parts_lie_in_frames_until_the_batch_is_cleared() {
        let mut batch = Batch::new(1000, 100);
        for round in 0..3 {
            for number in 0..MAX_FRAMES {
                assert!(batch.can_keep());
                let mut frame = Vec::with_capacity(99);
                frame.resize(20, number as u8);
                frame[5] = 0xff;
                batch.push(2, A, None).unwrap().fill(0xaa);
                batch.refer(4..6).unwrap();
                batch.extend(1).unwrap().fill(0xbb);
                batch.refer(19..20).unwrap();
                batch.extend(1).unwrap().fill(0xdd);
                batch.push(1, A, None).unwrap().fill(0xcc);
                batch.keep(&mut frame);
                assert!(frame.is_empty() && frame.capacity() >= 99, "another one in round {round}");
            }
            assert!(!batch.can_keep());
            assert_eq!((batch.len(), batch.bytes()), (2 * MAX_FRAMES, 8 * MAX_FRAMES));
            for (number, packet) in batch.packets().enumerate() {
                let frame = (number / 2) as u8;
                let expected = [0xaa, 0xaa, frame, 0xff, 0xbb, frame, 0xdd];
                let expected = if number % 2 == 0 { &expected[..] } else { &[0xcc] };
                assert_eq!(*packet.bytes(), *expected);
            }
            batch.clear();
        }
    }

    #[test]
    fn a_frame_that_nothing_lies_in_is_not_kept() {
        let mut batch = Batch::new(10, 3);
        let mut frame = vec![1; 5];
        assert!(batch.refer(0..1).is_none() && batch.extend(1).is_none(), "there is no packet");
        batch.push(1, A, None).unwrap().fill(7);
        batch.push(1, A, None).unwrap().fill(8);
        batch.refer(0..5).unwrap();
        assert!(batch.refer(0..4).is_none() && batch.extend(4).is_none(), "the batch is full");
        batch.truncate(1);
        batch.keep(&mut frame);
        assert_eq!((frame, batch.bytes()), (vec![1; 5], 1));
        assert_eq!(*batch.packet(0).unwrap().bytes(), [7]);
    }

    #[test]
    fn a_packet_has_a_bounded_number_of_parts() {
        let mut batch = Batch::new(1000, 1);
        batch.push(1, A, None).unwrap().fill(7);
        let more = (0..1000).take_while(|_| batch.extend(1).is_some() && batch.refer(0..1).is_some()).count();
        assert_eq!(1 + 2 * more, MAX_PARTS + 1, "the last one has no place");
        assert_eq!(batch.packet(0).unwrap().parts().count(), MAX_PARTS);
    }
}
