//! A tunnel between two nodes that carries both families: programs of the far end serve on it, it is probed, and
//! `ingre tunnels` shows it.
//!
//! ```text
//! test -- handed-in sockets -- node (wan 192.0.2.1) ==key 5== (wan 192.0.2.2) far: 10.0.0.10, fd00:10::10, 10.0.0.20
//! ```

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::origin::{ok, response};
use crate::harness::program::ingre;
use crate::harness::site::{LARGE, large, serve, sha256, tunnels};
use crate::harness::{Case, Host, Need, Origin, Program, Request, Setup, Site, uninterrupted, until};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::programs_of_the_host_serve_both_families", NEEDS, services),
        Case::needing("tunnel::probes_tell_which_peers_are_there", NEEDS, probes),
        Case::needing("tunnel::the_command_tunnels_shows_a_running_ingre", NEEDS, command),
        Case::needing("tunnel::the_command_tunnels_says_why_it_shows_nothing", NEEDS, nothing_to_show),
        Case::needing("tunnel::the_encapsulation_alone_has_an_admin_listener", NEEDS, admin_of_encap),
        Case::needing("tunnel::ipv6_that_is_not_forwarded_is_said", NEEDS, forwarding),
    ]
}

/// The node.
const NODE: &str = "\
workers: 1
admin: {address: \"127.0.0.1:0\"}
listeners: [{name: http, address: \"127.0.0.1:0\", client_max_body_size: 0}]
tunnels:
  - {name: front, local: 192.0.2.1, peers: [192.0.2.2, 192.0.2.3], key: 5, address: 172.16.0.1, second_address: \"fd00:16::1\",
     networks: [10.0.0.0/24, \"fd00:10::/64\"], probe: 10.0.0.20}
pools:
  - {name: four, tunnel: front, servers: [{address: \"10.0.0.10:80\"}], health_check: {type: off}}
  - {name: six, tunnel: front, servers: [{address: \"[fd00:10::10]:80\"}], health_check: {type: off}}
routes:
  - {domains: [four.test], rules: [{url: /, pool: four}]}
  - {domains: [six.test], rules: [{url: /, pool: six}]}
";
/// The far end: other programs serve on its tunnel.
const FAR: &str = "\
tunnels:
  - {name: back, local: 192.0.2.2, peers: [192.0.2.1], key: 5, networks: [172.16.0.0/24, \"fd00:16::/64\"],
     services: [\"10.0.0.10:80\", \"10.0.0.10:53/udp\", \"[fd00:10::10]:80\", 10.0.0.20]}
";

/// Both ends.
struct Ends {
    node: Host,
    far: Host,
}

impl Ends {
    fn new() -> Self {
        let (node, far) = (Host::new(), Host::new());
        node.cable(("wan", "192.0.2.1/24"), &far, ("wan", "192.0.2.2/24"));
        Self { node, far }
    }

    fn start(&self) -> Program {
        let mut setup = Setup::new(NODE).on(&self.node);
        for name in ["http", "admin"] {
            setup = setup.socket(name, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        }
        setup.start()
    }

    fn carry(&self) -> Program {
        Setup::new(FAR).on(&self.far).carry()
    }
}

fn services() {
    let ends = Ends::new();
    let (_far, node) = (ends.carry(), ends.start());
    let _four = serve(&ends.far, Ipv4Addr::new(10, 0, 0, 10), "four");
    let listener = ends.far.run(|| TcpListener::bind("[fd00:10::10]:80").unwrap());
    let _six = Origin::on(listener, |peer| {
        loop {
            let head = peer.head()?;
            let (body, _) = peer.body(&head)?;
            match head.part(1) {
                "/large" => peer.send(response("200 OK", &[], large()))?,
                "/" => peer.send(ok("six"))?,
                _ => peer.send(ok(&sha256(&body)))?,
            }
        }
    });
    for (domain, name) in [("four.test", "four 10.0.0.10"), ("six.test", "six")] {
        assert_eq!(node.ask("http", &Request::get(domain, "/")).text(), name);
        let answer = node.ask("http", &Request::get(domain, "/large"));
        assert_eq!((answer.status, answer.body.len()), (200, LARGE), "{domain}");
        assert_eq!(sha256(&answer.body), sha256(&large()), "{domain}");
        let answer = node.ask("http", &Request::post(domain, "/upload", large()));
        assert_eq!(answer.text(), sha256(&large()), "{domain}");
    }
    datagrams(&ends);
    own_source(&ends);
    // Echo where everything is open; nothing where one port is, nor on another port.
    let ping = |address: &str| {
        let command = ["-I", "ig-front", "-c", "1", "-W", "1", address];
        ends.node.run(|| std::process::Command::new("busybox").arg("ping").args(command).output().unwrap())
    };
    assert!(ping("10.0.0.20").status.success());
    assert!(!ping("10.0.0.10").status.success());
    let strange = ends.node.run(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind_device(Some(b"ig-front")).unwrap();
        let address: SocketAddr = "10.0.0.10:81".parse().unwrap();
        socket.connect_timeout(&address.into(), Duration::from_millis(500))
    });
    assert!(strange.is_err());
    assert_eq!(tunnels(&node)["unmatched"], json!({}), "{:#}", tunnels(&node));
}

/// A program that answers datagrams.
fn datagrams(ends: &Ends) {
    let server = ends.far.run(|| UdpSocket::bind("10.0.0.10:53").unwrap());
    let answering = std::thread::spawn(move || {
        server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut buffer = [0; 2000];
        let (length, from) = uninterrupted(|| server.recv_from(&mut buffer)).unwrap();
        server.send_to(&buffer[..length], from).unwrap();
    });
    let answer = ends.node.run(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        socket.bind_device(Some(b"ig-front")).unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.send_to(&[7; 1400], "10.0.0.10:53").unwrap();
        let mut buffer = [0; 2000];
        let length = uninterrupted(|| socket.recv(&mut buffer)).unwrap();
        buffer[..length].to_vec()
    });
    answering.join().unwrap();
    assert_eq!(answer, [7; 1400]);
}

/// What claims to come from an address of the host that serves is not delivered, although the address lies behind the
/// tunnel: the answer would go to the host itself.
fn own_source(ends: &Ends) {
    let server = ends.far.run(|| UdpSocket::bind("10.0.0.10:53").unwrap());
    let sender = ends.node.run(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        socket.bind_device(Some(b"ig-front")).unwrap();
        UdpSocket::from(socket)
    });
    let arrives = |text: &str| {
        sender.send_to(text.as_bytes(), "10.0.0.10:53").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut buffer = [0; 100];
        uninterrupted(|| server.recv(&mut buffer)).is_ok_and(|length| buffer[..length] == *text.as_bytes())
    };
    assert!(arrives("before"));
    let address = |what| ends.far.output("ip", &["address", what, "172.16.0.1/32", "dev", "lo"]);
    address("add");
    assert!(!arrives("while it is an own address"));
    address("delete");
    assert!(arrives("after"));
}

/// The states of the peers of the first tunnel.
fn states(node: &Program) -> Vec<Value> {
    let page = tunnels(node);
    page["tunnels"][0]["peers"].as_array().unwrap().iter().map(|peer| peer["state"].clone()).collect()
}

fn probes() {
    let ends = Ends::new();
    let (far, node) = (ends.carry(), ends.start());
    until("an answer to a probe", || (states(&node)[0] == "up").then_some(()));
    // The second peer is nobody.
    until("nobody to be down", || (states(&node) == ["up", "down"]).then_some(()));
    let state = |state: &str| {
        format!("ingre_tunnel_peer_state{{tunnel=\"front\",peer=\"192.0.2.2\",state=\"{state}\"}}")
    };
    assert_eq!(node.metric(&state("up")), Some(1), "{}", node.page("/metrics").1);
    drop(far);
    until("the peer to be down", || (states(&node)[0] == "down").then_some(()));
    let _far = ends.carry();
    until("the peer to be back", || (states(&node)[0] == "up").then_some(()));
}

/// `ingre tunnels` with these arguments.
fn show(admin: SocketAddr, arguments: &[&str]) -> crate::harness::program::Ran {
    let admin = admin.to_string();
    ingre(&[&["tunnels", "--admin", &admin], arguments].concat(), "")
}

fn command() {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let node = site.setup("device").start();
    let ran = show(node.admin(), &["--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
    let names: Vec<_> = shown["tunnels"].as_array().unwrap().iter().map(|tunnel| &tunnel["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    // Where the admin listener is, the configuration says as well.
    let config = std::fs::read_to_string(node.path().join("config.yaml")).unwrap();
    let config = config.replacen("127.0.0.1:0", &node.admin().to_string(), 1);
    assert_eq!(ingre(&["tunnels", "-c", "-", "--json"], &config).code, 0);

    // A download that is not taken as fast as it comes would show no rate.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let table = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut client = crate::harness::site::client(&node, "a.test");
                assert_eq!(client.ask(&Request::get("a.test", "/large")).body.len(), LARGE);
            }
        });
        until("packets", || (tunnels(&node)["tunnels"][0]["packets_in"].as_u64() > Some(1000)).then_some(()));
        let ran = show(node.admin(), &[]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        ran.stdout
    });
    let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0][..4], ["TUNNEL", "PEER", "STATE", "PATH"], "{table}");
    assert_eq!(lines[1][..7], ["a", "(gre", "key", "1001)", "192.0.2.2", "unverified", "1500"], "{table}");
    assert_eq!(lines[2][..7], ["b", "(gre", "key", "2002)", "192.0.2.2", "unverified", "1500"], "{table}");
    // Rates: out in bits and packets, in in bits and packets, each per second; what there is much of has a unit.
    assert!(lines[1][9].ends_with(['M', 'G']) && lines[1][10].ends_with(['k', 'M']), "{table}");
    assert_eq!(lines[2][7..11], ["0", "0", "0", "0"], "{table}");
    assert_eq!(lines[2][11], "never", "{table}");
}

fn nothing_to_show() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    for arguments in [&["--json"][..], &[]] {
        let ran = show(free, arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(
            ran.stderr.contains(&format!("no answer from the admin listener on {free}")),
            "{}",
            ran.stderr
        );
    }
    let origin = Origin::named("rs");
    let node = super::site(&origin).start();
    let ran = show(node.admin(), &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("has no tunnels: /tunnels answers 404"), "{}", ran.stderr);
    let ran = show(node.listener("http"), &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("is no admin listener of ingre"), "{}", ran.stderr);
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ran = show(mute.local_addr().unwrap(), &["--json"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("it does not end what it says, and was silent for 2 s"), "{}", ran.stderr);
    let ran = ingre(&["tunnels", "-c", "-"], "tunnels: []\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("admin"), "{}", ran.stderr);
}

/// The one of the file if that has no listeners, or else one that the command line names.
fn admin_of_encap() {
    let ends = Ends::new();
    let far = Setup::new(&format!("admin: {{address: \"127.0.0.1:0\"}}\n{FAR}")).on(&ends.far).carry();
    let ran = ends.far.run(|| show(far.admin(), &["--json"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(shown["tunnels"][0]["name"], "back");
    let metrics = ends.far.run(|| far.page("/metrics").1);
    assert!(metrics.contains("tunnel=\"back\",peer=\"192.0.2.1\""), "{metrics}");
    drop(far);

    let config = NODE.replace(", probe: 10.0.0.20", "");
    let sidecar = Setup::new(&config).on(&ends.node).carry();
    assert!(!sidecar.stderr().contains("admin serves"), "{}", sidecar.stderr());
    drop(sidecar);
    let sidecar = Setup::new(&config).on(&ends.node).argument("--admin").argument("127.0.0.1:0").carry();
    let ran = ends.node.run(|| show(sidecar.admin(), &[]));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.lines().nth(1).unwrap().starts_with("front (gre key 5)"), "{}", ran.stdout);
    assert!(ran.stdout.lines().nth(2).unwrap().trim_start().starts_with("192.0.2.3"), "{}", ran.stdout);
}

fn forwarding() {
    let (ends, rs) = (Ends::new(), Host::new());
    ends.far.wire("rs", &rs, "lan");
    ends.far.sysctl("net/ipv6/conf/rs/disable_ipv6", "0");
    ends.far.address("rs", "fd00:10::1/64");
    let config = "tunnels:\n\
        \x20 - {name: back, local: 192.0.2.2, peers: [192.0.2.1], key: 5, networks: [172.16.0.0/24, \"fd00:16::/64\"], forward: true,\n\
        \x20    forward_to: [{device: rs, networks: [10.0.0.0/24, \"fd00:10::/64\"]}]}\n";
    let note = "tunnel back: net.ipv6.conf.all.forwarding is 0: the kernel hands on no IPv6 between the tunnel and rs; `sysctl";
    let far = Setup::new(config).on(&ends.far).carry();
    assert!(far.stderr().contains(note), "{}", far.stderr());
    drop(far);
    ends.far.sysctl("net/ipv6/conf/all/forwarding", "1");
    let far = Setup::new(config).on(&ends.far).carry();
    assert!(!far.stderr().contains("forwarding"), "{}", far.stderr());
}
