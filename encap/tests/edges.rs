//! The TUN and network edges with real packets, in network namespaces that the tests make.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use common::{A, B, case, pair, run};
use encap::batch::Batch;
use encap::device::{MAX_FRAME_BYTES, Tun, TunError};
use encap::linux::namespace::Namespace;
use encap::linux::netlink::{Address, Netlink, Route};
use encap::socket::{PacketReceiver, RawSender, SendReport, open_guard, open_receivers, open_sender};
use rustix::event::{PollFd, PollFlags, Timespec};

fn main() -> ExitCode {
    run(vec![
        case("a_tun_hands_over_and_takes_whole_frames", a_tun_hands_over_and_takes_whole_frames),
        case("only_gre_to_the_local_address_is_received", only_gre_to_the_local_address_is_received),
        case("fragments_of_outer_packets_are_put_together", fragments_of_outer_packets_are_put_together),
        case("the_key_chooses_the_receiver", the_key_chooses_the_receiver),
        case("the_loopback_interface_works_as_underlay", the_loopback_interface_works_as_underlay),
        case("the_guard_keeps_the_kernel_quiet", the_guard_keeps_the_kernel_quiet),
    ])
}

fn readable(descriptor: impl AsFd, patience: Duration) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
    let mut ready = [PollFd::new(&descriptor, PollFlags::IN)];
    rustix::event::poll(&mut ready, Some(&timeout)).unwrap() > 0
}

const PATIENCE: Duration = Duration::from_millis(900);
const QUIET: Duration = Duration::from_millis(50);

/// An IPv4 packet with a correct checksum.
fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet.extend(payload);
    packet
}

/// A GRE packet with `key` around `inner` (RFC 2890).
fn gre(source: Ipv4Addr, destination: Ipv4Addr, key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    let mut payload = match key {
        Some(key) => [&[0x20, 0, 8, 0][..], &key.to_be_bytes()].concat(),
        None => vec![0, 0, 8, 0],
    };
    payload.extend(inner);
    ipv4(source, destination, 47, &payload)
}

fn batch(packets: &[(Vec<u8>, Ipv4Addr)]) -> Batch {
    let mut batch = Batch::new(1 << 20, packets.len());
    for (packet, destination) in packets {
        batch.push(packet.len(), *destination).unwrap().copy_from_slice(packet);
    }
    batch
}

fn index(name: &str) -> u32 {
    Netlink::open().unwrap().link(name).unwrap().unwrap().index
}

/// All frames that arrive until it is quiet.
fn receive_all(receiver: &mut PacketReceiver, at_least: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while readable(&*receiver, if frames.len() < at_least { PATIENCE } else { QUIET }) {
        receiver.receive().unwrap();
        frames.extend(receiver.frames().map(|frame| frame.to_vec()));
    }
    frames
}

