//! The IPv4 header (RFC 791), outer and inner.

use std::net::Ipv4Addr;

use super::WireError;
use super::checksum::Sum;

/// Length of the header without options, in bytes.
pub const LEN: usize = 20;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of IPv4 in IPv4 (RFC 2003).
pub const IPIP: u8 = 4;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of IPv6 in IPv4 (RFC 4213).
pub const IPV6: u8 = 41;
/// Protocol number of GRE (RFC 2784).
pub const GRE: u8 = 47;

/// An IPv4 header. Its checksum is neither kept nor verified: the kernel verifies inner headers, and `emit` makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// DSCP (upper six bits) and ECN (lower two).
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_length: u16,
    /// Identification; means nothing in an unfragmented packet with `dont_fragment` (RFC 6864).
    pub identification: u16,
    /// DF.
    pub dont_fragment: bool,
    /// MF.
    pub more_fragments: bool,
    /// Offset of this fragment in units of 8 bytes, 13 bits.
    pub fragment_offset: u16,
    /// Hops left.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Options with their padding: a multiple of 4 bytes, at most 40.
    pub options: &'a [u8],
}

impl<'a> Header<'a> {
    /// The header and its payload, cut to the total length (what follows is padding of the link).
    ///
    /// # Errors
    /// [`WireError`] on a wrong version and on lengths that are impossible or longer than the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        let (header, rest) = Self::parse_quoted(bytes)?;
        let payload = usize::from(header.total_length).checked_sub(header.len()).ok_or(WireError::Length)?;
        Ok((header, rest.get(..payload).ok_or(WireError::Truncated)?))
    }

    /// As `parse`, for the packet quoted by an ICMP error, which may be cut off (RFC 792): what follows the header
    /// is as long as it is.
    ///
    /// # Errors
    /// [`WireError`] on a wrong version, an impossible header length, or fewer bytes than the header.
    pub fn parse_quoted(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        let (head, rest) = bytes.split_first_chunk::<LEN>().ok_or(WireError::Truncated)?;
        let [first, tos, l0, l1, i0, i1, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *head;
        if first >> 4 != 4 {
            return Err(WireError::Version);
        }
        let options = (usize::from(first & 0x0f) * 4).checked_sub(LEN).ok_or(WireError::Length)?;
        let (options, rest) = rest.split_at_checked(options).ok_or(WireError::Truncated)?;
        let fragment = u16::from_be_bytes([f0, f1]);
        let header = Self {
            tos,
            total_length: u16::from_be_bytes([l0, l1]),
            identification: u16::from_be_bytes([i0, i1]),
            dont_fragment: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            fragment_offset: fragment & 0x1fff,
            ttl,
            protocol,
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
            options,
        };
        Ok((header, rest))
    }

    /// Writes the header with its checksum and returns the room after it.
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
        let fragment = u16::from(self.dont_fragment) << 14
            | u16::from(self.more_fragments) << 13
            | self.fragment_offset & 0x1fff;
        let [l0, l1] = self.total_length.to_be_bytes();
        let [i0, i1] = self.identification.to_be_bytes();
        let [f0, f1] = fragment.to_be_bytes();
        let [s0, s1, s2, s3] = self.source.octets();
        let [d0, d1, d2, d3] = self.destination.octets();
        // At most 15: the options are at most 40 bytes.
        let first = 0x40 | (self.len() / 4) as u8;
        let (ttl, protocol) = (self.ttl, self.protocol);
        let bytes =
            [first, self.tos, l0, l1, i0, i1, f0, f1, ttl, protocol, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
        let [c0, c1] = Sum::default().bytes(&bytes).bytes(self.options).finish().to_be_bytes();
        *head = bytes;
        [head[10], head[11]] = [c0, c1];
        options.copy_from_slice(self.options);
        Ok(rest)
    }

    /// Bytes of the header, options included: 20 to 60.
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        LEN + self.options.len()
    }

    /// Whether this is a fragment, the first one included.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checksum::tests::naive;
    use super::*;

    #[test]
    fn rejects_what_is_not_ipv4() {
        let good = [0x45, 0, 0, 22, 0, 0, 0, 0, 64, 6, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 7, 8, 9];
        assert_eq!(Header::parse(&good).unwrap().1, [7, 8], "padding is cut");
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Header::parse(&bytes).map(|_| ())
        };
        assert_eq!(with(0, 0x65), Err(WireError::Version));
        assert_eq!(with(0, 0x44), Err(WireError::Length));
        assert_eq!(with(0, 0x46), Err(WireError::Truncated));
        assert_eq!(with(3, 19), Err(WireError::Length));
        assert_eq!(with(3, 24), Err(WireError::Truncated));
        assert!(Header::parse_quoted(&[&good[..3], &[200], &good[4..]].concat()).is_ok());
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_emit(
            tos: u8, id: u16, dont_fragment: bool, more_fragments: bool, offset in 0u16..0x2000, ttl: u8, protocol: u8,
            source: u32, destination: u32, words in 0usize..=10, payload in 0usize..50,
        ) {
            let options = vec![7; words * 4];
            let header = Header {
                tos, total_length: (LEN + options.len() + payload) as u16, identification: id, dont_fragment,
                more_fragments, fragment_offset: offset, ttl, protocol, source: source.into(),
                destination: destination.into(), options: &options,
            };
            let mut bytes = vec![0; header.len() + payload + 5];
            header.emit(&mut bytes).unwrap();
            let (back, rest) = Header::parse(&bytes).unwrap();
            prop_assert_eq!(back, header);
            prop_assert_eq!(rest.len(), payload);
            prop_assert_eq!(naive(&[&bytes[..header.len()]]), 0);
        }
    }
}
