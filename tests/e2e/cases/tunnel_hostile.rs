//! What a hostile RS, peer or neighbour can try: nothing is answered into the tunnel, and everything is counted.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::harness::site::{NODE, OWN, SERVERS, ask, attempt, drops, tunnels};
use crate::harness::{Case, Host, Need, Setup, Site, python, until};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun];
const NEEDS_SCAPY: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::Scapy];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::forged_packets_device", NEEDS_SCAPY, || forged("device")),
        Case::needing("tunnel::forged_packets_namespace", NEEDS_SCAPY, || forged("namespace")),
        Case::needing("tunnel::a_real_server_cannot_connect_device", NEEDS, || connections("device")),
        Case::needing("tunnel::a_real_server_cannot_connect_namespace", NEEDS, || connections("namespace")),
        Case::needing("tunnel::an_l4_node_opens_no_way_between_tenants", NEEDS, between_tenants),
    ]
}

/// The node also listens on a VIP of a third tunnel, and on port 9901 of all addresses.
fn adapt(config: String, isolation: &str) -> String {
    let front =
        "  - {name: front, local: 192.0.2.1, peers: [192.0.2.2], key: 9, networks: [203.0.113.0/24]}\n";
    let listeners = "  - {name: vip, address: \"198.51.100.10:443\", tunnel: front}\n  - {name: more, address: \"0.0.0.0:9901\"}\n";
    config.replace("tunnels:\n", &format!("{listeners}tunnels:\n{front}")).replace("<isolation>", isolation)
}

/// Packets that scapy writes whole, from the place of the L4 node; it sees whatever the node sends.
fn forged(isolation: &str) {
    let site = Site::new();
    let node = site.setup_with(|config| adapt(config, isolation)).start();
    let (own, outer, server) = (OWN.to_string(), NODE.to_string(), SERVERS[0].to_string());
    for (tunnel, key, other) in [("a", "1001", "2002"), ("b", "2002", "1001")] {
        let before = tunnels(&node);
        let mut arguments = vec!["--device", "wan", "--local", "192.0.2.2", "--node", &outer, "--own", &own];
        arguments.extend(["--server", &server, "--key", key, "--tunnel", tunnel, "--other-key", other]);
        arguments.extend(["--vip", "198.51.100.10", "--ports", "8080", "9901", "443"]);
        let sent = python::run(&site.l4, "hostile.py", &arguments);
        assert_eq!(sent["answers"], serde_json::json!([]), "the node answered");
        for (tunnel, reasons) in sent["expected"].as_object().unwrap() {
            for (reason, count) in reasons.as_object().unwrap() {
                let wanted = of(&before, tunnel, reason) + count.as_u64().unwrap();
                let counted = drops(&node, tunnel, reason);
                assert_eq!(counted, wanted, "{tunnel} {reason}: {sent:#} {:#}", tunnels(&node));
            }
        }
        for entry in tunnels(&node)["tunnels"].as_array().unwrap() {
            assert_eq!((&entry["packets_in"], &entry["packets_out"]), (&0.into(), &0.into()), "{entry:#}");
        }
    }
}

fn of(page: &Value, tunnel: &str, reason: &str) -> u64 {
    let entry = page["tunnels"].as_array().unwrap().iter().find(|entry| entry["name"] == tunnel);
    entry.map_or(&page["unmatched"], |entry| &entry["drops"])[reason].as_u64().unwrap_or(0)
}

/// A tenant's RS uses its own TCP, and a source address and ports that the node knows from its own connections.
fn connections(isolation: &str) {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let node = site.setup_with(|config| adapt(config, isolation)).start();
    assert_eq!((ask(&node, "a.test").0, ask(&node, "b.test").0), (200, 200));
    let mut attempts = 0;
    for tenant in &site.tenants {
        // To every listener of the node, to the admin page's usual port, and to ports where nobody listens.
        for port in [8080, 9901, 443, 22] {
            let error = tenant.run(|| attempt((&OWN.to_string(), port))).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "nothing comes back: {error}");
            attempts += 1;
        }
    }
    let counted = drops(&node, "a", "not_ours") + drops(&node, "b", "not_ours");
    assert!(counted >= attempts, "{attempts} attempts: {:#}", tunnels(&node));
    // The tunnels still do what they are for.
    assert_eq!((ask(&node, "a.test").0, ask(&node, "b.test").0), (200, 200));
}

/// Tenants of an L4 node with different addresses: forwarding for the tunnels must not route between them.
fn between_tenants() {
    let (l4, a, b, node) = (Host::new(), Host::new(), Host::new(), Host::new());
    node.cable(("wan", "192.0.2.1/24"), &l4, ("wan", "192.0.2.2/24"));
    l4.cable(("to-a", "10.0.0.1/24"), &a, ("lan", "10.0.0.10/24"));
    l4.cable(("to-b", "10.1.0.1/24"), &b, ("lan", "10.1.0.10/24"));
    a.gateway("lan", Ipv4Addr::new(10, 0, 0, 1));
    b.gateway("lan", Ipv4Addr::new(10, 1, 0, 1));
    node.route("wan", "10.0.0.0/8");
    let listener = b.run(|| std::net::TcpListener::bind("10.1.0.10:80").unwrap());
    let outside = node.run(|| std::net::TcpListener::bind("192.0.2.1:80").unwrap());
    let reaches = |target| a.run(|| attempt(target)).is_ok();
    assert!(!reaches(("10.1.0.10", 80)), "forwarding is off");
    let config = "tunnels:\n\
        \x20 - {name: a, local: 192.0.2.2, peers: [192.0.2.1], key: 1001, networks: [172.16.0.0/24], forward: true,\n\
        \x20    forward_to: [{device: to-a, networks: [10.0.0.0/24]}]}\n\
        \x20 - {name: b, local: 192.0.2.2, peers: [192.0.2.1], key: 2002, networks: [172.16.0.0/24], forward: true,\n\
        \x20    forward_to: [{device: to-b, networks: [10.1.0.0/24]}]}\n";
    let carrier = Setup::new(config).on(&l4).carry();
    assert!(!reaches(("10.1.0.10", 80)), "tenant a reaches tenant b past the tunnels");
    assert!(!reaches(("192.0.2.1", 80)), "tenant a reaches the underlay past its tunnel");
    // The L4 node itself still reaches what it reached before.
    until("the L4 node", || l4.run(|| attempt(("10.1.0.10", 80))).ok());
    drop((carrier, listener, outside));
}
