//! The streams on which the two sides keep dynamic tables in step (RFC 9204 4.3, 4.4). There is none here, so that very
//! little may be said on them.

use crate::field::{Flaw, integer};
use crate::h3::error::{Code, ConnectionError};

/// Bytes of the longest instruction that is allowed.
const LONGEST: usize = 8;

/// What the peer's encoder says: only, and as often as it likes, that its table has no room (RFC 9204 4.3.1).
#[derive(Debug, Default)]
pub struct EncoderStream {
    partial: Vec<u8>,
}

/// What the peer's decoder says: only that streams were given up (RFC 9204 4.4.2). There is nothing to acknowledge.
#[derive(Debug, Default)]
pub struct DecoderStream {
    partial: Vec<u8>,
}

impl EncoderStream {
    /// Takes the next bytes, in whatever pieces.
    ///
    /// # Errors
    /// For any instruction that would need a table.
    pub fn receive(&mut self, input: &[u8]) -> Result<(), ConnectionError> {
        let refused =
            ConnectionError::new(Code::QpackEncoderStream, "an instruction for a table without room");
        instructions(
            &mut self.partial,
            input,
            |first| (0x20..0x40).contains(&first).then_some(5),
            |size| size == 0,
        )
        .map_err(|()| refused)
    }
}

impl DecoderStream {
    /// Takes the next bytes, in whatever pieces.
    ///
    /// # Errors
    /// For any acknowledgement.
    pub fn receive(&mut self, input: &[u8]) -> Result<(), ConnectionError> {
        let refused = ConnectionError::new(Code::QpackDecoderStream, "an acknowledgement of nothing");
        instructions(&mut self.partial, input, |first| (0x40..0x80).contains(&first).then_some(6), |_| true)
            .map_err(|()| refused)
    }
}

/// Reads instructions of one integer each: `allowed` says how many bits of the first byte belong to it, `fits` which
/// integers are right.
fn instructions(
    partial: &mut Vec<u8>,
    input: &[u8],
    allowed: impl Fn(u8) -> Option<u32>,
    fits: impl Fn(usize) -> bool,
) -> Result<(), ()> {
    for &byte in input {
        partial.push(byte);
        let Some(bits) = partial.first().and_then(|&first| allowed(first)) else { return Err(()) };
        let mut rest = partial.as_slice();
        match integer::take(&mut rest, bits) {
            Ok(number) if fits(number) => partial.clear(),
            Err(Flaw::Truncated) if partial.len() < LONGEST => {}
            _ => return Err(()),
        }
    }
    Ok(())
}
