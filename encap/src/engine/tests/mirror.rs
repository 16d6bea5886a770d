use proptest::prelude::*;

use super::*;

/// What the far node delivers for everything the near node sends for one frame.
fn carry(near: &mut Node, far: &mut Node, header: virtio::Header, inner: &[u8]) -> Vec<Vec<u8>> {
    let sent = near.send(header, inner);
    sent.iter().map(|(outer, _)| far.receive_plain(outer).expect("the far node accepts it")).collect()
}

fn data_of(packet: &[u8]) -> Vec<u8> {
    let (_, segment) = ipv4::Header::parse(packet).unwrap();
    tcp::Header::parse(segment).unwrap().1.to_vec()
}

#[test]
fn a_connection_through_both_nodes() {
    let [mut near, mut far] = [Node::new(&[l7()]), Node::new(&[l4()])];
    let plain = virtio::Header::default();
    let small_mss = &[2, 4, 0x05, 0x00][..];
    let steps = [
        (true, tcp::SYN, small_mss, 0),
        (false, tcp::SYN | tcp::ACK, small_mss, 0),
        (true, tcp::ACK, &[], 0),
        (true, tcp::ACK | tcp::PSH, &[1; 12], 700),
        (false, tcp::ACK | tcp::PSH, &[1; 12], 1400),
        (false, tcp::ACK | tcp::FIN, &[], 0),
        (true, tcp::ACK | tcp::FIN, &[], 1),
        (false, tcp::ACK, &[], 0),
    ];
    for (outward, flags, options, len) in steps {
        let ends = if outward { REQUEST } else { ANSWER };
        let inner = tcp_packet(ends, flags, options, &vec![0x61; len]);
        let delivered = if outward {
            carry(&mut near, &mut far, plain, &inner)
        } else {
            carry(&mut far, &mut near, plain, &inner)
        };
        assert_eq!(delivered, [inner]);
    }
    assert_eq!((near.drops(), far.drops()), (vec![], vec![]));
}

#[test]
fn an_l4_node_answers_the_node_that_asked() {
    let second = Ipv4Addr::new(192, 0, 2, 8);
    let mut far = Node::new(&[Tunnel { peers: vec![L7.into(), second.into()], ..l4() }]);
    let syn = tcp_packet(REQUEST, tcp::SYN, &[], &[]);
    assert!(far.receive_plain(&gre_packet(second, L4, keyed(), &syn)).is_some());
    let answer = tcp_packet(ANSWER, tcp::SYN | tcp::ACK, &[], &[]);
    assert_eq!(far.send(virtio::Header::default(), &answer)[0].1, second);
}

proptest! {
    #[test]
    fn tcp_arrives_byte_for_byte(
        data in prop::collection::vec(any::<u8>(), 1..20_000), words in 0usize..=10, mtu in 300u16..9000,
        gso_size in 100u16..9000, key: Option<u32>, flags in 0u16..0x1000,
    ) {
        let keep = tcp::SYN;
        let mut near = Node::with_mtu(&[Tunnel { key, ..l7() }], mtu);
        let mut far = Node::with_mtu(&[Tunnel { key, ..l4() }], mtu);
        let mut inner = tcp_packet(REQUEST, flags & !keep, &vec![1; words * 4], &data);
        if inner.len() <= usize::from(mtu) {
            let delivered = carry(&mut near, &mut far, virtio::Header::default(), &inner);
            prop_assert_eq!(delivered, vec![inner.clone()]);
        }
        let whole = inner.clone();
        let header = open_checksum(&mut inner, virtio::GSO_TCPV4, gso_size);
        let delivered = carry(&mut near, &mut far, header, &inner);
        delivered.iter().for_each(|packet| verify(packet));
        prop_assert!(delivered.iter().all(|packet| packet.len() <= usize::from(mtu)));
        prop_assert_eq!(delivered.iter().flat_map(|packet| data_of(packet)).collect::<Vec<_>>(), data);
        if let [only] = &delivered[..] {
            prop_assert_eq!(only, &whole);
        }
        prop_assert_eq!((near.drops(), far.drops()), (vec![], vec![]));
    }

    #[test]
    fn random_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200), link_len in 0usize..30) {
        let mut node = Node::new(&[l7()]);
        node.engine.handle_tunnel_input(node.now, link_len, &mut bytes, &mut Vec::new());
        node.engine.handle_tun_input(node.now, 0, &mut bytes, &mut node.batch);
    }

    /// Frames that are nearly right get further than random ones.
    #[test]
    fn damaged_frames_do_no_harm(
        damage in prop::collection::vec((0usize..140, any::<u8>()), 0..6), cut in 0usize..140, gso: bool, syn: bool,
    ) {
        let mut node = Node::new(&[l7(), Tunnel { key: None, ..l4() }]);
        let flags = if syn { tcp::SYN } else { tcp::ACK };
        let spoil = |mut frame: Vec<u8>| {
            for (at, value) in &damage {
                if let Some(byte) = frame.get_mut(*at) { *byte = *value; }
            }
            frame.truncate(frame.len().max(cut) - cut / 4);
            frame
        };
        let mut inner = tcp_packet(REQUEST, flags, MSS_1460, &[5; 40]);
        let gso_type = if gso { virtio::GSO_TCPV4 } else { virtio::GSO_NONE };
        let header = open_checksum(&mut inner, gso_type, 7);
        let mut frame = spoil(tun_frame(header, &inner));
        node.engine.handle_tun_input(node.now, 0, &mut frame, &mut node.batch);
        for packet in node.batch.packets() {
            let bytes = packet.bytes();
            let (ip, _) = ipv4::Header::parse(&bytes).unwrap();
            prop_assert!(ip.total_length <= MTU + 28 && ip.source == L7);
        }
        let mut inner = tcp_packet(CLIENT, flags, MSS_1460, &[5; 40]);
        let mut header = open_checksum(&mut inner, gso_type, 7);
        header.csum_start += (LINK + 28) as u16;
        let mut frame = spoil(tun_frame(header, &[&[0; LINK][..], &from_l4(&inner)].concat()));
        let len = frame.len();
        for delivery in node.deliver(&mut frame) {
            prop_assert!(delivery.range.end <= len);
            let packet = &frame[delivery.range];
            let (ip, _) = ipv4::Header::parse(packet).unwrap();
            prop_assert_eq!(usize::from(ip.total_length), packet.len());
        }
    }
}
