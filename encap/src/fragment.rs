//! Fragments of a packet that is longer than a link takes.
//!
//! Stands on the way out, beside [`segment`](crate::segment), and has its shape. Two uses: an inner IPv4 packet without
//! DF is fragmented before it is encapsulated (RFC 7588 section 3), and the outer packet around a longest inner IPv6
//! packet where the tunnel takes less than 1280 bytes (RFC 7676 section 3.3). It is told the limit and never decides
//! whether a packet may be fragmented, except that it obeys DF.
//!
//! A transport checksum covers all fragments but stands in the first: finish an open one beforehand, by
//! [`segment::finish`](crate::segment::finish).

use crate::wire::checksum::Sum;
use crate::wire::{WireError, ipv4, ipv6};

/// Why a packet cannot be fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// The bytes are not a packet, or one that would end beyond 65 535 bytes when reassembled.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// DF is set.
    #[error("the packet must not be fragmented")]
    DontFragment,
    /// The limit leaves less than 8 bytes beside the headers.
    #[error("the limit leaves no room for a fragment")]
    NoRoom,
}

/// A packet that becomes several, none longer than a limit. One that is not longer becomes itself.
pub struct Fragments<'a> {
    header: Header<'a>,
    payload: &'a [u8],
    /// Bytes of payload in the first fragment.
    first: usize,
    /// Bytes of payload in every other but the last, at least 8.
    later: usize,
    count: usize,
}

enum Header<'a> {
    V4 {
        header: ipv4::Header<'a>,
        /// The options of every fragment but the first.
        later: Options,
    },
    V6 {
        header: ipv6::Header,
        identification: u32,
    },
}

impl<'a> Fragments<'a> {
    /// The fragments of an IPv4 packet, none longer than `limit` bytes (RFC 791). They keep its identification, and a
    /// packet that is a fragment itself may be fragmented further.
    ///
    /// # Errors
    /// [`FragmentError`].
    pub fn v4(packet: &'a [u8], limit: usize) -> Result<Self, FragmentError> {
        let (header, payload) = ipv4::Header::parse(packet)?;
        let later = Options::copied(header.options)?;
        let end = usize::from(header.fragment_offset) * 8 + payload.len();
        if end > usize::from(u16::MAX) || header.more_fragments && !payload.len().is_multiple_of(8) {
            return Err(FragmentError::Wire(WireError::Length));
        }
        let (first_len, later_len) = (header.len(), ipv4::LEN + later.len);
        let fits = header.len() + payload.len() <= limit;
        if !fits && header.dont_fragment {
            return Err(FragmentError::DontFragment);
        }
        Self::new(Header::V4 { header, later }, payload, fits, [first_len, later_len], limit)
    }

    /// The fragments of an IPv6 packet without extension headers, none longer than `limit` bytes (RFC 8200 section
    /// 4.5). Only the sender of a packet may make these; `identification` must differ from those of its other recent
    /// packets to the same destination.
    ///
    /// # Errors
    /// [`FragmentError`]; [`WireError::Chain`] when there are extension headers.
    pub fn v6(packet: &'a [u8], limit: usize, identification: u32) -> Result<Self, FragmentError> {
        let (header, payload) = ipv6::Header::parse(packet)?;
        if header.upper(payload)?.offset != 0 || header.next_header == ipv6::ROUTING {
            return Err(FragmentError::Wire(WireError::Chain));
        }
        let fits = ipv6::LEN + payload.len() <= limit;
        let len = ipv6::LEN + ipv6::FRAGMENT_LEN;
        Self::new(Header::V6 { header, identification }, payload, fits, [len, len], limit)
    }

    fn new(
        header: Header<'a>,
        payload: &'a [u8],
        fits: bool,
        header_lens: [usize; 2],
        limit: usize,
    ) -> Result<Self, FragmentError> {
        if fits {
            return Ok(Self { header, payload, first: payload.len(), later: 8, count: 1 });
        }
        // Every fragment but the last has a multiple of 8 bytes.
        let [first, later] = header_lens.map(|len| limit.saturating_sub(len) & !7);
        if first == 0 || later == 0 {
            return Err(FragmentError::NoRoom);
        }
        let count = 1 + payload.len().saturating_sub(first).div_ceil(later);
        Ok(Self { header, payload, first, later, count })
    }

