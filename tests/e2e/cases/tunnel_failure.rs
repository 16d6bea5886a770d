//! What fails says why, nothing hangs, and nothing is left behind.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::site::{ask, tunnels};
use crate::harness::{Case, Host, Need, Program, Setup, Site, until, within};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun];
const NEEDS_SETPRIV: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::Setpriv];
/// Far longer than anything here may take.
const SOON: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::l4_node_killed_and_back", NEEDS, l4_killed),
        Case::needing("tunnel::device_taken_away", NEEDS, device_gone),
        Case::needing("tunnel::underlay_taken_away", NEEDS, underlay_gone),
        Case::needing("tunnel::helper_killed", NEEDS, helper_killed),
        Case::needing("tunnel::missing_capabilities_are_named", NEEDS_SETPRIV, capabilities),
        Case::needing("tunnel::what_is_missing_is_said_at_once", NEEDS, missing),
        Case::needing("tunnel::port_in_use_takes_the_tunnels_back", NEEDS, port_in_use),
        Case::needing("tunnel::nothing_is_left_behind", NEEDS, nothing_left),
        Case::needing("tunnel::a_start_sweeps_the_dead_and_spares_the_living", NEEDS, sweep),
    ]
}

fn l4_killed() {
    let site = Site::new();
    let (_servers, l4) = (site.servers(), site.carry());
    let node = site
        .setup_with(|config| config.replace("<check>", "{type: tcp, interval: 2s, timeout: 500ms}"))
        .start();
    assert_eq!(ask(&node, "a.test").0, 200);
    l4.signal(Signal::KILL);
    drop(l4);
    // connect_timeout is 2 s, and the other RS may be tried after the first.
    let before = Instant::now();
    let (status, text) = ask(&node, "b.test");
    assert!(before.elapsed() < Duration::from_secs(7), "{:?}", before.elapsed());
    assert!(matches!(status, 502 | 504), "{status} {text}");
    assert!(
        text.contains("timed out") || text.contains("connect") || text.contains("reach"),
        "no reason: {text}"
    );
    let _l4 = site.carry();
    for domain in ["a.test", "b.test"] {
        until("an answer after the L4 node is back", || (ask(&node, domain).0 == 200).then_some(()));
    }
}

fn device_gone() {
    let site = Site::new();
    let mut node = site.setup("device").start();
    site.node.unplug("tun-a");
    let status = node.exit_within(SOON);
    assert_eq!(status.code(), Some(1));
    assert!(
        node.stderr().contains("tunnels have failed") && node.stderr().contains("tun-a"),
        "{}",
        node.stderr()
    );
}

fn underlay_gone() {
    let site = Site::new();
    let mut node = site.setup("device").start();
    site.node.unplug("wan");
    let status = node.exit_within(SOON);
    assert_eq!(status.code(), Some(1));
    assert!(
        node.stderr().contains("tunnels have failed") && node.stderr().contains("wan"),
        "{}",
        node.stderr()
    );
}

fn helper_killed() {
    let site = Site::new();
    let mut node = site.setup("device").start();
    kill_process(helper(&node), Signal::KILL).unwrap();
    let status = node.exit_within(SOON);
    assert_eq!(status.code(), Some(1));
    assert!(node.stderr().contains("the privileged helper has ended"), "{}", node.stderr());
}

/// The privileged helper of a node.
pub(super) fn helper(node: &Program) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", node.pid());
    let children = std::fs::read_to_string(children).unwrap();
    let [child] = children.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("children: {children:?}")
    };
    Pid::from_raw(child.parse().unwrap()).unwrap()
}

fn capabilities() {
    let site = Site::new();
    for (bounding, isolation, missing) in [
        ("-net_admin", "device", "CAP_NET_ADMIN"),
        ("-net_raw", "device", "CAP_NET_RAW"),
        ("-sys_admin", "namespace", "CAP_SYS_ADMIN"),
        ("-net_admin,-net_raw", "device", "CAP_NET_ADMIN, CAP_NET_RAW"),
    ] {
        let ran = site.setup(isolation).under(&["setpriv", "--bounding-set", bounding]).fail();
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains(&format!("missing {missing}:")), "{ran:?}");
        for capability in missing.split(", ") {
            let docker = format!("--cap-add {}", capability.trim_start_matches("CAP_"));
            assert!(ran.stderr.contains(&docker), "{docker} in {ran:?}");
        }
    }
}

