//! Packets on their way to the network: one arena, no allocation per packet.
//!
//! The engine writes whole outer packets here; the socket edge sends them in one system call. A
//! batch is bounded by the sizes it was made with and never grows.

use std::net::Ipv4Addr;
use std::ops::Range;

/// A bounded list of outer packets, each beginning at its outer IPv4 header.
pub struct Batch {
    arena: Box<[u8]>,
    used: usize,
    packets: Vec<Entry>,
}

struct Entry {
    range: Range<usize>,
    destination: Ipv4Addr,
}

impl Batch {
    /// A batch for at most `bytes` bytes in at most `packets` packets.
    pub fn new(bytes: usize, packets: usize) -> Self {
        Self { arena: vec![0; bytes].into_boxed_slice(), used: 0, packets: Vec::with_capacity(packets) }
    }

    /// Whether `packets` more packets of together `bytes` bytes fit.
    pub fn has_room(&self, bytes: usize, packets: usize) -> bool {
        self.arena.len() - self.used >= bytes && self.packets.capacity() - self.packets.len() >= packets
    }

    /// Takes `len` bytes for one packet to `destination`, or `None` when the batch is full. The bytes
    /// hold whatever was there before: the caller writes every one of them.
    pub fn push(&mut self, len: usize, destination: Ipv4Addr) -> Option<&mut [u8]> {
        if !self.has_room(len, 1) {
            return None;
        }
        let range = self.used..self.used + len;
        self.used = range.end;
        self.packets.push(Entry { range: range.clone(), destination });
        self.arena.get_mut(range)
    }

    /// The packets in the order they were pushed, with their outer destination.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = (&[u8], Ipv4Addr)> {
        self.packets
            .iter()
            .map(|entry| (self.arena.get(entry.range.clone()).unwrap_or_default(), entry.destination))
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes of all packets.
    pub fn bytes(&self) -> usize {
        self.used
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Forgets the packets after the first `packets`.
    pub fn truncate(&mut self, packets: usize) {
        self.packets.truncate(packets);
        self.used = self.packets.last().map_or(0, |entry| entry.range.end);
    }

    /// Forgets all packets; the memory is kept.
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets.clear();
    }
}
