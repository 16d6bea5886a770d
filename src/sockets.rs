//! Listening sockets, of TCP and of UDP for HTTP/3: taken over from another process, handed in by name, inside a tunnel, or
//! bound here.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, bail};
use encap::linux::reuseport::{self, Steering};
use proxy::config::{Config, Listener};
use socket2::{Domain, Protocol, Socket, Type};

use crate::handover::{Kind, Socket as Handed, Taken, Wanted};
use crate::notice::say;
use crate::tunnels::Prepared;

/// Connections the kernel keeps for us while all workers are busy.
const BACKLOG: i32 = 4096;
/// Attempts to find a port that is free for TCP and UDP, where any will do.
const ATTEMPTS: usize = 20;
/// Bytes that may wait for a worker, and for the network, where the system allows as much.
const UDP_BUFFER: usize = 4 << 20;
/// The name of the admin socket.
pub(crate) const ADMIN: &str = "admin";
/// What follows the name of a listener in that of its UDP socket.
const QUIC: &str = "-quic";

/// The sockets of a listener.
pub(crate) struct Bound {
    /// For HTTP/1.1 and HTTP/2.
    pub(crate) tcp: TcpListener,
    /// For HTTP/3: one per worker, or one that was handed in, or none.
    pub(crate) quic: Vec<UdpSocket>,
}

/// Sockets that were handed to this process (LISTEN_FDS), by name.
pub(crate) struct HandedIn(HashMap<String, OwnedFd>);

impl HandedIn {
    /// Takes them; to be called before any thread exists.
    pub(crate) fn take() -> anyhow::Result<Self> {
        Ok(Self(encap::linux::inherited::take()?.into_iter().collect()))
    }

    /// Forgets what has this name, where the process before this one has had it too and something newer is here.
    fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    fn named<T: From<OwnedFd>>(&mut self, name: &str) -> Option<T> {
        self.0.remove(name).map(T::from)
    }

    /// Refuses what nobody asked for: a socket that is held and never served black-holes its clients.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        match self.0.into_keys().next() {
            Some(name) => bail!(
                "a socket named `{name}` was handed in, but no listener has this name (FileDescriptorName= in \
                 the socket unit, LISTEN_FDNAMES otherwise; NAME-quic is the UDP socket of a listener with HTTP/3)"
            ),
            None => Ok(()),
        }
    }
}

/// The sockets of each listener, in the order of the configuration.
pub(crate) fn listeners(
    config: &Config,
    handed_in: &mut HandedIn,
    mut taken: Option<&mut Taken>,
    tunnels: Option<&Prepared>,
    workers: usize,
) -> anyhow::Result<Vec<Bound>> {
    let mut sockets = Vec::new();
    for listener in &config.listeners {
        let what = || format!("listener `{}`: cannot listen on {}", listener.name, listener.address);
        let wanted = wanted(listener);
        if let Some(taken) = &mut taken
            && let Some(tcp) = taken.tcp(Kind::Tcp, wanted)
        {
            handed_in.forget(&listener.name);
            handed_in.forget(&format!("{}{QUIC}", listener.name));
            let quic = if listener.http3 { taken.quic(wanted) } else { Vec::new() };
            sockets.push(match quic.is_empty() && listener.http3 {
                true => beside(tcp, &listener.name, workers).with_context(what)?,
                false => Bound { tcp, quic: grow(quic, workers) },
            });
            continue;
        }
        let tcp = handed_in.named::<TcpListener>(&listener.name);
        let is_handed_in = tcp.is_some();
        let udp = || handed_in.named::<UdpSocket>(&format!("{}{QUIC}", listener.name));
        let udp = listener.http3.then(udp).flatten();
        let bind_tcp = || match (&listener.tunnel, tunnels) {
            (None, _) => bind(listener.address, None),
            (Some(tunnel), Some(tunnels)) => tunnels.listen(tunnel, listener.address),
            (Some(_), None) => Err(io::ErrorKind::NotFound.into()),
        };
        let bind_tcp = || bind_tcp().map_err(|error| explain(error, listener.address)).with_context(what);
        let tcp = tcp.map_or_else(bind_tcp, Ok)?;
        sockets.push(match udp {
            _ if !listener.http3 => Bound { tcp, quic: Vec::new() },
            Some(udp) => Bound { tcp, quic: vec![udp] },
            None if is_handed_in => beside(tcp, &listener.name, workers).with_context(what)?,
            None => both(tcp, bind_tcp, listener.address, workers).with_context(what)?,
        });
    }
    Ok(sockets)
}

/// The same port for UDP as for a TCP socket that was handed in. Where that is not permitted, there is no HTTP/3; where
/// somebody else has the port, that is an error.
fn beside(tcp: TcpListener, name: &str, workers: usize) -> anyhow::Result<Bound> {
    let address = tcp.local_addr()?;
    let quic = match bind_quic(address, workers) {
        Ok(sockets) => sockets,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(explain_udp(error, address)),
        Err(error) => {
            let missing = format!("no UDP socket {name}{QUIC} was handed in");
            say(&format!("listener {name} is without HTTP/3, as {missing} and none can be bound: {error}"));
            Vec::new()
        }
    };
    Ok(Bound { tcp, quic })
}

/// The same port for UDP as for TCP, which is bound anew where any port will do and this one is taken.
fn both(
    mut tcp: TcpListener,
    bind_tcp: impl Fn() -> anyhow::Result<TcpListener>,
    address: SocketAddr,
    workers: usize,
) -> anyhow::Result<Bound> {
    let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match bind_quic(tcp.local_addr()?, workers) {
            Ok(quic) => return Ok(Bound { tcp, quic }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => tcp = bind_tcp()?,
            Err(error) => return Err(explain_udp(error, address)),
        }
    }
}

