//! Packets of which the kernel cuts an inner one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::process::Command;

use encap::batch::{Batch, Takers};
use encap::config::{Kind, Tunnel};
use encap::device::create_outlet;
use encap::engine::{Engine, MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT};
use encap::linux::netlink::{self, Netlink};
use encap::metrics::Counters;
use encap::segment::finish;
use encap::socket::Outlet;
use encap::wire::checksum::Sum;
use encap::wire::ip::Packet;
use encap::wire::{ipv4, tcp, udp};
use rustix::net::RecvFlags;

use super::common::{Case, case};
use super::pair::pair_with_ipv6;
use super::segments::{FROM, FROM6, Sent, ours, tap};
use super::sender::{Sender, now};
use super::{BOTH, PATIENCE, QUIET, index, readable};

/// Where inner packets go.
const RS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 10, 0, 0, 0, 0, 10))];

const TO_RS: Sent = Sent { to: RS[0], length: 20_003, size: 1300, flags: Some(tcp::ACK) };

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("the_kernel_cuts_inside_of_a_tunnel_as_we_do", || on_the_wire(true)),
        case("without_its_device_we_cut", || on_the_wire(false)),
    ]
}

/// Everything that can leave uncut, on a link where the kernel has to cut it; or with a device that is down.
fn on_the_wire(is_up: bool) {
    for (from, to) in BOTH {
        let (left, right) = pair_with_ipv6();
        let made = left.run_in(|| make(is_up)).unwrap();
        // Before Linux 6.17 there is none.
        let Some((outlet, _table)) = made else { return };
        let kind = if to.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
        let tap = right.run_in(|| tap(kind)).unwrap();
        let outlet = Outlet::new(outlet, Takers::Everybody);
        let mut sender = Sender::with_outlet(left, from, to, true, Some(outlet));
        for tunnel in tunnels(from, to) {
            let small = carried(&tunnel, &Sent { length: 1, ..TO_RS });
            for inner in RS {
                for flags in [Some(tcp::ACK), Some(tcp::ACK | tcp::CWR | tcp::PSH | tcp::FIN), None] {
                    let sent = Sent { to: inner, flags, ..TO_RS };
                    let mut batch = carried(&tunnel, &sent);
                    let whole = batch.packet(0).unwrap().bytes().into_owned();
                    assert!(batch.len() == 1 && batch.packet(0).unwrap().gso.unwrap().inner.is_some());
                    // Now and then a packet is routed, for the kernel to make sure of the neighbour: not this one.
                    sender.settle(&small.packet(0).unwrap().bytes());
                    received(&tap, from, 1);
                    let report = sender.transmitter.send(now(), &mut batch, &mut sender.follower);
                    assert_eq!((report.sent, report.failed(), report.on_link), (1, 0, u64::from(is_up)));
                    assert_eq!(sender.transmitter.takers(), is_up.then_some(Takers::Everybody));
                    let expected = ours(&sent.packet(64), &sent);
                    let got = received(&tap, from, expected.len());
                    let what = format!("{inner}, flags {flags:x?}, {tunnel:?}");
                    assert_eq!(got.len(), expected.len(), "{what}");
                    for (number, (mut packet, ours)) in got.into_iter().zip(&expected).enumerate() {
                        let outer_len = packet.len() - ours.len();
                        let kernel = &mut packet[outer_len..];
                        // A cable inside one machine needs no checksum: the kernel has left it open.
                        if is_up {
                            finish(kernel, sent.ip_len(), sent.checksum_at()).unwrap();
                        }
                        assert!(kernel == ours, "{what}: packet {number}:\n{kernel:x?}\n{ours:x?}");
                        assert_eq!(common(packet, outer_len), common(whole.clone(), outer_len), "{what}");
                    }
                }
            }
        }
    }
}

/// In the namespace of the sender.
fn make(is_up: bool) -> Option<(OwnedFd, OwnedFd)> {
    let (device, name) = create_outlet().ok()?;
    let table = netlink::hand_on("cuts", &name, index("left")).unwrap();
    if is_up {
        Netlink::open().unwrap().set_up(index(&name)).unwrap();
    }
    // What is larger the kernel cuts, whatever the other end might take.
    let ip = ["link", "set", "dev", "left", "gso_max_size", "600"];
    assert!(Command::new("ip").args(ip).status().unwrap().success());
    Some((device, table))
}

fn tunnels(from: IpAddr, to: IpAddr) -> Vec<Tunnel> {
    let tunnel = Tunnel {
        key: Some(7),
        addresses: vec![FROM.into(), FROM6.into()],
        ..Tunnel::new(
            "a",
            from,
            vec![to],
            vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:a::/64".parse().unwrap()],
        )
    };
    let in_udp = Tunnel { kind: Kind::GreInUdp, ..tunnel.clone() };
    vec![
        Tunnel { udp_checksum: false, ..in_udp.clone() },
        Tunnel { key: None, ..in_udp.clone() },
        in_udp,
        tunnel,
    ]
}

/// What an engine makes of a frame.
fn carried(tunnel: &Tunnel, sent: &Sent) -> Batch {
    let counters = Counters::default();
    let mut engine = Engine::new(now(), &counters, 1);
    engine.set_tunnel(now(), 0, tunnel, 1400, counters.add(tunnel), true);
    engine.leave_uncut(0, Takers::Everybody);
    let mut frame = [&sent.header()[..], &sent.packet(64)].concat();
    let mut batch = Batch::new(MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT);
    engine.handle_tun_input(now(), 0, &mut frame, &mut batch);
    assert!(!batch.is_empty(), "{sent:?}: {:?}", counters.snapshot());
    batch
}

/// The first `len` bytes of a packet, which are its outer headers, without what depends on the rest: lengths, checksums,
/// which have to be right in a packet that is one, and the identification.
fn common(mut packet: Vec<u8>, len: usize) -> Vec<u8> {
    let (outer, datagram) = Packet::parse(&packet).unwrap();
    let (at, length, is_one) = (outer.header_len, datagram.len() as u16, packet.len() < 2000);
    if outer.source.is_ipv4() {
        assert_eq!(Sum::default().bytes(&packet[..at]).finish(), 0, "of IPv4");
        packet[2..6].fill(0);
        packet[10..12].fill(0);
    } else {
        packet[4..6].fill(0);
    }
    if outer.protocol == ipv4::UDP {
        assert_eq!(packet[at + udp::LENGTH_AT..][..2], length.to_be_bytes());
        let stored = packet[at + udp::CHECKSUM_AT..][..2].to_vec();
        if is_one && stored != [0, 0] {
            let pseudo = Sum::pseudo(outer.source, outer.destination, ipv4::UDP, length);
            assert_eq!(pseudo.bytes(&packet[at..]).finish(), 0, "of UDP");
        }
        packet[at + udp::LENGTH_AT..][..2].fill(0);
        packet[at + udp::CHECKSUM_AT..][..2].fill(u8::from(stored != [0, 0]));
    }
    packet.truncate(len);
    packet
}

/// What comes from an address, until it is quiet.
fn received(tap: &OwnedFd, from: IpAddr, at_least: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while readable(tap, if packets.len() < at_least { PATIENCE } else { QUIET }) {
        let (len, _) = rustix::net::recv(tap, &mut buffer[..], RecvFlags::empty()).unwrap();
        let frame = &buffer[..len];
        // Neighbours talk as well.
        let is_it = Packet::parse(frame)
            .is_ok_and(|(packet, _)| packet.source == from && [47, ipv4::UDP].contains(&packet.protocol));
        if is_it {
            packets.push(frame.to_vec());
        }
    }
    packets
}
