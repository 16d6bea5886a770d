//! Whatever is delivered in one batch, each packet comes out once and in the order of its flow. What stays alone is not
//! touched, and what is joined is as long as its headers say and has the payload of its parts.
//!
//! The packets are those of a few senders, made here so that the fuzzer gets past their checksums; each record of the
//! input says which is next, what is different about it and which byte is damaged.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use encap::coalesce::{Coalescer, MAX_PIECES, Piece, Slots};
use encap::wire::checksum::Sum;
use encap::wire::{ipv4, read, tcp, udp, virtio};

/// Bytes in front of the packets in their slots.
const BEFORE: usize = 3;

#[derive(Clone, Default)]
struct Received(Vec<Vec<u8>>);

impl Slots for Received {
    fn slot(&mut self, number: usize) -> &mut [u8] {
        self.0.get_mut(number).map(Vec::as_mut_slice).unwrap_or_default()
    }
}

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    let mut coalescer = Coalescer::new(true);
    let mut received = Received::default();
    let mut senders = [1_u32, 2, 3, u32::MAX - 50];
    let (records, rest) = bytes.as_chunks::<6>();
    let mut packets: Vec<_> = records.iter().map(|record| packet(record, &mut senders)).collect();
    // Whatever the fuzzer makes, too.
    let raw = [rest, bytes].into_iter().filter_map(|raw| virtio::Header::parse(raw).ok());
    packets.extend(raw.map(|(header, packet)| (header, packet.to_vec())));
    let mut headers = Vec::new();
    for (header, packet) in packets {
        let place = Piece { slot: received.0.len(), range: BEFORE..BEFORE + packet.len() };
        coalescer.push(packet.len() % 2, header, place, &packet);
        received.0.push([&[0xee; BEFORE], &packet[..]].concat());
        headers.push(header);
    }

    let before = received.clone();
    let mut delivered = vec![false; received.0.len()];
    let mut last_of_flow = HashMap::new();
    while let Some(frame) = coalescer.next_frame(&mut received) {
        assert!((1..=MAX_PIECES).contains(&frame.pieces.len()));
        for piece in frame.pieces {
            assert!(!std::mem::replace(&mut delivered[piece.slot], true), "delivered twice");
            let whole = &before.0[piece.slot][BEFORE..];
            assert_eq!(whole.len() % 2, frame.tunnel);
            if let Some(flow) = flow(whole) {
                let earlier = last_of_flow.insert((frame.tunnel, flow), piece.slot);
                assert!(earlier.is_none_or(|earlier| earlier < piece.slot), "reordered");
            }
        }
        let (header, pieces) = (frame.header, frame.pieces.to_vec());
        match &pieces[..] {
            [one] => {
                assert_eq!(before.0[one.slot], received.0[one.slot]);
                assert_eq!(header, headers[one.slot]);
            }
            pieces => check_joined(&header, pieces, &before, &received),
        }
    }
    assert!(delivered.iter().all(|delivered| *delivered), "lost");
}

