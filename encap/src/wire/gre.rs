//! The GRE header (RFC 2784) with key and sequence number (RFC 2890).
//!
//! Received: checksum, key and sequence number in any combination. The routing bits of RFC 1701 and every version
//! but 0 are refused (RFC 2784 sections 2.3 and 2.3.1); bits 6 to 12 are ignored. [`verify`] checks the checksum,
//! which covers the whole GRE packet; `parse` does not.

use super::checksum::Sum;
use super::{WireError, read};

/// Protocol type of IPv4.
pub const IPV4: u16 = 0x0800;
/// Protocol type of IPv6 (RFC 7676 section 3).
pub const IPV6: u16 = 0x86dd;

/// Offset of the checksum, where there is one.
pub const CHECKSUM_AT: usize = 4;

const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// Bits 1, 4 and 5: routing, strict source route, recursion (RFC 2784 section 2.3 as narrowed by RFC 2890).
const REFUSED: u16 = 0x4c00;
const VERSION: u16 = 0x0007;

/// A GRE header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// EtherType of the payload.
    pub protocol: u16,
    /// Checksum of the GRE packet, when it carries one.
    pub checksum: Option<u16>,
    /// Key, when it carries one.
    pub key: Option<u32>,
    /// Sequence number, when it carries one.
    pub sequence: Option<u32>,
}

impl Header {
    /// The header and its payload.
    ///
    /// # Errors
    /// [`WireError::Reserved`], [`WireError::Version`] or [`WireError::Truncated`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let flags = u16::from_be_bytes(read(bytes, 0)?);
        if flags & REFUSED != 0 {
            return Err(WireError::Reserved);
        }
        if flags & VERSION != 0 {
            return Err(WireError::Version);
        }
        let protocol = u16::from_be_bytes(read(bytes, 2)?);
        let mut rest = bytes.get(4..).ok_or(WireError::Truncated)?;
        let mut word = |bit| -> Result<Option<[u8; 4]>, WireError> {
            if flags & bit == 0 {
                return Ok(None);
            }
            let (word, tail) = rest.split_first_chunk::<4>().ok_or(WireError::Truncated)?;
            rest = tail;
            Ok(Some(*word))
        };
        let checksum = word(CHECKSUM)?.map(|[c0, c1, _, _]| u16::from_be_bytes([c0, c1]));
        let key = word(KEY)?.map(u32::from_be_bytes);
        let sequence = word(SEQUENCE)?.map(u32::from_be_bytes);
        Ok((Self { protocol, checksum, key, sequence }, rest))
    }

    /// Writes the header and returns the room after it. A checksum is written as given.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when it does not fit.
    pub fn emit<'b>(&self, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
        let bit = |present: bool, bit| if present { bit } else { 0 };
        let flags = bit(self.checksum.is_some(), CHECKSUM)
            | bit(self.key.is_some(), KEY)
            | bit(self.sequence.is_some(), SEQUENCE);
        let checksum = self.checksum.map(|checksum| u32::from(checksum) << 16);
        let first = u32::from(flags) << 16 | u32::from(self.protocol);
        let mut rest = out;
        for word in [Some(first), checksum, self.key, self.sequence].into_iter().flatten() {
            let (place, tail) = rest.split_first_chunk_mut::<4>().ok_or(WireError::Truncated)?;
            *place = word.to_be_bytes();
            rest = tail;
        }
        Ok(rest)
    }

    /// Bytes of the header: 4 to 16.
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        let words = [self.checksum.is_some(), self.key.is_some(), self.sequence.is_some()];
        4 + 4 * words.into_iter().filter(|present| *present).count()
    }
}

/// Whether the checksum of a GRE packet that carries one is right (RFC 2784 section 2.5).
pub fn verify(packet: &[u8]) -> bool {
    Sum::default().bytes(packet).finish() == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checksum::tests::naive;
    use super::*;

    #[test]
    fn keyed_header_on_the_wire() {
        let header = Header { protocol: IPV4, checksum: None, key: Some(0x0102_0304), sequence: None };
        let mut bytes = [0xff; 9];
        header.emit(&mut bytes).unwrap();
        assert_eq!(bytes, [0x20, 0, 8, 0, 1, 2, 3, 4, 0xff]);
        assert_eq!(header.emit(&mut bytes[..7]), Err(WireError::Truncated));
    }

    #[test]
    fn reserved_bits_and_versions() {
        let parse = |flags: u16| {
            let [f0, f1] = flags.to_be_bytes();
            Header::parse(&[f0, f1, 8, 0, 0, 0, 0, 0]).map(|_| ())
        };
        for bit in [0x4000, 0x0800, 0x0400] {
            assert_eq!(parse(bit), Err(WireError::Reserved), "{bit:#x}");
        }
        for version in 1..8 {
            assert_eq!(parse(version), Err(WireError::Version), "{version}");
        }
        assert_eq!(parse(0x03f8), Ok(()), "bits 6 to 12 are ignored");
        assert_eq!(parse(0xb000), Err(WireError::Truncated));
    }

    #[test]
    fn checksum_covers_header_and_payload() {
        let mut header = Header { protocol: IPV4, checksum: Some(0), key: Some(7), sequence: Some(9) };
        let mut packet = vec![0x5a; header.len() + 33];
        header.emit(&mut packet).unwrap();
        header.checksum = Some(naive(&[&packet]));
        header.emit(&mut packet).unwrap();
        assert!(verify(&packet));
        *packet.last_mut().unwrap() ^= 1;
        assert!(!verify(&packet));
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_emit(protocol: u16, checksum: Option<u16>, key: Option<u32>, sequence: Option<u32>) {
            let header = Header { protocol, checksum, key, sequence };
            let mut bytes = vec![0; header.len() + 3];
            header.emit(&mut bytes).unwrap();
            prop_assert_eq!(Header::parse(&bytes).unwrap(), (header, &[0; 3][..]));
        }
    }
}
