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
mod outlets;
mod plan;
mod setup;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use crate::batch::Takers;
use crate::config::{Isolation, Tunnel};
use crate::device::Tun;
use crate::linux::capability::Capability;
use crate::linux::channel::Channel;
use crate::linux::process;
use crate::socket;

pub use check::Unmet;
use message::{MAX_THREADS, Reply, Request};
use plan::Plan;

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
    /// A tunnel asks for what the running helper may not do.
    #[error(
        "the tunnel `{0}` has `isolation: namespace`, for which this process did not start with the privilege: restart it"
    )]
    NeedsRestart(String),
    /// The helper sent something else than expected.
    #[error("the privileged helper sent an unexpected answer")]
    Unexpected,
}

/// What the engine threads need.
#[derive(Debug, Default)]
pub struct Edges {
    /// One per tunnel, in the order of the configuration.
    pub tunnels: Vec<Opened>,
    /// Network edges that were not there before.
    pub networks: Vec<NetworkEdge>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// The device of a tunnel.
#[derive(Debug)]
pub struct Opened {
    /// Number by which the helper and the engines know the tunnel.
    pub id: usize,
    /// The tunnel itself.
    pub tunnel: Tunnel,
    /// The device, up and addressed.
    pub tun: Tun,
    /// Inner MTU in bytes.
    pub mtu: u16,
    /// Which network edge carries its outer packets, counted from the first one ever opened.
    pub network: usize,
}

/// The outer sockets for one interface, local address and kind of tunnel.
#[derive(Debug)]
pub struct NetworkEdge {
    /// Name of the underlay interface.
    pub interface: String,
    /// Outer source address.
    pub local: IpAddr,
    /// Bytes of the link header in front of a received outer packet.
    pub link_header_bytes: usize,
    /// Packet sockets, one per engine thread; GRE key modulo their number chooses.
    pub receivers: Vec<OwnedFd>,
    /// Index of the underlay interface.
    pub device: u32,
    /// Packet socket that sends, unless the kernel is to route every packet.
    pub link: Option<OwnedFd>,
    /// Device by which packets leave of which the kernel cuts an inner one, where it does that, and to whom they may go.
    pub outlet: Option<(OwnedFd, Takers)>,
    /// Raw socket that sends where the next hop is not known.
    pub routed: OwnedFd,
    /// Hears what the underlay says about outer packets.
    pub icmp: OwnedFd,
    /// Keep the kernel from answering for protocols it does not know, as long as they are open.
    pub guards: Vec<OwnedFd>,
}

/// The helper, seen from the process that started it. Dropping it ends the helper and waits until it has cleaned up.
#[derive(Debug)]
pub struct Privileged {
    channel: Mutex<Option<(Channel, u32)>>,
    pid: Pid,
    /// Readable once the helper has ended.
    process: OwnedFd,
    threads: usize,
    may_make_namespaces: bool,
    /// The tunnels that exist, by their numbers.
    tunnels: Mutex<Vec<Option<Known>>>,
    /// Edges opened for tunnels that then could not be made: the next caller gets them, for the helper knows them.
    spare: Mutex<Vec<NetworkEdge>>,
}

/// Name of a tunnel, and its device if that is in the host's namespace: the others can only be reached through the helper.
type Known = (String, Option<String>);

impl Privileged {
    /// Checks the host, starts the helper and takes over what it makes for `tunnels`, with `threads` receive sockets per
    /// network edge. Call it before any other thread exists.
    ///
    /// # Errors
    /// Everything that is missing at once, each with its remedy, or the first thing the kernel refused.
    pub fn start(tunnels: &[Tunnel], threads: usize) -> Result<(Self, Edges), SetupError> {
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(SetupError::Threads(threads));
        }
        let mut unmet: Vec<_> = check::privileges(tunnels).into_iter().collect();
        let plans = check::check(tunnels).map_err(|more| unmet.extend(more)).unwrap_or_default();
        if !unmet.is_empty() {
            return Err(SetupError::Unmet(unmet));
        }
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| SetupError::Fork(error.into()))?;
        let parent = rustix::process::getpid();
        let kept = check::capabilities(tunnels);
        let binds = tunnels.iter().any(|tunnel| !tunnel.vips.is_empty());
        let pid = process::fork(theirs, |socket| helper::run(socket, parent, &kept, binds, threads))
            .map_err(SetupError::Fork)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| SetupError::Fork(error.into()))?;
        let channel = Channel::new(ours);
        let ready = wait_until_ready(&channel);
        let privileged = Self {
            channel: Mutex::new(Some((channel, 0))),
            pid,
            process,
            threads,
            may_make_namespaces: kept.contains(&Capability::SysAdmin),
            tunnels: Mutex::default(),
            spare: Mutex::default(),
        };
        // On failure dropping it waits for the helper.
        ready?;
        let edges = privileged.make(plans)?;
        Ok((privileged, edges))
    }

    /// Makes more tunnels. Either all of them exist afterwards or none.
    ///
    /// # Errors
    /// As [`Privileged::start`]; [`SetupError::NeedsRestart`] for what the running helper has not the privilege to do.
    pub fn add(&self, tunnels: &[Tunnel]) -> Result<Edges, SetupError> {
        let in_namespace = |tunnel: &&Tunnel| tunnel.isolation == Isolation::Namespace;
        if let Some(tunnel) = tunnels.iter().find(in_namespace).filter(|_| !self.may_make_namespaces) {
            return Err(SetupError::NeedsRestart(tunnel.name.clone()));
        }
        self.make(check::check(tunnels).map_err(SetupError::Unmet)?)
    }

    /// Takes away the devices of tunnels that no engine serves any more. One by one they would vanish when they are
    /// closed, each in some 20 ms.
    ///
    /// # Errors
    /// When the helper does not answer within 5 seconds.
    pub fn unplug(&self, ids: &[usize]) -> io::Result<()> {
        let tunnels = ids.iter().map(|id| *id as u32).collect();
        self.ask(|number| Request::Unplug { number, tunnels }, done)
    }

    /// Removes what was made for a tunnel and does not vanish with its device, which the caller has closed.
    ///
    /// # Errors
    /// When the helper does not answer within 5 seconds.
    pub fn remove(&self, id: usize) -> io::Result<()> {
        if let Some(place) = lock(&self.tunnels).get_mut(id) {
            *place = None;
        }
        self.ask(|number| Request::Remove { number, tunnel: id as u32 }, done)
    }

    /// How many packets the kernel has dropped so far because the queue of a tunnel's device was full, by the number of
    /// the tunnel; none for those where it has dropped nothing.
    ///
    /// # Errors
    /// When the helper does not answer within 5 seconds.
    pub fn unsent(&self) -> io::Result<Vec<(usize, u64)>> {
        let mut unsent = Vec::new();
        self.ask(
            |number| Request::Unsent { number },
            |reply, _| match reply {
                Reply::Unsent { tunnel, packets, .. } => {
                    unsent.push((tunnel as usize, packets));
                    None
                }
                Reply::Done { .. } => Some(Ok(())),
                _ => Some(Err(io::ErrorKind::InvalidData.into())),
            },
        )?;
        Ok(unsent)
    }

    fn make(&self, plans: Vec<Plan>) -> Result<Edges, SetupError> {
        let tunnels: Vec<_> = plans.iter().map(|plan| plan.tunnel.clone()).collect();
        let networks = std::mem::take(&mut *lock(&self.spare));
        let mut edges = Edges { tunnels: Vec::new(), networks, warnings: check::warnings(&tunnels) };
        for plan in plans {
            if let Err(error) = self.make_one(plan, &mut edges) {
                for opened in edges.tunnels {
                    let id = opened.id;
                    drop(opened);
                    let _ = self.remove(id);
                }
                *lock(&self.spare) = edges.networks;
                return Err(error);
            }
        }
        Ok(edges)
    }

    fn make_one(&self, plan: Plan, edges: &mut Edges) -> Result<(), SetupError> {
        let (tunnel, mtu) = (plan.tunnel.clone(), plan.mtu);
        let id = {
            let mut tunnels = lock(&self.tunnels);
            let id = tunnels.iter().position(Option::is_none).unwrap_or(tunnels.len());
            let device = (tunnel.isolation == Isolation::Device).then(|| tunnel.device.clone());
            let entry = Some((tunnel.name.clone(), device));
            match tunnels.get_mut(id) {
                Some(place) => *place = entry,
                None => tunnels.push(entry),
            }
            id
        };
        let mut made = None;
        let plan = Box::new(plan);
        let outcome = self.ask(
            |number| Request::Add { number, tunnel: id as u32, plan },
            |reply, descriptors| match reply {
                Reply::Network {
                    interface,
                    device,
                    local,
                    link_header_bytes,
                    on_link,
                    takers,
                    not_routed,
                } => {
                    edges.warnings.extend(check::note_on_routing(not_routed));
                    let senders = (on_link, takers);
                    match self.edge((interface, device), local, link_header_bytes, senders, descriptors) {
                        Some(edge) => edges.networks.push(edge),
                        None => return Some(Err(io::ErrorKind::InvalidData.into())),
                    }
                    None
                }
                Reply::Tunnel { network, .. } => {
                    made = descriptors.into_iter().next().map(|tun| (tun, network));
                    None
                }
                Reply::Done { .. } => Some(Ok(None)),
                Reply::Impossible { text, .. } => Some(Ok(Some(text))),
                _ => Some(Err(io::ErrorKind::InvalidData.into())),
            },
        );
        let failed = match (outcome, made) {
            (Ok(None), Some((tun, network))) => {
                let tun = Tun::from_descriptor(tun, tunnel.device.clone());
                edges.tunnels.push(Opened { id, tunnel, tun, mtu, network: network as usize });
                return Ok(());
            }
            (Ok(None), None) => SetupError::Unexpected,
            (Ok(Some(text)), _) => SetupError::Failed(text),
            (Err(error), _) => SetupError::Silent(error),
        };
        if let Some(place) = lock(&self.tunnels).get_mut(id) {
            *place = None;
        }
        Err(failed)
    }

    fn edge(
        &self,
        (interface, device): (String, u32),
        local: IpAddr,
        link_header_bytes: u32,
        (on_link, takers): (bool, Option<Takers>),
        descriptors: Vec<OwnedFd>,
    ) -> Option<NetworkEdge> {
        let mut rest = descriptors.into_iter();
        let receivers: Vec<_> = rest.by_ref().take(self.threads).collect();
        let (routed, icmp) = (rest.next()?, rest.next()?);
        let link = if on_link { Some(rest.next()?) } else { None };
        let outlet = match takers {
            Some(takers) => Some((rest.next()?, takers)),
            None => None,
        };
        Some(NetworkEdge {
            interface,
            local,
            link_header_bytes: link_header_bytes as usize,
            device,
            receivers,
            link,
            outlet,
            routed,
            icmp,
            guards: rest.collect(),
        })
    }

    /// Opens a TCP socket that belongs to a tunnel: nonblocking, closed on exec, bound to the tunnel's device, in its
    /// namespace, for IPv4 or IPv6; not yet bound to an address nor connected.
    ///
    /// # Errors
    /// When there is no tunnel of this name, its device is gone, or the helper does not answer within 5 seconds.
    pub fn connect_socket(&self, tunnel: &str, is_v6: bool) -> io::Result<OwnedFd> {
        let (id, device) = self.find(tunnel)?;
        // In the host's namespace nothing privileged is needed since Linux 5.7, and the way is shorter.
        if let Some(device) = device {
            match socket::open_stream(&device, is_v6) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                result => return result,
            }
        }
        self.ask(|number| Request::Connect { number, tunnel: id, is_v6 }, socket_of)
    }

    /// Opens a listener on `address`, one of the VIPs of a tunnel; it sees only connections that arrive through the
    /// tunnel.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` when it is none of the tunnel's VIPs, `EADDRINUSE` when another socket has it, or when the
    /// helper does not answer within 5 seconds.
    pub fn listen(&self, tunnel: &str, address: SocketAddr) -> io::Result<OwnedFd> {
        let (id, _) = self.find(tunnel)?;
        self.ask(|number| Request::Listen { number, tunnel: id, address }, socket_of)
    }

    fn find(&self, name: &str) -> io::Result<(u32, Option<String>)> {
        let tunnels = lock(&self.tunnels);
        let mut known = (0..).zip(tunnels.iter()).filter_map(|(id, known)| Some((id, known.as_ref()?)));
        let found = known.find(|(_, (known, _))| known == name);
        found.map(|(id, (_, device))| (id, device.clone())).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Process number of the helper.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// A descriptor that becomes readable when the helper ends, which it should not before this value is dropped.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Asks the helper, and gives every answer to `take` until that is content. Late answers to a request that was given
    /// up are passed over.
    fn ask<T>(
        &self,
        request: impl FnOnce(u32) -> Request,
        mut take: impl FnMut(Reply, Vec<OwnedFd>) -> Option<io::Result<T>>,
    ) -> io::Result<T> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the privileged helper has ended");
        let mut channel = lock(&self.channel);
        let (channel, last) = channel.as_mut().ok_or_else(gone)?;
        *last = last.wrapping_add(1);
        channel.send(&request(*last).encode()?, &[])?;
        loop {
            let (bytes, descriptors) = channel.receive(PATIENCE).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => gone(),
                _ => error,
            })?;
            let reply = Reply::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
            if reply.number().is_none_or(|number| number == *last)
                && let Some(result) = take(reply, descriptors)
            {
                return result;
            }
        }
    }
}

fn done(reply: Reply, _: Vec<OwnedFd>) -> Option<io::Result<()>> {
    Some(match reply {
        Reply::Done { .. } => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    })
}

fn socket_of(reply: Reply, descriptors: Vec<OwnedFd>) -> Option<io::Result<OwnedFd>> {
    Some(match reply {
        Reply::Socket { .. } => {
            descriptors.into_iter().next().ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
        Reply::Refused { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_until_ready(channel: &Channel) -> Result<(), SetupError> {
    let (bytes, _) = channel.receive(PATIENCE).map_err(SetupError::Silent)?;
    match Reply::decode(&bytes) {
        Some(Reply::Ready) => Ok(()),
        Some(Reply::Failed { text }) => Err(SetupError::Failed(text)),
        _ => Err(SetupError::Unexpected),
    }
}

impl Drop for Privileged {
    fn drop(&mut self) {
        // Closing our end is what ends the helper.
        lock(&self.channel).take();
        let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut ended = [PollFd::new(&self.process, PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut ended, Some(&timeout)), Ok(1..)) {
            let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        }
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}
