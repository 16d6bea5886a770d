//! Packets on their way to the network: one arena, no allocation per packet.
//!
//! The engine writes whole outer packets here; the socket edge sends them in one system call. In front of each packet
//! there is room for what the edge adds. A batch is bounded by the sizes it was made with and never grows.

use std::net::IpAddr;

/// Room in front of every packet, in bytes: a virtio header (10) and a link header (14).
pub const HEADROOM: usize = 24;
/// Every packet starts at a multiple of this, in bytes.
const ALIGNMENT: usize = 8;
/// What a packet takes of the arena beside its own bytes, at most.
const OVERHEAD: usize = HEADROOM + ALIGNMENT - 1;

/// A bounded list of outer packets, each beginning at its outer IP header.
pub struct Batch {
    arena: Box<[u8]>,
    packets: Vec<Entry>,
    max_bytes: usize,
    max_packets: usize,
    /// Where the last packet ends.
    used: usize,
    /// Bytes of all packets.
    bytes: usize,
}

/// The packet is an outer UDP datagram with the payload of several, to be cut by whoever sends it: one outer IP and UDP
/// header, with the lengths of the whole, and then the payloads one after the other. The UDP checksum field holds the
/// folded sum of the pseudo-header, not complemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// Bytes of UDP payload per datagram, at least 1; the last may have less. The kernel takes at most 64 datagrams.
    pub size: u16,
    /// Bytes of the outer IP and UDP header.
    pub headers: u16,
}

/// A packet of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// From its outer IP header on.
    pub bytes: &'a [u8],
    /// Outer destination.
    pub destination: IpAddr,
    /// How to cut it, for a datagram that is several.
    pub gso: Option<Gso>,
}

/// A packet of a batch with the room in front of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// [`HEADROOM`] bytes, then the packet.
    pub bytes: &'a mut [u8],
    /// Outer destination.
    pub destination: IpAddr,
    /// How to cut it, for a datagram that is several.
    pub gso: Option<Gso>,
}

struct Entry {
    /// Where the room in front of it starts.
    start: usize,
    len: usize,
    destination: IpAddr,
    gso: Option<Gso>,
}

impl Batch {
    /// A batch for at most `max_bytes` bytes in at most `max_packets` packets.
    pub fn new(max_bytes: usize, max_packets: usize) -> Self {
        let arena = vec![0; max_bytes + max_packets * OVERHEAD].into_boxed_slice();
        Self { arena, packets: Vec::with_capacity(max_packets), max_bytes, max_packets, used: 0, bytes: 0 }
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
        self.packets.push(Entry { start, len, destination, gso });
        self.arena.get_mut(start + HEADROOM..self.used)
    }

    /// The packet with this number, counted from 0 in the order they were pushed.
    pub fn packet(&self, number: usize) -> Option<Packet<'_>> {
        let Entry { start, len, destination, gso } = *self.packets.get(number)?;
        let bytes = self.arena.get(start + HEADROOM..start + HEADROOM + len)?;
        Some(Packet { bytes, destination, gso })
    }

    /// The packets in the order they were pushed.
    pub fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        (0..self.len()).map_while(|number| self.packet(number))
    }

    /// The packets from number `from` on, in the order they were pushed, with the room in front of each.
    pub fn frames_mut(&mut self, from: usize) -> impl Iterator<Item = Frame<'_>> {
        let mut rest = &mut self.arena[..];
        let mut offset = 0;
        let entries = self.packets.get(from..).unwrap_or_default();
        entries.iter().map_while(move |&Entry { start, len, destination, gso }| {
            let here = std::mem::take(&mut rest).get_mut(start - offset..)?;
            let (bytes, behind) = here.split_at_mut_checked(HEADROOM + len)?;
            rest = behind;
            offset = start + HEADROOM + len;
            Some(Frame { bytes, destination, gso })
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
        self.bytes -=
            self.packets.drain(packets.min(self.packets.len())..).map(|entry| entry.len).sum::<usize>();
        self.used = self.packets.last().map_or(0, |entry| entry.start + HEADROOM + entry.len);
    }

    /// Forgets all packets; the memory is kept.
    pub fn clear(&mut self) {
        (self.used, self.bytes) = (0, 0);
        self.packets.clear();
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
            let gso = (number == 1).then_some(Gso { size: 7, headers: 28 });
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
        for from in 0..=lengths.len() + 1 {
            let frames: Vec<_> = batch.frames_mut(from).collect();
            assert_eq!(frames.len(), lengths.len().saturating_sub(from));
            for frame in frames {
                frame.bytes[..HEADROOM].fill(0xee);
                assert_eq!((frame.bytes.as_ptr().addr() + HEADROOM) % ALIGNMENT, 0);
            }
        }
        let packets: Vec<_> = batch.packets().collect();
        for (number, (packet, len)) in packets.iter().zip(lengths).enumerate() {
            assert_eq!(packet.bytes, vec![number as u8 + 1; len]);
            assert_eq!(packet.destination, if number % 2 == 0 { A } else { B });
            assert_eq!(packet.gso.is_some(), number == 1);
        }
    }
}
