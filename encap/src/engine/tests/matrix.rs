//! An engine and its mirror image: whatever leaves one arrives at the other as it was, in every kind, over either
//! version and with either inside.

use proptest::prelude::*;

use super::packets::*;
use super::pairs::*;
use super::*;
use crate::segment::SuperPacket;

/// How a packet of the network reaches the other end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Path {
    /// As one frame, if it left as one that is several.
    Merged,
    /// Cut, as a card cuts it.
    Cut,
}

/// What the far node writes for everything that the near one sends for one frame.
fn carry(
    near: &mut Node,
    far: &mut Node,
    path: Path,
    header: virtio::Header,
    inner: &[u8],
) -> Vec<(virtio::Header, Vec<u8>)> {
    let mut written = Vec::new();
    for sent in near.outward_by(0, header, inner) {
        for (header, outer) in on_arrival(&sent, path) {
            let delivered = far.inward(header, &outer);
            written.extend(delivered.into_iter().map(|(_, header, packet)| (header, packet)));
        }
    }
    written
}

/// The frames that a packet of the batch becomes.
fn on_arrival(sent: &Sent, path: Path) -> Vec<(virtio::Header, Vec<u8>)> {
    let plain = virtio::Header::default();
    let Some(gso) = sent.gso else { return vec![(plain, sent.bytes.clone())] };
    let (ip, _) = look(&sent.bytes);
    assert_eq!(usize::from(gso.headers), ip.header_len + udp::LEN);
    let merged = virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type: virtio::GSO_UDP_L4,
        hdr_len: gso.headers,
        gso_size: gso.size,
        csum_start: ip.header_len as u16,
        csum_offset: 6,
    };
    if path == Path::Merged {
        return vec![(behind(merged, 0), sent.bytes.clone())];
    }
    let cut = SuperPacket::udp(&sent.bytes, usize::from(gso.size)).unwrap();
    assert!((2..=64).contains(&cut.count()));
    let write = |index| {
        let mut datagram = vec![0; cut.len_of(index)];
        cut.write(index, &mut datagram).unwrap();
        (plain, datagram)
    };
    (0..cut.count()).map(write).collect()
}

/// Runs a test for every kind, both versions outside and both ways of the network. Gets the nodes, and the packets
/// that the near one may send to the far one.
fn everywhere(test: impl Fn(&mut Node, &mut Node, Path, SocketAddr, SocketAddr)) {
    for variant in VARIANTS {
        for (outer_v4, inner_v4) in [(true, true), (true, false), (false, true), (false, false)] {
            for path in [Path::Merged, Path::Cut] {
                let (mut near, mut far) = (node(&variant.near(outer_v4)), node(&variant.far(outer_v4)));
                let (own, server) =
                    if inner_v4 { (at(OWN, 40_000), at(RS, 80)) } else { (at(OWN6, 40_000), at(RS6, 80)) };
                test(&mut near, &mut far, path, own, server);
                assert_eq!((near.drops(), far.drops()), (vec![], vec![]), "{variant:?}");
                let [out, into] = [near.counters[0].snapshot(), far.counters[0].snapshot()];
                assert_eq!(out.packets_out, into.packets_in, "{variant:?}");
                assert_eq!(out.bytes_out > 0, into.bytes_in > 0);
            }
        }
    }
}

