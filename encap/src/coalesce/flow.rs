//! A flow with an open super-packet, and the rules by which a segment is joined to it.
//!
//! They are those of the kernel (`net/ipv4/tcp_offload.c`, `udp_offload.c`, `net/ipv4/af_inet.c`), so that what it
//! cuts again later is cut right.

use super::MAX_PIECES;
use super::packet::{Key, Segment};

/// Most bytes of a super-packet with its headers.
const MAX_BYTES: usize = 65_535;
/// Most datagrams of a super-packet (`UDP_MAX_SEGMENTS` of older kernels).
const MAX_DATAGRAMS: usize = 64;
/// Most bytes of TCP options.
const MAX_OPTIONS: usize = 40;

/// A flow and its youngest super-packet.
pub(super) struct Flow {
    key: Key,
    /// What must be equal, as in [`Segment`].
    ip: u64,
    transport: u64,
    options: [u8; MAX_OPTIONS],
    options_len: usize,
    /// Identification of the first packet; IPv4 only.
    identification: Option<u16>,
    counting: Option<Counting>,
    /// The sequence number that comes next; TCP only.
    sequence: Option<u32>,
    headers: usize,
    payload: usize,
    /// Bytes of payload per segment.
    size: usize,
    /// Segments so far.
    count: usize,
    /// Packets so far, each of one segment or more.
    pieces: usize,
    /// The item joined last.
    last: u32,
    open: bool,
}

/// How the identifications of the packets go on. The second packet decides it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counting {
    /// One up per segment.
    Up,
    /// All the same, which only packets may have that nobody fragments (RFC 6864 section 4.1).
    Fixed,
}

impl Flow {
    /// A flow whose super-packet begins with this segment, the item of the given index.
    pub(super) fn new(key: Key, segment: &Segment<'_>, item: u32) -> Self {
        let mut options = [0; MAX_OPTIONS];
        for (place, byte) in options.iter_mut().zip(segment.options) {
            *place = *byte;
        }
        Self {
            key,
            ip: segment.ip,
            transport: segment.transport,
            options,
            options_len: segment.options.len(),
            identification: segment.identification.map(|(identification, _)| identification),
            counting: None,
            sequence: segment.after(),
            headers: segment.headers,
            payload: segment.payload,
            size: segment.size,
            count: segment.count,
            pieces: 1,
            last: item,
            open: !segment.ends,
        }
    }

    /// Which flow it is.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Joins a segment of this flow, the item of the given index, and returns the item before it; `None` when it cannot
    /// be joined.
    pub(super) fn append(&mut self, segment: &Segment<'_>, item: u32) -> Option<u32> {
        if !self.open || !self.is_alike(segment) || !self.has_room(segment) {
            return None;
        }
        if let Some(identification) = segment.identification {
            self.counting = Some(self.counting_with(identification)?);
        }
        self.sequence = segment.after();
        self.payload += segment.payload;
        self.count += segment.count;
        self.pieces += 1;
        self.open = !segment.ends && segment.payload.is_multiple_of(self.size);
        Some(std::mem::replace(&mut self.last, item))
    }

    /// Nothing more is joined to the super-packet.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// Whether the headers are equal where they must be, and the segment comes next.
    fn is_alike(&self, segment: &Segment<'_>) -> bool {
        self.ip == segment.ip
            && self.transport == segment.transport
            && self.sequence == segment.sequence
            && self.options.get(..self.options_len) == Some(segment.options)
    }

    /// Whether the segment is of the right size, and the super-packet not too large with it.
    fn has_room(&self, segment: &Segment<'_>) -> bool {
        let fits = if segment.merged { segment.size == self.size } else { segment.payload <= self.size };
        let count = self.count + segment.count;
        fits && self.headers + self.payload + segment.payload <= MAX_BYTES
            && self.pieces < MAX_PIECES
            && (segment.is_tcp() || count <= MAX_DATAGRAMS)
    }

    /// How the identifications go on when this one, with or without DF as all before, is the next.
    fn counting_with(&self, (identification, dont_fragment): (u16, bool)) -> Option<Counting> {
        let first = self.identification?;
        // At most as many segments as there are bytes in a packet.
        let up = identification == first.wrapping_add(self.count as u16);
        let fixed = identification == first && dont_fragment;
        match self.counting {
            Some(Counting::Up) | None if up => Some(Counting::Up),
            Some(Counting::Fixed) | None if fixed => Some(Counting::Fixed),
            _ => None,
        }
    }
}
