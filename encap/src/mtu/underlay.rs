//! What a router of the underlay says about an outer packet that was too big for it.
//!
//! Anybody can send such a message. It is worth something only if what it quotes was sent by this node: the engine
//! compares [`QuotedOuter`] with its peers (RFC 5927 section 7).

use std::net::IpAddr;

use crate::mtu::smallest;
use crate::wire::checksum::Sum;
use crate::wire::ip::{Packet, Part, Version};
use crate::wire::{WireError, gre, icmp, icmpv6, ipv4, read, udp};

/// A report that a packet was too big.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooBig {
    /// MTU of the next hop, in bytes; at least that which every link of the IP version has.
    pub mtu: u16,
    /// The packet that was too big.
    pub quoted: QuotedOuter,
}

/// What is quoted of an outer packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotedOuter {
    /// Source: an address of this node, if the report is honest.
    pub source: IpAddr,
    /// Destination: a peer.
    pub destination: IpAddr,
    /// Protocol behind all IP headers.
    pub protocol: u8,
    /// Bytes of the packet, as it says itself.
    pub total: usize,
    /// Source and destination port, of UDP.
    pub ports: Option<(u16, u16)>,
    /// Key of GRE, or of GRE in UDP.
    pub key: QuotedKey,
}

/// What is known about the key of a quoted packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotedKey {
    /// Nothing: it is not GRE, a later fragment, or cut off too early. Eight bytes of GRE show a key unless there is a
    /// checksum before it.
    Unknown,
    /// It has none.
    Absent,
    /// It has this one.
    Present(u32),
}

impl QuotedKey {
    /// Whether the packet can be one of a tunnel with this key.
    pub fn fits(self, key: Option<u32>) -> bool {
        match self {
            Self::Unknown => true,
            Self::Absent => key.is_none(),
            Self::Present(quoted) => key == Some(quoted),
        }
    }

    /// Reads the start of a GRE packet that may be cut off anywhere.
    fn read(packet: &[u8]) -> Result<Self, WireError> {
        const LONGEST: usize = 16;
        let mut start = [0; LONGEST];
        for (place, byte) in start.iter_mut().zip(packet) {
            *place = *byte;
        }
        let (header, _) = gre::Header::parse(&start)?;
        let end = if header.checksum.is_some() { 12 } else { 8 };
        Ok(match header.key {
            // The flags themselves are cut off.
            _ if packet.len() < 2 => Self::Unknown,
            None => Self::Absent,
            Some(key) if packet.len() >= end => Self::Present(key),
            Some(_) => Self::Unknown,
        })
    }
}

/// Reads an ICMP "fragmentation needed" (RFC 1191) or an ICMPv6 "packet too big" (RFC 8201), from its ICMP header on.
/// The checksum of ICMP is verified; that of ICMPv6 covers the addresses, too, and is the kernel's business.
///
/// # Errors
/// [`WireError::Protocol`] when it is another message or its checksum is wrong. [`WireError::Length`] when the MTU is
/// below 68 (IPv4) or 1280 (IPv6) bytes, which no link has: RFC 8201 section 4 wants such a report discarded, and a
/// router older than RFC 1191 says 0. Others when what is quoted is no packet of this IP version, or GRE that this
/// node never sends.
pub fn parse_too_big(version: Version, message: &[u8]) -> Result<TooBig, WireError> {
    let (mtu, packet) = match version {
        Version::V4 => {
            let (header, packet) = icmp::Header::parse(message)?;
            let mtu = icmp::mtu(&header).filter(|_| Sum::default().bytes(message).finish() == 0);
            (mtu.map(u32::from), packet)
        }
        Version::V6 => {
            let (header, packet) = icmpv6::Header::parse(message)?;
            (icmpv6::mtu(&header), packet)
        }
    };
    // No packet of ours is longer than 16 bits can say.
    let mtu = u16::try_from(mtu.ok_or(WireError::Protocol)?).unwrap_or(u16::MAX);
    if mtu < smallest(version) {
        return Err(WireError::Length);
    }
    let (packet, transport) = Packet::parse_quoted(packet)?;
    if packet.version() != version {
        return Err(WireError::Version);
    }
    Ok(TooBig { mtu, quoted: QuotedOuter::new(&packet, transport)? })
}

