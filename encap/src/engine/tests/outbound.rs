use super::*;

fn plain() -> virtio::Header {
    virtio::Header::default()
}

#[test]
fn the_bytes_on_the_wire() {
    let mut node = Node::new(&[l7()]);
    let mut inner = udp_packet((OWN, 1, RS, 2), b"hi");
    inner[1] = 0xb9; // EF, ECT(1)
    let sent = node.send(plain(), &inner);
    let outer = [
        0x45, 0xb8, 0, 58, 0x19, 0x28, 0x40, 0, 63, 47, 0x9d, 0xa9, 192, 0, 2, 7, 192, 0, 2, 4, // IPv4
        0x20, 0, 0x08, 0, 1, 2, 3, 4, // GRE
    ];
    assert_eq!(naive(&[&outer[..20]]), 0);
    assert_eq!(sent, [([&outer[..], &inner].concat(), L4)]);
    let counters = node.counters[0].snapshot();
    assert_eq!((counters.packets_out, counters.bytes_out), (1, 58));
}

#[test]
fn without_a_key() {
    let mut node = Node::new(&[Tunnel { key: None, ..l7() }]);
    let inner = udp_packet((OWN, 1, RS, 2), b"hi");
    let sent = node.send(plain(), &inner);
    assert_eq!(sent[0].0[20..24], [0, 0, 8, 0]);
    assert_eq!(sent[0].0[24..], inner);
}

#[test]
fn padding_after_the_packet_is_not_sent() {
    let mut node = Node::new(&[l7()]);
    let inner = tcp_packet(REQUEST, tcp::ACK, &[], b"data");
    let sent = node.send(plain(), &[&inner[..], &[9; 7]].concat());
    assert_eq!(inner_of(&sent[0].0), inner);
}

#[test]
fn an_open_checksum_is_finished() {
    let mut node = Node::new(&[l7()]);
    for mut inner in [tcp_packet(REQUEST, tcp::ACK, &[], b"odd"), udp_packet((OWN, 1, RS, 2), b"odd")] {
        let header = open_checksum(&mut inner, virtio::GSO_NONE, 0);
        let sent = node.send(header, &inner);
        verify(&inner_of(&sent[0].0));
    }
}

#[test]
fn mss_is_clamped_with_a_full_and_an_open_checksum() {
    let mut node = Node::new(&[l7()]);
    for flags in [tcp::SYN, tcp::SYN | tcp::ACK] {
        let mut syn = tcp_packet(REQUEST, flags, MSS_1460, &[]);
        for open in [false, true] {
            let header = if open { open_checksum(&mut syn, virtio::GSO_NONE, 0) } else { plain() };
            let inner = inner_of(&node.send(header, &syn)[0].0);
            assert_eq!(mss(&inner), MTU - 40);
            verify(&inner);
        }
    }
    let data = tcp_packet(REQUEST, tcp::ACK, MSS_1460, &[]);
    assert_eq!(mss(&inner_of(&node.send(plain(), &data)[0].0)), 1460, "only where an MSS means something");
}

#[test]
fn segments_never_exceed_the_mtu() {
    let data = vec![7; 60_000];
    for (mtu, gso_size, expected) in [(1472, 1400, 1400), (1472, 1460, 1432), (600, 1432, 560)] {
        let mut node = Node::with_mtu(&[l7()], mtu);
        let mut inner = tcp_packet(REQUEST, tcp::ACK | tcp::CWR, &[], &data);
        let header = open_checksum(&mut inner, virtio::GSO_TCPV4 | virtio::GSO_ECN, gso_size);
        let sent = node.send(header, &inner);
        assert_eq!(sent.len(), data.len().div_ceil(expected));
        for (index, (outer, _)) in sent.iter().enumerate() {
            let inner = inner_of(outer);
            verify(&inner);
            assert!(inner.len() <= usize::from(mtu));
            assert_eq!(inner[33] & 0x80 != 0, index == 0, "CWR of {index}");
        }
        let counters = node.counters[0].snapshot();
        let bytes: usize = sent.iter().map(|(outer, _)| outer.len()).sum();
        assert_eq!((counters.packets_out, counters.bytes_out), (sent.len() as u64, bytes as u64));
    }
}

