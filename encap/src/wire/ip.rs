//! An IP packet of either version, reduced to what both have in common.
//!
//! [`Packet`] is for whoever decides about packets; headers are written by [`ipv4`] and [`ipv6`]. It holds no
//! reference to the packet, so that the packet can be changed afterwards.

use std::net::IpAddr;

use super::checksum::adjust;
use super::{WireError, gre, ipv4, ipv6, read, write};

/// Version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// What the first byte says.
    ///
    /// # Errors
    /// [`WireError::Version`] when it is neither, [`WireError::Truncated`] when there is none.
    #[inline]
    pub fn of(packet: &[u8]) -> Result<Self, WireError> {
        match packet.first().ok_or(WireError::Truncated)? >> 4 {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            _ => Err(WireError::Version),
        }
    }

    /// The version an address belongs to.
    pub fn of_address(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Protocol type of such a packet inside GRE (RFC 2784, RFC 7676).
    pub fn ethertype(self) -> u16 {
        match self {
            Self::V4 => gre::IPV4,
            Self::V6 => gre::IPV6,
        }
    }

    /// Protocol number of such a packet right inside another (RFC 2003, RFC 4213, RFC 2473).
    pub fn protocol(self) -> u8 {
        match self {
            Self::V4 => ipv4::IPIP,
            Self::V6 => ipv4::IPV6,
        }
    }

    /// Bytes of the header without options.
    pub fn header_len(self) -> usize {
        match self {
            Self::V4 => ipv4::LEN,
            Self::V6 => ipv6::LEN,
        }
    }
}

/// Which part of a packet this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, with the transport header.
    First,
    /// A later fragment, without it.
    Later,
}

/// What an IP packet says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same version.
    pub destination: IpAddr,
    /// DSCP (upper six bits) and ECN (lower two).
    pub traffic_class: u8,
    /// Hops left.
    pub ttl: u8,
    /// Nobody on the way may fragment it: DF, and always so in IPv6.
    pub dont_fragment: bool,
    /// Whether it is a fragment.
    pub part: Part,
    /// Protocol of the transport, behind all extension headers. See [`ipv6::Upper::protocol`] for the cases in which
    /// there is none.
    pub protocol: u8,
    /// Bytes of the IP header, its options and extension headers: the offset of the transport.
    pub header_len: usize,
    /// Bytes of the whole packet.
    pub total: usize,
}

impl Packet {
    /// The packet at the start of `bytes`, and its transport up to its end; what follows is padding of the link.
    ///
    /// # Errors
    /// [`WireError`] when it is neither IPv4 nor IPv6, or a header contradicts itself or the bytes.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        match Version::of(bytes)? {
            Version::V4 => {
                let (header, payload) = ipv4::Header::parse(bytes)?;
                Ok((Self::from_v4(&header), payload))
            }
            Version::V6 => {
                let (header, payload) = ipv6::Header::parse(bytes)?;
                Self::from_v6(&header, payload)
            }
        }
    }

    /// As `parse`, for a packet that is quoted by an ICMP error and may be cut off behind its headers.
    ///
    /// # Errors
    /// As `parse`, except that the packet's own length is not compared to the bytes.
    pub fn parse_quoted(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        match Version::of(bytes)? {
            Version::V4 => {
                let (header, payload) = ipv4::Header::parse_quoted(bytes)?;
                Ok((Self::from_v4(&header), payload))
            }
            Version::V6 => {
                let (header, payload) = ipv6::Header::parse_quoted(bytes)?;
                Self::from_v6(&header, payload)
            }
        }
    }

    /// Its version of IP.
    pub fn version(&self) -> Version {
        Version::of_address(self.source)
    }

    /// Whether it is a part of a packet, the first one included.
    pub fn is_fragment(&self) -> bool {
        self.part != Part::Whole
    }

    fn from_v4(header: &ipv4::Header<'_>) -> Self {
        Self {
            source: header.source.into(),
            destination: header.destination.into(),
            traffic_class: header.tos,
            ttl: header.ttl,
            dont_fragment: header.dont_fragment,
            part: Part::new(header.fragment_offset, header.more_fragments),
            protocol: header.protocol,
            header_len: header.len(),
            total: usize::from(header.total_length),
        }
    }

    fn from_v6<'a>(header: &ipv6::Header, payload: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        let upper = header.upper(payload)?;
        let packet = Self {
            source: header.source.into(),
            destination: header.destination.into(),
            traffic_class: header.traffic_class,
            ttl: header.hop_limit,
            dont_fragment: true,
            part: upper.fragment.map_or(Part::Whole, |fragment| Part::new(fragment.offset, fragment.more)),
            protocol: upper.protocol,
            header_len: ipv6::LEN + upper.offset,
            total: ipv6::LEN + usize::from(header.payload_length),
        };
        Ok((packet, payload.get(upper.offset..).ok_or(WireError::Truncated)?))
    }
}

