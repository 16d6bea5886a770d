//! The IPv6 header and what may stand between it and the upper layer (RFC 8200), outer and inner.
//!
//! Jumbograms (RFC 2675) are refused: nothing here is longer than 65 535 bytes.

use std::net::Ipv6Addr;

use super::{WireError, read};

/// Length of the header in bytes.
pub const LEN: usize = 40;
/// Next header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Next header: IPv4 in IPv6 (RFC 2473).
pub const IPIP: u8 = 4;
/// Next header: TCP.
pub const TCP: u8 = 6;
/// Next header: UDP.
pub const UDP: u8 = 17;
/// Next header: IPv6 in IPv6 (RFC 2473).
pub const IPV6: u8 = 41;
/// Next header: a routing header.
pub const ROUTING: u8 = 43;
/// Next header: a fragment header.
pub const FRAGMENT: u8 = 44;
/// Next header: GRE (RFC 7676).
pub const GRE: u8 = 47;
/// Next header: authentication (RFC 4302). Not followed here: it is an upper layer like any other.
pub const AUTHENTICATION: u8 = 51;
/// Next header: ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// Next header: nothing follows.
pub const NO_NEXT: u8 = 59;
/// Next header: destination options.
pub const DESTINATION_OPTIONS: u8 = 60;
/// Length of a fragment header in bytes.
pub const FRAGMENT_LEN: usize = 8;

/// Most extension headers that are followed.
const EXTENSIONS_MAX: usize = 8;

/// An IPv6 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// DSCP (upper six bits) and ECN (lower two).
    pub traffic_class: u8,
    /// Flow label (RFC 6437), 20 bits.
    pub flow_label: u32,
    /// Bytes after this header.
    pub payload_length: u16,
    /// Kind of the header that follows: an extension header or the upper layer.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

impl Header {
    /// The header and its payload, cut to the payload length (what follows is padding of the link).
    ///
    /// # Errors
    /// [`WireError`] on a wrong version, on a payload length beyond the bytes, and on one of 0: that is a jumbogram,
    /// or a packet that says nothing.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let (header, rest) = Self::parse_quoted(bytes)?;
        if header.payload_length == 0 {
            return Err(WireError::Length);
        }
        Ok((header, rest.get(..usize::from(header.payload_length)).ok_or(WireError::Truncated)?))
    }

    /// As `parse`, for the packet quoted by an ICMPv6 error, which may be cut off (RFC 4443 section 3): what follows
    /// the header is as long as it is.
    ///
    /// # Errors
    /// [`WireError`] on a wrong version or fewer bytes than the header.
    pub fn parse_quoted(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let (head, rest) = bytes.split_first_chunk::<LEN>().ok_or(WireError::Truncated)?;
        let first = u32::from_be_bytes(read(head, 0)?);
        if first >> 28 != 6 {
            return Err(WireError::Version);
        }
        let [next_header, hop_limit] = read(head, 6)?;
        let header = Self {
            // Eight bits of the word.
            traffic_class: (first >> 20) as u8,
            flow_label: first & 0xf_ffff,
            payload_length: u16::from_be_bytes(read(head, 4)?),
            next_header,
            hop_limit,
            source: read::<16>(head, 8)?.into(),
            destination: read::<16>(head, 24)?.into(),
        };
        Ok((header, rest))
    }

    /// Writes the header and returns the room after it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when it does not fit.
    pub fn emit<'b>(&self, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
        let (head, rest) = out.split_first_chunk_mut::<8>().ok_or(WireError::Truncated)?;
        let (source, rest) = rest.split_first_chunk_mut::<16>().ok_or(WireError::Truncated)?;
        let (destination, rest) = rest.split_first_chunk_mut::<16>().ok_or(WireError::Truncated)?;
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff;
        let [f0, f1, f2, f3] = first.to_be_bytes();
        let [l0, l1] = self.payload_length.to_be_bytes();
        *head = [f0, f1, f2, f3, l0, l1, self.next_header, self.hop_limit];
        *source = self.source.octets();
        *destination = self.destination.octets();
        Ok(rest)
    }

    /// The upper layer of `payload`, which is what `parse` has left.
    ///
    /// # Errors
    /// As [`upper`].
    #[inline]
    pub fn upper(&self, payload: &[u8]) -> Result<Upper, WireError> {
        match self.next_header {
            protocol @ (TCP | UDP | ICMPV6) => Ok(Upper { protocol, offset: 0, fragment: None }),
            first => upper(first, payload),
        }
    }
}

/// What the extension headers lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// Protocol of the upper layer. [`ROUTING`] when a routing header has segments left: what follows is for
    /// somebody else then. In a fragment that is not the first, the protocol with which the fragmented part begins.
    pub protocol: u8,
    /// Bytes between the IPv6 header and the upper layer.
    pub offset: usize,
    /// What the fragment header says, if there is one.
    pub fragment: Option<Fragment>,
}

