//! The only part that has privileges: a small process that makes devices and sockets and hands them over.
//!
//! [`Privileged::start`] checks what is needed, forks the helper while the process has a single thread, and
//! returns every descriptor the engine threads need. Afterwards the helper only opens TCP sockets that belong to a
//! tunnel. The calling process can then give up all capabilities (`linux::capability::drop_all`). Never sees a
//! packet. When its parent ends, however it ends, the helper removes rules and routes and ends too; devices vanish
//! with their descriptors.

mod check;
mod helper;
mod message;
mod setup;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use crate::config::{Isolation, Tunnel};
use crate::device::Tun;
use crate::linux::process;
use crate::socket;

pub use check::Unmet;
use message::{Channel, MAX_THREADS, Reply, Request};

/// Marks our routes and rules (`rtm_protocol`, `FRA_PROTOCOL`). The kernel does not interpret it; it is none of the
/// numbers that other routing programs use (linux/rtnetlink.h, /etc/iproute2/rt_protos).
pub const PROTOCOL: u8 = 71;
/// Number of a tunnel's routing table: this, plus the number of its device.
pub const TABLE_BASE: u32 = 0x1A00_0000;
const TABLE_INDEX_MASK: u32 = 0x00FF_FFFF;

/// Longest wait for an answer of the helper.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tunnels that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Things missing on this host, all of them.
    #[error("the tunnels cannot be set up:{}", .0.iter().map(|unmet| format!("\n  - {unmet}")).collect::<String>())]
    Unmet(Vec<Unmet>),
    /// A number of engine threads that makes no sense.
    #[error("{0} engine threads: expected 1 to {MAX_THREADS}")]
    Threads(usize),
    /// The helper could not be started.
    #[error("cannot start the privileged helper: {0}")]
    Fork(io::Error),
    /// The helper says why it could not set up.
    #[error("{0}")]
    Failed(String),
    /// The helper ended or does not answer.
    #[error("the privileged helper does not answer: {0}")]
    Silent(io::Error),
    /// The helper sent something else than expected.
    #[error("the privileged helper sent an unexpected answer")]
    Unexpected,
}

