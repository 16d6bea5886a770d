//! A small data centre: the node under test, an L4 node at the far end of its tunnels, and two tenants whose real
//! servers have the same addresses and ports.
//!
//! The node's listener `https` and its admin listener are sockets of the test's own network, handed in, so every client
//! reaches them; everything behind is in namespaces.
//!
//! ```text
//! test -- handed-in sockets -- node (wan 192.0.2.1) ==GRE== (wan 192.0.2.2) l4 -- to-a -- a (10.0.0.10, .11)
//!                                                                             `- to-b -- b (10.0.0.10, .11)
//! ```

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::client::{Client, Tls};
use super::http1::Request;
use super::network::Host;
use super::origin::{Origin, Peer, ok, response};
use super::program::{Program, Setup};

/// Inner address of the node in both tunnels.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// Outer address of the node.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Addresses of the real servers of each tenant.
pub(crate) const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 11)];
/// Bytes of a large body.
pub(crate) const LARGE: usize = 50_000_000;

/// The configuration of the node. To be put in: `isolation`, `threads` and `check` (a health check).
const CONFIG: &str = "\
workers: 2
engine_threads: <threads>
admin: {address: \"127.0.0.1:0\"}
listeners:
  - {name: https, address: \"127.0.0.1:0\", tls: {development: {names: [localhost, a.test, b.test]}}, client_max_body_size: 0}
  - {name: everywhere, address: \"0.0.0.0:8080\"}
tunnels:
  - {name: a, kind: gre, local: 192.0.2.1, peers: [192.0.2.2], key: 1001, address: 172.16.0.1, networks: [10.0.0.0/24],
     device: tun-a, interface: wan, isolation: <isolation>, ttl: 61}
  - {name: b, local: 192.0.2.1, peers: [192.0.2.2], key: 2002, address: 172.16.0.1, networks: [10.0.0.0/24],
     isolation: <isolation>}
pools:
  - {name: a, tunnel: a, servers: [{address: \"10.0.0.10:80\"}, {address: \"10.0.0.11:80\"}], connect_timeout: 2s,
     health_check: <check>}
  - {name: b, tunnel: b, servers: [{address: \"10.0.0.10:80\"}, {address: \"10.0.0.11:80\"}], connect_timeout: 2s,
     health_check: <check>}
routes:
  - {domains: [a.test], rules: [{url: /, pool: a}]}
  - {domains: [b.test], rules: [{url: /, pool: b}]}
";

/// The configuration of the L4 node.
const L4: &str = "\
tunnels:
  - {name: a, local: 192.0.2.2, peers: [192.0.2.1], key: 1001, networks: [172.16.0.0/24], forward: true,
     forward_to: [{device: to-a, networks: [10.0.0.0/24]}]}
  - {name: b, local: 192.0.2.2, peers: [192.0.2.1], key: 2002, networks: [172.16.0.0/24], forward: true,
     forward_to: [{device: to-b, networks: [10.0.0.0/24]}]}
";

/// The hosts.
pub(crate) struct Site {
    /// Runs `ingre run`.
    pub(crate) node: Host,
    /// Runs `ingre encap`.
    pub(crate) l4: Host,
    /// The real servers of each tenant.
    pub(crate) tenants: [Host; 2],
}

impl Site {
    /// Builds it; nothing runs yet.
    pub(crate) fn new() -> Self {
        let site = Self { node: Host::new(), l4: Host::new(), tenants: [Host::new(), Host::new()] };
        site.node.cable(("wan", "192.0.2.1/24"), &site.l4, ("wan", "192.0.2.2/24"));
        for (tenant, device) in site.tenants.iter().zip(["to-a", "to-b"]) {
            site.l4.cable((device, "10.0.0.1/24"), tenant, ("lan", "10.0.0.10/24"));
            tenant.address("lan", "10.0.0.11/24");
            tenant.gateway("lan", Ipv4Addr::new(10, 0, 0, 1));
        }
        site
    }

    /// Starts the L4 node.
    pub(crate) fn carry(&self) -> Program {
        Setup::new(L4).on(&self.l4).carry()
    }

    /// The node, ready to be started; without health checks.
    pub(crate) fn setup(&self, isolation: &str) -> Setup {
        self.adapted(CONFIG).put("isolation", isolation).put("threads", 1).put("check", "{type: off}")
    }

    /// The node with the configuration that `adapt` makes of the usual one.
    pub(crate) fn setup_with(&self, adapt: impl FnOnce(String) -> String) -> Setup {
        self.adapted(&adapt(CONFIG.to_owned()))
            .put("isolation", "device")
            .put("threads", 1)
            .put("check", "{type: off}")
    }

    fn adapted(&self, text: &str) -> Setup {
        let mut setup = Setup::new(text).on(&self.node);
        for name in ["https", "admin"] {
            setup = setup.socket(name, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        }
        setup
    }

    /// All real servers. Each answers with the name of its tenant and its address.
    pub(crate) fn servers(&self) -> Vec<Origin> {
        let mut servers = Vec::new();
        for (tenant, name) in self.tenants.iter().zip(["a", "b"]) {
            servers.extend(SERVERS.map(|address| serve(tenant, address, name)));
        }
        servers
    }
}

/// A real server on port 80 of a host, which answers with `NAME ADDRESS`; to `/large` with [`large`], to content with its
/// digest, and to `/echo`, an upgrade, with everything it is sent.
pub(crate) fn serve(host: &Host, address: Ipv4Addr, name: &'static str) -> Origin {
    let listener = host.run(|| TcpListener::bind((address, 80)).unwrap());
    Origin::on(listener, move |peer| answer(peer, address, name))
}

fn answer(peer: &mut Peer, address: Ipv4Addr, name: &str) -> io::Result<()> {
    loop {
        let head = peer.head()?;
        if head.part(1) == "/echo" {
            peer.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
            loop {
                let byte = peer.exactly(1)?;
                peer.send(byte)?;
            }
        }
        let (body, _) = peer.body(&head)?;
        if head.part(1) == "/large" {
            peer.send(response("200 OK", &[], large()))?;
        } else if body.is_empty() {
            peer.send(ok(&format!("{name} {address}")))?;
        } else {
            peer.send(ok(&sha256(&body)))?;
        }
    }
}

/// A body of [`LARGE`] bytes without any pattern that a mistake could repeat.
pub(crate) fn large() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut body = Vec::with_capacity(LARGE + 8);
    while body.len() < LARGE {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend(state.to_ne_bytes());
    }
    body.truncate(LARGE);
    body
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The page /tunnels of a node.
pub(crate) fn tunnels(node: &Program) -> Value {
    serde_json::from_str(&node.page("/tunnels").1).unwrap()
}

/// How many packets a tunnel (or none, with an empty name) has dropped for a reason.
pub(crate) fn drops(node: &Program, tunnel: &str, reason: &str) -> u64 {
    let page = tunnels(node);
    let counted = match tunnel {
        "" => &page["unmatched"],
        _ => {
            &page["tunnels"].as_array().unwrap().iter().find(|entry| entry["name"] == tunnel).unwrap()["drops"]
        }
    };
    counted[reason].as_u64().unwrap_or(0)
}

/// A client of the node's listener `https`, for a domain.
pub(crate) fn client(node: &Program, domain: &str) -> Client {
    Client::connect_tls(node.listener("https"), &tls(node, domain))
}

/// How a client speaks TLS with the node.
pub(crate) fn tls(node: &Program, domain: &str) -> Tls {
    node.tls().name(domain)
}

/// One request on a connection of its own: status and text.
pub(crate) fn ask(node: &Program, domain: &str) -> (u16, String) {
    let response = client(node, domain).ask(&Request::get(domain, "/"));
    (response.status, response.text())
}
