//! What the options of a tunnel do to its packets, judged by scapy: many tunnels of one process, each with options of its
//! own, asked packet by packet.
//!
//! ```text
//! test -- admin -- node (wan 192.0.2.1, ig-* 172.16.N.1) ==tunnel N== (wan 192.0.2.x) scapy, as 10.N.0.0/16
//! ```

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

use serde_json::{Value, json};

use crate::harness::site::{drops, tunnels};
use crate::harness::{Case, Host, Need, Program, Setup, python, until};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::Scapy];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::options_on_the_wire", NEEDS, on_the_wire),
        Case::needing("tunnel::networks_of_peers_are_answered_at_one_address", NEEDS, networks_of_peers),
        Case::needing("tunnel::a_router_lowers_the_path_mtu_and_a_forger_does_not", NEEDS, path_mtu),
        Case::needing("tunnel::congestion_marks_are_carried_inward", NEEDS, congestion),
        Case::needing("tunnel::tunnels_in_tunnels_and_many_flows", NEEDS, nested_and_flows),
        Case::needing("tunnel::routed_packets_obey_the_kernel", NEEDS, routed),
    ]
}

/// A tunnel: its name, the last number of its peer's address, and its options besides addresses.
type Tunnel = (&'static str, u8, &'static str);

/// The node with these tunnels, and scapy at their other ends.
struct Bench {
    node: Program,
    host: Host,
    script: Program,
    tunnels: &'static [Tunnel],
}

impl Bench {
    fn new(tunnels: &'static [Tunnel]) -> Self {
        let (host, peer) = (Host::new(), Host::new());
        host.cable(("wan", "192.0.2.1/24"), &peer, ("wan", "192.0.2.2/24"));
        let numbers: BTreeSet<_> = tunnels.iter().map(|(_, number, _)| number).collect();
        for number in numbers {
            peer.address("wan", &format!("192.0.2.{number}/24"));
        }
        let mut config = String::from("admin: {address: \"127.0.0.1:0\"}\ntunnels:\n");
        for (index, (name, number, options)) in tunnels.iter().enumerate() {
            let peers = if options.contains("peers: ") {
                String::new()
            } else {
                format!("peers: [192.0.2.{number}], ")
            };
            config += &format!(
                "  - {{name: {name}, local: 192.0.2.1, {peers}networks: [10.{index}.0.0/16], \
                 services: [172.16.{index}.1], {options}}}\n"
            );
        }
        let script = python::start(&peer, "asker.py", &["--node", "192.0.2.1"]);
        until("the peer", || (script.stdout() == "ready").then_some(()));
        let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let node = Setup::new(&config).on(&host).socket("admin", admin).carry();
        Self { node, host, script, tunnels }
    }

    /// Lets the script do something at the other end of a tunnel; returns what it says.
    fn tell(&mut self, action: &str, tunnel: &str, more: Value) -> Value {
        let index = self.tunnels.iter().position(|(name, ..)| *name == tunnel).unwrap();
        let (name, number, options) = self.tunnels[index];
        let option = |option: &str| {
            let rest = options.split(option).nth(1)?;
            rest.split([',', ' ']).next()
        };
        let mut what = json!({
            "do": action,
            "tunnel": name,
            "number": index,
            "peer": format!("192.0.2.{number}"),
            "inner": format!("172.16.{index}.1"),
            "kind": option("kind: ").unwrap_or("gre"),
            "key": option("key: ").map(|key| key.parse::<u32>().unwrap()),
        });
        what.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let before = self.script.stdout_lines().len();
        self.script.tell(&what.to_string());
        let line = until(&format!("an answer to {what}"), || {
            assert!(!self.script.has_ended(), "{}", self.script.stderr());
            self.script.stdout_lines().get(before).cloned()
        });
        serde_json::from_str(&line).unwrap()
    }

    /// Asks once; all packets that come back, each of which must have sound checksums.
    fn ask(&mut self, tunnel: &str, more: Value) -> Vec<Value> {
        let Value::Array(answers) = self.tell("ask", tunnel, more) else { panic!("no list") };
        for answer in &answers {
            assert_eq!(answer["right"], true, "{tunnel}: {answer:#}");
        }
        answers
    }