#[test]
fn the_worst_frame_fits_the_bounds() {
    let mut node = Node::new(&[l7()]);
    let mut inner = tcp_packet(REQUEST, tcp::ACK, &[1; 40], &vec![7; 65_535 - 80]);
    let size = (inner.len() - 80).div_ceil(MAX_FRAME_PACKETS_OUT) as u16;
    let header = open_checksum(&mut inner, virtio::GSO_TCPV4, size);
    let sent = node.send(header, &inner);
    assert!(sent.len() > MAX_FRAME_PACKETS_OUT - 64 && node.drops().is_empty());
}

#[test]
fn datagrams_are_cut_where_they_end() {
    let mut node = Node::new(&[l7()]);
    let mut inner = udp_packet((OWN, 1, RS, 2), &[5; 2500]);
    let header = open_checksum(&mut inner, virtio::GSO_UDP_L4, 1200);
    let sent = node.send(header, &inner);
    let lengths: Vec<_> = sent.iter().map(|(outer, _)| outer.len() - 28 - 28).collect();
    assert_eq!(lengths, [1200, 1200, 100]);
    sent.iter().for_each(|(outer, _)| verify(&inner_of(outer)));
    let header = open_checksum(&mut inner, virtio::GSO_UDP_L4, 1445);
    assert!(node.send(header, &inner).is_empty(), "1445 + 28 is more than 1472");
    assert_eq!(node.drops(), [DropReason::TooBig]);
}

#[test]
fn the_sender_of_a_large_packet_is_told() {
    let mut node = Node::new(&[l7()]);
    let large = udp_packet((OWN, 1, RS, 2), &[0; 1445]);
    node.send(plain(), &large);
    let (tunnel, frame) = node.engine.poll_tun().unwrap();
    assert_eq!(tunnel, 0);
    let (header, notice) = virtio::Header::parse(frame).unwrap();
    assert_eq!(header, plain());
    let (ip, message) = ipv4::Header::parse(notice).unwrap();
    assert_eq!((ip.protocol, ip.source, ip.destination), (ipv4::ICMP, RS, OWN));
    let (header, quoted) = icmp::Header::parse(message).unwrap();
    assert_eq!((header.kind, header.code, header.rest), (3, 4, [0, 0, 0x05, 0xc0]));
    assert_eq!(quoted, &large[..quoted.len()]);
    assert!(node.engine.poll_tun().is_none());

    let fits = udp_packet((OWN, 1, RS, 2), &[0; 1444]);
    assert_eq!(node.send(plain(), &fits)[0].0.len(), 1500);
}

#[test]
fn notices_are_few_and_never_about_errors_or_later_fragments() {
    let mut node = Node::new(&[l7()]);
    let error = icmp_packet(OWN, RS, icmp::TIME_EXCEEDED, &[0; 1500]);
    let fragment = ipv4::Header { fragment_offset: 9, ..ip(ipv4::UDP, OWN, RS) };
    for silent in [error, packet(fragment, &[0; 1500])] {
        node.send(plain(), &silent);
        assert!(node.engine.poll_tun().is_none());
    }
    let large = udp_packet((OWN, 1, RS, 2), &[0; 1500]);
    for _ in 0..100 {
        node.send(plain(), &large);
    }
    let told = std::iter::from_fn(|| node.engine.poll_tun().map(|(tunnel, _)| tunnel)).count();
    assert_eq!(told, 10);
    for _ in 0..100 {
        node.now += Duration::from_millis(10);
        node.send(plain(), &large);
    }
    let told = std::iter::from_fn(|| node.engine.poll_tun().map(|(tunnel, _)| tunnel)).count();
    assert_eq!(told, 64, "the queue is bounded");
}

