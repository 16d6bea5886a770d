//! RS that are known by name: what a configuration is once their addresses are known.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use yaml::Value;

use super::{Config, Named, Pool, Server};

/// Most RS of a pool.
pub(super) const MOST_SERVERS: usize = 1000;

/// Where an RS is, as the operator writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// An address and a port.
    Ip(SocketAddr),
    /// A name in lower case, and a port.
    Name(String, u16),
}

impl ServerAddress {
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl Value for ServerAddress {
    const NAME: &'static str = "server";
    const WHAT: &'static str =
        "an address or a name, with a port, such as 10.0.0.10:8080 or web.internal:8080";

    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Ip(address));
        }
        let (name, port) = text.rsplit_once(':')?;
        is_name(name).then_some(())?;
        Some(Self::Name(name.to_ascii_lowercase(), port.parse().ok()?))
    }
}

/// A name of a host (RFC 1123 2.1), also with underscores; a last label of digits would be a mistyped address.
fn is_name(name: &str) -> bool {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    bare.len() <= 253
        && bare.split('.').all(is_label)
        && !bare.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Config {
    /// Every name of an RS.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.pools.iter().flat_map(|pool| &pool.named).map(|named| named.name.clone()).collect()
    }

    /// The same with an RS for each address of each name, behind those that have an address of their own. An address
    /// that is there already is not added again.
    pub(crate) fn with_addresses(&self, addresses: &BTreeMap<String, Vec<IpAddr>>) -> Self {
        let pools = self.pools.iter().map(|pool| pool.with_addresses(addresses)).collect();
        Self { pools, ..self.clone() }
    }
}

impl Pool {
    fn with_addresses(&self, addresses: &BTreeMap<String, Vec<IpAddr>>) -> Self {
        let mut pool = self.clone();
        pool.servers = expand(pool.servers, &self.named, addresses);
        pool
    }
}

fn expand(
    mut servers: Vec<Server>,
    named: &[Named],
    addresses: &BTreeMap<String, Vec<IpAddr>>,
) -> Vec<Server> {
    let mut seen: HashSet<SocketAddr> = servers.iter().map(|server| server.address).collect();
    for named in named {
        for ip in addresses.get(&named.name).into_iter().flatten() {
            let address = SocketAddr::new(*ip, named.port);
            if servers.len() < MOST_SERVERS && seen.insert(address) {
                servers.push(Server { address, ..named.server });
            }
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names() {
        let name = |name: &str, port| Some(ServerAddress::Name(name.into(), port));
        let parse = ServerAddress::parse;
        assert_eq!(parse("10.0.0.1:80"), Some(ServerAddress::Ip("10.0.0.1:80".parse().unwrap())));
        assert_eq!(parse("[::1]:80"), Some(ServerAddress::Ip("[::1]:80".parse().unwrap())));
        assert_eq!(parse("Web.Internal:8080"), name("web.internal", 8080));
        assert_eq!(parse("_http.my-app.:1"), name("_http.my-app.", 1));
        let long = format!("{}:80", "a.".repeat(128));
        for wrong in [
            "web",
            "web:",
            "web:70000",
            ":80",
            "10.0.0:80",
            "10.0.0.300:80",
            "a..b:80",
            "-a:80",
            "a b:80",
            "::1:80",
            &long,
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_address_becomes_an_rs_once() {
        let server = |address: &str, weight| Server {
            address: address.parse().unwrap(),
            weight,
            backup: false,
            max_connections: None,
        };
        let named = |name: &str| Named { name: name.into(), port: 80, server: server("0.0.0.0:0", 7) };
        let addresses = BTreeMap::from([
            ("a".to_owned(), ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap()).to_vec()),
            ("b".to_owned(), ["192.0.2.2", "2001:db8::1"].map(|ip| ip.parse().unwrap()).to_vec()),
        ]);
        let got = expand(vec![server("192.0.2.1:80", 10)], &[named("a"), named("b"), named("c")], &addresses);
        let expected = [("192.0.2.1:80", 10), ("192.0.2.2:80", 7), ("[2001:db8::1]:80", 7)];
        assert_eq!(got, expected.map(|(address, weight)| server(address, weight)));
    }
}
