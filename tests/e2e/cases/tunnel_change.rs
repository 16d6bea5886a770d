//! Tunnels that come, change and go while the program runs, and what it refuses to do.

use crate::harness::site::{LARGE, ask, attempt, client, drops, large, sha256, tunnels};
use crate::harness::{Case, Host, Need, Program, Request, Setup, Site, until};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::a_tunnel_comes_and_goes_while_another_serves", NEEDS, comes_and_goes),
        Case::needing("tunnel::a_changed_tunnel_leaves_the_others_alone", NEEDS, changed),
        Case::needing("tunnel::a_change_that_cannot_be_made_changes_nothing", NEEDS, refused),
        Case::needing("tunnel::the_first_tunnel_needs_a_restart", NEEDS, first),
        Case::needing("tunnel::a_tunnel_with_listeners_needs_a_restart", NEEDS, with_listeners),
        Case::needing("tunnel::the_encapsulation_alone_reloads_its_tunnels", NEEDS, alone),
    ]
}

/// The configuration that a program runs with.
fn configuration(program: &Program) -> String {
    std::fs::read_to_string(program.path().join("config.yaml")).unwrap()
}

/// `text` with `from` once replaced by `to`; it must be there.
fn with(text: &str, from: &str, to: &str) -> String {
    let changed = text.replacen(from, to, 1);
    assert_ne!(text, changed, "{from:?} is not in:\n{text}");
    changed
}