/// What this listener wants of another process.
fn wanted(listener: &Listener) -> Wanted<'_> {
    Wanted { name: &listener.name, address: listener.address, tunnel: listener.tunnel.as_deref() }
}

/// A copy of a socket to hand over.
///
/// # Errors
/// Where descriptors have run out.
pub(crate) fn copy(kind: Kind, wanted: Wanted<'_>, of: impl AsFd) -> io::Result<Handed> {
    let Wanted { name, address, tunnel } = wanted;
    let descriptor = of.as_fd().try_clone_to_owned()?;
    Ok(Handed { kind, name: name.to_owned(), address, tunnel: tunnel.map(str::to_owned), descriptor })
}

/// Copies of the sockets of listeners.
///
/// # Errors
/// Where descriptors have run out.
pub(crate) fn copies(listeners: &[Listener], bound: &[Bound]) -> io::Result<Vec<Handed>> {
    let mut copies = Vec::new();
    for (listener, Bound { tcp, quic }) in listeners.iter().zip(bound) {
        copies.push(copy(Kind::Tcp, wanted(listener), tcp)?);
        for socket in quic {
            copies.push(copy(Kind::Quic, wanted(listener), socket)?);
        }
    }
    Ok(copies)
}

/// Adds sockets to a group of another process until there is one for each worker, where that can be done; nothing arrives
/// at them before [`steer`]. Where it cannot, the workers share those that there are.
fn grow(mut sockets: Vec<UdpSocket>, workers: usize) -> Vec<UdpSocket> {
    let before = sockets.len();
    let Some(address) = sockets.first().and_then(|socket| socket.local_addr().ok()) else { return sockets };
    while sockets.len() < workers {
        let Ok(socket) = quic_socket(address, true) else { break };
        sockets.push(socket.into());
        if sockets.len() == before + 1 {
            let _ = steer_to(&sockets, before);
        }
    }
    sockets
}

/// Makes the kernel choose among the sockets of each listener by the worker that has a connection. Where it cannot, as
/// workers share sockets, they pass on what is another one's.
pub(crate) fn steer(listeners: &[Listener], sockets: &[Handed], workers: usize) {
    for listener in listeners {
        let of = |socket: &&Handed| socket.kind == Kind::Quic && socket.name == listener.name;
        let group: Vec<_> = sockets.iter().filter(of).map(|socket| &socket.descriptor).collect();
        if group.len() > 1 && group.len() >= workers {
            let _ = steer_to(&group, workers);
        }
    }
}

/// Makes the kernel choose among the first sockets of a group.
fn steer_to(sockets: &[impl AsFd], count: usize) -> io::Result<()> {
    let steering = Steering { long: proxy::ID_IN_LONG as u32, short: proxy::ID_IN_SHORT as u32 };
    match sockets.first() {
        Some(socket) => reuseport::steer(socket, count as u32, steering),
        None => Ok(()),
    }
}

/// A UDP socket in a group, the first one or a further one.
fn quic_socket(address: SocketAddr, is_further: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.set_cloexec(true)?;
    // As large as the system permits.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    // Not before the first one is bound: nobody else may have the port, not even somebody who would share it.
    if is_further {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

/// Binds a UDP socket for each worker, in a group in which the kernel chooses by connection ID.
fn bind_quic(address: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::<UdpSocket>::new();
    for number in 0..workers {
        sockets.push(quic_socket(address, number > 0)?.into());
    }
    if sockets.len() > 1 {
        steer_to(&sockets, workers)?;
    }
    Ok(sockets)
}

fn explain_udp(error: io::Error, address: SocketAddr) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            let remedy = format!(
                "another program has this UDP port; `ss -lunp 'sport = :{port}'` shows which; `http3: false` does \
                 without it"
            );
            anyhow::Error::from(error).context(remedy)
        }
        _ => explain(error, address),
    }
}

/// What a socket that is no listener's wants of another process.
pub(crate) fn alone(name: &str, address: SocketAddr) -> Wanted<'_> {
    Wanted { name, address, tunnel: None }
}

/// The admin socket.
pub(crate) fn admin(
    config: &Config,
    handed_in: &mut HandedIn,
    taken: Option<&mut Taken>,
) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.admin else { return Ok(None) };
    if let Some(socket) = taken.and_then(|taken| taken.tcp(Kind::Admin, alone(ADMIN, address))) {
        handed_in.forget(ADMIN);
        return Ok(Some(socket));
    }
    if let Some(socket) = handed_in.named(ADMIN) {
        return Ok(Some(socket));
    }
    let socket = bind(address, None).map_err(|error| explain(error, address));
    socket.map(Some).with_context(|| format!("admin: cannot listen on {address}"))
}

/// Binds and listens, on one device only where one is named.
pub(crate) fn bind(address: SocketAddr, device: Option<&str>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_cloexec(true)?;
    // A restart must not wait for old connections in TIME_WAIT; another listener is refused all the same.
    socket.set_reuse_address(true)?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn explain(error: io::Error, address: SocketAddr) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program has this port; `ss -ltnp 'sport = :{}'` shows which", address.port())
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability NET_BIND_SERVICE, or hand the socket in (LISTEN_FDS)".into()
        }
        io::ErrorKind::AddrNotAvailable => format!("{} is no address of this host", address.ip()),
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(remedy)
}
