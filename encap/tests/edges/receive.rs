//! The receive edge.

use std::net::{IpAddr, Ipv4Addr};

use encap::linux::namespace::Namespace;
use encap::linux::netlink::Netlink;
use encap::socket::{
    Carrier, PacketReceiver, RawSender, SendReport, open_guard, open_receivers, open_sender, ring_bytes,
};

use super::common::{A, B, Case, case, pair};
use super::packets::{batch, gre, gre_payload, ip, ipv4, udp};
use super::pair::{A6, B6, pair_with_ipv6};
use super::{BOTH, index, link, receive_all};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("only_gre_to_the_local_address_is_received", only_gre_to_the_local_address_is_received),
        case("every_carrier_is_received_where_it_is_wanted", every_carrier_is_received_where_it_is_wanted),
        case("fragments_of_outer_packets_are_put_together", fragments_of_outer_packets_are_put_together),
        case("those_of_ipv6_are_not_received", those_of_ipv6_are_not_received),
        case("jumbo_frames_come_whole_and_in_order", jumbo_frames_come_whole_and_in_order),
        case("the_key_chooses_the_receiver", the_key_chooses_the_receiver),
        case("the_loopback_interface_works_as_underlay", the_loopback_interface_works_as_underlay),
    ]
}

fn receivers(
    namespace: &Namespace,
    local: IpAddr,
    carriers: &[Carrier],
    count: usize,
) -> Vec<PacketReceiver> {
    let sockets = namespace
        .run_in(|| {
            open_receivers(link("right").index, 14, local, carriers, count, Some(link("right").mtu)).unwrap()
        })
        .unwrap();
    sockets.into_iter().map(|socket| PacketReceiver::new(socket).unwrap()).collect()
}

fn sender(namespace: &Namespace, local: IpAddr) -> RawSender {
    RawSender::new(namespace.run_in(|| open_sender("left", local).unwrap()).unwrap())
}

fn every_carrier_is_received_where_it_is_wanted() {
    let (left, right) = pair_with_ipv6();
    let all = [Carrier::Gre, Carrier::Ipv4, Carrier::Ipv6, Carrier::GreInUdp];
    for (a, b) in BOTH {
        let sender = sender(&left, a);
        let bytes = gre_payload(Some(1), &[7; 60]);
        let mut packets = vec![
            ip(a, b, 47, &bytes),
            ip(a, b, 4, &bytes),
            ip(a, b, 41, &bytes),
            udp((a, 50_000), (b, 4754), &bytes, false),
            // None of these is anybody's.
            udp((a, 4754), (b, 4755), &bytes, false),
            ip(a, b, 6, &[0; 20]),
            ip(a, b, 132, &[0; 20]),
        ];
        if a.is_ipv4() {
            // The port stands behind options: three that do nothing, and their end.
            let mut with_options = packets[3].clone();
            with_options[0] = 0x46;
            with_options.splice(20..20, [1, 1, 1, 0]);
            let len = with_options.len() as u16;
            with_options[2..4].copy_from_slice(&len.to_be_bytes());
            packets.push(with_options);
        }
        let expected = |carriers: &[Carrier]| {
            let mut numbers: Vec<_> = (0..4).filter(|number| carriers.contains(&all[*number])).collect();
            numbers.extend((a.is_ipv4() && carriers.contains(&Carrier::GreInUdp)).then_some(7));
            numbers
        };
        let sets: [&[Carrier]; 7] = [&[], &all[..1], &all[1..2], &all[2..3], &all[3..], &all[1..3], &all];
        for carriers in sets {
            let mut receivers = receivers(&right, b, carriers, 1);
            let mut list: Vec<_> = packets.iter().map(|packet| (packet.clone(), b)).collect();
            list.insert(2, (gre(a, b, None, &[0; 1500]), b));
            let expected_report =
                SendReport { sent: packets.len() as u64, too_big: 1, ..SendReport::default() };
            assert_eq!(sender.send(&batch(&list)), expected_report);
            let expected = expected(carriers);
            let frames = receive_all(&mut receivers[0], expected.len());
            let protocol_at = if a.is_ipv4() { 24 + 9 } else { 24 + 6 };
            assert_eq!(frames.len(), expected.len(), "{carriers:?} {b}");
            for (frame, number) in frames.iter().zip(expected) {
                assert_eq!(frame.len(), 24 + packets[number].len());
                assert_eq!(frame[protocol_at], packets[number][protocol_at - 24]);
            }
        }
    }
}