/// `text` without the tunnel b, its pool and its route.
fn without_b(text: &str) -> String {
    let mut kept = String::new();
    let mut of_b = false;
    for line in text.lines() {
        if !line.starts_with("     ") {
            of_b = line.contains("name: b,") || line.contains("domains: [b.test]");
        }
        if !of_b {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

/// A download through tunnel a that lasts until its end is taken.
struct Download(crate::harness::Client);

impl Download {
    fn start(node: &Program) -> Self {
        let mut client = client(node, "a.test");
        client.send(Request::get("a.test", "/large").close().head());
        assert_eq!(client.head().part(1), "200");
        let first = client.exactly(1_000_000);
        assert_eq!(first, large()[..1_000_000]);
        Self(client)
    }

    fn end(mut self) {
        assert_eq!(sha256(&self.0.exactly(LARGE - 1_000_000)), sha256(&large()[1_000_000..]));
    }
}

fn comes_and_goes() {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let node = site.setup("device").start();
    let with_b = configuration(&node);
    let without = without_b(&with_b);
    // A third one, so that two go at once.
    let c = "  - {name: c, local: 192.0.2.1, peers: [192.0.2.2], key: 3003, address: 172.16.0.1, networks: [10.2.0.0/24]}\n";
    let with_both = with(&with_b, "pools:\n", &format!("{c}pools:\n"));
    assert_eq!(node.reload(&without), "ingre: reloaded");
    let before = site.node.state();
    assert!(!before.contains("ig-b"), "{before}");
    assert_eq!(ask(&node, "b.test").0, 404);
    let download = Download::start(&node);
    for _ in 0..2 {
        assert_eq!(node.reload(&with_both), "ingre: reloaded");
        for domain in ["a", "b"] {
            let answer = ask(&node, &format!("{domain}.test"));
            assert!(answer.0 == 200 && answer.1.starts_with(domain), "{answer:?}");
        }
        assert!(["ig-b", "ig-c"].iter().all(|device| site.node.state().contains(device)));
        let strange = drops(&node, "", "unknown_peer");
        assert_eq!(node.reload(&without), "ingre: reloaded");
        until("the tunnels to be gone", || (site.node.state() == before).then_some(()));
        assert_eq!(tunnels(&node)["tunnels"].as_array().unwrap().len(), 1);
        assert_eq!(ask(&node, "b.test").0, 404);
        // The other end still sends: nobody knows it any more.
        let connected = site.tenants[1].run(|| attempt(("172.16.0.1", 9)));
        assert!(connected.is_err());
        until("a packet of nobody", || (drops(&node, "", "unknown_peer") > strange).then_some(()));
    }
    download.end();
}

fn changed() {
    let site = Site::new();
    let (_servers, l4) = (site.servers(), site.carry());
    let node = site.setup("device").start();
    let text = configuration(&node);
    let download = Download::start(&node);
    assert_eq!(ask(&node, "b.test").0, 200);
    let packets = |name: &str| {
        let page = tunnels(&node);
        let entries = page["tunnels"].as_array().unwrap();
        entries.iter().find(|entry| entry["name"] == name).unwrap()["packets_in"].as_u64().unwrap()
    };
    let of_a = packets("a");
    assert_eq!(node.reload(&with(&text, "key: 2002", "key: 2003, ttl: 33, mtu: 1400")), "ingre: reloaded");
    assert_eq!(tunnels(&node)["tunnels"][1]["key"], 2003);
    assert!(packets("a") >= of_a && packets("b") == 0, "{:#}", tunnels(&node));
    assert!(site.node.output("ip", &["link", "show", "ig-b"]).contains("mtu 1400 "));
    // The other end follows.
    let l4_text = configuration(&l4);
    std::fs::write(l4.path().join("config.yaml"), with(&l4_text, "key: 2002", "key: 2003")).unwrap();
    l4.signal(rustix::process::Signal::HUP);
    l4.said("ingre: reloaded, carrying 2 tunnels");
    for domain in ["a", "b"] {
        let answer = ask(&node, &format!("{domain}.test"));
        assert!(answer.0 == 200 && answer.1.starts_with(domain), "{answer:?}");
    }
    download.end();
}

fn refused() {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let node = site.setup("device").start();
    let text = configuration(&node);
    let download = Download::start(&node);
    let before = site.node.state();
    let third = |what: &str| with(&text, "tunnels:\n", &format!("tunnels:\n  - {{name: c, {what}}}\n"));
    let usual = "peers: [192.0.2.2], key: 3, networks: [10.3.0.0/24]";
    for (changed, reason) in [
        (
            third(&format!("local: 192.0.2.99, {usual}")),
            "tunnel c: local 192.0.2.99 is no address of this host",
        ),
        (third(&format!("local: 192.0.2.1, device: wan, {usual}")), "wan"),
        (third(&format!("local: 192.0.2.1, interface: eth9, {usual}")), "there is no interface eth9"),
        (third(&format!("local: 192.0.2.1, isolation: namespace, {usual}")), "restart"),
        (
            third(&format!(
                "local: 192.0.2.1, forward: true, forward_to: [{{device: nowhere, networks: [10.4.0.0/24]}}], {usual}"
            )),
            "nowhere",
        ),
        (with(&text, "engine_threads: 1", "engine_threads: 2"), "engine_threads"),
        (with(&text, "key: 2002", "key: 1001"), "already"),
        // An old one is to be changed beside one that cannot be made.
        (
            with(
                &third(&format!("local: 192.0.2.1, device: wan, {usual}")),
                "name: b, ",
                "name: b, ttl: 62, ",
            ),
            "wan",
        ),
    ] {
        let verdict = node.reload(&changed);
        assert!(verdict.starts_with("ingre: not reloaded"), "{verdict}\n{changed}");
        assert!(
            node.stderr().split("not reloaded").last().unwrap().contains(reason),
            "{reason}: {}",
            node.stderr()
        );
        for domain in ["a.test", "b.test"] {
            assert_eq!(ask(&node, domain).0, 200, "after {verdict}");
        }
        assert_eq!(stable(&site.node.state()), stable(&before), "after {verdict}");
    }
    download.end();
    assert_eq!(node.reload(&text), "ingre: reloaded");
}

/// Without numbers of interfaces and tables, which are others when a device is made again.
fn stable(state: &str) -> Vec<String> {
    let mut lines: Vec<_> = state
        .lines()
        .map(|line| {
            let line = line
                .split_once(": ")
                .filter(|(number, _)| number.parse::<u32>().is_ok())
                .map_or(line, |(_, rest)| rest);
            let words = line.split_whitespace().filter(|word| word.parse::<u32>().is_err());
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    lines.sort();
    lines
}

fn first() {
    let host = Host::new();
    host.cable(("wan", "192.0.2.1/24"), &Host::new(), ("wan", "192.0.2.2/24"));
    let text = "listeners: [{name: web, address: \"127.0.0.1:0\"}]\n\
                pools: [{name: p, servers: [{address: \"127.0.0.1:9\"}]}]\n\
                routes: [{domains: [\"*\"], rules: [{url: /, pool: p}]}]\n";
    let node = Setup::new(text).on(&host).start();
    let tunnel = "tunnels: [{name: c, local: 192.0.2.1, peers: [192.0.2.2], networks: [10.3.0.0/24]}]\n";
    let verdict = node.reload(&format!("{text}{tunnel}"));
    assert!(
        verdict.contains("not reloaded") && verdict.contains("the first tunnel needs a restart"),
        "{verdict}"
    );
    assert_eq!(node.reload(text), "ingre: reloaded");
}

fn with_listeners() {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let vip = "  - {name: vip, address: \"198.51.100.10:80\", tunnel: b}\ntunnels:\n";
    let node = site.setup_with(|config| config.replace("tunnels:\n", vip)).start();
    let text = configuration(&node);
    let before = site.node.state();
    for changed in [
        with(&text, "key: 2002", "key: 2003"),
        with(&text, "key: 2002, address", "key: 2002, ttl: 9, address"),
    ] {
        let verdict = node.reload(&changed);
        assert!(
            verdict.contains("the tunnel `b` has listeners: it changes only with a restart"),
            "{verdict}"
        );
        assert_eq!(site.node.state(), before);
    }
    // The other one may change.
    assert_eq!(node.reload(&with(&text, "ttl: 61", "ttl: 62")), "ingre: reloaded");
    for domain in ["a.test", "b.test"] {
        assert_eq!(ask(&node, domain).0, 200);
    }
}

/// The L4 node gives tunnels up, the last one too, and takes them back.
fn alone() {
    let site = Site::new();
    let (_servers, l4) = (site.servers(), site.carry());
    let node = site.setup("device").start();
    let (text, before) = (configuration(&l4), site.l4.state());
    let reload = |text: &str, verdict: &str| {
        let count = |said: String| said.matches("reloaded").count();
        let said = count(l4.stderr());
        std::fs::write(l4.path().join("config.yaml"), text).unwrap();
        l4.signal(rustix::process::Signal::HUP);
        until("a verdict", || (count(l4.stderr()) > said).then_some(()));
        let last = l4.stderr().lines().rfind(|line| line.contains("reloaded")).unwrap().to_owned();
        assert!(last.contains(verdict), "{verdict}: {}", l4.stderr());
    };
    let download = Download::start(&node);
    let only_a = text.split("  - {name: b,").next().unwrap().to_owned();
    reload(&only_a, "ingre: reloaded, carrying 1 tunnels");
    assert!(!site.l4.state().contains("ig-b"), "{}", site.l4.state());
    download.end();
    let none = format!("{}tunnels: []\n", text.split("tunnels:\n").next().unwrap());
    reload(&none, "ingre: reloaded, carrying 0 tunnels");
    assert!(!site.l4.state().contains("ig-"), "{}", site.l4.state());
    reload(&only_a, "ingre: reloaded, carrying 1 tunnels");
    until("an answer", || (ask(&node, "a.test").0 == 200).then_some(()));
    let download = Download::start(&node);
    reload(
        &with(
            &text,
            "local: 192.0.2.2, peers: [192.0.2.1], key: 2002",
            "local: 192.0.2.77, peers: [192.0.2.1], key: 2002",
        ),
        "not reloaded, the old configuration stays: ",
    );
    reload(&text, "ingre: reloaded, carrying 2 tunnels");
    assert_eq!(stable(&site.l4.state()), stable(&before));
    for domain in ["a.test", "b.test"] {
        until("an answer", || (ask(&node, domain).0 == 200).then_some(()));
    }
    download.end();
}
