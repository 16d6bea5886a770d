//! Datagrams that are several, and frames larger than the link's.

use std::net::{IpAddr, UdpSocket};

use encap::batch::{Batch, Gso};
use encap::linux::namespace::Namespace;
use encap::socket::{PacketReceiver, SendReport};

use super::common::{A, B, Case, case};
use super::packets::{gre, ip, several, udp};
use super::sender::{Sender, now, sides, sides_with};
use super::{BOTH, PATIENCE, QUIET, readable, receive_all};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("a_datagram_that_is_several_is_cut_by_the_kernel", a_datagram_is_cut_by_the_kernel),
        case("a_datagram_that_is_several_is_cut_before_it_is_routed", a_datagram_is_cut_before_it_is_routed),
        case("large_and_small_frames_arrive_in_order", large_and_small_frames_arrive_in_order),
        case("a_full_ring_drops_and_goes_on", a_full_ring_drops_and_goes_on),
    ]
}

/// 5 datagrams of 1400 bytes and one of 37 in one packet to port 4754.
fn large_datagram(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let payload: Vec<_> = (0..5 * 1400 + 37).map(|number: u32| (number / 7) as u8).collect();
    udp((from, 50_000), (to, 4754), &payload, true)
}

/// The datagrams that a socket gets: their checksums were correct.
pub(crate) fn datagrams(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    let mut buffer = [0; 1 << 16];
    while list.len() < count && readable(socket, PATIENCE) {
        let len = socket.recv(&mut buffer).unwrap();
        list.push(buffer[..len].to_vec());
    }
    assert!(!readable(socket, QUIET));
    list
}

fn is_cut(large: &[u8], headers: usize, datagrams: &[Vec<u8>]) {
    let expected: Vec<_> = large[headers..].chunks(1400).map(<[u8]>::to_vec).collect();
    assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [1400, 1400, 1400, 1400, 1400, 37]);
    assert!(datagrams == expected);
}

fn a_datagram_is_cut_by_the_kernel() {
    for (a, b) in BOTH {
        let (mut sender, right, mut receiver) = sides(a, b);
        let socket = right.run_in(|| UdpSocket::bind((b, 4754)).unwrap()).unwrap();
        sender.settle(&gre(a, b, Some(1), &[7; 100]));
        let large = large_datagram(a, b);
        sender.follow();
        let report = sender.transmitter.send(now(), &mut several(&large, b, 1400), &mut sender.follower);
        assert_eq!(report, SendReport { sent: 1, on_link: 1, ..SendReport::default() });
        let headers = if a.is_ipv4() { 28 } else { 48 };
        is_cut(&large, headers, &datagrams(&socket, 6));
        // Nobody has cut it before the packet socket sees it, which is told where to.
        let frames = receive_all(&mut receiver, 1);
        let frame = frames.last().unwrap();
        assert_eq!((frame[0], frame[1], &frame[4..6]), (1, 5, &1400u16.to_ne_bytes()[..]), "{b}");
        assert_eq!(frame[6..10], [14 + headers as u16 - 8, 6].map(u16::to_ne_bytes).concat());
        assert!(frame[24 + headers..] == large[headers..]);
        // Parts that the interface could not take.
        let too_large = 1501 - headers as u16;
        let report = sender.transmitter.send(now(), &mut several(&large, b, too_large), &mut sender.follower);
        assert_eq!(report, SendReport { too_big: 1, ..SendReport::default() });
    }
}

fn a_datagram_is_cut_before_it_is_routed() {
    let (mut sender, right, _receiver) = sides(A.into(), B.into());
    let socket = right.run_in(|| UdpSocket::bind((B, 4754)).unwrap()).unwrap();
    let large = large_datagram(A.into(), B.into());
    let report = sender.transmitter.send(now(), &mut several(&large, B.into(), 1400), &mut sender.follower);
    assert_eq!(report, SendReport { sent: 1, ..SendReport::default() });
    is_cut(&large, 28, &datagrams(&socket, 6));
}

fn large_and_small_frames_arrive_in_order() {
    for rings in [true, false] {
        in_order(sides_with(A.into(), B.into(), rings));
    }
}

fn in_order((mut sender, _right, mut receiver): (Sender, Namespace, PacketReceiver)) {
    sender.settle(&gre(A, B, Some(1), &[7; 100]));
    receive_all(&mut receiver, 1);
    let mut expected = Vec::new();
    let mut got = Vec::new();
    for _ in 0..20 {
        let mut packets = Batch::new(1 << 20, 100);
        for _ in 0..100 {
            let number = expected.len() as u16;
            let several = number % 7 == 3;
            // The first bytes of GRE, in UDP or not, tell which one it is.
            let len = if several { 6000 } else { 1 + usize::from(number) % 1300 };
            let payload = [&number.to_be_bytes()[..], &vec![number as u8; len]].concat();
            let packet = match several {
                true => udp((A.into(), 1), (B.into(), 4754), &payload, true),
                false => ip(A.into(), B.into(), 47, &payload),
            };
            let gso = several.then_some(Gso { size: 1400, headers: 28, inner: None });
            packets.push(packet.len(), B.into(), gso).unwrap().copy_from_slice(&packet);
            expected.push(packet);
        }
        let report = sender.transmitter.send(now(), &mut packets, &mut sender.follower);
        assert_eq!(report.on_link, 100);
        got.extend(receive_all(&mut receiver, 100));
    }
    assert_eq!(got.len(), expected.len());
    for (number, (frame, packet)) in got.iter().zip(&expected).enumerate() {
        assert!(frame[24..] == **packet, "{number}");
    }
    assert_eq!(receiver.take_drops().unwrap(), 0);
}

fn a_full_ring_drops_and_goes_on() {
    let (mut sender, _right, mut receiver) = sides(A.into(), B.into());
    let packet = gre(A, B, Some(1), &[7; 100]);
    sender.settle(&packet);
    receive_all(&mut receiver, 1);
    let burst = vec![packet; 500];
    for round in 1..=2 {
        for _ in 0..10 {
            assert_eq!(sender.send(&burst).on_link, 500);
        }
        let received = receive_all(&mut receiver, 1).len();
        let dropped = receiver.take_drops().unwrap() as usize;
        assert_eq!(received + dropped, 5000, "round {round}");
        assert!(received >= 1000 && dropped > 0, "{received}");
    }
}
