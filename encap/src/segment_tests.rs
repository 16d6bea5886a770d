use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::wire::checksum::tests::naive;

const ID: u16 = 0xfffe;
const SEQUENCE: u32 = 0xffff_ff00;
/// Hop-by-hop options that say nothing; the first byte is the next header.
const EXTENSION: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// A packet around `transport`: IPv4 with an option, or IPv6 with an extension header.
fn packet(version: Version, protocol: u8, transport: &[u8]) -> Vec<u8> {
    match version {
        Version::V4 => {
            let header = ipv4::Header {
                tos: 0xb8,
                total_length: (ipv4::LEN + 4 + transport.len()) as u16,
                identification: ID,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                ttl: 64,
                protocol,
                source: Ipv4Addr::new(100, 64, 0, 1),
                destination: Ipv4Addr::new(10, 1, 2, 3),
                options: &[1; 4],
            };
            let mut bytes = vec![0; usize::from(header.total_length)];
            header.emit(&mut bytes).unwrap().copy_from_slice(transport);
            bytes
        }
        Version::V6 => {
            let header = ipv6::Header {
                traffic_class: 0xb8,
                flow_label: 0x5_4321,
                payload_length: (EXTENSION.len() + transport.len()) as u16,
                next_header: ipv6::HOP_BY_HOP,
                hop_limit: 64,
                source: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
                destination: Ipv6Addr::new(0xfd00, 0, 0, 1, 2, 3, 4, 5),
            };
            let mut bytes = vec![0; ipv6::LEN];
            header.emit(&mut bytes).unwrap();
            [&bytes, &[protocol][..], &EXTENSION[1..], transport].concat()
        }
    }
}

fn tcp_packet(version: Version, flags: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = tcp::Header {
        source_port: 5,
        destination_port: 80,
        sequence: SEQUENCE,
        acknowledgment: 9,
        flags,
        window: 10,
        checksum: 0xdead,
        urgent: 0,
        options,
    };
    let mut segment = vec![0; header.len() + payload.len()];
    header.emit(&mut segment).unwrap().copy_from_slice(payload);
    packet(version, ipv4::TCP, &segment)
}

fn udp_packet(version: Version, payload: &[u8]) -> Vec<u8> {
    let length = (udp::LEN + payload.len()) as u16;
    let header = udp::Header { source_port: 5, destination_port: 443, length, checksum: 0xdead };
    let mut datagram = vec![0; usize::from(length)];
    header.emit(&mut datagram).unwrap().copy_from_slice(payload);
    packet(version, ipv4::UDP, &datagram)
}

/// The sum of the pseudo-header and the transport, by the naive sum.
fn transport_sum(bytes: &[u8]) -> u16 {
    let (ip, transport) = Packet::parse(bytes).unwrap();
    let addresses = if ip.version() == Version::V4 { &bytes[12..20] } else { &bytes[8..40] };
    let length = (transport.len() as u32).to_be_bytes();
    naive(&[addresses, &[0, ip.protocol], &length, transport])
}

/// Every packet, with its checksums and the returned sum verified by the naive sum.
fn cut(whole: &SuperPacket<'_>) -> Vec<Vec<u8>> {
    let write = |index| {
        let mut out = vec![0xee; whole.len_of(index)];
        let sum = whole.write(index, &mut out).unwrap();
        let (ip, _) = Packet::parse(&out).unwrap();
        assert_eq!(ip.total, out.len());
        assert_eq!(transport_sum(&out), 0, "checksum of {index}");
        assert_eq!(sum.finish(), naive(&[&out]), "sum of {index}");
        if let Ok((header, _)) = ipv4::Header::parse(&out) {
            assert_eq!(naive(&[&out[..header.len()]]), 0, "IP checksum of {index}");
            assert_eq!(header.identification, ID.wrapping_add(index as u16));
            assert_eq!(header.options, [1; 4]);
        }
        out
    };
    let packets: Vec<_> = (0..whole.count()).map(write).collect();
    assert_eq!(packets.iter().map(Vec::len).sum::<usize>(), whole.bytes());
    packets
}

/// The headers of a segment with the fields reset that differ between segments.
fn common(bytes: &[u8]) -> Vec<u8> {
    let (ip, transport) = Packet::parse(bytes).unwrap();
    let is_tcp = ip.protocol == ipv4::TCP;
    let len = if is_tcp { tcp::Header::parse(transport).unwrap().0.len() } else { udp::LEN };
    let mut headers = bytes[..ip.header_len + len].to_vec();
    let [lengths, checksum] = if ip.version() == Version::V4 { [2..6, 10..12] } else { [4..6, 4..6] };
    headers[lengths].fill(0);
    headers[checksum].fill(0);
    let transport = &mut headers[ip.header_len..];
    transport[4..8].fill(0);
    if is_tcp {
        transport[13] &= !(tcp::CWR | tcp::FIN | tcp::PSH) as u8;
        transport[16..18].fill(0);
    }
    headers
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V4), Just(Version::V6)]
}

#[test]
fn zero_has_its_other_form_in_udp_only() {
    for (offset, checksum) in [(tcp::CHECKSUM_AT, [0, 0]), (udp::CHECKSUM_AT, [0xff, 0xff])] {
        let mut packet = [0; 20];
        packet[offset] = 0x12;
        packet[18..].copy_from_slice(&[0xed, 0xff]);
        let mut out = [0; 20];
        copy_finished(&packet, 0, offset, &mut out).unwrap();
        assert_eq!(out[offset..offset + 2], checksum, "{offset}");
        finish(&mut packet, 0, offset).unwrap();
        assert_eq!(packet, out);
    }
}

