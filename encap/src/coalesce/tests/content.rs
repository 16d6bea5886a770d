//! Super-packets cut to segments and joined again: nothing is lost and nothing is added.

use proptest::prelude::*;

use super::*;
use crate::segment::SuperPacket;

/// A super-packet of the kind with the given payload, as the kernel hands it to the way out: checksum open.
fn whole(kind: usize, payload: Vec<u8>, flags: u16, size: u16) -> (Inner, virtio::Header, Vec<u8>) {
    let first = Inner { flags: tcp::ACK | flags, ..kinds()[kind].clone() }.with_payload(payload);
    let mut bytes = first.bytes();
    let header = opened(&mut bytes, Some(size));
    (first, header, bytes)
}

/// Payload whose bytes tell their place.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// The frames for these packets.
fn frames(packets: &[Vec<u8>]) -> Vec<Written> {
    let mut batch = Batch::new();
    packets.iter().for_each(|packet| batch.push_bytes(0, virtio::Header::default(), packet));
    batch.write()
}

proptest! {
    /// The way out and the way in are each other's inverse, where the segments fit one frame.
    #[test]
    fn segments_of_the_way_out_are_the_super_packet_again(
        tcp: bool, count in 2usize..=MAX_PIECES, size in 1u16..900, last in 1u16..900, psh: bool,
    ) {
        let len = (count - 1) * usize::from(size) + usize::from(last.min(size));
        let flags = if psh { tcp::PSH } else { 0 };
        let (_, header, bytes) = whole(if tcp { 0 } else { 2 }, payload(len), flags, size);
        let make = if tcp { SuperPacket::tcp } else { SuperPacket::udp };
        let cutter = make(&bytes, usize::from(size)).unwrap();
        let segment = |index| {
            let mut segment = vec![0; cutter.len_of(index)];
            cutter.write(index, &mut segment).unwrap();
            segment
        };
        let segments: Vec<_> = (0..cutter.count()).map(segment).collect();
        let expected = Written { tunnel: 0, pieces: count, header, packet: bytes };
        prop_assert_eq!(frames(&segments), [expected]);
    }

    #[test]
    fn segments_cut_by_hand_are_the_super_packet_again(
        kind in 0usize..4, count in 2usize..=MAX_PIECES, size in 1u16..900, last in 1u16..900, psh: bool,
    ) {
        let len = (count - 1) * usize::from(size) + usize::from(last.min(size));
        let flags = if psh { tcp::PSH } else { 0 };
        let (_, header, packet) = whole(kind, payload(len), flags, size);
        let expected = Written { tunnel: 0, pieces: count, header, packet };
        prop_assert_eq!(frames(&cut(&expected)), [expected]);
    }

    /// More than fits one frame.
    #[test]
    fn what_is_joined_and_cut_again_is_the_same(kind in 0usize..4, len in 1usize..20_000, size in 1u16..1500) {
        let (_, header, packet) = whole(kind, payload(len), tcp::PSH, size);
        let segments = cut(&Written { tunnel: 0, pieces: 1, header, packet });
        let frames = frames(&segments);
        prop_assert_eq!(frames.iter().flat_map(cut).collect::<Vec<_>>(), &segments[..]);
        prop_assert_eq!(frames.len(), segments.len().div_ceil(MAX_PIECES));
    }
}
