//! The privileged helper, each case in a process and a network namespace of its own: started without the test
//! harness, because the helper is forked from a process with one thread.

#![allow(clippy::unwrap_used, reason = "a test program")]

mod common;

use std::io::{self, IoSlice, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use common::{A, B, case, pair};
use encap::config::{ForwardTo, Isolation, Tunnel};
use encap::device::{MAX_FRAME_BYTES, Tun};
use encap::linux::namespace::{Namespace, enter_user_namespace};
use encap::linux::netlink::{Address, Ipv4Setting, Netlink, Route, Rule, RuleAction};
use encap::linux::{capability, inherited};
use encap::privileged::{Edges, PROTOCOL, Privileged};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};

const OWN: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 443);

/// The tunnels of most cases, by number.
const NAMES: [&str; 2] = ["a", "b"];

/// A name, what to do, and how the process ends: `None` means by SIGKILL.
type Case = (&'static str, fn(), Option<i32>);

const CASES: [Case; 11] = [
    ("device", device, Some(0)),
    ("namespace", namespace, Some(0)),
    ("forward", forward, Some(0)),
    ("missing", missing, Some(0)),
    ("loose", loose, Some(0)),
    ("failing", failing, Some(0)),
    ("killed", killed, None),
    ("signals", signals, Some(0)),
    ("helper_killed", helper_killed, Some(0)),
    ("user_namespace", user_namespace, Some(0)),
    ("handed_on", handed_on, Some(0)),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [flag, name] = &arguments[..]
        && flag == "--case"
    {
        match name.as_str() {
            "not_for_us" => assert!(inherited::take().unwrap().is_empty()),
            "too_many" => {
                let error = inherited::take().unwrap_err().to_string();
                assert!(error.contains("promises 9 descriptors") && error.contains("is not open"), "{error}");
            }
            _ => CASES.iter().find(|case| case.0 == name).unwrap().1(),
        }
        return ExitCode::SUCCESS;
    }
    common::run(CASES.iter().map(|&(name, _, code)| case(name, move || run(name, code))).collect())
}

/// Runs a case between `left` (here) and `right`; afterwards nothing is left in `left`.
fn run(name: &str, code: Option<i32>) {
    let (left, _right) = pair();
    // A new namespace inherits it from the host.
    left.run_in(|| {
        let mut netlink = Netlink::open().unwrap();
        let device = netlink.link("left").unwrap().unwrap().index;
        netlink.set_ipv4(device, &[(Ipv4Setting::Forwarding, 0)]).unwrap();
    })
    .unwrap();
    let before = left.run_in(state).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--case", name]).stdout(Stdio::piped());
    let mut child = left.spawn(command, Signal::KILL).unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), code, "{said}");
    for _ in 0..100 {
        if left.run_in(state).unwrap() == before {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(left.run_in(state).unwrap(), before, "something is left");
}

/// All that set-up can leave behind.
fn state() -> String {
    let mut netlink = Netlink::open().unwrap();
    let links = netlink.links().unwrap();
    let left = netlink.link("left").unwrap().unwrap().index;
    let forwarding = netlink.ipv4_setting(left, Ipv4Setting::Forwarding).unwrap();
    let (addresses, rules) = (netlink.addresses().unwrap(), netlink.rules(PROTOCOL).unwrap());
    let (main, ours) = (netlink.routes(libc::RTPROT_STATIC).unwrap(), netlink.routes(PROTOCOL).unwrap());
    format!("{links:?}\n{addresses:?}\n{rules:?}\n{main:?}\n{ours:?}\n{forwarding}")
}

fn tunnel(name: &str, key: u32) -> Tunnel {
    Tunnel {
        key: Some(key),
        device: format!("gre-{name}"),
        addresses: vec![OWN.into()],
        vips: vec![VIP.into()],
        ..Tunnel::new(name, A.into(), vec![B.into()], vec!["10.0.0.0/24".parse().unwrap()])
    }
}

fn readable(descriptor: impl AsFd, milliseconds: i64) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
    let mut ready = [PollFd::new(&descriptor, PollFlags::IN)];
    rustix::event::poll(&mut ready, Some(&timeout)).unwrap() > 0
}

/// The next IPv4 packet that the kernel sends into the tunnel.
fn packet_from(tun: &Tun) -> Vec<u8> {
    let mut frame = Vec::with_capacity(MAX_FRAME_BYTES);
    assert!(readable(tun, 900), "nothing came out of the tunnel");
    tun.read(&mut frame).unwrap();
    frame.split_off(10)
}

