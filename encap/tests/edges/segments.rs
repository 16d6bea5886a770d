//! What the kernel makes of a super-packet is what we make of it.
//!
//! ```text
//! super-packet -> tun-a, left -- cuts, for `left` takes no super-packets -- right -> packet socket
//! ```

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::process::Command;

use encap::device::{Tun, takes_datagrams};
use encap::linux::netlink::{Ipv4Setting, Netlink};
use encap::linux::sysctl::{self, Ipv6Setting};
use encap::segment::{SuperPacket, finish};
use encap::wire::checksum::Sum;
use encap::wire::ip::Packet;
use encap::wire::{ipv4, ipv6, tcp, udp, virtio};
use rustix::net::{AddressFamily, Protocol, RawProtocol, RecvFlags, SocketFlags, SocketType};

use super::common::{B, Case, case};
use super::pair::{B6, pair_with_ipv6, wait_until_asking};
use super::{PATIENCE, QUIET, index, readable};

/// Senders behind the TUN device.
pub(crate) const FROM: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
pub(crate) const FROM6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 9, 0, 0, 0, 9);
const TTL: u8 = 64;

pub(crate) fn cases() -> Vec<Case> {
    vec![case("the_kernel_cuts_a_super_packet_as_we_do", the_kernel_cuts_as_we_do)]
}

fn the_kernel_cuts_as_we_do() {
    let (left, right) = pair_with_ipv6();
    let tun = left.run_in(router).unwrap();
    for (to, kind) in [(IpAddr::V4(B), libc::ETH_P_IP), (IpAddr::V6(B6), libc::ETH_P_IPV6)] {
        if to.is_ipv6() {
            left.run_in(|| wait_until_asking("left")).unwrap();
        }
        let socket = right.run_in(|| tap(kind)).unwrap();
        for (length, size) in
            [(1, 1000), (1000, 1000), (1001, 1000), (7000, 1400), (40_003, 1333), (65_000, 536)]
        {
            for flags in [tcp::ACK, tcp::ACK | tcp::PSH | tcp::FIN, tcp::ACK | tcp::CWR | tcp::PSH] {
                compare(&tun, &socket, &Sent { to, length, size, flags: Some(flags) });
            }
            // The kernel makes no more of a datagram than it joins itself.
            if takes_datagrams() && length / size < 64 {
                compare(&tun, &socket, &Sent { to, length, size, flags: None });
            }
        }
    }
}

/// Forwards from a TUN device, which it returns, to `left`.
fn router() -> Tun {
    let tun = Tun::create("tun-a").unwrap();
    let mut netlink = Netlink::open().unwrap();
    for name in ["tun-a", "left"] {
        netlink.set_ipv4(index(name), &[(Ipv4Setting::RpFilter, 0), (Ipv4Setting::Forwarding, 1)]).unwrap();
        sysctl::set_ipv6(name, Ipv6Setting::DisableIpv6, 0).unwrap();
    }
    sysctl::set_ipv6(sysctl::ALL, Ipv6Setting::Forwarding, 1).unwrap();
    std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
    netlink.set_up(index("tun-a")).unwrap();
    let ip = ["link", "set", "dev", "left", "gso_max_size", "600"];
    assert!(Command::new("ip").args(ip).status().unwrap().success());
    tun
}

/// Sees every packet of a kind that arrives, from its IP header on.
pub(crate) fn tap(kind: i32) -> OwnedFd {
    let protocol = RawProtocol::new(u32::from((kind as u16).to_be())).map(Protocol::from_raw);
    let socket =
        rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::NONBLOCK, protocol)
            .unwrap();
    // All pieces of the largest come at once, and nobody may be reading at that moment.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 4 << 20).unwrap();
    socket
}

/// A super-packet: TCP with these flags, or UDP.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) to: IpAddr,
    pub(crate) length: usize,
    pub(crate) size: usize,
    pub(crate) flags: Option<u16>,
}

impl Sent {
    fn protocol(&self) -> u8 {
        if self.flags.is_some() { ipv4::TCP } else { ipv4::UDP }
    }

