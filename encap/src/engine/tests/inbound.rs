use super::*;

/// A node with the flow of `REQUEST` open.
fn open() -> Node {
    let mut node = Node::new(&[l7()]);
    node.send(virtio::Header::default(), &tcp_packet(REQUEST, tcp::SYN, &[], &[]));
    node
}

/// As the kernel describes a packet whose link header comes first: offsets count from there.
fn merged(header: virtio::Header, outer: usize) -> virtio::Header {
    let by = (LINK + outer) as u16;
    virtio::Header { csum_start: header.csum_start + by, hdr_len: header.hdr_len + by, ..header }
}

#[test]
fn an_answer_is_delivered_as_it_came() {
    let mut node = open();
    let inner = tcp_packet(ANSWER, tcp::ACK, &[], b"answer");
    assert_eq!(node.receive_plain(&from_l4(&inner)), Some(inner.clone()));
    let padded = [&from_l4(&inner)[..], &[0; 20]].concat();
    assert_eq!(node.receive_plain(&padded), Some(inner), "padding of the link is cut");
    let counters = node.counters[0].snapshot();
    assert_eq!((counters.packets_in, counters.bytes_in), (2, 2 * (28 + 46)));
}

#[test]
fn a_merged_packet_stays_merged() {
    let mut node = open();
    let mut inner = tcp_packet(ANSWER, tcp::ACK, &[1; 12], &[3; 3500]);
    let header = open_checksum(&mut inner, virtio::GSO_TCPV4 | virtio::GSO_ECN, 1420);
    let (out, packet) = node.receive(merged(header, 28), &from_l4(&inner)).unwrap();
    assert_eq!(packet, inner);
    assert_eq!(out, virtio::Header { hdr_len: 52, csum_start: 20, ..header });
    let counters = node.counters[0].snapshot();
    let bytes = 28 + 52 + 3500 + 2 * (28 + 52);
    assert_eq!((counters.packets_in, counters.bytes_in), (3, bytes), "as many as it was merged from");
}

#[test]
fn merged_datagrams_and_open_checksums() {
    let mut node = open();
    node.send(virtio::Header::default(), &udp_packet((OWN, 53, RS, 53), b"?"));
    let mut inner = udp_packet((RS, 53, OWN, 53), &[3; 3000]);
    for (gso_type, gso_size) in [(virtio::GSO_UDP_L4, 1200), (virtio::GSO_NONE, 0)] {
        let header = open_checksum(&mut inner, gso_type, gso_size);
        let (out, packet) = node.receive(merged(header, 28), &from_l4(&inner)).unwrap();
        assert_eq!(packet, inner);
        assert_eq!(out, virtio::Header { hdr_len: 28, ..header });
    }
}

#[test]
fn what_the_kernel_verified_is_passed_on() {
    let mut node = open();
    let inner = tcp_packet(ANSWER, tcp::ACK, &[], b"x");
    let valid = virtio::Header { flags: virtio::DATA_VALID, ..Default::default() };
    assert_eq!(node.receive(valid, &from_l4(&inner)), Some((valid, inner.clone())));
    let with_checksum = checksummed(&inner);
    let (header, _) = node.receive(valid, &with_checksum).unwrap();
    assert_eq!(header, Default::default(), "it may have been the GRE checksum that was verified");
}

/// The outer packet with checksum, key and sequence number.
fn checksummed(inner: &[u8]) -> Vec<u8> {
    let mut header = gre::Header { checksum: Some(0), sequence: Some(7), ..keyed() };
    let outer = gre_packet(L4, L7, header, inner);
    header.checksum = Some(naive(&[&outer[20..]]));
    gre_packet(L4, L7, header, inner)
}

#[test]
fn checksum_and_sequence_are_accepted() {
    let mut node = open();
    let inner = tcp_packet(ANSWER, tcp::ACK, &[], b"x");
    assert_eq!(node.receive_plain(&checksummed(&inner)), Some(inner.clone()));
    let mut wrong = checksummed(&inner);
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(node.receive_plain(&wrong), None);
    assert_eq!(node.drops(), [DropReason::BadGreChecksum]);
}