#[test]
fn fragments_of_the_host_are_carried() {
    let mut node = Node::new(&[l7()]);
    let first = ipv4::Header { more_fragments: true, dont_fragment: false, ..ip(ipv4::UDP, OWN, RS) };
    let later = ipv4::Header { fragment_offset: 185, dont_fragment: false, ..ip(ipv4::UDP, OWN, RS) };
    for header in [first, later] {
        let inner = packet(header, &[7; 1400]);
        assert_eq!(inner_of(&node.send(plain(), &inner)[0].0), inner);
    }
}

#[test]
fn answers_go_to_the_peer_that_asked() {
    let mut node = Node::new(&[l7()]);
    let syn = tcp_packet(CLIENT, tcp::SYN, &[], &[]);
    assert!(node.receive_plain(&gre_packet(L4_SECOND, L7, keyed(), &syn)).is_some());
    let to = |node: &mut Node, inner: &[u8]| node.send(plain(), inner)[0].1;
    let answer = tcp_packet(TO_CLIENT, tcp::SYN | tcp::ACK, &[], &[]);
    assert_eq!(to(&mut node, &answer), L4_SECOND);
    assert_eq!(
        to(&mut node, &icmp_packet(VIP, RS, icmp::UNREACHABLE, &syn)),
        L4_SECOND,
        "an error about it too"
    );
    assert_eq!(
        to(&mut node, &tcp_packet(REQUEST, tcp::SYN, &[], &[])),
        L4,
        "own flows begin at the first peer"
    );
    let ack = tcp_packet(CLIENT, tcp::ACK, &[], &[]);
    assert!(node.receive_plain(&gre_packet(L4, L7, keyed(), &ack)).is_some());
    assert_eq!(to(&mut node, &answer), L4, "the newest packet decides");
}

#[test]
fn a_frame_is_sent_whole_or_not_at_all() {
    let mut node = Node::new(&[l7()]);
    node.batch = Batch::new(5000, 100);
    let mut inner = tcp_packet(REQUEST, tcp::ACK, &[], &[7; 6000]);
    let header = open_checksum(&mut inner, virtio::GSO_TCPV4, 1400);
    let small = tcp_packet(REQUEST, tcp::ACK, &[], b"x");
    node.engine.handle_tun_input(node.now, 0, &mut tun_frame(plain(), &small), &mut node.batch);
    node.engine.handle_tun_input(node.now, 0, &mut tun_frame(header, &inner), &mut node.batch);
    assert_eq!((node.batch.len(), node.batch.bytes()), (1, 28 + 41));
    assert_eq!(node.drops(), [DropReason::BatchFull]);
    assert_eq!(node.counters[0].snapshot().packets_out, 1);
}

/// What is long stays in the frame it came in, as long as the batch keeps frames; the packets are the same.
#[test]
fn long_payloads_are_not_copied() {
    for tunnel in
        [l7(), Tunnel { kind: crate::config::Kind::GreInUdp, key: None, udp_checksum: true, ..l7() }]
    {
        let mut node = Node::new(&[tunnel]);
        let mut inner =
            tcp_packet(REQUEST, tcp::ACK, &[], &(0..6000).map(|n: u32| n as u8).collect::<Vec<_>>());
        let header = open_checksum(&mut inner, virtio::GSO_TCPV4, 1300);
        node.batch = Batch::new(1 << 20, 1000);
        let mut first = None;
        for round in 0..20 {
            let before = node.batch.len();
            let mut frame = tun_frame(header, &inner);
            let kept = node.batch.can_keep();
            node.engine.handle_tun_input(node.now, 0, &mut frame, &mut node.batch);
            assert_eq!(frame.is_empty(), kept, "round {round}");
            let packets: Vec<_> = node.batch.packets().skip(before).collect();
            assert!(packets.iter().all(|packet| packet.parts().count() > 1) == kept);
            let bytes: Vec<_> = packets.iter().map(|packet| packet.bytes().into_owned()).collect();
            let expected = first.get_or_insert_with(|| bytes.clone());
            assert!(*expected == bytes, "round {round}");
        }
        assert!(!node.batch.can_keep());
    }
}