const DONE: virtio::Header =
    virtio::Header { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

#[test]
fn a_whole_packet_arrives_as_it_was() {
    everywhere(|near, far, path, own, server| {
        for len in [0, 1, 2, 777, 1300] {
            for inner in [
                tcp(own, server, tcp::ACK | tcp::PSH, &[1; 12], &vec![3; len]),
                udp(own, server, &vec![3; len]),
            ] {
                assert_eq!(carry(near, far, path, DONE, &inner), [(DONE, inner)]);
            }
        }
    });
}

#[test]
fn an_answer_arrives_as_it_was() {
    everywhere(|near, far, path, own, server| {
        let request = udp(own, server, b"question");
        assert_eq!(carry(near, far, path, DONE, &request).len(), 1);
        let answer = udp(server, own, b"answer");
        let to = |node: &Node| node.batch.packets().next().unwrap().destination;
        assert_eq!(carry(far, near, path, DONE, &answer), [(DONE, answer)]);
        assert_eq!(to(near), far.engine.tunnels[0].as_ref().unwrap().local);
        assert_eq!(to(far), near.engine.tunnels[0].as_ref().unwrap().local);
        // One each way: `everywhere` counts only the first.
        let counted = [near.counters[0].snapshot().packets_in, far.counters[0].snapshot().packets_out];
        assert_eq!(counted, [1, 1]);
    });
}

#[test]
fn an_open_checksum_arrives_complete() {
    everywhere(|near, far, path, own, server| {
        for whole in [tcp(own, server, tcp::ACK, &[], b"odd"), udp(own, server, b"even")] {
            let mut open = whole.clone();
            let header = leave_open(&mut open, None);
            assert_eq!(carry(near, far, path, header, &open), [(DONE, whole)]);
        }
    });
}

#[test]
fn a_stream_arrives_in_segments() {
    let data: Vec<u8> = (0..60_000_u32).map(|at| (at * 7) as u8).collect();
    everywhere(|near, far, path, own, server| {
        let mut whole = tcp(own, server, tcp::ACK | tcp::PSH | tcp::FIN, &[1; 12], &data);
        let header = leave_open(&mut whole, Some(1348));
        let delivered = carry(near, far, path, header, &whole);
        assert_eq!(delivered.len(), data.len().div_ceil(1348));
        let mut joined: Vec<u8> = Vec::new();
        for (index, (header, segment)) in delivered.iter().enumerate() {
            verify_any(segment);
            let (ip, transport) = look(segment);
            let (tcp, payload) = tcp::Header::parse(transport).unwrap();
            assert_eq!(*header, DONE);
            assert_eq!((ip.source, ip.destination), (own.ip(), server.ip()));
            assert_eq!(usize::try_from(tcp.sequence).unwrap(), 1000 + joined.len());
            assert_eq!(tcp.flags & (tcp::FIN | tcp::PSH) != 0, index + 1 == delivered.len());
            joined.extend(payload);
        }
        assert_eq!(joined, data);
    });
}

#[test]
fn datagrams_arrive_where_they_were_cut() {
    let data: Vec<u8> = (0..50_000_u32).map(|at| (at * 7) as u8).collect();
    everywhere(|near, far, path, own, server| {
        let mut whole = udp(own, server, &data);
        let header = leave_open(&mut whole, Some(1200));
        let delivered = carry(near, far, path, header, &whole);
        let expected: Vec<_> = data.chunks(1200).map(<[u8]>::to_vec).collect();
        let payloads: Vec<_> = delivered.iter().map(|(_, datagram)| payload_of(datagram)).collect();
        assert_eq!(payloads, expected);
        delivered.iter().for_each(|(_, datagram)| verify_any(datagram));
    });
}

#[test]
fn a_packet_that_may_be_fragmented_arrives_in_pieces() {
    everywhere(|near, far, path, own, server| {
        if own.is_ipv6() {
            return;
        }
        let whole = without_df(&udp(own, server, &[3; 4000]));
        let delivered = carry(near, far, path, DONE, &whole);
        assert_eq!(delivered.len(), 3);
        let mut payload: Vec<u8> = Vec::new();
        for (index, (_, piece)) in delivered.iter().enumerate() {
            let (header, part) = ipv4::Header::parse(piece).unwrap();
            assert_eq!(usize::from(header.fragment_offset) * 8, payload.len());
            assert_eq!((header.more_fragments, header.identification), (index < 2, 0x1234));
            payload.extend(part);
        }
        assert_eq!(payload, whole[20..]);
    });
}

#[test]
fn an_echo_arrives_as_it_was_and_so_does_its_answer() {
    everywhere(|near, far, path, own, server| {
        let (own, server) = (own.ip(), server.ip());
        let request = echo(own, server, false, 77, &[5; 56]);
        assert_eq!(carry(near, far, path, DONE, &request), [(DONE, request)]);
        let answer = echo(server, own, true, 77, &[5; 56]);
        assert_eq!(carry(far, near, path, DONE, &answer), [(DONE, answer)]);
    });
}

#[test]
fn an_error_arrives_where_its_packet_came_from() {
    everywhere(|near, far, path, own, server| {
        let request = udp(own, server, b"question");
        assert_eq!(carry(near, far, path, DONE, &request).len(), 1);
        let error = unreachable(server.ip(), own.ip(), &request);
        assert_eq!(carry(far, near, path, DONE, &error), [(DONE, error)]);
    });
}

#[test]
fn merging_saves_packets_only_where_udp_has_a_checksum_that_can_be_made_later() {
    for variant in VARIANTS {
        for outer_v4 in [true, false] {
            let tunnel = variant.near(outer_v4);
            let mut node = node(&tunnel);
            let mut whole = tcp(at(OWN, 40_000), at(RS, 80), tcp::ACK, &[], &vec![7; 60_000]);
            let header = leave_open(&mut whole, Some(600));
            let sent = node.outward_by(0, header, &whole);
            let merges =
                variant.kind == crate::config::Kind::GreInUdp && variant.udp_checksum && !variant.checksum;
            // 64 and 36 of them.
            assert_eq!(sent.len(), if merges { 2 } else { 100 });
            assert_eq!(node.counters[0].snapshot().packets_out, 100);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_frame_arrives_in_full(
        variant in 0..VARIANTS.len(), outer_v4: bool, inner_v4: bool, merged: bool, is_tcp: bool,
        data in prop::collection::vec(any::<u8>(), 1..30_000), mtu in 600_u16..9000, size in 1_u16..9000,
        words in 0_usize..=10, tos: u8,
    ) {
        let variant = VARIANTS[variant];
        let mut near = Node::with_mtu(&[variant.near(outer_v4)], mtu);
        let mut far = Node::with_mtu(&[variant.far(outer_v4)], mtu);
        let path = if merged { Path::Merged } else { Path::Cut };
        let (own, server) =
            if inner_v4 { (at(OWN, 40_000), at(RS, 80)) } else { (at(OWN6, 40_000), at(RS6, 80)) };
        let (mut whole, size) = if is_tcp {
            let size = size.max(data.len().div_ceil(MAX_FRAME_PACKETS_OUT) as u16);
            (tcp(own, server, tcp::ACK, &vec![1; words * 4], &data), size)
        } else {
            (udp(own, server, &data), size.clamp(16, mtu - 48))
        };
        whole = marked(&whole, tos);
        let header = leave_open(&mut whole, Some(size));
        let delivered = carry(&mut near, &mut far, path, header, &whole);
        prop_assert_eq!((near.drops(), far.drops()), (vec![], vec![]));
        for (header, packet) in &delivered {
            prop_assert_eq!(*header, DONE);
            prop_assert!(packet.len() <= usize::from(mtu));
            prop_assert_eq!(tos_of(packet), tos);
            verify_any(packet);
        }
        let parts: Vec<_> = delivered.iter().map(|(_, packet)| payload_of(packet)).collect();
        prop_assert_eq!(parts.concat(), data.clone());
        if !is_tcp {
            let expected: Vec<_> = data.chunks(usize::from(size)).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(parts, expected);
        }
    }
}