impl Part {
    fn new(offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::Whole,
            (0, true) => Self::First,
            _ => Self::Later,
        }
    }
}

/// The bits of ECN in the TOS byte or traffic class (RFC 3168 section 5).
pub const ECN: u8 = 0b11;

/// Sets the ECN bits of the packet at the start of `packet`; the checksum of IPv4 follows.
///
/// # Errors
/// [`WireError`] when there is no IP header.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: u8) -> Result<(), WireError> {
    let [first, second] = read(packet, 0)?;
    match Version::of(packet)? {
        Version::V4 => {
            let new = second & !ECN | ecn;
            if new != second {
                let checksum = u16::from_be_bytes(read(packet, 10)?);
                let [old, word] = [[first, second], [first, new]].map(u16::from_be_bytes);
                write(packet, 10, adjust(checksum, old, word).to_be_bytes())?;
                write(packet, 1, [new])?;
            }
            Ok(())
        }
        // The traffic class lies across the two bytes: its lower four bits are the upper ones of the second.
        Version::V6 => write(packet, 1, [second & !(ECN << 4) | ecn << 4]),
    }
}

/// Says in the header of a packet that it is `total` bytes long, headers included.
///
/// # Errors
/// [`WireError`] when there is no IP header; [`WireError::Length`] when a packet cannot be so long or so short.
pub fn set_length(packet: &mut [u8], total: usize) -> Result<(), WireError> {
    let length =
        |bytes: Option<usize>| bytes.and_then(|bytes| u16::try_from(bytes).ok()).ok_or(WireError::Length);
    match Version::of(packet)? {
        Version::V4 => {
            let [old, checksum] = [read(packet, 2)?, read(packet, 10)?].map(u16::from_be_bytes);
            let new = length(Some(total))?;
            write(packet, 10, adjust(checksum, old, new).to_be_bytes())?;
            write(packet, 2, new.to_be_bytes())
        }
        Version::V6 => write(packet, 4, length(total.checked_sub(ipv6::LEN))?.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::super::checksum::tests::naive;
    use super::*;

    fn v4(options: &[u8], payload: usize) -> (ipv4::Header<'_>, Vec<u8>) {
        let header = ipv4::Header {
            tos: 0xb9,
            total_length: (ipv4::LEN + options.len() + payload) as u16,
            identification: 77,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 9,
            protocol: ipv4::UDP,
            source: Ipv4Addr::new(192, 0, 2, 1),
            destination: Ipv4Addr::new(192, 0, 2, 2),
            options,
        };
        let mut bytes = vec![5; usize::from(header.total_length)];
        header.emit(&mut bytes).unwrap();
        (header, bytes)
    }

    fn v6(next_header: u8, payload: &[u8]) -> (ipv6::Header, Vec<u8>) {
        let header = ipv6::Header {
            traffic_class: 0xb9,
            flow_label: 0xf_edcb,
            payload_length: payload.len() as u16,
            next_header,
            hop_limit: 9,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::UNSPECIFIED,
        };
        let mut bytes = vec![0; ipv6::LEN + payload.len()];
        header.emit(&mut bytes).unwrap().copy_from_slice(payload);
        (header, bytes)
    }

    #[test]
    fn both_versions_look_alike() {
        let (header, mut bytes) = v4(&[1; 8], 11);
        bytes.extend([9; 6]);
        let (packet, transport) = Packet::parse(&bytes).unwrap();
        let expected = Packet {
            source: header.source.into(),
            destination: header.destination.into(),
            traffic_class: 0xb9,
            ttl: 9,
            dont_fragment: false,
            part: Part::Whole,
            protocol: ipv4::UDP,
            header_len: 28,
            total: 39,
        };
        assert_eq!((packet, transport), (expected, &[5; 11][..]));
        assert_eq!(packet.version(), Version::V4);

        let (header, mut bytes) =
            v6(ipv6::HOP_BY_HOP, &[&[ipv6::UDP, 0, 0, 0, 0, 0, 0, 0][..], &[5; 11]].concat());
        bytes.extend([9; 6]);
        let (packet, transport) = Packet::parse(&bytes).unwrap();
        let expected = Packet {
            source: header.source.into(),
            destination: header.destination.into(),
            dont_fragment: true,
            header_len: 48,
            total: 59,
            ..expected
        };
        assert_eq!((packet, transport), (expected, &[5; 11][..]));
        assert_eq!(packet.version(), Version::V6);
        assert_eq!(Packet::parse(&[0x50; 60]), Err(WireError::Version));
        assert_eq!(Packet::parse(&[]), Err(WireError::Truncated));
    }

    #[test]
    fn parts_of_a_packet() {
        for (offset, more, part) in
            [(0, false, Part::Whole), (0, true, Part::First), (5, true, Part::Later), (5, false, Part::Later)]
        {
            let (header, _) = v4(&[], 8);
            let mut bytes = [0; 28];
            let header = ipv4::Header { fragment_offset: offset, more_fragments: more, ..header };
            header.emit(&mut bytes).unwrap();
            assert_eq!(Packet::parse(&bytes).unwrap().0.part, part);

            let mut payload = [0; 16];
            let fragment = ipv6::Fragment { offset, more, identification: 1 };
            fragment.emit(ipv6::UDP, &mut payload).unwrap();
            let (packet, transport) =
                Packet::parse(&v6(ipv6::FRAGMENT, &payload).1).map(|(p, t)| (p, t.len())).unwrap();
            assert_eq!((packet.part, packet.protocol, transport), (part, ipv6::UDP, 8));
            assert_eq!(packet.is_fragment(), part != Part::Whole);
        }
    }

    #[test]
    fn a_quoted_packet_may_be_cut_off() {
        for bytes in [v4(&[], 1000).1, v6(ipv6::TCP, &[5; 1000]).1] {
            let (whole, _) = Packet::parse(&bytes).unwrap();
            assert_eq!(Packet::parse(&bytes[..60]), Err(WireError::Truncated));
            let (quoted, transport) = Packet::parse_quoted(&bytes[..60]).unwrap();
            assert_eq!((quoted, transport.len()), (whole, 60 - whole.header_len));
        }
    }

    proptest! {
        #[test]
        fn the_mark_is_set_and_nothing_else(tos: u8, ecn in 0u8..4) {
            let (header, _) = v4(&[1; 4], 3);
            let mut bytes = vec![5; 27];
            ipv4::Header { tos, ..header }.emit(&mut bytes).unwrap();
            set_ecn(&mut bytes, ecn).unwrap();
            prop_assert_eq!(naive(&[&bytes[..24]]), 0);
            prop_assert_eq!(Packet::parse(&bytes).unwrap().0.traffic_class, tos & !ECN | ecn);

            let (header, mut bytes) = v6(ipv6::TCP, &[1; 4]);
            let header = ipv6::Header { traffic_class: tos, ..header };
            header.emit(&mut bytes).unwrap();
            set_ecn(&mut bytes, ecn).unwrap();
            let (after, _) = ipv6::Header::parse(&bytes).unwrap();
            prop_assert_eq!(after, ipv6::Header { traffic_class: tos & !ECN | ecn, ..header });
        }

        #[test]
        fn random_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..90), version in 4u8..7) {
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 0x0f;
            }
            if let Ok((packet, transport)) = Packet::parse(&bytes) {
                prop_assert!(packet.total <= bytes.len());
                prop_assert_eq!(packet.header_len + transport.len(), packet.total);
            }
            let _ = Packet::parse_quoted(&bytes);
            let _ = set_ecn(&mut bytes, 3);
        }
    }
}