    /// The packet, its checksum open, with so many hops left.
    pub(crate) fn packet(&self, ttl: u8) -> Vec<u8> {
        let payload: Vec<u8> = (0..self.length).map(|number| (number / 3) as u8).collect();
        let mut transport = vec![0; self.transport_len()];
        let length = (transport.len() + payload.len()) as u16;
        match self.flags {
            Some(flags) => {
                let header = tcp::Header {
                    source_port: 80,
                    destination_port: 40_000,
                    sequence: u32::MAX - 5000,
                    acknowledgment: 7,
                    flags,
                    window: 500,
                    checksum: 0,
                    urgent: 0,
                    options: &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
                };
                header.emit(&mut transport).unwrap();
            }
            None => {
                let header = udp::Header { source_port: 53, destination_port: 4754, length, checksum: 0 };
                header.emit(&mut transport).unwrap();
            }
        }
        transport.extend(payload);
        let (mut packet, pseudo) = match self.to {
            IpAddr::V4(destination) => {
                let header = ipv4::Header {
                    tos: 0,
                    total_length: ipv4::LEN as u16 + length,
                    identification: 0xfffe,
                    dont_fragment: true,
                    more_fragments: false,
                    fragment_offset: 0,
                    ttl,
                    protocol: self.protocol(),
                    source: FROM,
                    destination,
                    options: &[],
                };
                let mut ip = vec![0; ipv4::LEN];
                header.emit(&mut ip).unwrap();
                (ip, Sum::pseudo(FROM, destination, self.protocol(), length))
            }
            IpAddr::V6(destination) => {
                let header = ipv6::Header {
                    traffic_class: 0,
                    flow_label: 0x1_2345,
                    payload_length: length,
                    next_header: self.protocol(),
                    hop_limit: ttl,
                    source: FROM6,
                    destination,
                };
                let mut ip = vec![0; ipv6::LEN];
                header.emit(&mut ip).unwrap();
                (ip, Sum::pseudo(FROM6, destination, self.protocol(), length))
            }
        };
        transport[self.checksum_at()..][..2].copy_from_slice(&(!pseudo.finish()).to_be_bytes());
        packet.extend(transport);
        packet
    }

    pub(crate) fn ip_len(&self) -> usize {
        if self.to.is_ipv4() { ipv4::LEN } else { ipv6::LEN }
    }

    fn transport_len(&self) -> usize {
        if self.flags.is_some() { tcp::LEN + 12 } else { udp::LEN }
    }

    pub(crate) fn checksum_at(&self) -> usize {
        if self.flags.is_some() { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT }
    }

    /// What the kernel is told about it.
    pub(crate) fn header(&self) -> [u8; virtio::LEN] {
        let gso_type = match (self.flags, self.to) {
            _ if self.length <= self.size => virtio::GSO_NONE,
            (None, _) => virtio::GSO_UDP_L4,
            (Some(flags), IpAddr::V4(_)) => virtio::GSO_TCPV4 | ecn(flags),
            (Some(flags), IpAddr::V6(_)) => virtio::GSO_TCPV6 | ecn(flags),
        };
        let header = virtio::Header {
            flags: virtio::NEEDS_CSUM,
            gso_type,
            hdr_len: (self.ip_len() + self.transport_len()) as u16,
            gso_size: if gso_type == virtio::GSO_NONE { 0 } else { self.size as u16 },
            csum_start: self.ip_len() as u16,
            csum_offset: self.checksum_at() as u16,
        };
        let mut bytes = [0; virtio::LEN];
        header.emit(&mut bytes).unwrap();
        bytes
    }
}

fn ecn(flags: u16) -> u8 {
    if flags & tcp::CWR == 0 { 0 } else { virtio::GSO_ECN }
}

fn compare(tun: &Tun, tap: &OwnedFd, sent: &Sent) {
    let packet = sent.packet(TTL + 1);
    tun.write(&[IoSlice::new(&sent.header()), IoSlice::new(&packet)]).unwrap();
    let expected = ours(&sent.packet(TTL), sent);
    let mut of_kernel = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while readable(tap, if of_kernel.len() < expected.len() { PATIENCE } else { QUIET }) {
        let (len, _) = rustix::net::recv(tap, &mut buffer[..], RecvFlags::empty()).unwrap();
        let frame = &mut buffer[..len];
        // Neighbours talk as well.
        let is_it = Packet::parse(frame)
            .is_ok_and(|(packet, _)| [FROM.into(), FROM6.into()].contains(&packet.source));
        if is_it {
            // A cable inside one machine needs no checksum: the kernel has left it open.
            finish(frame, sent.ip_len(), sent.checksum_at()).unwrap();
            of_kernel.push(frame.to_vec());
        }
    }
    let what = format!("{} bytes by {} to {}, flags {:x?}", sent.length, sent.size, sent.to, sent.flags);
    assert_eq!(of_kernel.len(), expected.len(), "{what}");
    for (number, (kernel, ours)) in of_kernel.iter().zip(&expected).enumerate() {
        let differs = kernel.iter().zip(ours).position(|(kernel, ours)| kernel != ours);
        assert!(kernel == ours, "{what}: packet {number} from byte {differs:?} on:\n{kernel:x?}\n{ours:x?}");
    }
}

pub(crate) fn ours(packet: &[u8], sent: &Sent) -> Vec<Vec<u8>> {
    let whole = match sent.flags {
        Some(_) => SuperPacket::tcp(packet, sent.size),
        None => SuperPacket::udp(packet, sent.size),
    };
    let whole = whole.unwrap();
    let write = |number| {
        let mut out = vec![0; whole.len_of(number)];
        whole.write(number, &mut out).unwrap();
        out
    };
    (0..whole.count()).map(write).collect()
}