/// A TCP SYN. The virtio header says that the checksum is to be finished, so only its start value matters.
fn syn(source: SocketAddrV4, destination: SocketAddrV4) -> Vec<u8> {
    let mut frame = vec![1, 0, 0, 0, 0, 0, 20, 0, 16, 0];
    let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip.extend(source.ip().octets());
    ip.extend(destination.ip().octets());
    let sum = |bytes: &[u8]| {
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>()
    };
    let fold = |sum: u32| ((sum & 0xffff) + (sum >> 16)) as u16;
    let checksum = !fold(sum(&ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = fold(sum(&ip[12..20]) + 6 + 20);
    frame.extend(&ip);
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff]);
    frame.extend(pseudo.to_be_bytes());
    frame.extend([0, 0]);
    frame
}

/// Connects through the tunnel and checks that the SYN comes out of its device, from its address.
fn assert_dials(privileged: &Privileged, edges: &Edges, number: usize) {
    let socket = privileged.connect_socket(NAMES[number], false).unwrap();
    let error =
        rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 8080)).unwrap_err();
    assert_eq!(error, rustix::io::Errno::INPROGRESS);
    let packet = packet_from(&edges.tunnels[number].tun);
    assert_eq!((packet[9], &packet[12..16], &packet[16..20]), (6, &OWN.octets()[..], &[10, 0, 0, 9][..]));
    assert_eq!(packet[22..24], 8080u16.to_be_bytes());
}

/// Lets a client connect to the VIP and checks that the answer goes back into the same tunnel.
fn assert_listens(privileged: &Privileged, edges: &Edges, number: usize) -> OwnedFd {
    let listener = privileged.listen(NAMES[number], VIP.into()).unwrap();
    let client = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 77), 5555);
    edges.tunnels[number].tun.write(&[IoSlice::new(&syn(client, VIP))]).unwrap();
    let packet = packet_from(&edges.tunnels[number].tun);
    assert_eq!((&packet[12..16], &packet[16..20]), (&VIP.ip().octets()[..], &client.ip().octets()[..]));
    assert_eq!(packet[33], 0x12, "SYN and ACK");
    listener
}

/// Two tunnels with equal inner addresses on devices of their own.
fn device() {
    let tunnels = [tunnel("a", 1), Tunnel { mtu: Some(1300), ..tunnel("b", 2) }];
    let (privileged, edges) = Privileged::start(&tunnels, 2).unwrap();
    assert!(edges.warnings.is_empty(), "{:?}", edges.warnings);
    assert_eq!(edges.tunnels.iter().map(|opened| opened.mtu).collect::<Vec<_>>(), [1472, 1300]);
    assert_eq!(edges.networks.len(), 1, "same interface and local address");
    let network = &edges.networks[0];
    assert_eq!(
        (network.interface.as_str(), network.local, network.link_header_bytes),
        ("left", A.into(), 14)
    );
    assert_eq!(network.receivers.len(), 2);
    let shown =
        Command::new("ip").args(["link", "show", "dev", edges.tunnels[0].tun.name()]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("qlen 1000"), "{shown:?}");
    capability::drop_all().unwrap();
    let mut listeners = Vec::new();
    for number in 0..2 {
        assert_dials(&privileged, &edges, number);
        listeners.push(assert_listens(&privileged, &edges, number));
        assert!(!readable(&edges.tunnels[1 - number].tun, 30), "nothing in the other tunnel");
    }
    let refused = privileged.listen("a", SocketAddr::new(A.into(), 80)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EADDRNOTAVAIL), "no VIP of this tunnel");
    let refused = privileged.listen("a", VIP.into()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EADDRINUSE));
    assert!(privileged.connect_socket("c", false).is_err());
    // A socket that is not bound to a tunnel finds no way.
    let stray = std::net::TcpStream::connect((Ipv4Addr::new(10, 0, 0, 9), 80)).unwrap_err();
    assert_eq!(stray.raw_os_error(), Some(libc::ENETUNREACH));
    assert!(!readable(privileged.ended(), 0));
}

/// Nothing in the host's namespace but, where there can be one, the outlet, which has no address and no route.
fn namespace() {
    let before = state();
    let tunnels = [
        Tunnel { isolation: Isolation::Namespace, ..tunnel("a", 1) },
        Tunnel { isolation: Isolation::Namespace, device: "gre-a".into(), ..tunnel("b", 2) },
    ];
    let (privileged, edges) = Privileged::start(&tunnels, 1).unwrap();
    capability::drop_all().unwrap();
    let outlet = Netlink::open().unwrap().link("ingre-out0").unwrap();
    assert_eq!(outlet.is_some(), edges.networks[0].outlet.is_some());
    let outlet = outlet.map(|link| format!(", {link:?}")).unwrap_or_default();
    assert_eq!(state().replacen(&outlet, "", usize::from(!outlet.is_empty())), before);
    for number in 0..2 {
        assert_dials(&privileged, &edges, number);
        drop(assert_listens(&privileged, &edges, number));
    }
}

