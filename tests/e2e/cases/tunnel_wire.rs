//! What the tunnels look like on the wire, judged by programs that are not ours, and peers that are not ours.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::scratch::Scratch;
use crate::harness::site::{NODE, ask, client, serve, sha256};
use crate::harness::{Case, Host, Need, Program, Request, Site, python, until};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::Tshark, Need::Ethtool, Need::Scapy];
const NEEDS_SCAPY: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::Scapy];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::packets_are_gre_with_key", NEEDS, with_key),
        Case::needing("tunnel::packets_without_key_are_plain_gre", NEEDS, without_key),
        Case::needing("tunnel::a_peer_of_scapy", NEEDS_SCAPY, || scapy_peer(Some(4_294_967_295), &[], false)),
        Case::needing("tunnel::a_peer_of_scapy_behind_a_card", NEEDS, || scapy_peer(Some(7), &[], true)),
        Case::needing("tunnel::a_peer_of_scapy_without_key", NEEDS_SCAPY, || scapy_peer(None, &[], false)),
        Case::needing("tunnel::a_peer_of_scapy_with_checksum_and_sequence", NEEDS_SCAPY, || {
            scapy_peer(Some(7), &["--checksum", "--sequence"], false);
        }),
    ]
}

/// The GRE packets on a host's underlay from now on, in a file.
struct Capture {
    scratch: Scratch,
    program: Program,
}

impl Capture {
    fn start(host: &Host) -> Self {
        let scratch = Scratch::new();
        let mut command = Command::new("tshark");
        command.args(["-i", "wan", "-f", "ip proto 47", "-q", "-w"]).arg(scratch.path().join("wire.pcapng"));
        let program = Program::spawn_on(Some(host), command, None);
        program.said("Capturing on");
        // It says so a moment before it does.
        std::thread::sleep(Duration::from_millis(700));
        Self { scratch, program }
    }

