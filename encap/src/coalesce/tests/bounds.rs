//! How large frames become, what the kernel has merged already, and how many flows are looked after.

use super::*;

/// So many consecutive packets of `size` bytes.
fn burst(first: &Inner, size: usize, count: usize) -> Vec<Inner> {
    let first = first.clone().with_payload(vec![1; size]);
    std::iter::successors(Some(first), |packet| Some(packet.next())).take(count).collect()
}

#[test]
fn a_frame_has_at_most_so_many_pieces() {
    for first in kinds() {
        assert_eq!(joined(&burst(&first, 50, MAX_PIECES + 2)), [MAX_PIECES, 2]);
    }
}

#[test]
fn a_frame_fits_the_length_field() {
    for first in kinds() {
        let size = 9000 - first.headers();
        let fit = (65_535 - first.headers()) / size;
        assert_eq!(joined(&burst(&first, size, fit + 3)), [fit, 3]);
        // To the byte.
        for (rest, expected) in [(0, vec![fit + 1]), (1, vec![fit, 1])] {
            let mut packets = burst(&first, size, fit + 1);
            packets[fit].payload = vec![1; 65_535 - first.headers() - fit * size + rest];
            assert_eq!(joined(&packets), expected);
        }
    }
}

/// A packet that the kernel has merged from so many bytes of payload, in segments of `size`, and its segments.
fn merged(first: &Inner, payload: usize, size: u16) -> (virtio::Header, Vec<u8>, Vec<Vec<u8>>) {
    let payload: Vec<u8> = (0..=254).cycle().take(payload).collect();
    let mut packet = first.clone().with_payload(payload).bytes();
    let header = opened(&mut packet, Some(size));
    let segments = cut(&Written { tunnel: 0, pieces: 1, header, packet: packet.clone() });
    (header, packet, segments)
}

/// The packet that follows `payload` bytes in `count` segments after `first`.
fn after(first: &Inner, payload: usize, count: u16) -> Inner {
    let sequence = first.sequence.wrapping_add(payload as u32);
    Inner { sequence, identification: first.identification.wrapping_add(count), ..first.clone() }
}

#[test]
fn a_merged_packet_alone_is_not_touched() {
    for first in kinds() {
        let (header, packet, _) = merged(&first, 250, 100);
        let mut batch = Batch::new();
        batch.push_bytes(0, header, &packet);
        assert_eq!(batch.write(), [Written { tunnel: 0, pieces: 1, header, packet }]);
    }
}

#[test]
fn merged_packets_are_joined_to_what_they_fit() {
    for first in kinds() {
        let (header, one, mut expected) = merged(&first, 300, 100);
        let (_, two, segments) = merged(&after(&first, 300, 3), 200, 100);
        let three = after(&first, 500, 5);
        expected.extend(segments);
        let (_, four, segments) = merged(&three.next(), 150, 100);
        expected.push(three.bytes());
        expected.extend(segments);
        let mut batch = Batch::new();
        batch.push_bytes(0, header, &one);
        batch.push_bytes(0, header, &two);
        batch.push(&three);
        batch.push_bytes(0, header, &four);
        let written = batch.write();
        assert_eq!((written.len(), written[0].pieces), (1, 4), "{first:?}");
        assert_eq!(cut(&written[0]), expected);
    }
}

#[test]
fn merged_packets_of_another_size_begin_a_frame() {
    for first in kinds() {
        for size in [99, 101] {
            let (header, one, mut expected) = merged(&first, 300, 100);
            let (other, two, segments) = merged(&after(&first, 300, 3), 200, size);
            expected.extend(segments);
            let mut batch = Batch::new();
            batch.push_bytes(0, header, &one);
            batch.push_bytes(0, other, &two);
            let written = batch.write();
            assert_eq!(written.len(), 2, "{first:?}");
            assert_eq!(written.iter().flat_map(cut).collect::<Vec<_>>(), expected);
        }
    }
}

#[test]
fn nothing_follows_a_merged_packet_with_a_short_end() {
    for first in kinds() {
        let (header, one, _) = merged(&first, 250, 100);
        let mut batch = Batch::new();
        batch.push_bytes(0, header, &one);
        batch.push(&after(&first, 250, 3));
        assert_eq!(batch.write().len(), 2);
    }
}