/// An L4 node hands packets on between the tunnel and a named device.
fn forward() {
    let networks = vec!["192.0.2.0/24".parse().unwrap()];
    let forward = vec![ForwardTo { device: "left".into(), networks }];
    let tunnels = [Tunnel { forward, vips: Vec::new(), ..tunnel("a", 1) }];
    let (_privileged, edges) = Privileged::start(&tunnels, 1).unwrap();
    let mut netlink = Netlink::open().unwrap();
    let left = netlink.link("left").unwrap().unwrap().index;
    assert_eq!(netlink.ipv4_setting(left, Ipv4Setting::Forwarding).unwrap(), 1);
    let rules = netlink.rules(PROTOCOL).unwrap();
    assert_eq!(rules.len(), 5, "{rules:?}");
    for device in ["gre-a", "left"] {
        let blocks =
            |rule: &Rule| rule.action == RuleAction::Unreachable && rule.input.as_deref() == Some(device);
        assert!(rules.iter().any(blocks), "{device}: {rules:?}");
    }
    // What the tunnel names is handed on; what only the host's main table knows is not.
    let (client, elsewhere) = (Ipv4Addr::new(10, 0, 0, 77), Ipv4Addr::new(198, 51, 100, 1));
    let default = Route {
        destination: "0.0.0.0/0".parse().unwrap(),
        table: 254,
        device: left,
        gateway: Some(B.into()),
        source: None,
        protocol: 4,
    };
    netlink.add_route(&default).unwrap();
    let send = |to| {
        let before = forwarded();
        let frame = syn(SocketAddrV4::new(client, 1), SocketAddrV4::new(to, 80));
        edges.tunnels[0].tun.write(&[IoSlice::new(&frame)]).unwrap();
        forwarded() - before
    };
    assert_eq!((send(B), send(elsewhere)), (1, 0));
    netlink.delete_route(&default).unwrap();
}

/// Packets that this namespace has forwarded.
fn forwarded() -> u64 {
    let text = std::fs::read_to_string("/proc/self/net/snmp").unwrap();
    let values: Vec<_> =
        text.lines().filter(|line| line.starts_with("Ip: ")).map(str::split_whitespace).collect();
    let [names, values] = <[_; 2]>::try_from(values).ok().unwrap();
    names.zip(values).find(|(name, _)| *name == "ForwDatagrams").unwrap().1.parse().unwrap()
}

/// Everything that is missing is said at once, with the remedy.
fn missing() {
    std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
    capability::drop_all().unwrap();
    let tunnels = [
        Tunnel { local: Ipv4Addr::new(192, 0, 2, 77).into(), ..tunnel("a", 1) },
        Tunnel { interface: Some("eth9".into()), isolation: Isolation::Namespace, ..tunnel("b", 2) },
        Tunnel { peers: vec![Ipv4Addr::new(198, 51, 100, 1).into()], ..tunnel("c", 3) },
    ];
    let text = Privileged::start(&tunnels, 1).unwrap_err().to_string();
    for part in [
        "missing CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN",
        "docker run --user 0 --cap-add NET_ADMIN --cap-add NET_RAW --cap-add SYS_ADMIN",
        "sysctl -w net.ipv4.conf.all.rp_filter=0",
        "tunnel a: local 192.0.2.77 is no address of this host",
        "tunnel b: there is no interface eth9",
        "tunnel c: no way to its first peer",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

/// A loose reverse path filter works only with a route of the host.
fn loose() {
    std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap();
    let (privileged, edges) = Privileged::start(&[tunnel("a", 1)], 1).unwrap();
    assert_eq!(edges.warnings.len(), 1);
    assert!(edges.warnings[0].contains("no route at all to 10.0.0.0/24"), "{:?}", edges.warnings);
    // What the warning says is true.
    let _listener = privileged.listen("a", VIP.into()).unwrap();
    let client = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 77), 5555);
    edges.tunnels[0].tun.write(&[IoSlice::new(&syn(client, VIP))]).unwrap();
    assert!(!readable(&edges.tunnels[0].tun, 50));
}

/// A failure in the middle takes back what was made before it.
fn failing() {
    let before = state();
    let taken = Tun::create("gre-b").unwrap();
    let error = Privileged::start(&[tunnel("a", 1), tunnel("b", 2)], 1).unwrap_err();
    assert!(
        error.to_string().contains("tunnel b: cannot make TUN device gre-b: the name is in use"),
        "{error}"
    );
    drop(taken);
    assert_eq!(state(), before);
}