    /// What tshark says about each packet: outer protocol, DF, TTL and checksum; GRE flags, protocol, key; and the inner
    /// checksums, which it verifies. The second value is what the checker of scapy has found.
    fn end(self) -> (Vec<String>, serde_json::Value) {
        // What is under way is to be in it.
        std::thread::sleep(Duration::from_millis(300));
        self.program.signal(rustix::process::Signal::INT);
        let ran = self.program.ran();
        let file = self.scratch.path().join("wire.pcapng");
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&file).args(["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]);
        command.args(["-T", "fields", "-E", "separator=;", "-E", "occurrence=a"]);
        for field in [
            "ip.src",
            "ip.proto",
            "ip.flags.df",
            "ip.ttl",
            "ip.checksum.status",
            "gre.flags_and_version",
            "gre.proto",
            "gre.key",
            "tcp.checksum.status",
        ] {
            command.args(["-e", field]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}\n{}", ran.stderr, String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        (lines, python::run(&Host::new(), "wire.py", &[file.to_str().unwrap()]))
    }
}

fn with_key() {
    let site = Site::new();
    for host in [&site.node, &site.l4] {
        host.make_card("wan");
    }
    let (_servers, _l4) = (site.servers(), site.carry());
    let capture = Capture::start(&site.l4);
    let node = site.setup("device").start();
    for domain in ["a.test", "b.test"] {
        exchange(&node, domain);
    }
    let (lines, found) = capture.end();
    for host in [&site.node, &site.l4] {
        assert!(host.left_uncut().is_none_or(|packets| packets > 0));
    }
    assert_eq!(found["wrong"], json!([]));
    assert_eq!(
        (found["packets"].as_u64(), found["longest"].as_u64()),
        (Some(lines.len() as u64), Some(1500))
    );
    // 1500 less 28 for the tunnel less 40 for IPv4 and TCP.
    assert_eq!(found["mss"], json!([1432]), "{found:#}");
    for end in ["192.0.2.1", "192.0.2.2"] {
        for key in ["1001", "2002"] {
            assert!(found["keys"][end][key].as_u64() > Some(50), "{end} {key}: {found:#}");
        }
        assert_eq!(found["keys"][end].as_object().unwrap().len(), 2, "{found:#}");
    }
    // Outer and inner value with a comma between. TTL 61 for tunnel a, the default 64 elsewhere.
    let mut of_tunnel = [0, 0];
    for line in &lines {
        let fields: Vec<_> = line.split(';').collect();
        let source = fields[0].split(',').next().unwrap();
        let number = usize::from(fields[7] == "0x000007d2");
        assert!(number == 1 || fields[7] == "0x000003e9", "{line}");
        of_tunnel[number] += 1;
        let ttl = if source == "192.0.2.1" && number == 0 { "61" } else { "64" };
        assert_eq!(fields[1], "47,6", "{line}");
        assert!(matches!(fields[2], "1,1" | "True,True"), "{line}");
        assert_eq!(fields[3].split(',').next(), Some(ttl), "{line}");
        assert_eq!((fields[4], fields[5], fields[6], fields[8]), ("1,1", "0x2000", "0x0800", "1"), "{line}");
    }
    assert!(of_tunnel.iter().all(|&count| count > 100), "{of_tunnel:?}");
}

fn without_key() {
    let site = Site::new();
    let (_servers, capture) = (site.servers(), Capture::start(&site.l4));
    let l4 = "tunnels:\n  - {name: a, local: 192.0.2.2, peers: [192.0.2.1], networks: [172.16.0.0/24], forward: true,\n     \
              forward_to: [{device: to-a, networks: [10.0.0.0/24]}]}\n";
    let _l4 = crate::harness::Setup::new(l4).on(&site.l4).carry();
    let node = site.setup_with(|config| config.replace("key: 1001, ", "")).start();
    exchange(&node, "a.test");
    let (lines, found) = capture.end();
    assert_eq!(found["wrong"], json!([]));
    assert_eq!((found["longest"].as_u64(), &found["mss"]), (Some(1500), &json!([1436])), "{found:#}");
    for line in &lines {
        let fields: Vec<_> = line.split(';').collect();
        assert_eq!((fields[5], fields[6], fields[7], fields[8]), ("0x0000", "0x0800", "", "1"), "{line}");
    }
    assert!(lines.len() > 100);
}

/// Something in both directions: small and large.
fn exchange(node: &Program, domain: &str) {
    assert_eq!(ask(node, domain).0, 200);
    let body = vec![0x5a; 300_000];
    let response = client(node, domain).ask(&Request::post(domain, "/upload", body.clone()));
    assert_eq!(response.text(), sha256(&body));
    let mut client = client(node, domain);
    client.send(Request::get(domain, "/large").close().head());
    client.exactly(1_000_000);
}

/// The L4 node is a script that leaves every header to scapy; behind it is the TCP of the kernel. It takes one packet at a time,
/// which on a cable the node has to cut, and behind a card the kernel does.
fn scapy_peer(key: Option<u32>, options: &[&str], by_card: bool) {
    let (node, peer) = (Host::new(), Host::new());
    node.cable(("wan", "192.0.2.1/24"), &peer, ("wan", "192.0.2.2/24"));
    if by_card {
        node.make_card("wan");
    }
    let site = Site { node, l4: peer.clone(), tenants: [peer.clone(), peer.clone()] };
    let local = NODE.to_string();
    let number = key.unwrap_or_default().to_string();
    let mut arguments = vec!["--device", "rs", "--local", "192.0.2.2", "--node", &local];
    if key.is_some() {
        arguments.extend(["--key", &number]);
    }
    arguments.extend(options);
    let script = python::start(&peer, "gre_peer.py", &arguments);
    until("the peer", || (script.stdout() == "ready").then_some(()));
    peer.address("rs", "10.0.0.10/32");
    peer.route("rs", "172.16.0.0/24");
    // What the tunnel leaves room for.
    peer.mtu("rs", 1472);
    let _server = serve(&peer, Ipv4Addr::new(10, 0, 0, 10), "a");
    let running = site
        .setup_with(|config| {
            let key = key.map_or(String::new(), |key| format!("key: {key}, "));
            config.replace("key: 1001, ", &key).replace(", {address: \"10.0.0.11:80\"}", "")
        })
        .start();
    for _ in 0..3 {
        assert_eq!(ask(&running, "a.test"), (200, "a 10.0.0.10".into()));
    }
    let body = vec![3; 200_000];
    let response = client(&running, "a.test").ask(&Request::post("a.test", "/upload", body.clone()));
    assert_eq!(response.text(), sha256(&body));
    let seen = python::result(script);
    assert_eq!(seen["wrong"], json!([]));
    assert!(seen["in"].as_u64() > Some(130) && seen["out"].as_u64() > Some(20), "{seen}");
    assert!(site.node.left_uncut().is_none_or(|packets| (packets > 0) == by_card));
}
