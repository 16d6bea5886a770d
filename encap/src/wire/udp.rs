//! The UDP header (RFC 768).

use super::WireError;

/// Length of the header in bytes.
pub const LEN: usize = 8;
/// Offset of the length in the header.
pub const LENGTH_AT: usize = 4;
/// Offset of the checksum in the header.
pub const CHECKSUM_AT: usize = 6;
/// Destination port of GRE-in-UDP (RFC 8086 section 8).
pub const GRE_IN_UDP: u16 = 4754;
/// Destination port of GRE-in-UDP over DTLS (RFC 8086 section 8).
pub const GRE_IN_UDP_DTLS: u16 = 4755;

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Bytes of header and data, at least 8.
    pub length: u16,
    /// Checksum as found, or as it shall be; 0 for none.
    pub checksum: u16,
}

impl Header {
    /// The header and the data after it, cut to its length.
    ///
    /// # Errors
    /// [`WireError::Length`] on a length below 8, [`WireError::Truncated`] when bytes are missing.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let (head, rest) = bytes.split_first_chunk::<LEN>().ok_or(WireError::Truncated)?;
        let [s0, s1, d0, d1, l0, l1, c0, c1] = *head;
        let header = Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            length: u16::from_be_bytes([l0, l1]),
            checksum: u16::from_be_bytes([c0, c1]),
        };
        let data = usize::from(header.length).checked_sub(LEN).ok_or(WireError::Length)?;
        Ok((header, rest.get(..data).ok_or(WireError::Truncated)?))
    }

    /// Writes the header and returns the room after it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when it does not fit.
    pub fn emit<'b>(&self, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
        let (head, rest) = out.split_first_chunk_mut::<LEN>().ok_or(WireError::Truncated)?;
        let [s0, s1] = self.source_port.to_be_bytes();
        let [d0, d1] = self.destination_port.to_be_bytes();
        let [l0, l1] = self.length.to_be_bytes();
        let [c0, c1] = self.checksum.to_be_bytes();
        *head = [s0, s1, d0, d1, l0, l1, c0, c1];
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rejects_impossible_lengths() {
        let bytes = |length: u8| [0, 1, 0, 2, 0, length, 0, 0, 9, 9];
        assert_eq!(Header::parse(&bytes(7)), Err(WireError::Length));
        assert_eq!(Header::parse(&bytes(11)), Err(WireError::Truncated));
        assert_eq!(Header::parse(&bytes(9)).unwrap().1, [9]);
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_emit(source_port: u16, destination_port: u16, data in 0usize..40, checksum: u16) {
            let header = Header { source_port, destination_port, length: (LEN + data) as u16, checksum };
            let mut bytes = vec![0; LEN + data];
            header.emit(&mut bytes).unwrap();
            let (back, rest) = Header::parse(&bytes).unwrap();
            prop_assert_eq!((back, rest.len()), (header, data));
        }
    }
}