impl QuotedOuter {
    fn new(packet: &Packet, transport: &[u8]) -> Result<Self, WireError> {
        let mut quoted = Self {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            total: packet.total,
            ports: None,
            key: QuotedKey::Unknown,
        };
        match packet.protocol {
            _ if packet.part == Part::Later => {}
            ipv4::GRE => quoted.key = QuotedKey::read(transport)?,
            ipv4::UDP => {
                let [source, destination] =
                    [read(transport, 0)?, read(transport, 2)?].map(u16::from_be_bytes);
                quoted.ports = Some((source, destination));
                if let Some(rest) = transport.get(udp::LEN..).filter(|_| destination == udp::GRE_IN_UDP) {
                    quoted.key = QuotedKey::read(rest)?;
                }
            }
            _ => {}
        }
        Ok(quoted)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::wire::ipv6;

    const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    const KEY: u32 = 0x0102_0304;

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let ip = ipv4::Header {
            tos: 0,
            total_length: 1500,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 60,
            protocol,
            source: LOCAL_V4,
            destination: PEER_V4,
            options: &[],
        };
        let mut bytes = vec![0; ipv4::LEN + payload.len()];
        ip.emit(&mut bytes).unwrap().copy_from_slice(payload);
        bytes
    }

    fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let ip = ipv6::Header {
            traffic_class: 0,
            flow_label: 0,
            payload_length: 1460,
            next_header,
            hop_limit: 60,
            source: LOCAL_V6,
            destination: PEER_V6,
        };
        let mut bytes = vec![0; ipv6::LEN + payload.len()];
        ip.emit(&mut bytes).unwrap().copy_from_slice(payload);
        bytes
    }

    fn gre(checksum: Option<u16>, key: Option<u32>) -> Vec<u8> {
        let header = gre::Header { protocol: gre::IPV4, checksum, key, sequence: Some(7) };
        let mut bytes = vec![0; header.len()];
        header.emit(&mut bytes).unwrap();
        bytes
    }

    fn needed(mtu: u16, packet: &[u8]) -> Vec<u8> {
        let mut header = icmp::fragmentation_needed(mtu);
        let mut message = vec![0; icmp::LEN + packet.len()];
        header.emit(&mut message).unwrap().copy_from_slice(packet);
        header.checksum = Sum::default().bytes(&message).finish();
        header.emit(&mut message).unwrap();
        message
    }

    fn too_big(mtu: u32, packet: &[u8]) -> Vec<u8> {
        let mut message = vec![0; icmpv6::LEN + packet.len()];
        icmpv6::packet_too_big(mtu).emit(&mut message).unwrap().copy_from_slice(packet);
        message
    }

    #[test]
    fn eight_quoted_bytes_show_the_key() {
        let quoted = QuotedOuter {
            source: LOCAL_V4.into(),
            destination: PEER_V4.into(),
            protocol: ipv4::GRE,
            total: 1500,
            ports: None,
            key: QuotedKey::Present(KEY),
        };
        let message = needed(1400, &v4(ipv4::GRE, &gre(None, Some(KEY))[..8]));
        assert_eq!(parse_too_big(Version::V4, &message), Ok(TooBig { mtu: 1400, quoted }));
        let quoted = QuotedOuter { source: LOCAL_V6.into(), destination: PEER_V6.into(), ..quoted };
        let message = too_big(1400, &v6(ipv6::GRE, &gre(None, Some(KEY))[..8]));
        assert_eq!(parse_too_big(Version::V6, &message), Ok(TooBig { mtu: 1400, quoted }));
    }

    #[test]
    fn a_key_is_known_as_far_as_it_is_quoted() {
        let key = |payload: &[u8]| {
            let found = [
                parse_too_big(Version::V4, &needed(1400, &v4(ipv4::GRE, payload))),
                parse_too_big(Version::V6, &too_big(1400, &v6(ipv6::GRE, payload))),
            ];
            let [first, second] = found.map(|found| found.unwrap().quoted.key);
            assert_eq!(first, second);
            first
        };
        let (plain, summed) = (gre(None, Some(KEY)), gre(Some(1), Some(KEY)));
        for len in 0..=plain.len() {
            let expected = if len < 8 { QuotedKey::Unknown } else { QuotedKey::Present(KEY) };
            assert_eq!(key(&plain[..len]), expected, "{len}");
        }
        for len in 0..=summed.len() {
            let expected = if len < 12 { QuotedKey::Unknown } else { QuotedKey::Present(KEY) };
            assert_eq!(key(&summed[..len]), expected, "{len}");
        }
        assert_eq!(key(&gre(None, None)), QuotedKey::Absent);
        assert_eq!(key(&gre(None, None)[..4]), QuotedKey::Absent);
    }

    #[test]
    fn the_key_must_match_where_it_is_known() {
        assert!([None, Some(1)].into_iter().all(|key| QuotedKey::Unknown.fits(key)));
        assert_eq!([None, Some(1), Some(2)].map(|key| QuotedKey::Present(1).fits(key)), [false, true, false]);
        assert_eq!([None, Some(0)].map(|key| QuotedKey::Absent.fits(key)), [true, false]);
    }

    #[test]
    fn ports_and_key_of_gre_in_udp() {
        let mut datagram = vec![0; udp::LEN];
        let header = udp::Header { source_port: 50_000, destination_port: 4754, length: 1480, checksum: 0 };
        header.emit(&mut datagram).unwrap();
        let quoted = |payload: &[u8]| {
            parse_too_big(Version::V4, &needed(1400, &v4(ipv4::UDP, payload))).unwrap().quoted
        };
        let short = quoted(&datagram);
        assert_eq!((short.ports, short.key), (Some((50_000, 4754)), QuotedKey::Unknown));
        let long = quoted(&[datagram.clone(), gre(None, Some(KEY))].concat());
        assert_eq!((long.ports, long.key), (Some((50_000, 4754)), QuotedKey::Present(KEY)));
        datagram[3] ^= 1;
        let other = quoted(&[datagram, gre(None, Some(KEY))].concat());
        assert_eq!(other.key, QuotedKey::Unknown, "on another port it is not GRE");
    }

    #[test]
    fn ip_in_ip_and_later_fragments_have_addresses_only() {
        let plain = parse_too_big(Version::V6, &too_big(1300, &v6(ipv6::IPIP, &[0x45; 8]))).unwrap().quoted;
        assert_eq!((plain.protocol, plain.ports, plain.key), (4, None, QuotedKey::Unknown));
        let mut packet = v4(ipv4::GRE, &[0xff; 8]);
        packet[7] = 9;
        assert_eq!(
            parse_too_big(Version::V4, &needed(1400, &packet)).unwrap().quoted.key,
            QuotedKey::Unknown
        );
    }

    #[test]
    fn impossible_sizes_are_not_believed() {
        let packet = v4(ipv4::GRE, &gre(None, Some(KEY)));
        let of = |mtu| parse_too_big(Version::V4, &needed(mtu, &packet)).map(|report| report.mtu);
        assert_eq!(
            [0, 67, 68, 65_535].map(of),
            [Err(WireError::Length), Err(WireError::Length), Ok(68), Ok(65_535)]
        );
        let packet = v6(ipv6::GRE, &gre(None, Some(KEY)));
        let of = |mtu| parse_too_big(Version::V6, &too_big(mtu, &packet)).map(|report| report.mtu);
        assert_eq!(
            [0, 1279, 1280, 1 << 20].map(of),
            [Err(WireError::Length), Err(WireError::Length), Ok(1280), Ok(65_535)]
        );
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let packet = v4(ipv4::GRE, &gre(None, Some(KEY)));
        let good = needed(1400, &packet);
        let with = |at: usize, value: u8| {
            let mut message = good.clone();
            message[at] = value;
            parse_too_big(Version::V4, &message).err()
        };
        assert_eq!(with(0, icmp::TIME_EXCEEDED), Some(WireError::Protocol));
        assert_eq!(with(1, 3), Some(WireError::Protocol), "port unreachable");
        assert_eq!(with(7, 0), Some(WireError::Protocol), "the checksum is wrong");
        assert_eq!(parse_too_big(Version::V4, &good[..20]).err(), Some(WireError::Protocol), "cut off");
        let short = needed(1400, &packet[..19]);
        assert_eq!(parse_too_big(Version::V4, &short).err(), Some(WireError::Truncated));
        let mixed = needed(1400, &v6(ipv6::GRE, &[0; 8]));
        assert_eq!(parse_too_big(Version::V4, &mixed).err(), Some(WireError::Version));
        let mixed = too_big(1400, &packet);
        assert_eq!(parse_too_big(Version::V6, &mixed).err(), Some(WireError::Version));
        let pptp = needed(1400, &v4(ipv4::GRE, &[0x20, 1, 0x88, 0x0b, 0, 0, 0, 0]));
        assert_eq!(parse_too_big(Version::V4, &pptp).err(), Some(WireError::Version));
        let echo = [icmpv6::ECHO_REQUEST, 0, 0, 0, 0, 0, 5, 0];
        assert_eq!(parse_too_big(Version::V6, &echo).err(), Some(WireError::Protocol));
    }

    proptest! {
        #[test]
        fn random_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let [kind, code, ..] = &mut bytes[..] {
                [*kind, *code] = [icmpv6::PACKET_TOO_BIG, 0];
            }
            let _ = parse_too_big(Version::V6, &bytes);
            let _ = parse_too_big(Version::V4, &needed(1400, &bytes));
        }
    }
}
