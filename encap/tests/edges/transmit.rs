//! The send edge that puts packets on the link itself.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use encap::linux::namespace::Namespace;
use encap::linux::netlink::{Link, Neighbour, Netlink, Route};
use encap::socket::SendReport;

use super::common::{A, B, Case, case, pair};
use super::large::datagrams;
use super::packets::{batch, gre, udp};
use super::sender::{Sender, now, sides};
use super::{BOTH, PATIENCE, QUIET, index, readable, receive_all};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("packets_go_on_the_link_once_the_neighbour_is_known", on_the_link_once_known),
        case("a_neighbour_that_moves_is_followed", a_neighbour_that_moves_is_followed),
        case("a_neighbour_that_is_lost_is_left_to_the_kernel", a_lost_neighbour_is_left_to_the_kernel),
        case("a_route_that_changes_is_followed", a_route_that_changes_is_followed),
        case("a_link_that_changes_is_followed", a_link_that_changes_is_followed),
        case("packets_in_order_whichever_way_they_go", in_order_whichever_way_they_go),
        case("without_a_packet_socket_all_is_routed", without_a_packet_socket_all_is_routed),
    ]
}

fn mac(namespace: &Namespace, name: &str) -> [u8; 6] {
    namespace.run_in(|| Netlink::open().unwrap().link(name).unwrap().unwrap().mac.unwrap()).unwrap()
}

fn on_the_link_once_known() {
    for (a, b) in BOTH {
        let (mut sender, right, mut receiver) = sides(a, b);
        let packet = gre(a, b, Some(1), &[7; 100]);
        assert_eq!(sender.transmitter.mtu(b), None);
        let report = sender.send(std::slice::from_ref(&packet));
        assert_eq!(report, SendReport { sent: 1, ..SendReport::default() }, "nothing is known at first");
        sender.settle(&packet);
        assert_eq!(sender.transmitter.mtu(b), Some(1500));
        receive_all(&mut receiver, 1);
        let too_big = gre(a, b, Some(1), &[7; 1500]);
        let report = sender.send(&[packet.clone(), too_big, packet.clone()]);
        assert_eq!(report, SendReport { sent: 2, on_link: 2, too_big: 1, ..SendReport::default() });
        let frames = receive_all(&mut receiver, 2);
        assert_eq!(frames.len(), 2);
        let kind = if a.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        let header = [&mac(&right, "right")[..], &mac(&sender.namespace, "left"), &kind].concat();
        for frame in frames {
            assert_eq!(&frame[10..24], header);
            assert_eq!(&frame[24..], packet);
        }
    }
}

fn a_neighbour_that_moves_is_followed() {
    for (a, b) in BOTH {
        let (mut sender, right, mut receiver) = sides(a, b);
        let packet = gre(a, b, Some(1), &[7; 100]);
        sender.settle(&packet);
        receive_all(&mut receiver, 1);
        let known = sender.kernel(|netlink, device| netlink.neighbour(device, b).unwrap().unwrap());
        assert_eq!(known.mac, Some(mac(&right, "right")));
        let elsewhere = Neighbour { mac: Some([2, 0, 0, 0, 0, 99]), state: libc::NUD_PERMANENT, ..known };
        sender.kernel(|netlink, _| netlink.set_neighbour(&elsewhere).unwrap());
        assert_eq!(sender.send(std::slice::from_ref(&packet)).on_link, 1);
        assert!(receive_all(&mut receiver, 0).is_empty(), "the host there is another one");
        let back = Neighbour { state: libc::NUD_PERMANENT, ..known };
        sender.kernel(|netlink, _| netlink.set_neighbour(&back).unwrap());
        assert_eq!(sender.send(&[packet]).on_link, 1);
        assert_eq!(receive_all(&mut receiver, 1).len(), 1);
    }
}

fn a_lost_neighbour_is_left_to_the_kernel() {
    for (a, b) in BOTH {
        let (mut sender, _right, mut receiver) = sides(a, b);
        let packet = gre(a, b, Some(1), &[7; 100]);
        sender.settle(&packet);
        receive_all(&mut receiver, 1);
        let known = sender.kernel(|netlink, device| netlink.neighbour(device, b).unwrap().unwrap());
        sender.kernel(|netlink, _| netlink.delete_neighbour(&known).unwrap());
        // The kernel asks the link and then sends it.
        let report = sender.send(std::slice::from_ref(&packet));
        assert_eq!((report.sent, report.on_link), (1, 0));
        assert_eq!(receive_all(&mut receiver, 1).len(), 1);
        sender.settle(&packet);

        // One that may be gone gets one packet by the kernel, which then makes sure.
        let stale = Neighbour { state: libc::NUD_STALE, ..known };
        sender.kernel(|netlink, _| netlink.set_neighbour(&stale).unwrap());
        let report = sender.send(&[packet.clone(), packet.clone(), packet]);
        assert_eq!((report.sent, report.on_link), (3, 2));
        let state = sender.kernel(|netlink, device| netlink.neighbour(device, b).unwrap().unwrap().state);
        assert_eq!(state, libc::NUD_DELAY, "it is making sure");
    }
}

