//! What another program of this host serves on a tunnel: `10.9.0.1`, `10.9.0.1:443`, `10.9.0.1:53/udp`, `[fd00::1]:443`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An inner address of this host, and what of it is open to the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// The address, which the tunnel's device gets.
    pub address: IpAddr,
    /// What is delivered.
    pub port: ServicePort,
}

/// What of an address is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ServicePort {
    /// Every TCP and UDP port, and echo requests.
    All,
    /// One TCP port.
    Tcp(u16),
    /// One UDP port.
    Udp(u16),
}

/// A text that names no service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address, maybe with a port: 10.9.0.1, 10.9.0.1:443, 10.9.0.1:53/udp or [fd00::1]:443")]
pub struct ServiceError;

impl FromStr for Service {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        if let Ok(address) = text.parse() {
            return Ok(Self { address, port: ServicePort::All });
        }
        let (socket, port): (&str, fn(u16) -> ServicePort) = match text.rsplit_once('/') {
            Some((socket, "udp")) => (socket, ServicePort::Udp),
            Some((socket, "tcp")) => (socket, ServicePort::Tcp),
            Some(_) => return Err(ServiceError),
            None => (text, ServicePort::Tcp),
        };
        let socket: SocketAddr = socket.parse().map_err(|_| ServiceError)?;
        if socket.port() == 0 {
            return Err(ServiceError);
        }
        Ok(Self { address: socket.ip(), port: port(socket.port()) })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            ServicePort::All => self.address.fmt(f),
            ServicePort::Tcp(port) => SocketAddr::new(self.address, port).fmt(f),
            ServicePort::Udp(port) => write!(f, "{}/udp", SocketAddr::new(self.address, port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_and_back() {
        for text in
            ["10.9.0.1", "10.9.0.1:443", "10.9.0.1:53/udp", "fd00::1", "[fd00::1]:443", "[fd00::1]:53/udp"]
        {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
        assert_eq!("10.9.0.1:443/tcp".parse::<Service>().unwrap().port, ServicePort::Tcp(443));
        for text in ["", "10.9.0.1:0", "10.9.0.1/udp", "10.9.0.1:1/sctp", ":443", "www:443"] {
            assert_eq!(text.parse::<Service>(), Err(ServiceError), "{text}");
        }
    }
}
