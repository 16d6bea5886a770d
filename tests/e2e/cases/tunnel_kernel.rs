//! The tunnels of a Linux kernel as peers, all those of a list at once: what is sent either way arrives as it was sent.
//!
//! ```text
//! test -- handed-in sockets -- node (wan 192.0.2.1, ig-* 172.16.N.1) ==tunnel N== (eth0 192.0.2.x, 10.0.N.10) guest
//! ```

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};

use serde_json::Value;

use crate::harness::digest::{content, sha256};
use crate::harness::site::tunnels;
use crate::harness::vm::{Machine, Vm};
use crate::harness::{Case, Host, Need, Program, Request, Setup, until};

const NEEDS: &[Need] =
    &[Need::Root, Need::Namespaces, Need::Tun, Need::Emulator, Need::GuestKernel, Need::Busybox];

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::needing("tunnel::a_linux_kernel_as_peer", NEEDS, all_peers)]
}

/// Bytes of a body.
const LARGE: usize = 10 << 20;
/// Bytes of the pings: small, what fits, and what the sender cuts into fragments.
const PINGS: &[usize] = &[56, 1400, 4000];
/// The modules of the tunnels.
const MODULES: [&str; 6] = ["ip_gre", "ip6_gre", "ipip", "sit", "fou", "fou6"];

/// What the engine and the kernel both speak.
const PEERS: &[Peer] = &[
    Peer::new("plain", "gre", "192.0.2.10", "kind: gre"),
    Peer::new("csum", "gre ocsum", "192.0.2.11", "kind: gre"),
    Peer::new("seq", "gre oseq", "192.0.2.12", "kind: gre"),
    Peer::new("csum-seq", "gre ocsum oseq", "192.0.2.13", "kind: gre"),
    // The same outer addresses: only the key, or that there is none, tells them apart.
    Peer::new("key", "gre key 1", "192.0.2.10", "key: 1"),
    Peer::new("key-csum", "gre key 2 ocsum", "192.0.2.10", "key: 2"),
    Peer::new("key-seq", "gre key 3 oseq", "192.0.2.10", "key: 3"),
    Peer::new("key-csum-seq", "gre key 4294967295 ocsum oseq", "192.0.2.10", "key: 4294967295"),
    // The kernel takes nothing without a checksum, and no sequence number twice.
    Peer::new("all-csum-seq", "gre key 8 csum seq", "192.0.2.10", "key: 8, checksum: true, sequence: true"),
    Peer::new("ipip", "ipip", "192.0.2.14", "kind: ipip"),
    Peer::new("sit", "sit", "192.0.2.15", "kind: ipip").carrying_ipv6(),
    Peer::new("inner6", "gre key 4", "192.0.2.10", "key: 4").carrying_ipv6(),
    Peer::new("inner6-csum", "gre ocsum", "192.0.2.16", "kind: gre").carrying_ipv6(),
    // Without an encapsulation limit there are no destination options in front of GRE (RFC 2473 section 4.1.1).
    Peer::new("gre6", "ip6gre encaplimit none", "fd00:2::10", "kind: gre"),
    Peer::new("gre6-limit", "ip6gre key 5", "fd00:2::10", "key: 5"),
    Peer::new("gre6-cs", "ip6gre key 6 ocsum oseq", "fd00:2::10", "key: 6").carrying_ipv6(),
    Peer::new("ipip6", "ip6tnl mode ipip6 encaplimit none", "fd00:2::12", "kind: ipip"),
    Peer::new("ip6ip6", "ip6tnl mode ip6ip6", "fd00:2::13", "kind: ipip").carrying_ipv6(),
    Peer::new("fou", "gre encap fou encap-sport auto encap-dport 4754", "192.0.2.17", "kind: gre-in-udp"),
    Peer::new(
        "fou-csum",
        "gre key 7 encap fou encap-sport auto encap-dport 4754 encap-csum",
        "192.0.2.17",
        "kind: gre-in-udp, key: 7",
    ),
    Peer::new(
        "fou6",
        "ip6gre encap fou encap-sport auto encap-dport 4754 encap-csum",
        "fd00:2::11",
        "kind: gre-in-udp",
    ),
];