#[test]
fn a_merged_packet_with_cwr_or_a_foreign_header_stays_alone() {
    for first in kinds() {
        let (header, one, _) = merged(&first, 200, 100);
        for other in [
            virtio::Header { gso_type: header.gso_type | virtio::GSO_ECN, ..header },
            virtio::Header { gso_type: 3, ..header },
            virtio::Header { gso_size: 0, ..header },
            virtio::Header { flags: 0, ..header },
            virtio::Header { flags: virtio::DATA_VALID, ..header },
            virtio::Header { csum_start: 0, ..header },
            virtio::Header { csum_offset: 0, ..header },
        ] {
            let mut batch = Batch::new();
            batch.push_bytes(0, other, &one);
            batch.push(&after(&first, 200, 2));
            let written = batch.write();
            assert_eq!((written.len(), written[0].header), (2, other));
            assert_eq!(written[0].packet, one);
        }
    }
}

#[test]
fn open_checksums_are_trusted_and_joined() {
    for first in kinds() {
        let second = first.next();
        let mut batch = Batch::new();
        let mut bytes = first.bytes();
        let header = opened(&mut bytes, None);
        batch.push_bytes(0, header, &bytes);
        batch.push(&second);
        let written = batch.write();
        assert_eq!(written.len(), 1);
        assert_eq!(cut(&written[0]), [first.bytes(), second.bytes()]);
    }
}

#[test]
fn datagrams_are_counted_in_merged_packets_too() {
    for first in [udp4(), udp6()] {
        let (header, one, _) = merged(&first, 40 * 100, 100);
        for (more, frames) in [(24, 1), (25, 2)] {
            let (_, two, _) = merged(&after(&first, 40 * 100, 40), more * 100, 100);
            let mut batch = Batch::new();
            batch.push_bytes(0, header, &one);
            batch.push_bytes(0, header, &two);
            assert_eq!(batch.write().len(), frames);
        }
    }
}

/// Packets of `flows` flows in turn.
fn interleaved(flows: u16, rounds: usize) -> Vec<Inner> {
    let mut now: Vec<_> = (0..flows).map(|port| Inner { ports: (port, 80), ..tcp4() }).collect();
    let mut packets = Vec::new();
    for _ in 0..rounds {
        packets.extend_from_slice(&now);
        now.iter_mut().for_each(|packet| *packet = packet.next());
    }
    packets
}

#[test]
fn flows_that_take_turns_are_joined() {
    assert_eq!(joined(&interleaved(8, 20)), [20; 8]);
    // Some have to give way in their set.
    let frames = joined(&interleaved(32, 20)).len();
    assert!(frames < 32 * 5, "{frames} frames");
}

#[test]
fn more_flows_than_are_looked_after_are_delivered_all_the_same() {
    let packets = interleaved(1000, 3);
    let mut batch = Batch::new();
    batch.push_all(&packets);
    let written = batch.write();
    let delivered: Vec<_> = written.iter().flat_map(cut).collect();
    assert_eq!(delivered, packets.iter().map(Inner::bytes).collect::<Vec<_>>());
    assert_eq!(batch.coalescer.flows.capacity(), FLOWS);
}

#[test]
fn the_flow_that_was_opened_first_gives_way() {
    let mut packets = interleaved(FLOWS as u16, 1);
    let mut young = interleaved(4, 5);
    young.iter_mut().for_each(|packet| packet.ports.1 = 443);
    packets.extend(young);
    let frames = joined(&packets);
    assert_eq!(frames[FLOWS..], [5; 4]);
}

#[test]
fn nothing_is_left_of_a_batch() {
    let mut batch = Batch::new();
    let packets = burst(&tcp4(), 100, 6);
    batch.push_all(&packets[..3]);
    assert_eq!(batch.write().len(), 1);
    batch.push_all(&packets[3..]);
    assert_eq!(batch.write()[0].pieces, 3, "a frame of its own");
    batch.push_all(&packets);
    batch.coalescer.clear();
    assert_eq!(batch.write(), []);
}

#[test]
fn a_packet_in_between_comes_last() {
    let mut batch = Batch::new();
    let packets = burst(&tcp4(), 100, 4);
    let other = Inner { ports: (1, 2), ..tcp4() };
    batch.push(&packets[0]);
    batch.push(&other);
    let first = batch.coalescer.next_frame(&mut batch.slots).unwrap().pieces.len();
    assert_eq!(first, 1);
    batch.push_all(&packets[1..]);
    let written = batch.write();
    assert_eq!(written.iter().map(|written| written.pieces).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(written[0].packet, other.bytes());
}

#[test]
fn slots_that_are_gone_are_survived() {
    let mut batch = Batch::new();
    batch.push_all(&burst(&tcp4(), 100, 3));
    let mut none: Vec<Vec<u8>> = Vec::new();
    let mut frames = 0;
    while let Some(frame) = batch.coalescer.next_frame(&mut none) {
        assert_eq!(frame.pieces.len(), 1);
        frames += 1;
    }
    assert_eq!(frames, 3);
}
