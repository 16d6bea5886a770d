//! The TUN edge.

use std::io;
use std::net::Ipv4Addr;

use encap::device::{MAX_FRAME_BYTES, Tun, TunError};
use encap::linux::namespace::Namespace;
use encap::linux::netlink::{Address, Netlink, Route};

use super::common::{B, Case, case};
use super::packets::ipv4;
use super::{PATIENCE, index, readable};

pub(crate) fn cases() -> Vec<Case> {
    vec![case("a_tun_hands_over_and_takes_whole_frames", a_tun_hands_over_and_takes_whole_frames)]
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
                write(&tun, &[&header[..], &ipv4(B, own, 1, &[0; 8])].concat()).unwrap_err().raw_os_error(),
                Some(libc::EIO),
                "down"
            );
            netlink.add_address(Address { device, address: own.into(), prefix_len: 32 }).unwrap();
            netlink.disable_ipv6_autoconfiguration(device).unwrap();
            netlink.set_up(device).unwrap();
            let destination = "10.0.0.0/24".parse().unwrap();
            netlink
                .add_route(&Route {
                    destination,
                    table: 254,
                    device,
                    gateway: None,
                    source: Some(own.into()),
                    protocol: 4,
                })
                .unwrap();

            // Out: a datagram of 3000 bytes payload is cut by the kernel, but UDP with segments stays whole.
            let socket = std::net::UdpSocket::bind((own, 0)).unwrap();
            socket.send_to(b"hello", (Ipv4Addr::new(10, 0, 0, 9), 53)).unwrap();
            let mut frame = Vec::with_capacity(MAX_FRAME_BYTES);
            assert!(readable(&tun, PATIENCE));
            tun.read(&mut frame).unwrap();
            assert_eq!(frame.len(), 10 + 20 + 8 + 5);
            assert_eq!(frame[0], 1, "the checksum is unfinished: the offload is on");
            assert_eq!(&frame[22..26], own.octets());
            assert_eq!(&frame[38..], b"hello");
            assert_eq!(tun.read(&mut frame).unwrap_err().kind(), io::ErrorKind::WouldBlock);

            // In: a datagram from behind the tunnel.
            let port = socket.local_addr().unwrap().port();
            let mut udp = [53u16.to_be_bytes(), port.to_be_bytes(), 13u16.to_be_bytes(), [0, 0]].concat();
            udp.extend(b"world");
            write(&tun, &[&[0; 10][..], &ipv4(Ipv4Addr::new(10, 0, 0, 9), own, 17, &udp)].concat()).unwrap();
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
    assert_eq!(tun.read(&mut Vec::with_capacity(64)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

fn write(tun: &Tun, frame: &[u8]) -> std::io::Result<()> {
    tun.write(&[std::io::IoSlice::new(frame)])
}
