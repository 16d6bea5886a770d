//! From one process to another: packets that have come to the sockets of a process that has taken over, for connections of
//! one before it. They go over a pair of unix datagram sockets, each with a head that says what the network said of it.
//!
//! Nobody ever waits here: what does not fit into the pair is lost, as on any network.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut};
use quinn::udp::{EcnCodepoint, RecvMeta};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags};

use super::ids::Process;

/// Bytes of a head.
const HEAD: usize = 44;
/// The first byte of it: another form would have another number.
const FORM: u8 = 1;

/// A process that served before this one and still has connections.
pub struct Predecessor {
    /// What stands in its connection IDs.
    pub process: [u8; 4],
    /// Where packets for it go, for each listener of the configuration.
    pub ways: Vec<Option<UnixDatagram>>,
}

/// The way to one of them, for one listener.
pub(crate) struct Way {
    pub(crate) process: Process,
    socket: UnixDatagram,
    gone: AtomicBool,
}

/// What has become of packets on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    On,
    Lost,
    /// Nobody is there any more.
    Gone,
}

impl Way {
    pub(crate) fn new(process: Process, socket: UnixDatagram) -> Self {
        Self { process, socket, gone: AtomicBool::new(false) }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.gone.load(Ordering::Relaxed)
    }

    /// Passes on what has come in one piece: one datagram, or several of the same length.
    pub(super) fn pass(&self, bytes: &[u8], meta: &RecvMeta) -> Passed {
        let head = head(meta);
        let parts = [IoSlice::new(&head), IoSlice::new(bytes)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(_) => Passed::On,
            Err(Errno::CONNREFUSED | Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN) => {
                self.gone.store(true, Ordering::Relaxed);
                Passed::Gone
            }
            Err(_) => Passed::Lost,
        }
    }
}

/// Takes what a successor has passed on. None where it is damaged or longer than `buf`.
///
/// # Errors
/// `WouldBlock` where nothing is there.
pub(super) fn take(socket: impl AsFd, buf: &mut [u8]) -> io::Result<Option<RecvMeta>> {
    let mut head = [0; HEAD];
    let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(buf)];
    let message =
        rustix::net::recvmsg(socket, &mut parts, &mut RecvAncillaryBuffer::default(), RecvFlags::DONTWAIT)?;
    let whole = !message.flags.contains(ReturnFlags::TRUNC);
    let length = message.bytes.checked_sub(HEAD).filter(|_| whole);
    Ok(length.and_then(|length| read(&head, length)))
}

/// What the network said of it: form, ECN, length of each datagram, source, and the address it was sent to.
fn head(meta: &RecvMeta) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let mut to = &mut head[..];
    to.put_u8(FORM);
    to.put_u8(meta.ecn.map_or(0, |ecn| ecn as u8));
    to.put_u16(u16::try_from(meta.stride).unwrap_or(u16::MAX));
    put_address(&mut to, Some(meta.addr.ip()));
    to.put_u16(meta.addr.port());
    // Of a link-local client.
    to.put_u32(match meta.addr {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    });
    put_address(&mut to, meta.dst_ip);
    head
}

fn put_address(to: &mut impl BufMut, address: Option<IpAddr>) {
    let (family, octets) = match address {
        None => (0, [0; 16]),
        Some(IpAddr::V4(address)) => (4, address.to_ipv6_mapped().octets()),
        Some(IpAddr::V6(address)) => (6, address.octets()),
    };
    to.put_u8(family);
    to.put_slice(&octets);
}

/// The same of a message with so many bytes behind its head.
fn read(mut head: &[u8], length: usize) -> Option<RecvMeta> {
    if head.len() != HEAD || head.get_u8() != FORM {
        return None;
    }
    let ecn = EcnCodepoint::from_bits(head.get_u8());
    let stride = usize::from(head.get_u16());
    let ip = read_address(&mut head)?;
    let (port, scope) = (head.get_u16(), head.get_u32());
    let addr = match ip {
        IpAddr::V4(ip) => SocketAddr::from((ip, port)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
    };
    let dst_ip = read_address(&mut head);
    (1..=length).contains(&stride).then_some(RecvMeta { addr, len: length, stride, ecn, dst_ip })
}

fn read_address(from: &mut impl Buf) -> Option<IpAddr> {
    let family = from.get_u8();
    let mut octets = [0; 16];
    from.copy_to_slice(&mut octets);
    let address = Ipv6Addr::from(octets);
    match family {
        4 => address.to_ipv4_mapped().map(IpAddr::V4),
        6 => Some(address.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(addr: &str, dst_ip: Option<&str>) -> RecvMeta {
        let (addr, dst_ip) = (addr.parse().unwrap(), dst_ip.map(|ip| ip.parse().unwrap()));
        RecvMeta { addr, len: 5, stride: 2, ecn: Some(EcnCodepoint::Ce), dst_ip }
    }

    #[test]
    fn packets_come_over_with_what_is_known_of_them() {
        let (one, two) = UnixDatagram::pair().unwrap();
        let way = Way::new([1; 4], one);
        let known = [
            meta("192.0.2.1:443", Some("192.0.2.9")),
            meta("[fe80::1%7]:9", Some("2001:db8::1")),
            RecvMeta { ecn: None, ..meta("[::ffff:192.0.2.1]:65535", None) },
        ];
        for meta in &known {
            assert_eq!(way.pass(b"12345", meta), Passed::On);
        }
        for meta in &known {
            let mut buf = [0; 100];
            let taken = take(&two, &mut buf).unwrap().unwrap();
            assert_eq!((taken.addr, taken.len, taken.stride), (meta.addr, 5, 2));
            assert_eq!((taken.ecn, taken.dst_ip), (meta.ecn, meta.dst_ip));
            assert_eq!(&buf[..5], b"12345");
        }
        assert_eq!(take(&two, &mut [0; 100]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // It does not fit.
        assert_eq!(way.pass(b"12345", &known[0]), Passed::On);
        assert!(take(&two, &mut [0; 4]).unwrap().is_none());
        for damaged in [&[][..], &[0; HEAD - 1], &[0; HEAD], &[0xff; HEAD + 9]] {
            rustix::net::send(&way.socket, damaged, SendFlags::empty()).unwrap();
            assert!(take(&two, &mut [0; 100]).unwrap().is_none());
        }
        drop(two);
        assert!(way.is_open());
        assert_eq!(way.pass(b"12345", &known[0]), Passed::Gone);
        assert!(!way.is_open());
    }

    #[test]
    fn nobody_waits() {
        let (one, _two) = UnixDatagram::pair().unwrap();
        let way = Way::new([1; 4], one);
        let passed = (0..100_000).map(|_| way.pass(&[0; 1200], &meta("192.0.2.1:1", None)));
        assert!(passed.take_while(|&passed| passed == Passed::On).count() < 100_000);
        assert!(way.is_open());
    }
}
