//! Frames as bytes (RFC 9113 4.1, 6): the head they share, and those this side writes.

use super::error::Code;

/// Bytes of a frame's head.
pub(super) const HEAD: usize = 9;
/// Largest payload of a frame that this side takes: the default, which needs no setting (RFC 9113 4.2).
pub(super) const MAX_PAYLOAD: usize = 16_384;

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// Frame types (RFC 9113 6).
pub(super) mod kind {
    pub(in crate::h2) const DATA: u8 = 0;
    pub(in crate::h2) const HEADERS: u8 = 1;
    pub(in crate::h2) const PRIORITY: u8 = 2;
    pub(in crate::h2) const RST_STREAM: u8 = 3;
    pub(in crate::h2) const SETTINGS: u8 = 4;
    pub(in crate::h2) const PUSH_PROMISE: u8 = 5;
    pub(in crate::h2) const PING: u8 = 6;
    pub(in crate::h2) const GOAWAY: u8 = 7;
    pub(in crate::h2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::h2) const CONTINUATION: u8 = 9;
}

/// Frame flags (RFC 9113 6).
pub(super) mod flag {
    pub(in crate::h2) const ACK: u8 = 0x1;
    pub(in crate::h2) const END_STREAM: u8 = 0x1;
    pub(in crate::h2) const END_HEADERS: u8 = 0x4;
    pub(in crate::h2) const PADDED: u8 = 0x8;
    pub(in crate::h2) const PRIORITY: u8 = 0x20;
}

impl FrameHead {
    /// The head at the beginning of the input, if all of it is there.
    pub(super) fn parse(input: &[u8]) -> Option<Self> {
        let &[l1, l2, l3, kind, flags, s1, s2, s3, s4, ..] = input else { return None };
        Some(Self {
            length: u32::from_be_bytes([0, l1, l2, l3]) as usize,
            kind,
            flags,
            // The first bit is reserved and ignored (RFC 9113 4.1).
            stream: u32::from_be_bytes([s1, s2, s3, s4]) & 0x7fff_ffff,
        })
    }

    /// Its bytes. A length beyond 2^24 cannot occur: frames are at most as large as the output.
    pub(super) fn bytes(self) -> [u8; HEAD] {
        let [_, l1, l2, l3] = (self.length as u32).to_be_bytes();
        let [s1, s2, s3, s4] = self.stream.to_be_bytes();
        [l1, l2, l3, self.kind, self.flags, s1, s2, s3, s4]
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame with this payload.
pub(super) fn write(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&FrameHead { length: payload.len(), kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}

/// Appends RST_STREAM (RFC 9113 6.4).
pub(super) fn write_reset(stream: u32, code: Code, out: &mut Vec<u8>) {
    write(kind::RST_STREAM, 0, stream, &(code as u32).to_be_bytes(), out);
}

/// Appends WINDOW_UPDATE (RFC 9113 6.9).
pub(super) fn write_window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    write(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes(), out);
}

/// Appends GOAWAY (RFC 9113 6.8).
pub(super) fn write_goaway(last_stream: u32, code: Code, out: &mut Vec<u8>) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last_stream.to_be_bytes());
    payload[4..].copy_from_slice(&(code as u32).to_be_bytes());
    write(kind::GOAWAY, 0, 0, &payload, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_are_written() {
        let head = FrameHead { length: 0x01_0203, kind: 9, flags: 0x2d, stream: 0x7fff_fffe };
        let mut bytes = head.bytes();
        assert_eq!(FrameHead::parse(&bytes), Some(head));
        bytes[5] |= 0x80;
        assert_eq!(FrameHead::parse(&bytes), Some(head));
        assert_eq!(FrameHead::parse(&bytes[..8]), None);
    }

    #[test]
    fn frames_of_fixed_form() {
        let mut out = Vec::new();
        write_reset(3, Code::Cancel, &mut out);
        write_window_update(0, 5, &mut out);
        write_goaway(7, Code::NoError, &mut out);
        let expected: &[u8] = &[
            0, 0, 4, 3, 0, 0, 0, 0, 3, 0, 0, 0, 8, //
            0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 5, //
            0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0,
        ];
        assert_eq!(out, expected);
    }
}
