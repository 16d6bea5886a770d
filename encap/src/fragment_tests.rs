use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::segment::finish;
use crate::wire::checksum::tests::naive;
use crate::wire::ip::{Packet, Part};
use crate::wire::{tcp, udp, write};

const ID: u32 = 0xfeed_beef;

fn header<'a>(options: &'a [u8], payload: usize) -> ipv4::Header<'a> {
    ipv4::Header {
        tos: 0xb8,
        total_length: (ipv4::LEN + options.len() + payload) as u16,
        identification: 0xbeef,
        dont_fragment: false,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 61,
        protocol: ipv4::UDP,
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(10, 0, 0, 2),
        options,
    }
}

fn v4(header: &ipv4::Header<'_>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(header.total_length)];
    header.emit(&mut bytes).unwrap().copy_from_slice(payload);
    bytes
}

fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv6::Header {
        traffic_class: 0xb8,
        flow_label: 0x5_4321,
        payload_length: payload.len() as u16,
        next_header,
        hop_limit: 61,
        source: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
    };
    let mut bytes = vec![0; ipv6::LEN + payload.len()];
    header.emit(&mut bytes).unwrap().copy_from_slice(payload);
    bytes
}

/// Every fragment, with what can be said about one alone.
fn cut(fragments: &Fragments<'_>, limit: usize) -> Vec<Vec<u8>> {
    let write = |index| {
        let mut out = vec![0xee; fragments.len_of(index)];
        let sum = fragments.write(index, &mut out).unwrap();
        assert!(out.len() <= limit);
        assert_eq!(sum.finish(), naive(&[&out]));
        if let Ok((header, _)) = ipv4::Header::parse(&out) {
            assert_eq!(naive(&[&out[..header.len()]]), 0);
        }
        assert_eq!(Packet::parse(&out).unwrap().0.total, out.len());
        out
    };
    let all: Vec<_> = (0..fragments.count()).map(write).collect();
    assert_eq!(all.iter().map(Vec::len).sum::<usize>(), fragments.bytes());
    all
}

/// Offset in bytes, whether more follow, and the data.
fn parts(fragments: &[Vec<u8>]) -> Vec<(usize, bool, Vec<u8>)> {
    let part = |bytes: &Vec<u8>| {
        if let Ok((header, data)) = ipv4::Header::parse(bytes) {
            return (usize::from(header.fragment_offset) * 8, header.more_fragments, data.to_vec());
        }
        let (header, payload) = ipv6::Header::parse(bytes).unwrap();
        assert_eq!(header.next_header, ipv6::FRAGMENT);
        let upper = header.upper(payload).unwrap();
        let fragment = upper.fragment.unwrap();
        assert_eq!((upper.protocol, fragment.identification), (ipv6::UDP, ID));
        (usize::from(fragment.offset) * 8, fragment.more, payload[ipv6::FRAGMENT_LEN..].to_vec())
    };
    fragments.iter().map(part).collect()
}

/// The data, put together by offset, whatever the order.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut parts = parts(fragments);
    parts.reverse();
    parts.sort_by_key(|(at, ..)| *at);
    let mut data = Vec::new();
    for (index, (at, more, part)) in parts.iter().enumerate() {
        assert_eq!(*at, data.len(), "no hole and no overlap");
        assert_eq!(*more, index + 1 < parts.len());
        assert!(!more || part.len() % 8 == 0 && !part.is_empty());
        data.extend_from_slice(part);
    }
    data
}

#[test]
fn sizes_of_a_known_packet() {
    let payload: Vec<u8> = (0..3000).map(|at| at as u8).collect();
    let packet = v4(&header(&[], 3000), &payload);
    let fragments = Fragments::v4(&packet, 1476).unwrap();
    let lens: Vec<_> = (0..fragments.count()).map(|index| fragments.len_of(index)).collect();
    assert_eq!(lens, [1476, 1476, 108], "1456 is a multiple of 8");
    let offsets: Vec<_> = parts(&cut(&fragments, 1476)).iter().map(|(at, more, _)| (*at, *more)).collect();
    assert_eq!(offsets, [(0, true), (1456, true), (2912, false)]);

    let packet = v6(ipv6::UDP, &payload);
    let fragments = Fragments::v6(&packet, 1000, ID).unwrap();
    let lens: Vec<_> = (0..fragments.count()).map(|index| fragments.len_of(index)).collect();
    assert_eq!(lens, [1000, 1000, 1000, 192], "952 is a multiple of 8");
}