/// The parent dies without a word; the helper cleans up.
fn killed() {
    let forward = vec![ForwardTo { device: "left".into(), networks: vec!["192.0.2.0/24".parse().unwrap()] }];
    let tunnels = [Tunnel { forward, vips: Vec::new(), ..tunnel("a", 1) }];
    let _started = Privileged::start(&tunnels, 1).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
}

/// Ctrl-C and the like are for the parent.
fn signals() {
    let (privileged, edges) = Privileged::start(&[tunnel("a", 1)], 1).unwrap();
    let helper = Pid::from_raw(privileged.pid() as i32).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        rustix::process::kill_process(helper, signal).unwrap();
    }
    assert!(!readable(privileged.ended(), 50));
    drop(assert_listens(&privileged, &edges, 0));
}

/// The helper dies: that shows. What it left behind, the next start sweeps, but nothing of a live instance.
fn helper_killed() {
    let (live, _edges) = Privileged::start(&[tunnel("live", 9)], 1).unwrap();
    let forward = vec![ForwardTo { device: "left".into(), networks: vec!["192.0.2.0/24".parse().unwrap()] }];
    let tunnels = [Tunnel { forward, vips: vec![VIP.into()], ..tunnel("a", 1) }];
    let (privileged, edges) = Privileged::start(&tunnels, 1).unwrap();
    rustix::process::kill_process(Pid::from_raw(privileged.pid() as i32).unwrap(), Signal::KILL).unwrap();
    assert!(readable(privileged.ended(), 900));
    assert_eq!(privileged.listen("a", VIP.into()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    drop((privileged, edges));
    let mut netlink = Netlink::open().unwrap();
    assert_eq!(netlink.rules(PROTOCOL).unwrap().len(), 1 + 5, "the dead one's rules are still there");
    let (next, _edges) = Privileged::start(&[tunnel("b", 1)], 1).unwrap();
    let rules = netlink.rules(PROTOCOL).unwrap();
    let mut devices: Vec<_> = rules.iter().filter_map(|rule| rule.output.as_deref()).collect();
    devices.sort_unstable();
    assert_eq!((rules.len(), devices), (2, vec!["gre-b", "gre-live"]));
    assert_eq!(netlink.routes(PROTOCOL).unwrap().len(), 2);
    let left = netlink.link("left").unwrap().unwrap().index;
    assert_eq!(netlink.ipv4_setting(left, Ipv4Setting::Forwarding).unwrap(), 0, "as before the dead one");
    drop((next, live));
}

/// Without any privilege on the host, in a user namespace.
fn user_namespace() {
    enter_user_namespace().unwrap();
    let mine = Namespace::new().unwrap();
    mine.enter().unwrap();
    let mut netlink = Netlink::open().unwrap();
    netlink.create_veth("left", "right", None).unwrap();
    for (name, address) in [("left", A), ("right", B)] {
        let device = netlink.link(name).unwrap().unwrap().index;
        netlink.add_address(Address { device, address: address.into(), prefix_len: 24 }).unwrap();
        netlink.set_up(device).unwrap();
    }
    let tunnels = [
        Tunnel { interface: Some("left".into()), ..tunnel("a", 1) },
        Tunnel { interface: Some("left".into()), isolation: Isolation::Namespace, ..tunnel("b", 2) },
    ];
    let (privileged, edges) = Privileged::start(&tunnels, 1).unwrap();
    for number in 0..2 {
        assert_dials(&privileged, &edges, number);
        drop(assert_listens(&privileged, &edges, number));
    }
}

/// A successor gets the descriptors of its predecessor, once.
fn handed_on() {
    let taken = inherited::take().unwrap();
    assert!(inherited::take().unwrap().is_empty(), "taken once");
    if let [(name, descriptor)] = &taken[..] {
        assert_eq!(name, "web");
        let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert!(std::env::var_os("LISTEN_FDS").is_none());
        rustix::io::write(descriptor, b"successor").unwrap();
        return;
    }
    assert!(taken.is_empty());
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--case", "handed_on"]);
    inherited::hand_on(&mut command, vec![("web".into(), theirs.into())]).unwrap();
    assert!(command.status().unwrap().success());
    drop(command);
    let mut said = String::new();
    ours.read_to_string(&mut said).unwrap();
    assert_eq!(said, "successor");
    // Meant for another process.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--case", "not_for_us"]).envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1")]);
    assert!(command.status().unwrap().success());
    // More promised than there is.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--case", "too_many"]).envs([("LISTEN_FDS", "9")]);
    assert!(command.status().unwrap().success());
}
