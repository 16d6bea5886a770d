//! What is joined, and every reason not to join.

use super::*;

/// The kernel has verified the checksum of the transport.
const VALID: virtio::Header = virtio::Header {
    flags: virtio::DATA_VALID,
    gso_type: virtio::GSO_NONE,
    hdr_len: 0,
    gso_size: 0,
    csum_start: 0,
    csum_offset: 0,
};

/// Asserts that `second` is not joined to `first`, and that both come through as they are.
fn apart(first: &Inner, second: &Inner) {
    let mut batch = Batch::new();
    batch.push(first);
    batch.push(second);
    let packets: Vec<_> = batch.write().into_iter().map(|written| (written.header, written.packet)).collect();
    let expected = [first, second].map(|packet| (virtio::Header::default(), packet.bytes()));
    assert_eq!(packets, expected, "{first:?} {second:?}");
}

/// As `apart`, for every kind and the packet that would be next if it were not for `change`.
fn differs(change: impl Fn(&mut Inner)) {
    for first in kinds() {
        let mut second = first.next();
        change(&mut second);
        apart(&first, &second);
        // Nor is it the other way round.
        let mut first = first;
        let second = first.next();
        change(&mut first);
        apart(&first, &second);
    }
}

fn tcp_differs(change: impl Fn(&mut Inner)) {
    differs(|packet| {
        packet.is_tcp = true;
        change(packet);
    });
}

#[test]
fn consecutive_packets_of_a_flow_are_joined() {
    for first in kinds() {
        let second = first.next();
        let third = second.next().with_payload([7; 60]);
        let mut batch = Batch::new();
        batch.push_all([&first, &second, &third]);
        let written = batch.write();
        assert_eq!(written.len(), 1, "{first:?}");
        assert_eq!((written[0].tunnel, written[0].pieces), (0, 3));
        let gso_type = match (first.is_tcp, first.is_v4()) {
            (true, true) => virtio::GSO_TCPV4,
            (true, false) => virtio::GSO_TCPV6,
            _ => virtio::GSO_UDP_L4,
        };
        let header = virtio::Header {
            flags: virtio::NEEDS_CSUM,
            gso_type,
            hdr_len: first.headers() as u16,
            gso_size: 100,
            csum_start: first.ip_len() as u16,
            csum_offset: if first.is_tcp { 16 } else { 6 },
        };
        assert_eq!(written[0].header, header);
        assert_eq!(cut(&written[0]), [first, second, third].map(|packet| packet.bytes()));
    }
}

#[test]
fn a_packet_alone_is_not_touched() {
    for packet in kinds() {
        let mut batch = Batch::new();
        let mut bytes = packet.bytes();
        // Not even its checksum is read: the kernel does that.
        *bytes.last_mut().unwrap() ^= 1;
        batch.push_bytes(3, virtio::Header::default(), &bytes);
        let written = batch.write();
        let header = virtio::Header::default();
        assert_eq!(written, [Written { tunnel: 3, pieces: 1, header, packet: bytes }]);
    }
}

#[test]
fn other_tunnel() {
    differs(|packet| packet.tunnel = 1);
}

#[test]
fn other_addresses() {
    let other = |address: &mut IpAddr| match address {
        IpAddr::V4(address) => *address = Ipv4Addr::from(address.to_bits() ^ 1),
        IpAddr::V6(address) => *address = Ipv6Addr::from(address.to_bits() ^ 1 << 64),
    };
    differs(|packet| other(&mut packet.ends.0));
    differs(|packet| other(&mut packet.ends.1));
}

#[test]
fn other_ports() {
    differs(|packet| packet.ports.0 = 81);
    differs(|packet| packet.ports.1 = 40_001);
}

#[test]
fn other_protocol() {
    differs(|packet| packet.is_tcp = !packet.is_tcp);
}

#[test]
fn other_dscp_or_ecn() {
    differs(|packet| packet.tos ^= 0x80);
    differs(|packet| packet.tos ^= 0b11);
}

#[test]
fn other_ttl() {
    differs(|packet| packet.ttl -= 1);
}

#[test]
fn other_flow_label() {
    for first in [tcp6(), udp6()] {
        apart(&first, &Inner { flow_label: 1, ..first.next() });
    }
}

#[test]
fn other_dont_fragment() {
    for first in [tcp4(), udp4()] {
        apart(&first, &Inner { fragment: 0, ..first.next() });
        apart(&Inner { fragment: 0, ..first.clone() }, &first.next());
    }
}