    /// Asks once; the packet with the echo reply that comes back.
    fn answer(&mut self, tunnel: &str, more: Value) -> Value {
        let mut answers = self.ask(tunnel, more);
        assert_eq!(answers.len(), 1, "{tunnel}: {answers:#?} {:#}", tunnels(&self.node));
        let answer = answers.remove(0);
        assert_eq!(answer["inner"]["icmp"], 0, "{tunnel}: {answer:#}");
        answer
    }

    /// What the page says about a tunnel.
    fn entry(&self, tunnel: &str) -> Value {
        let page = tunnels(&self.node);
        page["tunnels"].as_array().unwrap().iter().find(|entry| entry["name"] == tunnel).unwrap().clone()
    }

    fn path_mtu(&self, tunnel: &str) -> u64 {
        self.entry(tunnel)["peers"][0]["path_mtu"].as_u64().unwrap()
    }
}

const OPTIONS: &[Tunnel] = &[
    ("plain", 10, "kind: gre"),
    ("sum", 10, "key: 1, checksum: true"),
    ("counted", 10, "key: 2, sequence: true"),
    ("both", 10, "key: 4294967295, checksum: true, sequence: true, dscp: 46"),
    ("ipip", 11, "kind: ipip, ttl: 9"),
    ("udp", 12, "kind: gre-in-udp, checksum: true"),
    ("udp-port", 12, "kind: gre-in-udp, key: 5, source_port: 50000, udp_checksum: true"),
    ("udp-none", 13, "kind: gre-in-udp, udp_checksum: false, sequence: true"),
];

/// For each tunnel what its packets have.
fn on_the_wire() {
    let mut bench = Bench::new(OPTIONS);
    let gre = |key: Value, checksum: bool| json!({"protocol": 47, "key": key, "checksum": checksum});
    let expected = [
        ("plain", gre(Value::Null, false)),
        ("sum", gre(json!(1), true)),
        ("counted", gre(json!(2), false)),
        ("both", gre(json!(4_294_967_295_u32), true)),
        ("ipip", json!({"protocol": 4, "ttl": 9})),
        ("udp", json!({"protocol": 17, "port": 4754, "udp_checksum": true, "checksum": true, "key": null})),
        (
            "udp-port",
            json!({"protocol": 17, "port": 4754, "source_port": 50000, "udp_checksum": true, "key": 5}),
        ),
        ("udp-none", json!({"protocol": 17, "port": 4754, "udp_checksum": false})),
    ];
    for (name, fields) in &expected {
        let number = OPTIONS.iter().find(|(known, ..)| known == name).unwrap().1;
        let mut before = None;
        // AF41 inside.
        for bytes in [56, 1400, 57] {
            let answer = bench.answer(name, json!({"bytes": bytes, "inner_tos": 34 << 2}));
            for (field, value) in fields.as_object().unwrap() {
                assert_eq!(&answer[field], value, "{name}: {field} of {answer:#}");
            }
            assert_eq!((&answer["df"], &answer["to"]), (&json!(true), &json!(format!("192.0.2.{number}"))));
            let dscp = if *name == "both" { 46 } else { 34 };
            assert_eq!(answer["tos"], dscp << 2, "{name}: {answer:#}");
            if *name != "ipip" {
                let is_counted = matches!(*name, "counted" | "both" | "udp-none");
                let sequence = answer["sequence"].as_u64();
                assert_eq!(sequence.is_some(), is_counted, "{name}: {answer:#}");
                if let Some(before) = before {
                    assert_eq!(sequence, Some(before + 1), "{name}");
                }
                before = sequence;
            }
            if *name == "udp" {
                assert!(answer["source_port"].as_u64() >= Some(49152), "{answer:#}");
            }
        }
        assert_eq!(bench.entry(name)["drops"], json!({}), "{name}");
    }
    assert_eq!(tunnels(&bench.node)["unmatched"], json!({}));
}