/// A virtio header and a packet that a sender makes of a record.
fn packet(record: &[u8; 6], senders: &mut [u32; 4]) -> (virtio::Header, Vec<u8>) {
    let [sender, len, different, by, at, damage] = *record;
    let number = usize::from(sender % 4);
    let (is_tcp, is_v4) = (number % 2 == 0, number < 2);
    let payload = vec![by; usize::from(len)];
    let sequence = senders[number];
    senders[number] = sequence.wrapping_add(u32::from(len));
    let mut transport = vec![0; if is_tcp { tcp::LEN + 4 } else { udp::LEN }];
    let checksum_at = if is_tcp { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT };
    let length = (transport.len() + payload.len()) as u16;
    if is_tcp {
        let mut header = tcp::Header {
            source_port: 80,
            destination_port: 40_000 + u16::from(sender / 128),
            sequence,
            acknowledgment: 1,
            flags: tcp::ACK,
            window: 500,
            checksum: 0,
            urgent: 0,
            options: &[1, 1, 1, 0],
        };
        match different % 8 {
            1 => header.flags |= u16::from(by),
            2 => header.acknowledgment += u32::from(by),
            3 => header.sequence = header.sequence.wrapping_add(u32::from(by)),
            4 => header.window = u16::from(by),
            _ => {}
        }
        header.emit(&mut transport).expect("there is room");
    } else {
        let header = udp::Header { source_port: 53, destination_port: 53, length, checksum: 0 };
        header.emit(&mut transport).expect("there is room");
    }
    transport.extend(payload);

    let ends: [IpAddr; 2] = match is_v4 {
        true => [Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into()],
        false => [Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let protocol = if is_tcp { ipv4::TCP } else { ipv4::UDP };
    let sum = Sum::pseudo(ends[0], ends[1], protocol, length);
    let mut header = virtio::Header::default();
    let checksum = match different / 8 % 4 {
        0 | 1 => sum.bytes(&transport).finish(),
        2 => {
            header.flags = virtio::DATA_VALID;
            0x1234
        }
        _ => {
            header.flags = virtio::NEEDS_CSUM;
            header.csum_start = if is_v4 { 20 } else { 40 };
            header.csum_offset = checksum_at as u16;
            header.gso_size = u16::from(by);
            header.gso_type = match (different / 32 % 2, is_tcp, is_v4) {
                (0, ..) => virtio::GSO_NONE,
                (_, false, _) => virtio::GSO_UDP_L4,
                (_, true, true) => virtio::GSO_TCPV4,
                (_, true, false) => virtio::GSO_TCPV6,
            };
            !sum.finish()
        }
    };
    transport[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());

    let mut packet = Vec::new();
    if let [IpAddr::V4(source), IpAddr::V4(destination)] = ends {
        let fields = ipv4::Header {
            tos: if different % 8 == 5 { by } else { 0 },
            total_length: length + ipv4::LEN as u16,
            identification: if different % 8 == 6 { u16::from(by) } else { 0 },
            dont_fragment: different % 8 != 7,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol,
            source,
            destination,
            options: &[],
        };
        let mut ip = [0; ipv4::LEN];
        fields.emit(&mut ip).expect("there is room");
        packet.extend(ip);
    } else {
        let [l0, l1] = length.to_be_bytes();
        packet.extend([0x60, 0, 0, if different % 8 == 5 { by } else { 0 }, l0, l1, protocol, 64]);
        packet.extend(Ipv6Addr::LOCALHOST.octets());
        packet.extend(Ipv6Addr::UNSPECIFIED.octets());
    }
    packet.extend(transport);
    if let Some(byte) = packet.get_mut(usize::from(at)) {
        *byte ^= damage;
    }
    (header, packet)
}

/// Protocol, addresses and ports of a packet with a plain header.
fn flow(packet: &[u8]) -> Option<(u8, Vec<u8>)> {
    match packet.first()? {
        0x45 => Some((*packet.get(9)?, packet.get(12..24)?.to_vec())),
        first if first >> 4 == 6 => Some((*packet.get(6)?, packet.get(8..44)?.to_vec())),
        _ => None,
    }
}

fn check_joined(header: &virtio::Header, pieces: &[Piece], before: &Received, after: &Received) {
    let part = |of: &Received, piece: &Piece| of.0[piece.slot][piece.range.clone()].to_vec();
    let packet: Vec<u8> = pieces.iter().flat_map(|piece| part(after, piece)).collect();
    let headers = usize::from(header.hdr_len);
    assert_eq!(header.flags, virtio::NEEDS_CSUM);
    assert!(header.gso_size > 0 && packet.len() <= 65_535);
    assert!(packet.len() - headers > usize::from(header.gso_size), "more than one segment");
    let (_, rest) = pieces.split_first().expect("several pieces");
    for (index, piece) in rest.iter().enumerate() {
        let payload = part(before, piece);
        assert_eq!(payload, part(after, piece), "only the headers of the first are changed");
        let is_last = index + 1 == rest.len();
        assert!(is_last || payload.len().is_multiple_of(usize::from(header.gso_size)));
    }
    let length = match packet[0] >> 4 {
        4 => {
            let (ip, transport) = ipv4::Header::parse(&packet).expect("an IPv4 packet");
            assert_eq!(usize::from(ip.total_length), packet.len());
            assert_eq!(Sum::default().bytes(&packet[..ipv4::LEN]).finish(), 0);
            transport.len()
        }
        _ => usize::from(u16::from_be_bytes(read(&packet, 4).expect("an IPv6 header"))),
    };
    assert_eq!(usize::from(header.csum_start) + length, packet.len());
}
