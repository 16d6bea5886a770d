//! Requests through the tunnels of two tenants with equal addresses: each gets to its own, whole, and nothing crosses.

use crate::harness::curl::curl;
use crate::harness::h2::{self, H2};
use crate::harness::python;
use crate::harness::site::{LARGE, ask, client, large, sha256, tls, tunnels};
use crate::harness::{Case, Need, Program, Request, Site, until};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun];
const NEEDS_CURL: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::Curl];

const NEEDS_PYTHON: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::Scapy];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::two_tenants_device", NEEDS_CURL, || two_tenants("device")),
        Case::needing("tunnel::two_tenants_namespace", NEEDS_CURL, || two_tenants("namespace")),
        Case::needing("tunnel::a_pool_that_is_moved_takes_no_connection_along", NEEDS, moved),
        Case::needing("tunnel::three_engine_threads", NEEDS, three_threads),
        Case::needing("tunnel::large_bodies_at_mtu_9000", NEEDS, jumbo),
        Case::needing("tunnel::large_bodies_with_all_offloads_and_none", NEEDS_PYTHON, offloads),
        Case::needing("tunnel::a_small_mtu_is_kept_to", NEEDS, small_mtu),
    ]
}

fn two_tenants(isolation: &str) {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let node = site.setup(isolation).start();
    by_domain(&node);
    crowd_h1(&node);
    crowd_h2(&node);
    bodies(&node);
    upgrade(&node);
    let page = tunnels(&node);
    assert_eq!(page["unmatched"], serde_json::json!({}), "{page:#}");
    for tunnel in page["tunnels"].as_array().unwrap() {
        assert!(
            tunnel["packets_in"].as_u64() > Some(100) && tunnel["packets_out"].as_u64() > Some(100),
            "{page:#}"
        );
    }
}

/// The same addresses behind another tunnel are another tenant's: no connection that was kept is used for them.
fn moved() {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let node = site.setup("device").start();
    for _ in 0..4 {
        assert!(ask(&node, "a.test").1.starts_with("a "));
    }
    let text = std::fs::read_to_string(node.path().join("config.yaml")).unwrap();
    let moved = text.replace("{name: a, tunnel: a,", "{name: a, tunnel: b,");
    assert_ne!(text, moved);
    assert_eq!(node.reload(&moved), "ingre: reloaded");
    until("the other tenant", || ask(&node, "a.test").1.starts_with("b ").then_some(()));
    for _ in 0..8 {
        assert!(ask(&node, "a.test").1.starts_with("b "));
    }
}

/// A tenant's requests go to its own servers, to both of them, with every client.
fn by_domain(node: &Program) {
    let ca = node.path().join("certs/dev-ca.pem");
    for name in ["a", "b"] {
        let domain = format!("{name}.test");
        let mut seen: Vec<_> = (0..4).map(|_| ask(node, &domain).1).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, [format!("{name} 10.0.0.10"), format!("{name} 10.0.0.11")]);
        for protocol in ["--http1.1", "--http2"] {
            let arguments = [protocol, "--cacert", ca.to_str().unwrap(), "--write-out", "|%{http_version}"];
            let curled = curl(&domain, node.listener("https"), "/", &arguments);
            let text = String::from_utf8(curled.body).unwrap();
            let version = if protocol == "--http2" { "2" } else { "1.1" };
            assert!(text.starts_with(&format!("{name} 10.0.0.1")), "{text} {}", curled.stderr);
            assert!(text.ends_with(&format!("|{version}")), "{text}");
        }
    }
}

/// 200 requests for both tenants in turn, on 20 connections at a time.
fn crowd_h1(node: &Program) {
    std::thread::scope(|scope| {
        for thread in 0..20 {
            scope.spawn(move || {
                let name = ["a", "b"][thread % 2];
                let domain = format!("{name}.test");
                let mut client = client(node, &domain);
                for _ in 0..10 {
                    let response = client.ask(&Request::get(&domain, "/"));
                    assert_eq!(response.status, 200);
                    assert!(response.text().starts_with(&format!("{name} ")), "{name}: {}", response.text());
                }
            });
        }
    });
}

/// 200 requests at once, on one connection per tenant.
fn crowd_h2(node: &Program) {
    let address = node.listener("https");
    h2::run(async {
        let mut clients = Vec::new();
        for name in ["a", "b"] {
            clients.push((name, H2::connect(address, &tls(node, &format!("{name}.test"))).await));
        }
        for _ in 0..2 {
            let mut waiting = Vec::new();
            for _ in 0..50 {
                for (name, client) in &mut clients {
                    let request = http::Request::get(format!("https://{name}.test/")).body(()).unwrap();
                    waiting.push((*name, client.begin(request, true).await.0));
                }
            }
            for (name, response) in waiting {
                let answer = h2::read(response).await;
                assert!(
                    answer.status == 200 && answer.text().starts_with(&format!("{name} ")),
                    "{name}: {answer:?}"
                );
            }
        }
    });
}

