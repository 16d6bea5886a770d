//! Listeners inside a tunnel: clients arrive in GRE from an L4 node, and the answer goes back to the peer it came from.

use std::net::Ipv4Addr;

use crate::harness::site::{LARGE, attempt, drops, sha256, tls, tunnels};
use crate::harness::{Case, Client, Host, Need, Program, Request, Setup, Site};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::vip_device", NEEDS, || vip("device")),
        Case::needing("tunnel::vip_namespace", NEEDS, || vip("namespace")),
        Case::needing("tunnel::answers_go_to_the_peer_they_came_from", NEEDS, two_peers),
    ]
}

/// A listener on 198.51.100.10 in the tunnel `front`.
const FRONT: &str = "\
listeners:
  - {name: vip, address: \"198.51.100.10:443\", tunnel: front, tls: {development: {names: [a.test, b.test]}}}
  - {name: plain, address: \"198.51.100.10:80\", tunnel: front}
tunnels:
  - {name: front, local: 192.0.2.1, peers: [<peers>], key: 9, networks: [203.0.113.0/24], isolation: <isolation>}
";
/// The far end of it, with clients behind `clients`.
const L4: &str = "\
tunnels:
  - {name: front, local: <local>, peers: [192.0.2.1], key: 9, networks: [198.51.100.10/32], forward: true,
     forward_to: [{device: clients, networks: [203.0.113.0/24]}]}
";

fn with_front(config: String, peers: &str) -> String {
    let mut parts = FRONT.split("tunnels:\n");
    let listeners = parts.next().unwrap().replace("listeners:\n", "");
    let tunnel = parts.next().unwrap().replace("<peers>", peers);
    config.replace("tunnels:\n", &format!("{listeners}tunnels:\n{tunnel}"))
}

/// A host behind an L4 node, by its device `clients`.
fn client_behind(l4: &Host) -> Host {
    let client = Host::new();
    l4.cable(("clients", "203.0.113.1/24"), &client, ("eth", "203.0.113.7/24"));
    client.gateway("eth", Ipv4Addr::new(203, 0, 113, 1));
    client
}

/// Both legs at once: client -> L4 node -> GRE -> listener -> GRE -> L4 node -> RS.
fn vip(isolation: &str) {
    let site = Site::new();
    let client = client_behind(&site.l4);
    let (_servers, _l4) = (site.servers(), site.carry());
    let _front = Setup::new(L4).put("local", "192.0.2.2").on(&site.l4).carry();
    let node =
        site.setup_with(|config| with_front(config, "192.0.2.2").replace("<isolation>", isolation)).start();
    serves(&node, &client);
    // Only what the tunnel listens on: not another port of the VIP, not the node's listener on all addresses.
    let refused = drops(&node, "front", "not_ours");
    let attempts = [("198.51.100.10", 8080), ("198.51.100.10", 22)];
    for target in attempts {
        assert!(client.run(|| attempt(target)).is_err(), "{target:?}");
    }
    assert!(drops(&node, "front", "not_ours") >= refused + attempts.len() as u64, "{:#}", tunnels(&node));
}

fn serves(node: &Program, client: &Host) {
    let vip = node.listener("vip");
    assert_eq!(vip.to_string(), "198.51.100.10:443");
    let body = vec![9; 3_000_000];
    for name in ["a", "b"] {
        let domain = format!("{name}.test");
        let tls = tls(node, &domain);
        client.run(|| {
            let mut client = Client::connect_tls(vip, &tls);
            let response = client.ask(&Request::get(&domain, "/"));
            assert!(response.text().starts_with(&format!("{name} 10.0.0.1")), "{}", response.text());
            let response = client.ask(&Request::post(&domain, "/upload", body.clone()));
            assert_eq!(response.text(), sha256(&body));
            let mut client = Client::connect(node.listener("plain"));
            let response = client.ask(&Request::get(&domain, "/large"));
            assert_eq!((response.status, response.body.len()), (200, LARGE));
        });
    }
}

/// Two L4 nodes with the same key; clients behind both have the same address.
fn two_peers() {
    let site = Site::new();
    let other = Host::new();
    // The node reaches the second L4 node through the first, so one underlay device leads to both.
    site.l4.cable(("dmz", "192.0.3.1/24"), &other, ("wan", "192.0.3.2/24"));
    site.l4.sysctl("net/ipv4/conf/dmz/forwarding", "1");
    site.l4.sysctl("net/ipv4/conf/wan/forwarding", "1");
    site.node.gateway("wan", Ipv4Addr::new(192, 0, 2, 2));
    other.gateway("wan", Ipv4Addr::new(192, 0, 3, 1));
    let clients = [client_behind(&site.l4), client_behind(&other)];
    let _servers = site.servers();
    let _l4 = [
        site.carry(),
        Setup::new(L4).put("local", "192.0.2.2").on(&site.l4).carry(),
        Setup::new(L4).put("local", "192.0.3.2").on(&other).carry(),
    ];
    let node = site.setup_with(|config| with_front(config, "192.0.2.2, 192.0.3.2")).start();
    for client in [0, 1, 0, 1] {
        serves(&node, &clients[client]);
    }
}