#[test]
fn mss_is_clamped_with_a_full_and_an_open_checksum() {
    let mut node = open();
    let mut syn = tcp_packet(ANSWER, tcp::SYN | tcp::ACK, MSS_1460, &[]);
    let packet = node.receive_plain(&from_l4(&syn)).unwrap();
    assert_eq!(mss(&packet), MTU - 40);
    verify(&packet);
    let header = open_checksum(&mut syn, virtio::GSO_NONE, 0);
    let (_, packet) = node.receive(merged(header, 28), &from_l4(&syn)).unwrap();
    assert_eq!(mss(&packet), MTU - 40);
    assert_eq!(packet[36..38], syn[36..38], "the sum of the pseudo-header does not depend on options");
}

#[test]
fn congestion_is_carried_inward() {
    let mut node = open();
    let mut inner = tcp_packet(ANSWER, tcp::ACK, &[], b"x");
    inner[1] = 0b10;
    inner[10..12].copy_from_slice(&[0, 0]);
    let checksum = naive(&[&inner[..20]]);
    inner[10..12].copy_from_slice(&checksum.to_be_bytes());
    let outer = packets::marked(&from_l4(&inner), 0b11);
    let packet = node.receive_plain(&outer).unwrap();
    assert_eq!(packet[1], 0b11);
    verify(&packet);
    assert_eq!(packet[12..], inner[12..]);
}

#[test]
fn clients_reach_listeners_and_nothing_else() {
    let mut node = Node::new(&[l7()]);
    let syn = |to: (Ipv4Addr, u16)| tcp_packet((RS, 5555, to.0, to.1), tcp::SYN, &[], &[]);
    assert!(node.receive_plain(&from_l4(&syn((VIP, 443)))).is_some());
    let ping = icmp_packet(RS, OWN, icmp::ECHO_REQUEST, b"ping");
    let pong = icmp_packet(RS, OWN, icmp::ECHO_REPLY, b"ping");
    let others = [
        syn((VIP, 80)),
        syn((OWN, 443)),
        syn((Ipv4Addr::new(10, 99, 0, 2), 443)),
        udp_packet((RS, 5555, VIP, 443), b"quic"),
        udp_packet((RS, 53, OWN, 53), b"unasked"),
        tcp_packet(ANSWER, tcp::ACK, &[], b"unasked"),
        icmp_packet(RS, VIP, icmp::ECHO_REQUEST, b"ping"),
        ping,
        pong,
    ];
    for other in &others {
        assert_eq!(node.receive_plain(&from_l4(other)), None);
    }
    assert_eq!(node.drops(), vec![DropReason::NotOurs; others.len()]);
}

#[test]
fn errors_must_quote_a_flow() {
    let mut node = open();
    let syn = tcp_packet(REQUEST, tcp::SYN, &[], &[]);
    let stranger = tcp_packet((OWN, 40_001, RS, 80), tcp::SYN, &[], &[]);
    let router = Ipv4Addr::new(10, 0, 0, 1);
    // A router quotes no more than 8 bytes of TCP.
    for kind in [icmp::UNREACHABLE, icmp::TIME_EXCEEDED, icmp::PARAMETER_PROBLEM] {
        let error = icmp_packet(router, OWN, kind, &syn[..28]);
        assert_eq!(node.receive_plain(&from_l4(&error)), Some(error));
    }
    let elsewhere = tcp_packet((VIP, 9999, RS, 80), tcp::ACK, &[], &[]);
    assert_eq!(
        node.send(virtio::Header::default(), &elsewhere).len(),
        1,
        "sent, but no answer can belong to it"
    );
    node.receive_plain(&from_l4(&tcp_packet(CLIENT, tcp::SYN, &[], &[]))).unwrap();
    let about_vip = icmp_packet(RS, VIP, icmp::UNREACHABLE, &tcp_packet(TO_CLIENT, tcp::SYN, &[], &[])[..28]);
    assert!(node.receive_plain(&from_l4(&about_vip)).is_some());
    for error in [
        icmp_packet(router, OWN, icmp::UNREACHABLE, &stranger[..28]),
        icmp_packet(router, OWN, icmp::REDIRECT, &syn[..28]),
        icmp_packet(router, OWN, icmp::SOURCE_QUENCH, &syn[..28]),
        icmp_packet(router, VIP, icmp::UNREACHABLE, &syn[..28]),
        icmp_packet(router, OWN, icmp::UNREACHABLE, &syn[..22]),
        icmp_packet(router, VIP, icmp::UNREACHABLE, &elsewhere[..28]),
    ] {
        assert_eq!(node.receive_plain(&from_l4(&error)), None);
    }
    assert_eq!(node.drops(), [DropReason::NotOurs; 6]);
}