#[test]
fn reserved_bit_of_ipv4() {
    for first in [tcp4(), udp4()] {
        let first = Inner { fragment: 0xc000, ..first };
        apart(&first, &first.next());
    }
}

#[test]
fn fragments() {
    for first in [tcp4(), udp4()] {
        for fragment in [0x2000, 1] {
            let first = Inner { fragment, ..first.clone() };
            let mut batch = Batch::new();
            batch.push_all([&first, &first.next()]);
            assert_eq!(batch.write().len(), 2);
        }
    }
}

#[test]
fn identification_counts_up_or_stays() {
    for first in [tcp4(), udp4()] {
        for (second, third, fragment, expected) in [
            (1, 2, 0x4000, vec![3]),
            (1, 2, 0, vec![3]),
            (0, 0, 0x4000, vec![3]),
            (0, 0, 0, vec![1, 1, 1]),
            (0, 1, 0x4000, vec![2, 1]),
            (0, 2, 0x4000, vec![2, 1]),
            (1, 1, 0x4000, vec![2, 1]),
            (1, 0, 0x4000, vec![2, 1]),
            (2, 3, 0x4000, vec![1, 2]),
            (0xffff, 0xfffe, 0x4000, vec![1, 1, 1]),
        ] {
            let identification = |by: u16| first.identification.wrapping_add(by);
            let first = Inner { fragment, ..first.clone() };
            let second = Inner { identification: identification(second), ..first.next() };
            let third = Inner { identification: identification(third), ..second.next() };
            assert_eq!(joined(&[first, second, third]), expected);
        }
    }
}

#[test]
fn ip_options() {
    for first in [tcp4(), udp4()] {
        // Zeros end the options and do not change a sum.
        let first = Inner { ip_options: vec![0; 4], ..first };
        apart(&first, &first.next());
        let mut batch = Batch::new();
        for packet in [&first, &first.next()] {
            batch.push_bytes(0, VALID, &packet.bytes());
        }
        assert_eq!(batch.write().len(), 2);
    }
}

#[test]
fn extension_headers() {
    for first in [tcp6(), udp6()] {
        let mut batch = Batch::new();
        for packet in [&first, &first.next()] {
            let mut bytes = packet.bytes();
            let extension = [bytes[6], 0, 1, 4, 0, 0, 0, 0];
            bytes.splice(40..40, extension);
            bytes[6] = 60;
            bytes[4..6].copy_from_slice(&((packet.bytes().len() - 40 + 8) as u16).to_be_bytes());
            batch.push_bytes(0, virtio::Header::default(), &bytes);
        }
        assert_eq!(batch.write().len(), 2);
    }
}

#[test]
fn other_tcp_options() {
    tcp_differs(|packet| packet.options[11] = 3);
    tcp_differs(|packet| packet.options = vec![]);
    tcp_differs(|packet| packet.options.extend([1; 4]));
}

#[test]
fn the_longest_tcp_options_are_no_obstacle() {
    let first = Inner { options: vec![1; 40], ..tcp6() };
    assert_eq!(joined(&[first.clone(), first.next()]), [2]);
}

#[test]
fn other_acknowledgment() {
    tcp_differs(|packet| packet.acknowledgment += 1);
}

#[test]
fn other_window() {
    tcp_differs(|packet| packet.window += 1);
}

#[test]
fn urgent_pointer() {
    tcp_differs(|packet| packet.urgent = 1);
}

#[test]
fn syn_rst_urg_and_cwr_stay_alone() {
    for flag in [tcp::SYN, tcp::RST, tcp::URG, tcp::CWR] {
        tcp_differs(|packet| packet.flags |= flag);
        let first = Inner { flags: tcp::ACK | flag, ..tcp4() };
        apart(&first, &first.next());
    }
}

#[test]
fn without_ack_stays_alone() {
    let first = Inner { flags: 0, ..tcp4() };
    apart(&first, &first.next());
}

#[test]
fn ece_and_the_bits_above_must_be_equal() {
    for flag in [0x040, 0x100, 0x200] {
        tcp_differs(|packet| packet.flags |= flag);
        let first = Inner { flags: tcp::ACK | flag, ..tcp4() };
        assert_eq!(joined(&[first.clone(), first.next()]), [2]);
    }
}