fn networks_of_peers() {
    const TUNNELS: &[Tunnel] = &[
        ("many", 129, "key: 1, peers: [192.0.2.128/26], reply_to: 192.0.2.129"),
        ("mixed", 20, "key: 2, peers: [192.0.2.20, 192.0.2.128/26], reply_to: 192.0.2.150"),
        ("other", 150, "key: 3"),
    ];
    let mut bench = Bench::new(TUNNELS);
    for (tunnel, from, to) in [
        ("many", 129, 129),
        ("many", 130, 129),
        ("many", 191, 129),
        ("mixed", 20, 20),
        ("mixed", 130, 150),
        ("mixed", 20, 20),
    ] {
        let answer = bench.answer(tunnel, json!({"peer": format!("192.0.2.{from}")}));
        assert_eq!(answer["to"], format!("192.0.2.{to}"), "{tunnel} from {from}");
    }
    // Beside the network, and in it with the key of a tunnel that does not have it.
    for (tunnel, from) in [("many", 127), ("many", 192), ("other", 130)] {
        let more = json!({"peer": format!("192.0.2.{from}"), "wait": 0.5});
        assert_eq!(bench.ask(tunnel, more), Vec::<Value>::new());
    }
    assert_eq!(tunnels(&bench.node)["unmatched"], json!({"unknown_peer": 3}));
    assert_eq!(bench.entry("many")["peer_networks"], json!(["192.0.2.128/26"]));
}

fn path_mtu() {
    const TUNNELS: &[Tunnel] = &[
        ("cut", 10, "key: 1, fragment: inner, mtu: 1472"),
        ("whole", 11, "key: 2, fragment: off"),
        ("floor", 12, "key: 3, mtu_floor: 900"),
        ("low", 13, "kind: ipip, mtu_floor: 68"),
        ("udp", 14, "kind: gre-in-udp, source_port: 50000"),
    ];
    let mut bench = Bench::new(TUNNELS);
    let large = json!({"bytes": 1400});
    for (name, ..) in TUNNELS {
        let answer = bench.answer(name, large.clone());
        assert!(answer["length"].as_u64() > Some(1400), "{answer:#}");
        assert_eq!(bench.path_mtu(name), 1500, "{name}");
    }
    // Nobody's key, nobody's address, and a size that the packet had not exceeded.
    for forged in [
        json!({"forged_key": 7, "mtu": 1000}),
        json!({"forged_target": "192.0.2.99", "mtu": 1000}),
        json!({"mtu": 1480}),
    ] {
        let before = drops(&bench.node, "", "underlay_ignored");
        bench.tell("too_big", "cut", forged.clone());
        until(&format!("{forged} to be refused: {:#}", tunnels(&bench.node)), || {
            (drops(&bench.node, "", "underlay_ignored") == before + 1).then_some(())
        });
        assert_eq!(bench.path_mtu("cut"), 1500, "{forged}");
    }
    for (name, claimed, path) in [
        ("cut", 1000, 1000),
        ("whole", 1000, 1000),
        ("floor", 600, 900),
        ("low", 600, 600),
        ("udp", 700, 700),
    ] {
        bench.tell("too_big", name, json!({"mtu": claimed}));
        until(&format!("a path MTU of {path} for {name}"), || (bench.path_mtu(name) == path).then_some(()));
        // What is too big for the path now leaves in fragments, or not at all.
        let answers = bench
            .ask(name, if name == "whole" { json!({"bytes": 1400, "wait": 0.5}) } else { large.clone() });
        if name == "whole" {
            assert_eq!(answers, Vec::<Value>::new());
            assert_eq!(bench.entry(name)["drops"], json!({"fragmentation_needed": 1}));
            continue;
        }
        assert!(answers.len() > 1, "{name}: {answers:#?}");
        for (index, answer) in answers.iter().enumerate() {
            assert!(answer["length"].as_u64() <= Some(path) && answer["df"] == true, "{name}: {answer:#}");
            assert_eq!(answer["inner"]["more"], index + 1 < answers.len(), "{name}: {answer:#}");
        }
        assert_eq!(bench.entry(name)["drops"], json!({}), "{name}");
    }
}

