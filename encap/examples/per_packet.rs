//! The baseline of `benches/encap.py`: a GRE tunnel as it is written in an afternoon.
//!
//! A TUN device without virtio header and offloads, a raw GRE socket, one thread; one system call per packet and edge. It
//! looks at the peer's address and the key and at nothing else, so it is for measuring only. It ends by a signal.
//!
//! `per_packet --tun NAME --local IP --remote IP --key N [--receive-buffer unset]`; address, MTU and "up" of the device are set from outside.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RawProtocol, RecvFlags, SendFlags, SocketFlags, SocketType};

const USAGE: &str = "per_packet --tun NAME --local IP --remote IP --key N [--receive-buffer unset]";
/// Flags "key present", protocol IPv4, key (RFC 2890).
const GRE_BYTES: usize = 8;
const MAX_PACKET_BYTES: usize = 65_535;
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Packets of one direction before the other has its turn.
const TURN: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1)).ok_or(USAGE)?;
    let mut tunnel = Tunnel::open(&options)?;
    loop {
        let mut ready =
            [PollFd::new(&tunnel.tun, PollFlags::IN), PollFd::new(&tunnel.network, PollFlags::IN)];
        poll(&mut ready, None)?;
        let [out, inward] = ready.map(|edge| !edge.revents().is_empty());
        if out {
            drain(|| tunnel.encapsulate())?;
        }
        if inward {
            drain(|| tunnel.decapsulate())?;
        }
    }
}

/// Moves packets until there is none or the turn is over.
fn drain(mut one: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    for _ in 0..TURN {
        match one() {
            Ok(()) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Tunnel {
    tun: OwnedFd,
    network: OwnedFd,
    remote: Ipv4Addr,
    gre: [u8; GRE_BYTES],
    buffer: Vec<u8>,
}

impl Tunnel {
    fn open(options: &Options) -> io::Result<Self> {
        let [a, b, c, d] = options.key.to_be_bytes();
        Ok(Self {
            tun: open_tun(&options.tun)?,
            network: open_network(options)?,
            remote: options.remote,
            gre: [0x20, 0, 0x08, 0, a, b, c, d],
            buffer: vec![0; GRE_BYTES + MAX_PACKET_BYTES],
        })
    }

    /// One packet from the device to the network.
    fn encapsulate(&mut self) -> rustix::io::Result<()> {
        let (header, inner) = self.buffer.split_at_mut(GRE_BYTES);
        let len = rustix::io::read(&self.tun, inner)?;
        header.copy_from_slice(&self.gre);
        let packet = self.buffer.get(..GRE_BYTES + len).unwrap_or_default();
        let to = SocketAddrV4::new(self.remote, 0);
        unless_lost(rustix::net::sendto(&self.network, packet, SendFlags::empty(), &to))
    }

    /// One packet from the network, which begins with its IPv4 header, to the device.
    fn decapsulate(&mut self) -> rustix::io::Result<()> {
        let (len, _) = rustix::net::recv(&self.network, self.buffer.as_mut_slice(), RecvFlags::empty())?;
        let packet = self.buffer.get(..len).unwrap_or_default();
        let header_bytes = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
        let is_from_peer = packet.get(12..16) == Some(&self.remote.octets());
        let inner = packet.get(header_bytes..).and_then(|payload| payload.strip_prefix(&self.gre));
        match inner {
            Some(inner) if is_from_peer => unless_lost(rustix::io::write(&self.tun, inner)),
            _ => Ok(()),
        }
    }
}

/// A packet that cannot be passed on, because of a full queue or because the device is down, is lost: no reason to end.
fn unless_lost(passed_on: rustix::io::Result<usize>) -> rustix::io::Result<()> {
    match passed_on {
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::IO | Errno::INVAL | Errno::MSGSIZE) => Ok(()),
        other => other.map(drop),
    }
}

fn open_tun(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let tun = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    // SAFETY: an ifreq is plain numbers and bytes, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    match unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        0 => Ok(tun),
        _ => Err(io::Error::last_os_error()),
    }
}

fn open_network(options: &Options) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = RawProtocol::new(libc::IPPROTO_GRE as u32).map(Protocol::from_raw);
    let network = rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, protocol)?;
    // With the kernel's default it loses packets while it is not running, and TCP pays for that with half its throughput.
    if options.large_buffer {
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&network, RECEIVE_BUFFER_BYTES)?;
    }
    rustix::net::bind(&network, &SocketAddrV4::new(options.local, 0))?;
    Ok(network)
}

struct Options {
    tun: String,
    local: Ipv4Addr,
    remote: Ipv4Addr,
    key: u32,
    large_buffer: bool,
}

impl Options {
    /// The first four in any order; the receive buffer may stay as the kernel has it.
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (mut tun, mut local, mut remote, mut key) = (None, None, None, None);
        let mut large_buffer = true;
        while let Some(option) = words.next() {
            let value = words.next()?;
            match option.as_str() {
                "--tun" => tun = Some(value),
                "--local" => local = value.parse().ok(),
                "--remote" => remote = value.parse().ok(),
                "--key" => key = value.parse().ok(),
                "--receive-buffer" if value == "unset" => large_buffer = false,
                _ => return None,
            }
        }
        Some(Self { tun: tun?, local: local?, remote: remote?, key: key?, large_buffer })
    }
}