/// A datagram whose checksum would be zero.
#[test]
fn no_datagram_is_sent_without_a_checksum() {
    for version in [Version::V4, Version::V6] {
        let mut packet = udp_packet(version, &[7; 6]);
        let at = packet.len() - 6;
        let first = |packet: &[u8]| cut(&SuperPacket::udp(packet, 4).unwrap()).remove(0);
        // Added to the data, the checksum makes the sum all ones.
        let sum = Sum::default().bytes(&packet[at..at + 2]).bytes(&first(&packet)[at - 2..at]);
        packet[at..at + 2].copy_from_slice(&(!sum.finish()).to_be_bytes());
        assert_eq!(first(&packet)[at - 2..at], [0xff, 0xff], "{version:?}");
    }
}

proptest! {
    #[test]
    fn tcp_segments_are_the_payload(
        version in version(), payload in prop::collection::vec(any::<u8>(), 0..5000), size in 1usize..1500,
        words in 0usize..=10,
    ) {
        let options = vec![1; words * 4];
        let flags = tcp::FIN | tcp::PSH | tcp::ACK | tcp::CWR | 0x100;
        let packet = tcp_packet(version, flags, &options, &payload);
        let segments = cut(&SuperPacket::tcp(&packet, size).unwrap());
        let mut joined = Vec::new();
        for (index, bytes) in segments.iter().enumerate() {
            let (_, segment) = Packet::parse(bytes).unwrap();
            let (header, data) = tcp::Header::parse(segment).unwrap();
            prop_assert_eq!(common(bytes), common(&packet));
            prop_assert_eq!(header.options, &options[..]);
            prop_assert_eq!(header.sequence, SEQUENCE.wrapping_add(joined.len() as u32));
            let (first, last) = (index == 0, index + 1 == segments.len());
            prop_assert_eq!(header.flags & tcp::CWR != 0, first);
            prop_assert_eq!(header.flags & (tcp::FIN | tcp::PSH), if last { tcp::FIN | tcp::PSH } else { 0 });
            prop_assert_eq!(header.flags & (tcp::ACK | 0x100), tcp::ACK | 0x100);
            prop_assert!(last || data.len() == size);
            joined.extend_from_slice(data);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn udp_datagrams_are_the_payload(
        version in version(), payload in prop::collection::vec(any::<u8>(), 0..5000), size in 1usize..1500,
    ) {
        let packet = udp_packet(version, &payload);
        let mut joined = Vec::new();
        for bytes in cut(&SuperPacket::udp(&packet, size).unwrap()) {
            let (_, datagram) = Packet::parse(&bytes).unwrap();
            let (header, data) = udp::Header::parse(datagram).unwrap();
            prop_assert_eq!(common(&bytes), common(&packet));
            prop_assert_eq!(usize::from(header.length), datagram.len());
            joined.extend_from_slice(data);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn open_checksum_is_finished(version in version(), payload in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut packet = tcp_packet(version, tcp::ACK, &[], &payload);
        let (ip, segment) = Packet::parse(&packet).unwrap();
        // The kernel leaves the folded sum of the pseudo-header, not its complement.
        let open = !Sum::pseudo(ip.source, ip.destination, ipv4::TCP, segment.len() as u16).finish();
        let at = ip.header_len + tcp::CHECKSUM_AT;
        packet[at..at + 2].copy_from_slice(&open.to_be_bytes());
        let mut out = vec![0; packet.len()];
        let sum = copy_finished(&packet, ip.header_len, tcp::CHECKSUM_AT, &mut out).unwrap();
        prop_assert_eq!(transport_sum(&out), 0);
        prop_assert_eq!(sum.finish(), naive(&[&out]));
        prop_assert_eq!(&out[..at], &packet[..at]);
        prop_assert_eq!(&out[at + 2..], &packet[at + 2..]);
        finish(&mut packet, ip.header_len, tcp::CHECKSUM_AT).unwrap();
        prop_assert_eq!(packet, out);
    }
}

#[test]
fn nonsense_is_refused() {
    for version in [Version::V4, Version::V6] {
        let packet = tcp_packet(version, tcp::ACK, &[], b"abc");
        assert!(SuperPacket::tcp(&packet, 0).is_err());
        assert!(SuperPacket::tcp(&packet[..packet.len() - 4], 5).is_err());
        assert!(SuperPacket::udp(&packet, 5).is_err(), "it is TCP");
        let whole = SuperPacket::tcp(&packet, 2).unwrap();
        assert_eq!(whole.write(0, &mut [0; 20]), Err(WireError::Length));
        assert_eq!(whole.write(0, &mut [0; 190]), Err(WireError::Length));
        let end = packet.len();
        assert!(copy_finished(&packet, end - 1, 16, &mut vec![0; end]).is_err());
        assert!(copy_finished(&packet, 24, 15, &mut vec![0; end]).is_err());
        assert!(copy_finished(&packet, 24, 16, &mut [0; 9]).is_err());
        assert!(finish(&mut packet.clone(), end + 1, 16).is_err());
        assert!(finish(&mut packet.clone(), end - 2, 16).is_err());
    }
    let mut fragment = tcp_packet(Version::V4, tcp::ACK, &[], b"abc");
    fragment[6] |= 0x20;
    assert_eq!(SuperPacket::tcp(&fragment, 2).err(), Some(WireError::Protocol));
}
