//! Sockets that keep the kernel quiet, and the one that hears routers.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use encap::linux::namespace::Namespace;
use encap::socket::{Carrier, IcmpReceiver, RawSender, open_guard, open_icmp, open_sender};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto};

use super::common::{Case, case};
use super::packets::{batch, gre_payload, ip, sum, udp};
use super::pair::pair_with_ipv6;
use super::{BOTH, PATIENCE, QUIET, readable};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("the_guards_keep_the_kernel_quiet", the_guards_keep_the_kernel_quiet),
        case("the_port_of_gre_in_udp_is_occupied", the_port_of_gre_in_udp_is_occupied),
        case("only_errors_of_the_underlay_are_heard", only_errors_of_the_underlay_are_heard),
    ]
}

/// A socket that sees every ICMP message that arrives.
fn every_icmp(namespace: &Namespace, local: IpAddr) -> OwnedFd {
    let (family, protocol) = match local {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let open = || rustix::net::socket_with(family, SocketType::RAW, SocketFlags::NONBLOCK, Some(protocol));
    namespace.run_in(open).unwrap().unwrap()
}

/// Whether an error arrives: "unreachable", or "parameter problem" of ICMPv6. Neighbour discovery is none.
fn complains(icmp: &OwnedFd, local: IpAddr, patience: std::time::Duration) -> bool {
    let mut buffer = [0; 2048];
    while readable(icmp, patience) {
        rustix::net::recv(icmp, &mut buffer[..], RecvFlags::empty()).unwrap();
        if if local.is_ipv4() { buffer[20] == 3 } else { matches!(buffer[0], 1 | 4) } {
            return true;
        }
    }
    false
}

fn the_guards_keep_the_kernel_quiet() {
    let (left, right) = pair_with_ipv6();
    // How often the kernel complains is limited.
    for (limit, family) in [("icmp_ratelimit", "ipv4"), ("icmp/ratelimit", "ipv6")] {
        right.run_in(|| std::fs::write(format!("/proc/sys/net/{family}/{limit}"), "0").unwrap()).unwrap();
    }
    for (a, b) in BOTH {
        let sender = RawSender::new(left.run_in(|| open_sender("left", a).unwrap()).unwrap());
        let icmp = every_icmp(&left, a);
        for carrier in [Carrier::Gre, Carrier::Ipv4, Carrier::Ipv6, Carrier::GreInUdp] {
            let bytes = gre_payload(Some(9), &[3; 60]);
            let packet = match carrier {
                Carrier::GreInUdp => udp((a, 50_000), (b, 4754), &bytes, false),
                _ => ip(a, b, carrier.protocol(), &bytes),
            };
            let packet = [(packet, b)];
            let guard = right.run_in(|| open_guard("right", b, carrier).unwrap()).unwrap();
            assert_eq!(sender.send(&batch(&packet)).sent, 1);
            assert!(!complains(&icmp, a, QUIET * 2), "{carrier:?} to {b}");
            // Without it the kernel complains, so the test can fail.
            drop(guard);
            assert_eq!(sender.send(&batch(&packet)).sent, 1);
            assert!(complains(&icmp, a, PATIENCE), "{carrier:?} to {b}");
        }
    }
}

fn the_port_of_gre_in_udp_is_occupied() {
    let (_left, right) = pair_with_ipv6();
    right
        .run_in(|| {
            for (_, b) in BOTH {
                let other = std::net::UdpSocket::bind((b, 4754)).unwrap();
                let error = open_guard("right", b, Carrier::GreInUdp).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
                drop(other);
                let _guard = open_guard("right", b, Carrier::GreInUdp).unwrap();
                let error = std::net::UdpSocket::bind((b, 4754)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            }
        })
        .unwrap();
}

fn only_errors_of_the_underlay_are_heard() {
    let (left, right) = pair_with_ipv6();
    for (a, b) in BOTH {
        let mut receiver = IcmpReceiver::new(left.run_in(|| open_icmp("left", a, true).unwrap()).unwrap());
        assert_eq!(receiver.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let sender = RawSender::new(right.run_in(|| open_sender("right", b).unwrap()).unwrap());
        let (protocol, too_big, others) = match a {
            IpAddr::V4(_) => (1, [3, 4], [[8, 0], [11, 0], [5, 1]]),
            IpAddr::V6(_) => (58, [2, 0], [[1, 4], [3, 0], [128, 0]]),
        };
        let message = |kind: [u8; 2]| {
            let quoted = ip(a, b, 47, &gre_payload(Some(7), &[1; 40]));
            let mut message = [&kind[..], &[0; 4], &1400u16.to_be_bytes(), &quoted].concat();
            let octets = |address| match address {
                IpAddr::V4(_) => Vec::new(),
                IpAddr::V6(address) => [&address.octets()[..], &[0; 4]].concat(),
            };
            let mut pseudo = [octets(b), octets(a)].concat();
            if a.is_ipv6() {
                pseudo.truncate(36);
                pseudo.drain(16..20);
                pseudo.extend([0, 0, 0, message.len() as u8, 0, 0, 0, 58]);
            }
            let checksum = !sum(&[&pseudo, &message]);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
            message
        };
        let mut list: Vec<_> = others.map(|kind| (ip(b, a, protocol, &message(kind)), a)).to_vec();
        list.push((ip(b, a, protocol, &message(too_big)), a));
        assert_eq!(sender.send(&batch(&list)).sent, 4);
        assert!(readable(&receiver, PATIENCE));
        let (from, bytes) = receiver.receive().unwrap();
        assert_eq!((from, bytes), (b, &message(too_big)[..]));
        assert!(!readable(&receiver, QUIET));
    }
}