/// 50 MB each way, with their digests.
fn bodies(node: &Program) {
    let body = large();
    let digest = sha256(&body);
    let mut client = client(node, "a.test");
    let response = client.ask(&Request::get("a.test", "/large"));
    assert_eq!((response.status, response.body.len(), sha256(&response.body)), (200, LARGE, digest.clone()));
    let response = client.ask(&Request::post("a.test", "/upload", body.clone()));
    assert_eq!((response.status, response.text()), (200, digest.clone()));
    h2::run(async {
        let mut client = H2::connect(node.listener("https"), &tls(node, "b.test")).await;
        let answer = client.get("https://b.test/large").await;
        assert_eq!((answer.status, answer.body.len(), sha256(&answer.body)), (200, LARGE, digest.clone()));
        let answer = client.post("https://b.test/upload", &body, None).await;
        assert_eq!((answer.status, answer.text()), (200, digest));
    });
}

/// Bytes of an upgraded connection, one by one and many.
fn upgrade(node: &Program) {
    for domain in ["a.test", "b.test"] {
        let mut client = client(node, domain);
        let request = Request::get(domain, "/echo")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        client.send(request.head());
        assert_eq!(client.head().part(1), "101");
        for message in [&b"\x81\x85masked"[..], &[0; 3000], b"end"] {
            client.send(message);
            assert_eq!(client.exactly(message.len()), message);
        }
    }
}

/// Tunnels on different engine threads (key modulo their number), and on the same.
fn three_threads() {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let node = site.setup_with(|config| config.replace("<threads>", "3")).start();
    crowd_h1(&node);
    crowd_h2(&node);
    let body = large();
    let response = client(&node, "b.test").ask(&Request::post("b.test", "/upload", body.clone()));
    assert_eq!(response.text(), sha256(&body));
    let threads = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap().map(|task| {
        let name = std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap();
        name.trim().to_owned()
    });
    assert_eq!(threads.filter(|name| name.starts_with("engine-")).count(), 3);
}

/// 50 MB each way through a tunnel do not stall.
fn transfer(node: &Program) {
    let body = large();
    let digest = sha256(&body);
    let mut client = client(node, "a.test");
    let response = client.ask(&Request::get("a.test", "/large"));
    assert_eq!((response.status, sha256(&response.body)), (200, digest.clone()));
    let response = client.ask(&Request::post("a.test", "/upload", body));
    assert_eq!((response.status, response.text()), (200, digest));
}

fn jumbo() {
    let site = Site::new();
    for host in [&site.node, &site.l4] {
        host.mtu("wan", 9000);
    }
    site.l4.mtu("to-a", 9000);
    site.tenants[0].mtu("lan", 9000);
    let (_servers, _l4) = (site.servers(), site.carry());
    let node = site.setup("device").start();
    assert_eq!(mtu_of(&site, "tun-a"), 9000 - 28);
    transfer(&node);
}

/// The veth devices neither cut nor merge nor leave checksums open, or do all of it.
fn offloads() {
    for merge in [false, true] {
        let site = Site::new();
        let devices = [(&site.node, "wan"), (&site.l4, "wan"), (&site.l4, "to-a"), (&site.tenants[0], "lan")];
        for (host, device) in devices {
            python::run(host, "offloads.py", &[device, if merge { "on" } else { "off" }]);
        }
        let (_servers, _l4) = (site.servers(), site.carry());
        transfer(&site.setup("device").start());
    }
}

/// An MTU smaller than the underlay allows, on the node alone: what the RS sends fits, for the MSS says so.
fn small_mtu() {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let node = site.setup_with(|config| config.replace("device: tun-a", "device: tun-a, mtu: 600")).start();
    assert_eq!(mtu_of(&site, "tun-a"), 600);
    let response = client(&node, "a.test").ask(&Request::post("a.test", "/upload", vec![7; 300_000]));
    assert_eq!(response.text(), sha256(&vec![7; 300_000]));
    until("answers", || (ask(&node, "b.test").0 == 200).then_some(()));
}

fn mtu_of(site: &Site, device: &str) -> u64 {
    let shown = site.node.output("ip", &["-o", "link", "show", device]);
    shown.split(" mtu ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}