/// Everything at once, each with its remedy.
fn missing() {
    let site = Site::new();
    site.node.sysctl("net/ipv4/conf/all/rp_filter", "1");
    let before = site.node.state();
    let broken = |config: String| {
        let config = config.replacen("local: 192.0.2.1", "local: 192.0.2.99", 1);
        config.replace("interface: wan", "interface: eth7")
    };
    let ran = site.setup_with(broken).fail();
    assert_eq!(ran.code, 1);
    for part in [
        "sysctl -w net.ipv4.conf.all.rp_filter=0",
        "tunnel a: local 192.0.2.99 is no address of this host",
        "tunnel a: there is no interface eth7",
    ] {
        assert!(ran.stderr.contains(part), "{part:?} is missing in:\n{}", ran.stderr);
    }
    assert_eq!(site.node.state(), before);
    // A namespace of its own does not care.
    let _node = site.setup("namespace").start();
}

fn port_in_use() {
    let site = Site::new();
    let before = site.node.state();
    let _other = site.node.run(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let ran = site.setup("device").fail();
    assert_eq!(ran.code, 1);
    for part in ["listener `everywhere`", "0.0.0.0:8080", "another program has this port", "ss -ltnp"] {
        assert!(ran.stderr.contains(part), "{part:?} is missing in:\n{}", ran.stderr);
    }
    returns_to(&site.node, &before);
}

fn returns_to(host: &Host, before: &str) {
    within(SOON, || (host.state() == before).then_some(()))
        .unwrap_or_else(|| panic!("left behind: {}\n--- before:\n{before}", host.state()));
}

/// Whatever ends it, no device, address, rule, route or setting stays, on the node or on the L4 node.
fn nothing_left() {
    let site = Site::new();
    let before = [site.node.state(), site.l4.state()];
    for isolation in ["device", "namespace"] {
        for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
            let (mut l4, mut node) = (site.carry(), site.setup(isolation).start());
            assert_ne!([site.node.state(), site.l4.state()], before);
            for program in [&mut l4, &mut node] {
                program.signal(signal);
                let status = program.exit_within(SOON);
                assert_eq!(status.success(), signal != Signal::KILL, "{}", program.stderr());
            }
            returns_to(&site.node, &before[0]);
            returns_to(&site.l4, &before[1]);
        }
    }
}

/// A helper that is killed cannot clean up; the next start does, and leaves a living neighbour alone.
fn sweep() {
    let site = Site::new();
    let before = site.l4.state();
    let neighbour =
        "tunnels: [{name: n, local: 192.0.2.2, peers: [192.0.2.1], key: 7, networks: [10.7.0.0/24]}]\n";
    let mut neighbour = Setup::new(neighbour).on(&site.l4).carry();
    let with_neighbour = site.l4.state();
    let mut l4 = site.carry();
    kill_process(helper(&l4), Signal::KILL).unwrap();
    l4.exit_within(SOON);
    until("the devices to be gone", || (!site.l4.state().contains(": ig-a:")).then_some(()));
    assert_ne!(site.l4.state(), with_neighbour, "somebody else has cleaned up, and this case shows nothing");
    let mut l4 = site.carry();
    l4.signal(Signal::TERM);
    assert!(l4.exit_within(SOON).success());
    returns_to(&site.l4, &with_neighbour);
    assert!(neighbour.stderr().ends_with("carrying 1 tunnels"), "{}", neighbour.stderr());
    neighbour.signal(Signal::TERM);
    assert!(neighbour.exit_within(SOON).success());
    returns_to(&site.l4, &before);
    // Its tunnels work on after all that.
    let (_servers, _l4, node) = (site.servers(), site.carry(), site.setup("device").start());
    assert_eq!(ask(&node, "a.test").0, 200, "{:#}", tunnels(&node));
}