    /// Number of fragments, at least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of all fragments.
    pub fn bytes(&self) -> usize {
        self.header_len(0) + (self.count - 1) * self.header_len(1) + self.payload.len()
    }

    /// Bytes of the fragment with the given index, headers included.
    pub fn len_of(&self, index: usize) -> usize {
        let (start, end) = self.range(index);
        self.header_len(index) + (end - start)
    }

    /// Writes the fragment with the given index. Returns its sum.
    ///
    /// # Errors
    /// [`WireError::Length`] when `out` is not exactly [`Fragments::len_of`] bytes.
    pub fn write(&self, index: usize, out: &mut [u8]) -> Result<Sum, WireError> {
        let (start, end) = self.range(index);
        let chunk = self.payload.get(start..end).ok_or(WireError::Length)?;
        let (head, place) = out.split_at_mut_checked(self.header_len(index)).ok_or(WireError::Length)?;
        if place.len() != chunk.len() {
            return Err(WireError::Length);
        }
        // Both at most the length of the whole packet, which has 16 bits, and an eighth of it.
        let (length, offset) = (chunk.len() as u16, (start / 8) as u16);
        let more = index + 1 < self.count;
        match &self.header {
            Header::V4 { header, later } => {
                let options = if index == 0 { header.options } else { later.bytes() };
                let fragment = ipv4::Header {
                    total_length: length + (ipv4::LEN + options.len()) as u16,
                    more_fragments: more || header.more_fragments,
                    fragment_offset: header.fragment_offset + offset,
                    options,
                    ..*header
                };
                fragment.emit(head)?;
            }
            Header::V6 { header, .. } if self.count == 1 => {
                header.emit(head)?;
            }
            Header::V6 { header, identification } => {
                let payload_length = length + ipv6::FRAGMENT_LEN as u16;
                let fragment = ipv6::Fragment { offset, more, identification: *identification };
                let outer = ipv6::Header { payload_length, next_header: ipv6::FRAGMENT, ..*header };
                fragment.emit(header.next_header, outer.emit(head)?)?;
            }
        }
        Ok(Sum::default().bytes(head).copy(chunk, place))
    }

    /// Bytes of headers in the fragment with the given index.
    fn header_len(&self, index: usize) -> usize {
        match &self.header {
            Header::V4 { header, .. } if index == 0 => header.len(),
            Header::V4 { later, .. } => ipv4::LEN + later.len,
            Header::V6 { .. } if self.count == 1 => ipv6::LEN,
            Header::V6 { .. } => ipv6::LEN + ipv6::FRAGMENT_LEN,
        }
    }

    /// The part of the payload that goes into one fragment.
    fn range(&self, index: usize) -> (usize, usize) {
        let start_of = |index: usize| match index.checked_sub(1) {
            None => 0,
            Some(before) => {
                self.first.saturating_add(before.saturating_mul(self.later)).min(self.payload.len())
            }
        };
        (start_of(index), start_of(index.saturating_add(1)))
    }
}

/// IPv4 options with their padding.
struct Options {
    bytes: [u8; 40],
    len: usize,
}

impl Options {
    /// Those that every fragment carries: the ones with the copied bit (RFC 791 section 3.1).
    fn copied(mut options: &[u8]) -> Result<Self, WireError> {
        const END: u8 = 0;
        const NOTHING: u8 = 1;
        const COPIED: u8 = 0x80;
        let mut copied = Self { bytes: [0; 40], len: 0 };
        let mut room = &mut copied.bytes[..];
        let mut used = 0;
        while let [kind, rest @ ..] = options {
            let len = match (*kind, rest) {
                (END, _) => break,
                (NOTHING, _) => 1,
                (_, [len, ..]) if *len >= 2 => usize::from(*len),
                _ => return Err(WireError::Length),
            };
            let (option, rest) = options.split_at_checked(len).ok_or(WireError::Length)?;
            if kind & COPIED != 0 {
                let (place, left) = room.split_at_mut_checked(len).ok_or(WireError::Length)?;
                place.copy_from_slice(option);
                room = left;
                used += len;
            }
            options = rest;
        }
        copied.len = used.next_multiple_of(4);
        Ok(copied)
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "fragment_tests.rs"]
mod tests;
