//! The TCP header (RFC 9293 section 3.1).

use super::{WireError, read};

/// Length of the header without options, in bytes.
pub const LEN: usize = 20;
/// Offset of the checksum in the header.
pub const CHECKSUM_AT: usize = 16;
/// FIN.
pub const FIN: u16 = 0x001;
/// SYN.
pub const SYN: u16 = 0x002;
/// RST.
pub const RST: u16 = 0x004;
/// PSH.
pub const PSH: u16 = 0x008;
/// ACK.
pub const ACK: u16 = 0x010;
/// URG.
pub const URG: u16 = 0x020;
/// CWR (RFC 3168).
pub const CWR: u16 = 0x080;

/// A TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Control bits, reserved bits included: 12 bits.
    pub flags: u16,
    /// Window, not scaled.
    pub window: u16,
    /// Checksum as found, or as it shall be.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options with their padding: a multiple of 4 bytes, at most 40.
    pub options: &'a [u8],
}

impl<'a> Header<'a> {
    /// The header and the data after it.
    ///
    /// # Errors
    /// [`WireError::Length`] on a data offset below 5, [`WireError::Truncated`] when bytes are missing.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        let (_, rest) = bytes.split_first_chunk::<LEN>().ok_or(WireError::Truncated)?;
        let word = |at| read::<2>(bytes, at).map(u16::from_be_bytes);
        let offset_and_flags = word(12)?;
        let options = (usize::from(offset_and_flags >> 12) * 4).checked_sub(LEN).ok_or(WireError::Length)?;
        let (options, rest) = rest.split_at_checked(options).ok_or(WireError::Truncated)?;
        let header = Self {
            source_port: word(0)?,
            destination_port: word(2)?,
            sequence: u32::from_be_bytes(read(bytes, 4)?),
            acknowledgment: u32::from_be_bytes(read(bytes, 8)?),
            flags: offset_and_flags & 0x0fff,
            window: word(14)?,
            checksum: word(CHECKSUM_AT)?,
            urgent: word(18)?,
            options,
        };
        Ok((header, rest))
    }

    /// Writes the header and returns the room after it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when it does not fit, [`WireError::Length`] when the options are too long or not a
    /// multiple of 4 bytes.
    pub fn emit<'b>(&self, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
        if self.options.len() > 40 || !self.options.len().is_multiple_of(4) {
            return Err(WireError::Length);
        }
        let (head, rest) = out.split_first_chunk_mut::<LEN>().ok_or(WireError::Truncated)?;
        let (options, rest) = rest.split_at_mut_checked(self.options.len()).ok_or(WireError::Truncated)?;
        // At most 15: the options are at most 40 bytes.
        let offset = (self.len() / 4) as u16;
        let [s0, s1] = self.source_port.to_be_bytes();
        let [d0, d1] = self.destination_port.to_be_bytes();
        let [n0, n1, n2, n3] = self.sequence.to_be_bytes();
        let [a0, a1, a2, a3] = self.acknowledgment.to_be_bytes();
        let [f0, f1] = (offset << 12 | self.flags & 0x0fff).to_be_bytes();
        let [w0, w1] = self.window.to_be_bytes();
        let [c0, c1] = self.checksum.to_be_bytes();
        let [u0, u1] = self.urgent.to_be_bytes();
        *head = [s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, f0, f1, w0, w1, c0, c1, u0, u1];
        options.copy_from_slice(self.options);
        Ok(rest)
    }

    /// Bytes of the header, options included: 20 to 60.
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        LEN + self.options.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rejects_impossible_offsets() {
        let mut bytes = [0; 24];
        bytes[12] = 0x40;
        assert_eq!(Header::parse(&bytes), Err(WireError::Length));
        bytes[12] = 0x70;
        assert_eq!(Header::parse(&bytes), Err(WireError::Truncated));
        bytes[12] = 0x60;
        bytes[13] = 0x12;
        let (header, rest) = Header::parse(&bytes).unwrap();
        assert_eq!((header.flags, header.len(), rest.len()), (SYN | ACK, 24, 0));
        assert_eq!(Header::parse(&bytes[..19]), Err(WireError::Truncated));
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_emit(
            ports: (u16, u16), numbers: (u32, u32), flags in 0u16..0x1000, tail: (u16, u16, u16), words in 0usize..=10,
        ) {
            let options = vec![1; words * 4];
            let header = Header {
                source_port: ports.0, destination_port: ports.1, sequence: numbers.0, acknowledgment: numbers.1,
                flags, window: tail.0, checksum: tail.1, urgent: tail.2, options: &options,
            };
            let mut bytes = vec![0; header.len() + 4];
            header.emit(&mut bytes).unwrap();
            prop_assert_eq!(Header::parse(&bytes).unwrap(), (header, &[0; 4][..]));
        }
    }
}
