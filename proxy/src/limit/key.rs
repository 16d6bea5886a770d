//! What is counted together.

use std::net::IpAddr;

use crate::message::RequestHead;

/// What requests have in common that share a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The client: its address, of IPv6 the /64, since that is what one of them has.
    Client,
    /// The rule: all requests together.
    Rule,
    /// The value of this field of the request; requests without it are counted together.
    Header(String),
}

impl Key {
    /// Reads `client`, `rule` or `header:NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "client" => Some(Self::Client),
            "rule" => Some(Self::Rule),
            _ => {
                let name = text.strip_prefix("header:")?;
                crate::h1::valid_name(name.as_bytes()).then(|| Self::Header(name.to_owned()))
            }
        }
    }

    /// Hands the value for this request to `with`.
    pub fn of<T>(&self, head: &RequestHead, client: IpAddr, with: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Client => with(&client_network(client)),
            Self::Rule => with(&[]),
            Self::Header(name) => with(head.headers.get(name).unwrap_or_default()),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Rule => f.write_str("rule"),
            Self::Header(name) => write!(f, "value of {name}"),
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits.
pub fn client_network(client: IpAddr) -> [u8; 9] {
    let mut network = [0; 9];
    let octets = match client.to_canonical() {
        IpAddr::V4(v4) => {
            network[0] = 4;
            [v4.octets(), [0; 4]].concat()
        }
        IpAddr::V6(v6) => v6.octets()[..8].to_vec(),
    };
    network[1..].copy_from_slice(&octets);
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_ipv6_are_one_client() {
        let network = |text: &str| client_network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
    }
}