/// A fragment header (RFC 8200 section 4.5), less its next header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Offset of this fragment in units of 8 bytes, 13 bits.
    pub offset: u16,
    /// M: more fragments follow.
    pub more: bool,
    /// What the fragments of one packet have in common.
    pub identification: u32,
}

impl Fragment {
    /// Whether there are other fragments. An atomic fragment has the header and is whole (RFC 6946).
    pub fn is_part(&self) -> bool {
        self.more || self.offset != 0
    }

    /// Writes the fragment header in front of a part of `next_header` and returns the room after it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when it does not fit.
    pub fn emit<'b>(&self, next_header: u8, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
        let (head, rest) = out.split_first_chunk_mut::<FRAGMENT_LEN>().ok_or(WireError::Truncated)?;
        let [o0, o1] = (self.offset << 3 | u16::from(self.more)).to_be_bytes();
        let [i0, i1, i2, i3] = self.identification.to_be_bytes();
        *head = [next_header, 0, o0, o1, i0, i1, i2, i3];
        Ok(rest)
    }
}

/// Follows the extension headers of a payload that begins with the header `first` to the upper layer.
///
/// # Errors
/// [`WireError::Truncated`] when one is cut off, [`WireError::Chain`] when hop-by-hop options are not the first, when
/// there are two fragment headers, or more than eight extension headers.
pub fn upper(first: u8, payload: &[u8]) -> Result<Upper, WireError> {
    let mut upper = Upper { protocol: first, offset: 0, fragment: None };
    for seen in 0..=EXTENSIONS_MAX {
        if !matches!(upper.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
            return Ok(upper);
        }
        let [next, units, _, left] = read(payload, upper.offset)?;
        let len = match upper.protocol {
            HOP_BY_HOP if seen > 0 => return Err(WireError::Chain),
            ROUTING if left != 0 => return Ok(upper),
            FRAGMENT if upper.fragment.is_some() => return Err(WireError::Chain),
            FRAGMENT => {
                let field = u16::from_be_bytes(read(payload, upper.offset + 2)?);
                let identification = u32::from_be_bytes(read(payload, upper.offset + 4)?);
                let fragment = Fragment { offset: field >> 3, more: field & 1 != 0, identification };
                upper.fragment = Some(fragment);
                FRAGMENT_LEN
            }
            _ => 8 + 8 * usize::from(units),
        };
        upper.protocol = next;
        upper.offset += len;
        if upper.offset > payload.len() {
            return Err(WireError::Truncated);
        }
        if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(upper);
        }
    }
    Err(WireError::Chain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const TO: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    #[test]
    fn the_bytes_on_the_wire() {
        let header = Header {
            traffic_class: 0xb9,
            flow_label: 0x1_2345,
            payload_length: 2,
            next_header: GRE,
            hop_limit: 63,
            source: FROM,
            destination: TO,
        };
        let mut bytes = [7; LEN + 3];
        header.emit(&mut bytes).unwrap();
        let expected = [&[0x6b, 0x91, 0x23, 0x45, 0, 2, 47, 63][..], &FROM.octets(), &TO.octets(), &[7; 3]];
        assert_eq!(bytes[..], expected.concat());
        assert_eq!(Header::parse(&bytes), Ok((header, &[7, 7][..])), "padding is cut");
        assert_eq!(header.emit(&mut bytes[..39]), Err(WireError::Truncated));
    }

    #[test]
    fn rejects_what_is_not_ipv6_and_jumbograms() {
        let with = |at: usize, value: u8| {
            let mut bytes = [0; 50];
            [bytes[0], bytes[5]] = [0x60, 10];
            bytes[at] = value;
            Header::parse(&bytes).map(|(_, payload)| payload.len())
        };
        assert_eq!(with(0, 0x6f), Ok(10));
        assert_eq!(with(0, 0x45), Err(WireError::Version));
        assert_eq!(with(5, 11), Err(WireError::Truncated));
        assert_eq!(with(5, 0), Err(WireError::Length));
        assert_eq!(Header::parse(&[0x60; 39]), Err(WireError::Truncated));
        assert!(Header::parse_quoted(&[0x60; 40]).is_ok(), "a quoted packet may be cut off");
    }

    /// A header of `units` + 1 times 8 bytes, which says `next`.
    fn extension(next: u8, units: u8) -> Vec<u8> {
        let mut bytes = vec![0; 8 + 8 * usize::from(units)];
        [bytes[0], bytes[1]] = [next, units];
        bytes
    }

    fn fragment(next: u8, offset: u16, more: bool) -> Vec<u8> {
        let mut bytes = vec![0; FRAGMENT_LEN];
        Fragment { offset, more, identification: 0xdead_beef }.emit(next, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn extension_headers_lead_to_the_upper_layer() {
        let chain = [
            extension(DESTINATION_OPTIONS, 0),
            extension(ROUTING, 2),
            extension(DESTINATION_OPTIONS, 1),
            extension(TCP, 0),
            vec![0; 20],
        ];
        // Hop-by-hop, destination options, routing, destination options, TCP.
        let found = Upper { protocol: TCP, offset: 8 + 24 + 16 + 8, fragment: None };
        assert_eq!(upper(HOP_BY_HOP, &chain.concat()), Ok(found));
        for protocol in [TCP, UDP, ICMPV6, GRE, IPIP, IPV6, NO_NEXT, AUTHENTICATION, 200] {
            assert_eq!(upper(protocol, &[]), Ok(Upper { protocol, offset: 0, fragment: None }));
        }
    }

    #[test]
    fn a_later_fragment_ends_the_chain() {
        let first = [fragment(DESTINATION_OPTIONS, 0, true), extension(UDP, 0)].concat();
        let found = upper(FRAGMENT, &first).unwrap();
        assert_eq!((found.protocol, found.offset), (UDP, 16));
        assert_eq!(found.fragment, Some(Fragment { offset: 0, more: true, identification: 0xdead_beef }));
        let later = [fragment(DESTINATION_OPTIONS, 0x1fff, false), vec![0xff; 3]].concat();
        let found = upper(FRAGMENT, &later).unwrap();
        assert_eq!((found.protocol, found.offset), (DESTINATION_OPTIONS, 8), "what follows is data");
        assert!(found.fragment.unwrap().is_part());
        let atomic = upper(FRAGMENT, &fragment(TCP, 0, false)).unwrap();
        assert!(!atomic.fragment.unwrap().is_part());
    }

    #[test]
    fn a_packet_on_its_way_to_somebody_else_has_no_upper_layer_here() {
        let mut route = extension(TCP, 2);
        route[3] = 1;
        assert_eq!(upper(ROUTING, &route), Ok(Upper { protocol: ROUTING, offset: 0, fragment: None }));
        route[3] = 0;
        assert_eq!(upper(ROUTING, &route).unwrap().protocol, TCP);
    }

    #[test]
    fn chains_are_bounded_and_in_order() {
        let many = |count: usize| {
            let mut bytes = extension(DESTINATION_OPTIONS, 0).repeat(count - 1);
            bytes.extend(extension(TCP, 0));
            upper(DESTINATION_OPTIONS, &bytes).map(|upper| upper.protocol)
        };
        assert_eq!(many(8), Ok(TCP));
        assert_eq!(many(9), Err(WireError::Chain));
        let late = [extension(HOP_BY_HOP, 0), extension(TCP, 0)].concat();
        assert_eq!(upper(DESTINATION_OPTIONS, &late), Err(WireError::Chain));
        let twice = [fragment(FRAGMENT, 0, true), fragment(TCP, 0, true)].concat();
        assert_eq!(upper(FRAGMENT, &twice), Err(WireError::Chain));
    }

    #[test]
    fn overruns_are_refused() {
        for first in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT] {
            let whole = if first == FRAGMENT { fragment(TCP, 0, true) } else { extension(TCP, 3) };
            assert!(upper(first, &whole).is_ok());
            for len in 0..whole.len() {
                assert_eq!(upper(first, &whole[..len]), Err(WireError::Truncated), "{first}, {len}");
            }
        }
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_emit(
            traffic_class: u8, flow_label in 0u32..0x10_0000, next_header: u8, hop_limit: u8, source: u128,
            destination: u128, payload in 1usize..50,
        ) {
            let header = Header {
                traffic_class, flow_label, payload_length: payload as u16, next_header, hop_limit,
                source: source.into(), destination: destination.into(),
            };
            let mut bytes = vec![0; LEN + payload + 5];
            header.emit(&mut bytes).unwrap();
            let (back, rest) = Header::parse(&bytes).unwrap();
            prop_assert_eq!((back, rest.len()), (header, payload));
        }

        #[test]
        fn a_fragment_header_is_read_as_written(offset in 0u16..0x2000, more: bool, identification: u32, next: u8) {
            let fragment = Fragment { offset, more, identification };
            let mut bytes = [0; FRAGMENT_LEN];
            // What follows a first fragment header is followed, too: only its end is of interest here.
            let next = if offset == 0 { TCP } else { next };
            fragment.emit(next, &mut bytes).unwrap();
            let found = upper(FRAGMENT, &bytes).unwrap();
            prop_assert_eq!(found, Upper { protocol: next, offset: FRAGMENT_LEN, fragment: Some(fragment) });
        }

        #[test]
        fn whatever_follows_lies_inside(first: u8, bytes in prop::collection::vec(0u8..64, 0..80)) {
            if let Ok(found) = upper(first, &bytes) {
                prop_assert!(found.offset <= bytes.len());
            }
        }
    }
}
