//! Frames on a stream (RFC 9114 7): type, length, payload.

use super::varint;

/// Types of frames (RFC 9114 7.2).
pub(super) mod kind {
    pub(in crate::h3) const DATA: u64 = 0x0;
    pub(in crate::h3) const HEADERS: u64 = 0x1;
    pub(in crate::h3) const CANCEL_PUSH: u64 = 0x3;
    pub(in crate::h3) const SETTINGS: u64 = 0x4;
    pub(in crate::h3) const PUSH_PROMISE: u64 = 0x5;
    pub(in crate::h3) const GOAWAY: u64 = 0x7;
    pub(in crate::h3) const MAX_PUSH_ID: u64 = 0xd;
    /// One of those that mean nothing (RFC 9114 7.2.8).
    pub(in crate::h3) const RESERVED: u64 = 0x21;
}

/// Most bytes of a type and a length.
const LONGEST_HEAD: usize = 16;

/// A frame before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) kind: u64,
    pub(super) length: u64,
}

impl FrameHead {
    /// Whether HTTP/2 has a frame of this type that HTTP/3 has not: never allowed (RFC 9114 7.2.8).
    pub(super) fn is_of_http2(self) -> bool {
        matches!(self.kind, 0x2 | 0x6 | 0x8 | 0x9)
    }

    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (kind, kind_length) = varint::parse(bytes)?;
        let (length, length_length) = varint::parse(bytes.get(kind_length..)?)?;
        Some((Self { kind, length }, kind_length + length_length))
    }
}

/// Puts a head together that may come in pieces.
#[derive(Debug, Default)]
pub(super) struct Partial {
    bytes: [u8; LONGEST_HEAD],
    have: usize,
}

impl Partial {
    /// Whether a head has begun and not ended.
    pub(super) fn has_begun(&self) -> bool {
        self.have > 0
    }

    /// Takes bytes off the front of the input until a head is complete.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Option<FrameHead> {
        self.take_with(input, FrameHead::parse)
    }

    /// The same for one integer.
    pub(super) fn take_number(&mut self, input: &mut &[u8]) -> Option<u64> {
        self.take_with(input, varint::parse)
    }

    fn take_with<T>(&mut self, input: &mut &[u8], parse: impl Fn(&[u8]) -> Option<(T, usize)>) -> Option<T> {
        if self.have == 0
            && let Some((parsed, length)) = parse(input)
        {
            *input = input.get(length..).unwrap_or_default();
            return Some(parsed);
        }
        while let Some((&byte, rest)) = input.split_first() {
            *self.bytes.get_mut(self.have)? = byte;
            self.have += 1;
            *input = rest;
            if let Some((parsed, _)) = parse(self.bytes.get(..self.have).unwrap_or_default()) {
                self.have = 0;
                return Some(parsed);
            }
        }
        None
    }
}

/// Appends the head of a frame.
pub(super) fn put_head(kind: u64, length: usize, out: &mut Vec<u8>) {
    varint::put(kind, out);
    varint::put(length as u64, out);
}
