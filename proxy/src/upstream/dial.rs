//! New connections, also through a tunnel.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::tls::secure;
use crate::error::Error;
use crate::net::Stream;
use crate::state::UpstreamTls;

/// Who makes the sockets that belong to a tunnel. The proxy connects them and never learns what a
/// tunnel is.
pub trait TunnelSockets: Send + Sync {
    /// A TCP socket of this tunnel, for IPv4 or IPv6: non-blocking, neither bound nor connected.
    ///
    /// # Errors
    /// Where there is no such tunnel, or whoever makes its sockets is gone.
    fn tcp_socket(&self, tunnel: &str, is_v6: bool) -> io::Result<OwnedFd>;
}

/// A connection to `address`, through `tunnel` where there is one.
pub(crate) async fn dial(
    address: SocketAddr,
    tunnel: Option<&str>,
    tunnels: &dyn TunnelSockets,
    patience: Duration,
) -> Result<TcpStream, Error> {
    let socket = match tunnel {
        Some(tunnel) => {
            Socket::from(tunnels.tcp_socket(tunnel, address.is_ipv6()).map_err(|_| Error::Tunnel)?)
        }
        None => own_socket(address).map_err(|_| Error::Connect)?,
    };
    let socket = TcpSocket::from_std_stream(socket.into());
    match tokio::time::timeout(patience, socket.connect(address)).await {
        Err(_) => Err(Error::ConnectTimeout),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(Error::ConnectTimeout),
        Ok(Err(_)) => Err(Error::Connect),
        Ok(Ok(stream)) => {
            // Without it the last piece of a request waits for an acknowledgement; failure costs only speed.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
    }
}

/// A connection to the RS with this address, and the handshake where TLS is spoken to it, all within `patience`.
pub(super) async fn reach(
    address: SocketAddr,
    tunnel: Option<&str>,
    tls: Option<&UpstreamTls>,
    tunnels: &dyn TunnelSockets,
    patience: Duration,
) -> Result<Stream, Error> {
    let dialled = dial(address, tunnel, tunnels, patience);
    let Some(tls) = tls else { return dialled.await.map(Stream::Plain) };
    let secured = async { secure(dialled.await?, tls, address).await };
    tokio::time::timeout(patience, secured).await.unwrap_or(Err(Error::ConnectTimeout))
}

fn own_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_cloexec(true)?;
    Ok(socket)
}