fn a_route_that_changes_is_followed() {
    for (a, b) in BOTH {
        let (mut sender, _right, mut receiver) = sides(a, b);
        let packet = gre(a, b, Some(1), &[7; 100]);
        sender.settle(&packet);
        receive_all(&mut receiver, 1);
        let device = sender.kernel(|_, device| device);
        let nobody = Route {
            destination: b.into(),
            table: 254,
            device,
            gateway: Some(if a.is_ipv4() { "192.0.2.77" } else { "2001:db8:5::77" }.parse().unwrap()),
            source: None,
            protocol: 4,
        };
        sender.kernel(|netlink, _| netlink.add_route(&nobody).unwrap());
        for _ in 0..3 {
            std::thread::sleep(QUIET);
            assert_eq!(sender.send(std::slice::from_ref(&packet)).on_link, 0, "nobody answers there");
        }
        sender.kernel(|netlink, _| netlink.delete_route(&nobody).unwrap());
        std::thread::sleep(QUIET * 2);
        sender.settle(&packet);
        assert!(!receive_all(&mut receiver, 1).is_empty());
    }
}

fn a_link_that_changes_is_followed() {
    let (mut sender, right, mut receiver) = sides(A.into(), B.into());
    let packet = gre(A, B, Some(1), &[7; 1400]);
    sender.settle(&packet);
    receive_all(&mut receiver, 1);
    sender.kernel(|netlink, device| netlink.set_mtu(device, 1280).unwrap());
    assert_eq!(sender.send(std::slice::from_ref(&packet)).too_big, 1);
    sender.follow();
    assert_eq!(sender.transmitter.mtu(B.into()), Some(1280));
    sender.kernel(|netlink, device| netlink.set_mtu(device, 1500).unwrap());
    std::thread::sleep(QUIET * 2);
    sender.settle(&packet);
    // The other end goes, and with it the carrier and the interface.
    right
        .run_in(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.delete_link(index("right")).unwrap();
        })
        .unwrap();
    assert!(readable(&sender.follower, PATIENCE));
    let report = sender.send(&[packet]);
    assert_eq!((report.sent, report.on_link, report.failed()), (0, 0, 1));
    let links: Vec<Link> = sender.namespace.run_in(|| Netlink::open().unwrap().links().unwrap()).unwrap();
    assert!(links.iter().all(|link| link.name == "lo"));
}

fn in_order_whichever_way_they_go() {
    let (mut sender, _right, mut receiver) = sides(A.into(), B.into());
    let packet = |number: u16| gre(A, B, Some(1), &[&number.to_be_bytes()[..], &[7; 60]].concat());
    sender.settle(&packet(0));
    receive_all(&mut receiver, 1);
    // To an address that has no neighbour: those packets are routed, and lost.
    let nobody = IpAddr::from(Ipv4Addr::new(192, 0, 2, 99));
    let list: Vec<_> = (0..500u16)
        .map(|number| (packet(number), if number % 100 == 50 { nobody } else { sender.to }))
        .collect();
    let report = sender.transmitter.send(now(), &mut batch(&list), &mut sender.follower);
    assert_eq!((report.sent, report.on_link), (500, 495));
    let numbers: Vec<_> = receive_all(&mut receiver, 495)
        .iter()
        .map(|frame| u16::from_be_bytes([frame[24 + 28], frame[24 + 29]]))
        .collect();
    let expected: Vec<_> = (0..500).filter(|number| number % 100 != 50).collect();
    assert_eq!(numbers, expected);
}

fn without_a_packet_socket_all_is_routed() {
    let (left, right) = pair();
    let socket = right.run_in(|| UdpSocket::bind((B, 4754)).unwrap()).unwrap();
    let mut sender = Sender::new(left, A.into(), B.into(), false);
    for _ in 0..5 {
        let packet = udp((A.into(), 1), (B.into(), 4754), b"hello", false);
        assert_eq!(sender.send(&[packet]), SendReport { sent: 1, ..SendReport::default() });
        assert_eq!(datagrams(&socket, 1), [b"hello"]);
    }
}