#[test]
fn psh_and_fin_end_a_frame() {
    for flag in [tcp::PSH, tcp::FIN, tcp::PSH | tcp::FIN] {
        let first = tcp4();
        let second = Inner { flags: tcp::ACK | flag, ..first.next() };
        let third = Inner { flags: tcp::ACK, ..second.next() };
        let mut batch = Batch::new();
        let all = [first, second, third.clone(), third.next()];
        batch.push_all(&all);
        let written = batch.write();
        assert_eq!(written.iter().map(|written| written.pieces).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(written.iter().flat_map(cut).collect::<Vec<_>>(), all.map(|packet| packet.bytes()));
        // The first can be the last.
        apart(&Inner { flags: tcp::ACK | flag, ..tcp4() }, &tcp4().next());
    }
}

#[test]
fn gap_in_the_sequence() {
    let first = tcp4();
    for by in [1, 100, 0xffff_ffff, 0xffff_ff9c] {
        let second = first.next();
        apart(&first, &Inner { sequence: second.sequence.wrapping_add(by), ..second });
    }
}

#[test]
fn without_payload_stays_alone() {
    for first in kinds() {
        let empty = first.next().with_payload([]);
        apart(&first, &empty);
        apart(&first.clone().with_payload([]), &first);
    }
}

#[test]
fn a_larger_packet_begins_a_frame() {
    for first in kinds() {
        let second = first.next().with_payload([1; 101]);
        assert_eq!(joined(&[first, second.clone(), second.next()]), [1, 2]);
    }
}

#[test]
fn a_smaller_packet_ends_a_frame() {
    for first in kinds() {
        let second = first.next().with_payload([1; 99]);
        let third = second.next();
        assert_eq!(joined(&[first, second, third.clone(), third.next()]), [2, 2]);
    }
}

#[test]
fn a_wrong_checksum_stays_alone_and_as_it_is() {
    for first in kinds() {
        let mut all = vec![first];
        for at in 0..5 {
            all.push(all[at].next());
        }
        // Of the transport, by its last byte, or of the IP header.
        for (wrong, ip, expected) in [
            (0, false, &[1, 5][..]),
            (1, false, &[1, 1, 4]),
            (2, true, &[2, 1, 3]),
            (3, false, &[3, 1, 2]),
            (5, true, &[5, 1]),
        ] {
            if ip && !all[0].is_v4() {
                continue;
            }
            let mut packets: Vec<_> = all.iter().map(Inner::bytes).collect();
            if ip {
                packets[wrong][10] ^= 1;
            } else {
                *packets[wrong].last_mut().unwrap() ^= 1;
            }
            let mut batch = Batch::new();
            packets.iter().for_each(|packet| batch.push_bytes(0, virtio::Header::default(), packet));
            let written = batch.write();
            assert_eq!(written.iter().map(|written| written.pieces).collect::<Vec<_>>(), expected);
            assert_eq!(written.iter().flat_map(cut).collect::<Vec<_>>(), packets);
        }
    }
}

#[test]
fn what_the_kernel_has_verified_is_not_read_again() {
    for first in kinds() {
        let mut batch = Batch::new();
        for packet in [&first, &first.next()] {
            let mut bytes = packet.bytes();
            *bytes.last_mut().unwrap() ^= 1;
            batch.push_bytes(0, VALID, &bytes);
        }
        assert_eq!(batch.write().len(), 1);
    }
}

#[test]
fn datagrams_without_checksum_stay_alone() {
    for first in [udp4(), udp6()] {
        for header in [virtio::Header::default(), VALID] {
            let mut batch = Batch::new();
            for packet in [&first, &first.next()] {
                let mut bytes = packet.bytes();
                let at = packet.ip_len() + 6;
                bytes[at..at + 2].fill(0);
                batch.push_bytes(0, header, &bytes);
            }
            assert_eq!(batch.write().len(), 2);
        }
    }
}

#[test]
fn datagrams_can_be_left_alone() {
    for (packet, frames) in [(udp4(), 2), (udp6(), 2), (tcp4(), 1)] {
        let mut batch = Batch { coalescer: Coalescer::new(false), slots: Vec::new() };
        batch.push_all([&packet, &packet.next()]);
        assert_eq!(batch.write().len(), frames);
    }
}

#[test]
fn lengths_that_disagree_stay_alone() {
    for first in [udp4(), udp6()] {
        let mut batch = Batch::new();
        for packet in [&first, &first.next()] {
            let mut bytes = packet.bytes();
            bytes[packet.ip_len() + 5] -= 1;
            batch.push_bytes(0, VALID, &bytes);
        }
        assert_eq!(batch.write().len(), 2, "the length of UDP");
    }
    for first in kinds() {
        let mut batch = Batch::new();
        for packet in [&first, &first.next()] {
            batch.push_bytes(0, VALID, &[&packet.bytes()[..], &[0; 4]].concat());
        }
        assert_eq!(batch.write().len(), 2, "padding behind the packet");
    }
}