#[test]
fn what_fits_is_not_touched() {
    for payload in [&[7; 100][..], &[7; 95]] {
        let packet = v4(&ipv4::Header { dont_fragment: true, ..header(&[1; 4], payload.len()) }, payload);
        assert_eq!(cut(&Fragments::v4(&packet, packet.len()).unwrap(), 200), [packet]);
        let packet = v6(ipv6::UDP, payload);
        assert_eq!(cut(&Fragments::v6(&packet, packet.len(), ID).unwrap(), 200), [packet]);
    }
}

#[test]
fn only_options_with_the_copied_bit_are_in_every_fragment() {
    // Nothing, record route (not copied), strict source route (copied), stream identifier (copied), end.
    let options = [1, 7, 7, 4, 0, 0, 0, 0, 1, 137, 7, 8, 10, 0, 0, 9, 136, 4, 0, 1, 0, 0, 0, 0];
    let packet = v4(&header(&options, 500), &[7; 500]);
    let fragments = cut(&Fragments::v4(&packet, 200).unwrap(), 200);
    let of = |bytes: &Vec<u8>| ipv4::Header::parse(bytes).unwrap().0.options.to_vec();
    assert_eq!(of(&fragments[0]), options);
    for later in &fragments[1..] {
        assert_eq!(of(later), [137, 7, 8, 10, 0, 0, 9, 136, 4, 0, 1, 0]);
    }
    assert_eq!(reassembled(&fragments), [7; 500]);
    // A length of 1, and one beyond the options.
    for broken in [[7, 1, 0, 0], [137, 5, 0, 0], [1, 1, 1, 137]] {
        let packet = v4(&header(&broken, 500), &[7; 500]);
        assert_eq!(Fragments::v4(&packet, 200).err(), Some(FragmentError::Wire(WireError::Length)));
    }
}

#[test]
fn df_is_obeyed() {
    let packet = v4(&ipv4::Header { dont_fragment: true, ..header(&[], 500) }, &[7; 500]);
    assert_eq!(Fragments::v4(&packet, 519).err(), Some(FragmentError::DontFragment));
}

#[test]
fn impossible_packets_and_limits_are_refused() {
    let packet = v4(&header(&[1; 12], 500), &[7; 500]);
    assert!(Fragments::v4(&packet, 40).is_ok());
    for limit in [0, 20, 32, 39] {
        assert_eq!(Fragments::v4(&packet, limit).err(), Some(FragmentError::NoRoom), "{limit}");
    }
    let packet = v6(ipv6::GRE, &[7; 500]);
    assert!(Fragments::v6(&packet, 56, ID).is_ok());
    assert_eq!(Fragments::v6(&packet, 55, ID).err(), Some(FragmentError::NoRoom));

    let length = Some(FragmentError::Wire(WireError::Length));
    let odd = v4(&ipv4::Header { more_fragments: true, ..header(&[], 501) }, &[7; 501]);
    assert_eq!(Fragments::v4(&odd, 100).err(), length, "only the last fragment may end anywhere");
    let beyond = v4(&ipv4::Header { fragment_offset: 0x1fff, ..header(&[], 16) }, &[7; 16]);
    assert_eq!(Fragments::v4(&beyond, 100).err(), length, "it would end beyond 64 KiB");

    for next in [ipv6::HOP_BY_HOP, ipv6::DESTINATION_OPTIONS, ipv6::FRAGMENT, ipv6::ROUTING] {
        let packet = v6(next, &[&[ipv6::TCP, 0, 0, 0, 0, 0, 0, 0][..], &[0; 90]].concat());
        assert_eq!(Fragments::v6(&packet, 100, ID).err(), Some(FragmentError::Wire(WireError::Chain)));
    }
    let packet = v6(ipv6::ROUTING, &[&[ipv6::TCP, 0, 0, 1, 0, 0, 0, 0][..], &[0; 90]].concat());
    assert!(Fragments::v6(&packet, 100, ID).is_err(), "even one with segments left");
    assert!(Fragments::v6(&v4(&header(&[], 9), &[7; 9]), 100, ID).is_err());
}

#[test]
fn a_place_of_another_length_is_refused() {
    let packet = v4(&header(&[], 500), &[7; 500]);
    let fragments = Fragments::v4(&packet, 100).unwrap();
    for (index, len) in [(0, 99), (0, 101), (0, 3), (7, 100), (usize::MAX, 100)] {
        assert_eq!(fragments.write(index, &mut vec![0; len]), Err(WireError::Length), "{index} {len}");
    }
}