fn a_tun_hands_over_and_takes_whole_frames() {
    let own = Ipv4Addr::new(172, 16, 0, 1);
    let tun = Namespace::new()
        .unwrap()
        .run_in(|| {
            let tun = Tun::create("tun-a").unwrap();
            assert!(matches!(Tun::create("tun-a"), Err(TunError::InUse(_))));
            let mut netlink = Netlink::open().unwrap();
            let device = index("tun-a");
            let header = [0; 10];
            assert_eq!(
                tun.write(&[&header[..], &ipv4(B, own, 1, &[0; 8])].concat()).unwrap_err().raw_os_error(),
                Some(libc::EIO),
                "down"
            );
            netlink.add_address(Address { device, address: own, prefix_len: 32 }).unwrap();
            netlink.disable_ipv6_autoconfiguration(device).unwrap();
            netlink.set_up(device).unwrap();
            let destination = "10.0.0.0/24".parse().unwrap();
            netlink
                .add_route(&Route {
                    destination,
                    table: 254,
                    device,
                    gateway: None,
                    source: Some(own),
                    protocol: 4,
                })
                .unwrap();

            // Out: a datagram of 3000 bytes payload is cut by the kernel, but UDP with segments stays whole.
            let socket = std::net::UdpSocket::bind((own, 0)).unwrap();
            socket.send_to(b"hello", (Ipv4Addr::new(10, 0, 0, 9), 53)).unwrap();
            let mut frame = vec![0; MAX_FRAME_BYTES];
            assert!(readable(&tun, PATIENCE));
            let len = tun.read(&mut frame).unwrap();
            assert_eq!(len, 10 + 20 + 8 + 5);
            assert_eq!(frame[0], 1, "the checksum is unfinished: the offload is on");
            assert_eq!(&frame[22..26], own.octets());
            assert_eq!(&frame[len - 5..len], b"hello");
            assert_eq!(tun.read(&mut frame).unwrap_err().kind(), io::ErrorKind::WouldBlock);

            // In: a datagram from behind the tunnel.
            let port = socket.local_addr().unwrap().port();
            let mut udp = [53u16.to_be_bytes(), port.to_be_bytes(), 13u16.to_be_bytes(), [0, 0]].concat();
            udp.extend(b"world");
            tun.write(&[&[0; 10][..], &ipv4(Ipv4Addr::new(10, 0, 0, 9), own, 17, &udp)].concat()).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut buffer = [0; 16];
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from.to_string().as_str()), (&b"world"[..], "10.0.0.9:53"));

            netlink.delete_link(device).unwrap();
            assert_eq!(tun.read(&mut frame).unwrap_err().raw_os_error(), Some(libc::EBADFD), "gone");
            Tun::create("tun-b").unwrap()
        })
        .unwrap();
    // Works from outside, and keeps the namespace alive.
    assert_eq!(tun.read(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

fn only_gre_to_the_local_address_is_received() {
    let (left, right) = pair();
    let (receivers, _guard) = right
        .run_in(|| (open_receivers(index("right"), B, 1).unwrap(), open_guard("right", B).unwrap()))
        .unwrap();
    let mut receiver = PacketReceiver::new(receivers.into_iter().next().unwrap());
    let sender = RawSender::new(left.run_in(|| open_sender("left", A).unwrap()).unwrap());
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
    let back = RawSender::new(right.run_in(|| open_sender("right", B).unwrap()).unwrap());
    assert_eq!(back.send(&batch(&[(gre(B, A, None, &inner), A)])).sent, 1);
    assert!(receive_all(&mut receiver, 0).is_empty());
    assert_eq!(receiver.take_drops().unwrap(), 0);
}

fn fragments_of_outer_packets_are_put_together() {
    let (left, right) = pair();
    let receivers = right.run_in(|| open_receivers(index("right"), B, 1).unwrap()).unwrap();
    let mut receiver = PacketReceiver::new(receivers.into_iter().next().unwrap());
    let sender = RawSender::new(left.run_in(|| open_sender("left", A).unwrap()).unwrap());
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

fn the_key_chooses_the_receiver() {
    let (left, right) = pair();
    let receivers = right.run_in(|| open_receivers(index("right"), B, 3).unwrap()).unwrap();
    let mut receivers: Vec<_> = receivers.into_iter().map(PacketReceiver::new).collect();
    let sender = RawSender::new(left.run_in(|| open_sender("left", A).unwrap()).unwrap());
    let mut packets: Vec<_> =
        (0..30u32).map(|key| (gre(A, B, Some(0xffff_ff00 + key), &[key as u8; 40]), B)).collect();
    packets.push((gre(A, B, None, &[100; 40]), B));
    // Checksum present: the key stands 4 bytes further.
    packets.push((ipv4(A, B, 47, &[&[0xa0, 0, 8, 0, 1, 2, 3, 4, 0, 0, 0, 2][..], &[101; 40]].concat()), B));
    assert_eq!(sender.send(&batch(&packets)).sent, 32);
    let mut got = Vec::new();
    for (number, receiver) in receivers.iter_mut().enumerate() {
        for frame in receive_all(receiver, 1) {
            got.push((*frame.last().unwrap(), number));
        }
    }
    got.sort();
    let expected: Vec<_> = (0..30u32)
        .map(|key| (key as u8, ((0xffff_ff00 + key) % 3) as usize))
        .chain([(100, 0), (101, 2)])
        .collect();
    assert_eq!(got, expected);
}

fn the_loopback_interface_works_as_underlay() {
    let (one, two) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let namespace = Namespace::new().unwrap();
    let (receivers, sender, _guard) = namespace
        .run_in(|| {
            let loopback = index("lo");
            Netlink::open().unwrap().set_up(loopback).unwrap();
            (
                open_receivers(loopback, two, 1).unwrap(),
                open_sender("lo", one).unwrap(),
                open_guard("lo", two).unwrap(),
            )
        })
        .unwrap();
    let mut receiver = PacketReceiver::new(receivers.into_iter().next().unwrap());
    let packet = gre(one, two, Some(9), &[3; 60]);
    assert_eq!(RawSender::new(sender).send(&batch(&[(packet.clone(), two)])).sent, 1);
    let frames = receive_all(&mut receiver, 1);
    assert_eq!(frames.len(), 1, "once, not once per direction");
    assert_eq!(&frames[0][44..], &packet[20..]);
}

fn the_guard_keeps_the_kernel_quiet() {
    let (left, right) = pair();
    let sender = RawSender::new(left.run_in(|| open_sender("left", A).unwrap()).unwrap());
    let icmp = left
        .run_in(|| {
            let flags = rustix::net::SocketFlags::NONBLOCK;
            let icmp = Some(rustix::net::ipproto::ICMP);
            rustix::net::socket_with(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::RAW,
                flags,
                icmp,
            )
            .unwrap()
        })
        .unwrap();
    let packet = [(gre(A, B, Some(9), &[3; 60]), B)];
    let guard = right.run_in(|| open_guard("right", B).unwrap()).unwrap();
    assert_eq!(sender.send(&batch(&packet)).sent, 1);
    assert!(!readable(&icmp, QUIET * 4));
    // Without it the kernel complains, so the test can fail.
    drop(guard);
    assert_eq!(sender.send(&batch(&packet)).sent, 1);
    assert!(readable(&icmp, PATIENCE));
}