fn congestion() {
    const TUNNELS: &[Tunnel] = &[
        ("normal", 10, "key: 1, ecn: normal"),
        ("compatible", 11, "key: 2, ecn: compatible"),
        ("fixed", 12, "dscp: 0, ecn: normal"),
    ];
    const CAPABLE: u8 = 2;
    const CONGESTED: u8 = 3;
    let mut bench = Bench::new(TUNNELS);
    // Outer and inner mark of the request; outer and inner mark of the answer, whose sender copies what it was asked with.
    for (tunnel, outer, inner, out, through) in [
        ("normal", 0, 0, 0, 0),
        ("normal", CAPABLE, CAPABLE, CAPABLE, CAPABLE),
        ("normal", CONGESTED, CAPABLE, CONGESTED, CONGESTED),
        ("compatible", 0, CAPABLE, 0, CAPABLE),
        ("compatible", CONGESTED, CAPABLE, 0, CONGESTED),
        ("fixed", CAPABLE, CAPABLE | 46 << 2, CAPABLE, CAPABLE | 46 << 2),
    ] {
        let answer = bench.answer(tunnel, json!({"outer_tos": outer, "inner_tos": inner}));
        assert_eq!(
            (&answer["inner"]["tos"], &answer["tos"]),
            (&json!(through), &json!(out)),
            "{tunnel}: {answer:#}"
        );
    }
    // A mark that the inner packet cannot carry: to drop it is the only way to pass it on.
    let answers = bench.ask("normal", json!({"outer_tos": CONGESTED, "inner_tos": 0, "wait": 0.5}));
    assert_eq!((answers.len(), drops(&bench.node, "normal", "ecn_congested")), (0, 1));
}

fn nested_and_flows() {
    const TUNNELS: &[Tunnel] =
        &[("plain", 10, "key: 1, flows: 1024"), ("nested", 11, "key: 2, nested: true, flows: 4096")];
    let mut bench = Bench::new(TUNNELS);
    for (name, refused) in [("plain", 1), ("nested", 0)] {
        bench.answer(name, json!({}));
        bench.tell("nested", name, json!({}));
        until("the packet", || {
            let entry = bench.entry(name);
            let came = entry["packets_in"].as_u64().unwrap() + drops(&bench.node, name, "nested");
            (came == 2).then_some(())
        });
        assert_eq!(drops(&bench.node, name, "nested"), refused, "{name}: {:#}", bench.entry(name));
    }
    for (name, least, most) in [("plain", 512, 1024), ("nested", 1200, 4096)] {
        bench.tell("flood", name, json!({"count": 1300}));
        // The last ones are still on their way when the script is done.
        bench.answer(name, json!({}));
        let flows =
            until("the flows", || bench.entry(name)["flows"].as_u64().filter(|flows| *flows >= least));
        assert!(flows <= most, "{name}: {flows}");
    }
}

fn routed() {
    const TUNNELS: &[Tunnel] = &[
        ("direct", 10, "key: 1, transmit: direct"),
        ("routed", 10, "key: 2, transmit: routed"),
        ("routed-udp", 11, "kind: gre-in-udp, transmit: routed"),
    ];
    let mut bench = Bench::new(TUNNELS);
    let names = TUNNELS.iter().map(|(name, ..)| *name);
    // The first packets are always the kernel's: it finds the next hop.
    for tunnel in names.clone().cycle().take(12) {
        bench.answer(tunnel, json!({}));
    }
    // What the host's rules for outgoing packets forbid.
    let policy = |host: &Host, what: &[&str]| {
        let selector = ["src", "192.0.2.1", "dst", "192.0.2.0/24", "dir", "out"];
        host.output("ip", &[&["xfrm", "policy", what[0]], &selector[..], &what[1..]].concat());
    };
    policy(&bench.host, &["add", "action", "block"]);
    for tunnel in names.clone() {
        // Now and then the kernel is given one, so that it sees that the neighbour is still used.
        let mut answers = (0..4).map(|_| bench.ask(tunnel, json!({"wait": 0.5})).len());
        assert_eq!(answers.any(|answers| answers > 0), tunnel == "direct", "{tunnel}");
    }
    policy(&bench.host, &["delete"]);
    for tunnel in names {
        bench.answer(tunnel, json!({}));
    }
}