#[test]
fn an_open_checksum_is_finished_over_all_fragments() {
    let mut datagram = vec![9; 3001];
    let length = datagram.len() as u16;
    let open = udp::Header { source_port: 1, destination_port: 2, length, checksum: 0 };
    open.emit(&mut datagram).unwrap();
    let ip = header(&[], datagram.len());
    let sum = !Sum::pseudo(ip.source, ip.destination, ipv4::UDP, length).finish();
    write(&mut datagram, udp::CHECKSUM_AT, sum.to_be_bytes()).unwrap();
    let mut packet = v4(&ip, &datagram);
    finish(&mut packet, ipv4::LEN, udp::CHECKSUM_AT).unwrap();
    let whole = reassembled(&cut(&Fragments::v4(&packet, 700).unwrap(), 700));
    let pseudo = [&packet[12..20], &[0, ipv4::UDP], &length.to_be_bytes()].concat();
    assert_eq!(naive(&[&pseudo, &whole]), 0);
}

/// The longest inner IPv6 packet through a tunnel over a link of 576 bytes.
#[test]
fn the_delivery_packet_of_1280_bytes_is_fragmented() {
    let inner = vec![0x60; 1280];
    let delivery = v4(&ipv4::Header { protocol: ipv4::GRE, ..header(&[], 1280) }, &inner);
    let fragments = cut(&Fragments::v4(&delivery, 576).unwrap(), 576);
    assert_eq!(fragments.len(), 3);
    let ids: Vec<_> = fragments.iter().map(|bytes| [bytes[4], bytes[5]]).collect();
    assert_eq!(ids, [[0xbe, 0xef]; 3]);
    assert_eq!(reassembled(&fragments), inner);
}

#[test]
fn the_longest_tcp_header_is_in_the_first_fragment_even_at_576_bytes() {
    let packet = v4(&header(&[1; 40], 2000), &[7; 2000]);
    assert!(Fragments::v4(&packet, 576).unwrap().len_of(0) >= 60 + tcp::LEN + 40);
}

proptest! {
    #[test]
    fn fragments_of_fragments_are_the_packet(
        payload in prop::collection::vec(any::<u8>(), 0..4000), words in 0usize..=10, limit in 68usize..1600,
        smaller in 0usize..800, copied: bool,
    ) {
        // One option as long as all, in every fragment or only in the first.
        let mut options = vec![0; words * 4];
        if let [kind, len, ..] = &mut options[..] {
            [*kind, *len] = [if copied { 0x88 } else { 7 }, words as u8 * 4];
        }
        let original = header(&options, payload.len());
        let packet = v4(&original, &payload);
        let once = cut(&Fragments::v4(&packet, limit).unwrap(), limit);
        prop_assert_eq!(reassembled(&once), &payload[..]);
        let smaller = limit.saturating_sub(smaller).max(68);
        let twice: Vec<_> =
            once.iter().flat_map(|bytes| cut(&Fragments::v4(bytes, smaller).unwrap(), smaller)).collect();
        prop_assert_eq!(reassembled(&twice), &payload[..]);
        for bytes in once.iter().chain(&twice) {
            let (found, _) = ipv4::Header::parse(bytes).unwrap();
            let expected = ipv4::Header {
                total_length: found.total_length,
                more_fragments: found.more_fragments,
                fragment_offset: found.fragment_offset,
                options: if found.fragment_offset == 0 || copied { &options } else { &[] },
                ..original
            };
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn fragments_of_ipv6_are_the_packet(
        payload in prop::collection::vec(any::<u8>(), 1..4000), limit in 56usize..1600,
    ) {
        let packet = v6(ipv6::UDP, &payload);
        let fragments = cut(&Fragments::v6(&packet, limit, ID).unwrap(), limit);
        if packet.len() <= limit {
            prop_assert_eq!(fragments, [packet]);
        } else {
            prop_assert_eq!(reassembled(&fragments), payload);
            let (original, _) = ipv6::Header::parse(&packet).unwrap();
            for (index, bytes) in fragments.iter().enumerate() {
                let (found, _) = ipv6::Header::parse(bytes).unwrap();
                let expected = ipv6::Header {
                    payload_length: (bytes.len() - ipv6::LEN) as u16,
                    next_header: ipv6::FRAGMENT,
                    ..original
                };
                prop_assert_eq!(found, expected);
                let part = Packet::parse(bytes).unwrap().0.part;
                prop_assert_eq!(part, if index == 0 { Part::First } else { Part::Later });
            }
        }
    }

    #[test]
    fn random_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200), limit in 0usize..200) {
        for version in [0x40, 0x60] {
            if let Some(first) = bytes.first_mut() {
                *first = version | *first & 0x0f;
            }
            let found = [Fragments::v4(&bytes, limit), Fragments::v6(&bytes, limit, ID)];
            for fragments in found.into_iter().flatten() {
                cut(&fragments, limit);
            }
        }
    }
}