/// A tunnel of the guest to the node.
struct Peer {
    /// Name of the tunnel and of its device in the guest.
    name: &'static str,
    /// The type of the device and its options, as `ip link add type` takes them.
    link: &'static str,
    /// Outer address of the guest.
    outer: &'static str,
    /// What the node's configuration of the tunnel has besides its addresses.
    config: &'static str,
    carries_ipv6: bool,
}

impl Peer {
    /// With IPv4 inside.
    const fn new(name: &'static str, link: &'static str, outer: &'static str, config: &'static str) -> Self {
        Self { name, link, outer, config, carries_ipv6: false }
    }

    /// With IPv6 inside.
    const fn carrying_ipv6(mut self) -> Self {
        self.carries_ipv6 = true;
        self
    }

    fn is_over_ipv6(&self) -> bool {
        self.outer.contains(':')
    }

    /// Outer address of the node.
    fn node(&self) -> &'static str {
        if self.is_over_ipv6() { "fd00:2::1" } else { "192.0.2.1" }
    }

    /// Inner addresses of the node and of the guest, and the prefix that is one address.
    fn inner(&self, number: usize) -> (String, String, &'static str) {
        match self.carries_ipv6 {
            false => (format!("172.16.{number}.1"), format!("10.0.{number}.10"), "/32"),
            true => (format!("fd00:16:{number}::1"), format!("fd00:10:{number}::10"), "/128"),
        }
    }

    /// What sets it up in the guest.
    fn setup(&self, number: usize) -> String {
        let Self { name, link, outer, .. } = self;
        let (node, own, prefix) = self.inner(number);
        format!(
            "ip link add {name} type {link} local {outer} remote {}\n\
             ip link set {name} up\n\
             ip address add {own}{prefix} dev {name}\n\
             ip route add {node}{prefix} dev {name} src {own}\n",
            self.node()
        )
    }

    /// Its tunnel, its pool and its route in the configuration of the node.
    fn configuration(&self, number: usize) -> [String; 3] {
        let Self { name, outer, config, .. } = self;
        let (address, server, prefix) = self.inner(number);
        let server_and_port =
            if self.carries_ipv6 { format!("[{server}]:80") } else { format!("{server}:80") };
        [
            format!(
                "  - {{name: {name}, local: \"{}\", peers: [\"{outer}\"], {config}, interface: wan, address: \"{address}\", \
                 networks: [\"{server}{prefix}\"]}}\n",
                self.node()
            ),
            format!(
                "  - {{name: {name}, tunnel: {name}, servers: [{{address: \"{server_and_port}\"}}], health_check: {{type: off}}, \
                 connect_timeout: 20s}}\n"
            ),
            format!("  - {{domains: [{name}.test], rules: [{{url: /, pool: {name}}}]}}\n"),
        ]
    }
}

fn all_peers() {
    let bodies = [content(LARGE, 1), content(LARGE, 2)];
    let host = Host::new();
    let mut guest = boot(&host, &bodies[0]);
    host.address("wan", "192.0.2.1/24");
    if PEERS.iter().any(Peer::is_over_ipv6) {
        host.sysctl("net/ipv6/conf/all/disable_ipv6", "0");
        host.output("ip", &["address", "add", "fd00:2::1/64", "dev", "wan", "nodad"]);
        until("the address", || {
            host.output("ip", &["-6", "address", "show"]).contains("fd00:2::1/64").then_some(())
        });
    }
    let node = start(&host);
    for (peer, number) in PEERS.iter().zip(1..) {
        ping(&host, peer, number);
        transfer(&node, peer.name, &bodies);
    }
    check_node(&node);
    check_guest(&mut guest);
}

/// The guest: it serves a body and answers with the digest of what it is sent.
fn boot(host: &Host, body: &[u8]) -> Vm {
    // Linux 6.1.192 drops GRE-in-UDP that its own GRO has merged: the type of the merged packet loses the mark of a
    // tunnel in UDP, and the socket of fou then takes it for a stray super-datagram (UdpInErrors).
    let mut setup = String::from(
        "echo 0 > /proc/sys/net/ipv6/conf/default/router_solicitations\n\
         ip link set eth0 up\n\
         /sbin/ethtool -K eth0 gro off\n\
         ip fou add port 4754 ipproto 47\n\
         ip -6 fou add port 4754 ipproto 47\n",
    );
    let peers = PEERS.iter();
    let mut outer: Vec<_> = peers.clone().map(|peer| peer.outer).collect();
    outer.sort_unstable();
    outer.dedup();
    for address in outer {
        let (prefix, option) = if address.contains(':') { ("/64", "nodad") } else { ("/24", "") };
        writeln!(setup, "ip address add {address}{prefix} dev eth0 {option}").unwrap();
    }
    for (peer, number) in peers.zip(1..) {
        setup += &peer.setup(number);
    }
    setup += "httpd -h /www\n";
    Machine::new(&MODULES)
        .file("www/body", body)
        .script("www/cgi-bin/digest", "printf '\\r\\n'; sha256sum | head -c 64\n")
        .boot(host, "wan", &setup)
}