/// What the engine threads need.
#[derive(Debug)]
pub struct Edges {
    /// One per tunnel, in the order of the configuration.
    pub tunnels: Vec<Opened>,
    /// One per underlay interface and local address.
    pub networks: Vec<NetworkEdge>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// The device of a tunnel.
#[derive(Debug)]
pub struct Opened {
    /// The device, up and addressed.
    pub tun: Tun,
    /// Inner MTU in bytes.
    pub mtu: u16,
    /// Which of [`Edges::networks`] carries its outer packets.
    pub network: usize,
}

/// The outer sockets for one interface and local address.
#[derive(Debug)]
pub struct NetworkEdge {
    /// Name of the underlay interface.
    pub interface: String,
    /// Outer source address.
    pub local: Ipv4Addr,
    /// Bytes of the link header in front of a received outer packet.
    pub link_header_bytes: usize,
    /// Packet sockets, one per engine thread; GRE key modulo their number chooses.
    pub receivers: Vec<OwnedFd>,
    /// Raw socket that sends.
    pub sender: OwnedFd,
    /// Keeps the kernel from answering "protocol unreachable" as long as it is open.
    pub guard: OwnedFd,
}

/// The helper, seen from the process that started it. Dropping it ends the helper and waits until it has cleaned up.
#[derive(Debug)]
pub struct Privileged {
    channel: Mutex<Option<(Channel, u32)>>,
    pid: Pid,
    /// Readable once the helper has ended.
    process: OwnedFd,
    /// Device of each tunnel in the host's namespace; the others can only be reached through the helper.
    devices: Vec<Option<String>>,
}

impl Privileged {
    /// Checks the host, starts the helper and takes over what it made, with `threads` receive sockets per network
    /// edge. Call it before any other thread exists.
    ///
    /// # Errors
    /// Everything that is missing at once, each with its remedy, or the first thing the kernel refused.
    pub fn start(tunnels: &[Tunnel], threads: usize) -> Result<(Self, Edges), SetupError> {
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(SetupError::Threads(threads));
        }
        let underlays = check::check(tunnels).map_err(SetupError::Unmet)?;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| SetupError::Fork(error.into()))?;
        let parent = rustix::process::getpid();
        let pid = process::fork(theirs, |socket| helper::run(socket, parent, tunnels, &underlays, threads))
            .map_err(SetupError::Fork)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| SetupError::Fork(error.into()))?;
        let channel = Channel::new(ours);
        let edges = take_over(&channel, threads);
        let devices = tunnels
            .iter()
            .map(|tunnel| (tunnel.isolation == Isolation::Device).then(|| tunnel.device.clone()))
            .collect();
        let privileged = Self { channel: Mutex::new(Some((channel, 0))), pid, process, devices };
        // On failure dropping it waits for the helper.
        edges.map(|edges| (privileged, edges))
    }

    /// Opens a TCP socket that belongs to tunnel number `tunnel`: nonblocking, closed on exec, bound to the tunnel's
    /// device, in its namespace; not yet bound to an address nor connected.
    ///
    /// # Errors
    /// When the device is gone, or the helper does not answer within 5 seconds.
    pub fn connect_socket(&self, tunnel: usize) -> io::Result<OwnedFd> {
        // In the host's namespace nothing privileged is needed since Linux 5.7, and the way is shorter.
        if let Some(Some(device)) = self.devices.get(tunnel) {
            match socket::open_stream(device) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                result => return result,
            }
        }
        self.ask(|number| Request::Connect { number, tunnel: tunnel as u32 })
    }

    /// Opens a listener on `address`, one of the VIPs of tunnel number `tunnel`; it sees only connections that
    /// arrive through the tunnel.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` when it is none of the tunnel's VIPs, `EADDRINUSE` when another socket has it, or when the
    /// helper does not answer within 5 seconds.
    pub fn listen(&self, tunnel: usize, address: SocketAddrV4) -> io::Result<OwnedFd> {
        self.ask(|number| Request::Listen { number, tunnel: tunnel as u32, address })
    }

    /// Process number of the helper.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// A descriptor that becomes readable when the helper ends, which it should not before this value is dropped.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    fn ask(&self, request: impl FnOnce(u32) -> Request) -> io::Result<OwnedFd> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the privileged helper has ended");
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let (channel, last) = channel.as_mut().ok_or_else(gone)?;
        *last = last.wrapping_add(1);
        channel.send(&request(*last).encode(), &[])?;
        loop {
            let (bytes, descriptors) = channel.receive(PATIENCE).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => gone(),
                _ => error,
            })?;
            match Reply::decode(&bytes) {
                Some(Reply::Socket { number }) if number == *last => {
                    return descriptors.into_iter().next().ok_or_else(|| io::ErrorKind::InvalidData.into());
                }
                Some(Reply::Refused { number, errno }) if number == *last => {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                // The late answer to a request that was given up.
                Some(Reply::Socket { .. } | Reply::Refused { .. }) => {}
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

impl Drop for Privileged {
    fn drop(&mut self) {
        // Closing our end is what ends the helper.
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
        let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut ended = [PollFd::new(&self.process, PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut ended, Some(&timeout)), Ok(1..)) {
            let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        }
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

fn take_over(channel: &Channel, threads: usize) -> Result<Edges, SetupError> {
    let mut edges = Edges { tunnels: Vec::new(), networks: Vec::new(), warnings: Vec::new() };
    loop {
        let (bytes, mut descriptors) = channel.receive(PATIENCE).map_err(SetupError::Silent)?;
        match Reply::decode(&bytes) {
            Some(Reply::Network { interface, local, link_header_bytes })
                if descriptors.len() == threads + 2 =>
            {
                let (Some(guard), Some(sender)) = (descriptors.pop(), descriptors.pop()) else {
                    return Err(SetupError::Unexpected);
                };
                let link_header_bytes = link_header_bytes as usize;
                let receivers = descriptors;
                edges.networks.push(NetworkEdge {
                    interface,
                    local,
                    link_header_bytes,
                    receivers,
                    sender,
                    guard,
                });
            }
            Some(Reply::Tunnel { device, mtu, network }) => {
                let descriptor = descriptors.pop().ok_or(SetupError::Unexpected)?;
                let tun = Tun::from_descriptor(descriptor, device);
                edges.tunnels.push(Opened { tun, mtu, network: network as usize });
            }
            Some(Reply::Warning { text }) => edges.warnings.push(text),
            Some(Reply::Ready) => return Ok(edges),
            Some(Reply::Failed { text }) => return Err(SetupError::Failed(text)),
            _ => return Err(SetupError::Unexpected),
        }
    }
}
