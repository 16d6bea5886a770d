//! Listening sockets: handed in by name, inside a tunnel, or bound here.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, bail};
use proxy::config::Config;
use socket2::{Domain, Protocol, Socket, Type};

use crate::tunnels::Prepared;

/// Connections the kernel keeps for us while all workers are busy.
const BACKLOG: i32 = 4096;

/// Sockets that were handed to this process (LISTEN_FDS), by name.
pub(crate) struct HandedIn(HashMap<String, OwnedFd>);

impl HandedIn {
    /// Takes them; to be called before any thread exists.
    pub(crate) fn take() -> anyhow::Result<Self> {
        Ok(Self(encap::linux::inherited::take()?.into_iter().collect()))
    }

    fn named(&mut self, name: &str) -> Option<TcpListener> {
        self.0.remove(name).map(TcpListener::from)
    }

    /// Refuses what nobody asked for: a socket that is held and never served black-holes its clients.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        match self.0.into_keys().next() {
            Some(name) => bail!(
                "a socket named `{name}` was handed in, but no listener has this name (FileDescriptorName= in \
                 the socket unit, LISTEN_FDNAMES otherwise)"
            ),
            None => Ok(()),
        }
    }
}

/// One socket per listener, in the order of the configuration.
pub(crate) fn listeners(
    config: &Config,
    handed_in: &mut HandedIn,
    tunnels: Option<&Prepared>,
) -> anyhow::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    for listener in &config.listeners {
        let socket = match (handed_in.named(&listener.name), &listener.tunnel, tunnels) {
            (Some(socket), _, _) => Ok(socket),
            (None, None, _) => bind(listener.address, None),
            (None, Some(tunnel), Some(tunnels)) => tunnels.listen(tunnel, listener.address),
            (None, Some(_), None) => Err(io::ErrorKind::NotFound.into()),
        };
        let what = || format!("listener `{}`: cannot listen on {}", listener.name, listener.address);
        sockets.push(socket.map_err(|error| explain(error, listener.address)).with_context(what)?);
    }
    Ok(sockets)
}

/// The admin socket.
pub(crate) fn admin(config: &Config, handed_in: &mut HandedIn) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.admin else { return Ok(None) };
    if let Some(socket) = handed_in.named("admin") {
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