#[test]
fn tenants_with_equal_addresses_stay_apart() {
    let tunnels = [l7(), Tunnel { key: Some(2), ..l7() }, Tunnel { key: None, ..l7() }];
    let mut node = Node::new(&tunnels);
    node.send_by(1, virtio::Header::default(), &tcp_packet(REQUEST, tcp::SYN, &[], &[]));
    let answer = tcp_packet(ANSWER, tcp::ACK, &[], b"x");
    let mut by = |key| {
        let outer = gre_packet(L4, L7, gre::Header { key, ..keyed() }, &answer);
        let mut frame = tun_frame(virtio::Header::default(), &[&[0; LINK][..], &outer].concat());
        node.deliver(&mut frame).pop().map(|delivery| delivery.tunnel)
    };
    assert_eq!([KEY, Some(2), None, Some(3)].map(&mut by), [None, Some(1), None, None]);
    let drops = |index: usize| node.counters[index].drops(DropReason::NotOurs);
    assert_eq!([0, 1, 2].map(drops), [1, 0, 1]);
    assert_eq!(node.unmatched.drops(DropReason::UnknownPeer), 1);
}

#[test]
fn offloads_must_fit_the_inner_packet() {
    let mut node = open();
    let mut inner = tcp_packet(ANSWER, tcp::ACK, &[], &[3; 3000]);
    let right = merged(open_checksum(&mut inner, virtio::GSO_TCPV4, 1420), 28);
    let outer = from_l4(&inner);
    assert!(node.receive(right, &outer).is_some());
    let wrong = [
        virtio::Header { csum_start: 34, ..right },
        virtio::Header { csum_start: 20, ..right },
        virtio::Header { csum_start: 60_000, ..right },
        virtio::Header { csum_offset: 6, ..right },
        virtio::Header { flags: 0, ..right },
        virtio::Header { gso_size: 0, ..right },
        virtio::Header { gso_type: virtio::GSO_UDP_L4, ..right },
        virtio::Header { gso_type: 4, ..right },
        virtio::Header { gso_type: 0x41, ..right },
    ];
    for header in wrong {
        assert_eq!(node.receive(header, &outer), None, "{header:?}");
    }
    assert_eq!(node.drops(), vec![DropReason::BadOffload; wrong.len()]);
}

#[test]
fn a_gre_checksum_in_front_of_merged_packets_is_the_kernels_business() {
    let mut node = open();
    let mut inner = tcp_packet(ANSWER, tcp::ACK, &[], &[3; 3000]);
    let header = merged(open_checksum(&mut inner, virtio::GSO_TCPV4, 1420), 32);
    let outer = gre_packet(L4, L7, gre::Header { checksum: Some(0xbad), ..keyed() }, &inner);
    assert!(node.receive(header, &outer).is_some());
    assert_eq!(node.drops(), []);
}

#[test]
fn a_gre_checksum_left_open_is_taken_and_nothing_else_is_open() {
    let mut node = open();
    let inner = tcp_packet(ANSWER, tcp::ACK, &[], b"x");
    let open = virtio::Header {
        flags: virtio::NEEDS_CSUM,
        csum_start: (LINK + 20) as u16,
        csum_offset: 4,
        ..Default::default()
    };
    let outer = gre_packet(L4, L7, gre::Header { checksum: Some(0xbad), ..keyed() }, &inner);
    assert_eq!(node.receive(open, &outer), Some((virtio::Header::default(), inner.clone())));
    assert_eq!(node.drops(), []);
    for wrong in [
        virtio::Header { csum_start: (LINK + 24) as u16, ..open },
        virtio::Header { csum_offset: 6, ..open },
        virtio::Header { gso_type: virtio::GSO_TCPV4, gso_size: 1, ..open },
    ] {
        assert_eq!(node.receive(wrong, &outer), None, "{wrong:?}");
    }
    // Without a checksum the key is there.
    assert_eq!(node.receive(open, &from_l4(&inner)), None);
    assert_eq!(node.drops(), [DropReason::BadOffload; 4]);
}