/// The node, with a tunnel and a pool for each peer.
fn start(host: &Host) -> Program {
    let parts: Vec<_> = PEERS.iter().zip(1..).map(|(peer, number)| peer.configuration(number)).collect();
    let all = |part: usize| parts.iter().map(|parts| parts[part].as_str()).collect::<String>();
    let config = format!(
        "workers: 1\n\
         admin: {{address: \"127.0.0.1:0\"}}\n\
         listeners: [{{name: http, address: \"127.0.0.1:0\", client_max_body_size: 0}}]\n\
         tunnels:\n{}pools:\n{}routes:\n{}",
        all(0),
        all(1),
        all(2)
    );
    let mut setup = Setup::new(&config).on(host);
    for name in ["http", "admin"] {
        setup = setup.socket(name, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    }
    setup.start()
}

fn ping(host: &Host, peer: &Peer, number: usize) {
    let (device, (_, guest, _)) = (format!("ig-{}", peer.name), peer.inner(number));
    for size in PINGS {
        let size = size.to_string();
        let printed =
            host.output("busybox", &["ping", "-I", &device, "-c", "1", "-W", "10", "-s", &size, &guest]);
        assert!(printed.contains("1 packets received"), "{}: {printed}", peer.name);
    }
}

/// A body each way, through the proxy.
fn transfer(node: &Program, name: &str, [served, sent]: &[Vec<u8>; 2]) {
    let domain = format!("{name}.test");
    let response = node.ask("http", &Request::get(&domain, "/body").close());
    assert_eq!((response.status, response.body.len()), (200, served.len()), "{name}");
    assert_eq!(sha256(&response.body), sha256(served), "{name}");
    let response = node.ask("http", &Request::post(&domain, "/cgi-bin/digest", sent.clone()).close());
    assert_eq!((response.status, response.text()), (200, sha256(sent)), "{name}");
}

/// The engine took everything from the kernel.
fn check_node(node: &Program) {
    let page = tunnels(node);
    assert_eq!(page["unmatched"], serde_json::json!({}), "{page:#}");
    for tunnel in page["tunnels"].as_array().unwrap() {
        assert_eq!(tunnel["drops"], serde_json::json!({}), "{tunnel:#}");
    }
}

/// The kernel took everything from the engine.
fn check_guest(guest: &mut Vm) {
    let links: Value = serde_json::from_str(&guest.run("ip -j -s link show")).unwrap();
    for peer in PEERS {
        let link = links.as_array().unwrap().iter().find(|link| link["ifname"] == peer.name).unwrap();
        for direction in ["rx", "tx"] {
            let counted = &link["stats64"][direction];
            assert!(counted["bytes"].as_u64() > Some(LARGE as u64), "{link:#}");
            assert_eq!((&counted["errors"], &counted["dropped"]), (&0.into(), &0.into()), "{link:#}");
        }
    }
    let counted = guest.run("cat /proc/net/snmp /proc/net/netstat");
    for name in ["InCsumErrors", "InErrs", "InHdrErrors", "ReasmFails"] {
        for (value, all) in counters(&counted, name) {
            assert_eq!(value, "0", "{name}: {all}");
        }
    }
}

/// The values of a counter, which stand in the line below the names, each with its line.
fn counters<'a>(table: &'a str, name: &str) -> Vec<(&'a str, &'a str)> {
    let lines: Vec<_> = table.lines().collect();
    let pairs = lines.chunks_exact(2).flat_map(|pair| {
        let names = pair[0].split(' ');
        names.zip(pair[1].split(' ')).filter(|(found, _)| *found == name).map(|(_, value)| (value, pair[1]))
    });
    let found: Vec<_> = pairs.collect();
    assert!(!found.is_empty(), "no {name} in {table}");
    found
}