fn those_of_ipv6_are_not_received() {
    let (left, right) = pair_with_ipv6();
    let mut receivers = receivers(&right, B6.into(), &[Carrier::Gre], 1);
    let sender = sender(&left, A6.into());
    let whole = gre_payload(Some(5), &[9; 992]);
    let fragment = |offset: u16, more: u16, bytes: &[u8]| {
        let header = [&[47, 0][..], &(offset | more).to_be_bytes(), &[0, 0, 0, 1]].concat();
        (ip(A6.into(), B6.into(), 44, &[&header, bytes].concat()), B6)
    };
    let good = (ip(A6.into(), B6.into(), 47, &whole), B6);
    let list = [fragment(0, 1, &whole[..504]), fragment(504, 0, &whole[504..]), good];
    assert_eq!(sender.send(&batch(&list)).sent, list.len() as u64);
    let frames = receive_all(&mut receivers[0], 1);
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [24 + 40 + whole.len()]);
}

fn the_key_chooses_the_receiver() {
    let (left, right) = pair_with_ipv6();
    let carriers = [Carrier::Gre, Carrier::Ipv4, Carrier::GreInUdp];
    for (a, b) in BOTH {
        let mut receivers = receivers(&right, b, &carriers, 3);
        let sender = sender(&left, a);
        let key = |number: u8| 0xffff_ff00 + u32::from(number);
        let in_udp = |payload: &[u8]| udp((a, 50_000), (b, 4754), payload, false);
        // Checksum present: the key stands 4 bytes further.
        let summed = |last: u8| [&[0xa0, 0, 8, 0, 1, 2, 3, 4, 0, 0, 0, 2][..], &[last; 40]].concat();
        let mut packets: Vec<_> = (0..20).map(|number| gre(a, b, Some(key(number)), &[number; 40])).collect();
        packets.extend((20..40).map(|number| in_udp(&gre_payload(Some(key(number)), &[number; 40]))));
        packets.push(gre(a, b, None, &[100; 40]));
        packets.push(in_udp(&gre_payload(None, &[101; 40])));
        packets.push(ip(a, b, 47, &summed(102)));
        packets.push(in_udp(&summed(103)));
        // What looks like a key is none.
        packets.push(ip(a, b, 4, &gre_payload(Some(1), &[104; 40])));
        let list: Vec<_> = packets.into_iter().map(|packet| (packet, b)).collect();
        assert_eq!(sender.send(&batch(&list)).sent, 45);
        let mut got = Vec::new();
        for (number, receiver) in receivers.iter_mut().enumerate() {
            got.extend(receive_all(receiver, 1).iter().map(|frame| (*frame.last().unwrap(), number)));
        }
        got.sort();
        let expected: Vec<_> = (0..40)
            .map(|number| (number, (key(number) % 3) as usize))
            .chain([(100, 0), (101, 0), (102, 2), (103, 2), (104, 0)])
            .collect();
        assert_eq!(got, expected);
    }
}

fn only_gre_to_the_local_address_is_received() {
    let (left, right) = pair();
    let (receivers, _guard) = right
        .run_in(|| {
            (
                open_receivers(
                    link("right").index,
                    14,
                    B.into(),
                    &[Carrier::Gre],
                    1,
                    Some(link("right").mtu),
                )
                .unwrap(),
                open_guard("right", B.into(), Carrier::Gre).unwrap(),
            )
        })
        .unwrap();
    let mut receiver = PacketReceiver::new(receivers.into_iter().next().unwrap()).unwrap();
    let sender = RawSender::new(left.run_in(|| open_sender("left", A.into()).unwrap()).unwrap());
    let inner = ipv4(Ipv4Addr::new(172, 16, 0, 1), Ipv4Addr::new(10, 0, 0, 1), 17, &[7; 100]);
    let good = gre(A, B, Some(1001), &inner);
    let elsewhere = gre(A, Ipv4Addr::new(192, 0, 2, 200), Some(1001), &inner);
    let not_gre = ipv4(A, B, 4, &inner);
    let big = gre(A, B, Some(1), &[1; 1600]);
    // `elsewhere` reaches the link of B, as a wrong next hop would send it.
    let list = [(good.clone(), B), (elsewhere, B), (not_gre, B), (big, B), (good.clone(), B)];
    let report = sender.send(&batch(&list));
    assert_eq!(report, SendReport { sent: 4, too_big: 1, ..SendReport::default() });
    let frames = receive_all(&mut receiver, 2);
    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert_eq!(frame.len(), 10 + 14 + good.len());
        assert_eq!(&frame[24 + 20..], &good[20..], "GRE header and inner packet");
        assert_eq!(&frame[24 + 12..24 + 16], A.octets());
    }
    // What the right side itself sends is not received.
    let back = RawSender::new(right.run_in(|| open_sender("right", B.into()).unwrap()).unwrap());
    assert_eq!(back.send(&batch(&[(gre(B, A, None, &inner), A)])).sent, 1);
    assert!(receive_all(&mut receiver, 0).is_empty());
    assert_eq!(receiver.take_drops().unwrap(), 0);
}

