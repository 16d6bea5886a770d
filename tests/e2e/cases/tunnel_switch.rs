//! Open vSwitch as the peer: its data path in user space speaks GRE without any code of ours or of the kernel's.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::scratch::Scratch;
use crate::harness::site::{LARGE, ask, client, drops, large, serve, sha256};
use crate::harness::{Case, Host, Need, Program, Request, Site, until};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::OpenVswitch];
const NEEDS_CARD: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::OpenVswitch, Need::Ethtool];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::open_vswitch_as_peer", NEEDS, || peer("key: 7, ", &["options:key=7"], false)),
        Case::needing("tunnel::open_vswitch_behind_a_card", NEEDS_CARD, || {
            peer("key: 7, ", &["options:key=7"], true)
        }),
        Case::needing("tunnel::open_vswitch_with_checksums_and_no_key", NEEDS, || {
            peer("", &["options:csum=true"], false)
        }),
    ]
}

/// It takes one packet at a time, which on a cable the node has to cut, and behind a card the kernel does.
fn peer(key: &str, options: &[&str], by_card: bool) {
    let (node, peer) = (Host::new(), Host::new());
    node.wire("wan", &peer, "wan");
    if by_card {
        node.make_card("wan");
    }
    node.address("wan", "192.0.2.1/24");
    let switch = Switch::start(&peer, options);
    let site = Site { node, l4: peer.clone(), tenants: [peer.clone(), peer.clone()] };
    let _server = serve(&peer, Ipv4Addr::new(10, 0, 0, 10), "a");
    let running = site
        .setup_with(|config| config.replace("key: 1001, ", key).replace(", {address: \"10.0.0.11:80\"}", ""))
        .start();
    // The switch drops what comes before it knows the node's link address.
    until("an answer through the switch", || {
        (ask(&running, "a.test") == (200, "a 10.0.0.10".into())).then_some(())
    });
    let mut client = client(&running, "a.test");
    let response = client.ask(&Request::post("a.test", "/upload", large()));
    assert_eq!((response.status, response.text()), (200, sha256(&large())));
    let response = client.ask(&Request::get("a.test", "/large"));
    assert_eq!(
        (response.status, response.body.len(), sha256(&response.body)),
        (200, LARGE, sha256(&large()))
    );
    for reason in ["bad_gre", "bad_gre_checksum", "malformed", "bad_offload"] {
        assert_eq!(drops(&running, "a", reason) + drops(&running, "", reason), 0, "{reason}");
    }
    assert!(site.node.left_uncut().is_none_or(|packets| (packets > 0) == by_card));
    drop(switch);
}

/// The switch: the bridge `underlay` with 192.0.2.2 on the cable, the bridge `inner` with 10.0.0.10 behind the tunnel.
struct Switch {
    _programs: [Program; 2],
    _scratch: Scratch,
}

impl Switch {
    fn start(host: &Host, options: &[&str]) -> Self {
        let scratch = Scratch::new();
        let directory = scratch.path();
        let run = |program: &str, arguments: &[&str]| {
            let output = host.run(|| command(program, directory).args(arguments).output().unwrap());
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let background = |program: &str, arguments: &[&str]| {
            let mut command = command(program, directory);
            command.args(arguments).stdin(Stdio::null());
            Program::spawn_on(Some(host), command, None)
        };
        let socket = directory.join("db.sock");
        let database = format!("unix:{}", socket.display());
        run("ovsdb-tool", &["create", "conf.db", "/usr/share/openvswitch/vswitch.ovsschema"]);
        let store = background("ovsdb-server", &["conf.db", &format!("--remote=p{database}")]);
        until("the database", || socket.exists().then_some(()));
        let configure = |arguments: &[&str]| {
            run("ovs-vsctl", &[&[&format!("--db={database}"), "--timeout=20"][..], arguments].concat());
        };
        configure(&["--no-wait", "init"]);
        let switch = background("ovs-vswitchd", &[&database, "--disable-system"]);
        for bridge in ["underlay", "inner"] {
            configure(&["add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev"]);
        }
        configure(&["add-port", "underlay", "wan"]);
        let gre = ["--", "set", "interface", "gre0", "type=gre", "options:remote_ip=192.0.2.1"];
        let layer_3 = ["options:packet_type=legacy_l3"];
        configure(&[&["add-port", "inner", "gre0"][..], &gre, &layer_3, options].concat());

        host.address("underlay", "192.0.2.2/24");
        host.mtu("inner", 1472);
        host.address("inner", "10.0.0.10/24");
        host.route("inner", "172.16.0.0/24");
        // The tunnel carries no Ethernet, so nobody answers ARP; any address does.
        host.output("ip", &["neigh", "add", "172.16.0.1", "lladdr", "02:00:00:00:00:01", "dev", "inner"]);
        let link = host.output("ip", &["-o", "link", "show", "inner"]);
        let own = link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        run("ovs-ofctl", &["del-flows", "inner"]);
        run("ovs-ofctl", &["add-flow", "inner", &format!("in_port=gre0,actions=mod_dl_dst:{own},LOCAL")]);
        run("ovs-ofctl", &["add-flow", "inner", "in_port=LOCAL,actions=gre0"]);
        Self { _programs: [switch, store], _scratch: scratch }
    }
}

/// A program of the switch, which keeps everything in this directory.
fn command(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(name, directory);
    }
    command
}