fn fragments_of_outer_packets_are_put_together() {
    let (left, right) = pair();
    let receivers = right
        .run_in(|| {
            open_receivers(link("right").index, 14, B.into(), &[Carrier::Gre], 1, Some(link("right").mtu))
                .unwrap()
        })
        .unwrap();
    let mut receiver = PacketReceiver::new(receivers.into_iter().next().unwrap()).unwrap();
    let sender = RawSender::new(left.run_in(|| open_sender("left", A.into()).unwrap()).unwrap());
    let whole = gre(A, B, Some(5), &[9; 1992]);
    let mut first = ipv4(A, B, 47, &whole[20..20 + 1000]);
    let mut second = ipv4(A, B, 47, &whole[20 + 1000..]);
    first[6..8].copy_from_slice(&0x2000u16.to_be_bytes());
    second[6..8].copy_from_slice(&(1000u16 / 8).to_be_bytes());
    assert_eq!(sender.send(&batch(&[(first, B), (second, B)])).sent, 2);
    let frames = receive_all(&mut receiver, 1);
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [24 + whole.len()]);
    assert_eq!(&frames[0][44..], &whole[20..]);
}

/// More than its ring has slots, so that each of them is used again.
fn jumbo_frames_come_whole_and_in_order() {
    const MTU: u32 = 9000;
    let (left, right) = pair();
    for (namespace, name) in [(&left, "left"), (&right, "right")] {
        namespace.run_in(|| Netlink::open().unwrap().set_mtu(index(name), MTU).unwrap()).unwrap();
    }
    assert!(ring_bytes(1500) > 0 && ring_bytes(MTU) > ring_bytes(1500) && ring_bytes(9255) == 0);
    let mut receiver = receivers(&right, B.into(), &[Carrier::Gre], 1).pop().unwrap();
    let sender = sender(&left, A.into());
    let packet = |number: usize| gre(A, B, Some(number as u32), &vec![number as u8; 8972 - number]);
    for first in (0..1500).step_by(50) {
        let sent: Vec<_> = (first..first + 50).map(packet).collect();
        let list: Vec<_> = sent.iter().map(|packet| (packet.clone(), B)).collect();
        assert_eq!(sender.send(&batch(&list)).sent, 50);
        let frames = receive_all(&mut receiver, 50);
        assert_eq!(frames.len(), 50);
        for (frame, packet) in frames.iter().zip(sent) {
            assert_eq!(frame[44..], packet[20..]);
        }
    }
    assert_eq!(receiver.take_drops().unwrap(), 0);
}

fn the_loopback_interface_works_as_underlay() {
    let (one, two) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let namespace = Namespace::new().unwrap();
    let (receivers, sender, _guard) = namespace
        .run_in(|| {
            let loopback = index("lo");
            Netlink::open().unwrap().set_up(loopback).unwrap();
            (
                open_receivers(link("lo").index, 14, two.into(), &[Carrier::Gre], 1, Some(link("lo").mtu))
                    .unwrap(),
                open_sender("lo", one.into()).unwrap(),
                open_guard("lo", two.into(), Carrier::Gre).unwrap(),
            )
        })
        .unwrap();
    let mut receiver = PacketReceiver::new(receivers.into_iter().next().unwrap()).unwrap();
    let packet = gre(one, two, Some(9), &[3; 60]);
    assert_eq!(RawSender::new(sender).send(&batch(&[(packet.clone(), two)])).sent, 1);
    let frames = receive_all(&mut receiver, 1);
    assert_eq!(frames.len(), 1, "once, not once per direction");
    assert_eq!(&frames[0][44..], &packet[20..]);
}
