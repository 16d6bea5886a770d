//! The whole path: TCP through two tunnels with equal inner addresses between two nodes, each a process with its
//! helper and engine threads in a network namespace of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{A, B, case, pair};
use encap::config::{Isolation, Tunnel};
use encap::linux::capability;
use encap::linux::namespace::Namespace;
use encap::linux::netlink::Netlink;

use encap::privileged::Privileged;
use encap::run::{EdgeDrop, Engines};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

const OWN: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 8080);
/// The same port in both tunnels: only the tunnel tells the connections apart.
const CLIENT_PORT: u16 = 40_000;
const BYTES: usize = 32 << 20;
const KEYS: [Option<u32>; 2] = [Some(1001), None];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [flag, node, threads, isolation] = &arguments[..]
        && flag == "--node"
    {
        let isolation = if isolation == "namespace" { Isolation::Namespace } else { Isolation::Device };
        let threads = threads.parse().unwrap();
        match node.as_str() {
            "client" => client(threads, isolation),
            "server" => server(threads, isolation),
            _ => vanished(),
        }
        return ExitCode::SUCCESS;
    }
    let there_and_back = |(threads, isolation)| {
        case(format!("path_with_{threads}_threads_isolation_{isolation}"), move || {
            carries(threads, isolation)
        })
    };
    let mut cases: Vec<_> =
        [("1", "device"), ("2", "device"), ("1", "namespace")].into_iter().map(there_and_back).collect();
    cases.push(case("path_that_loses_its_device", || {
        let (left, _right) = pair();
        assert!(start(&left, "vanished", "1", "device").wait().unwrap().success());
    }));
    common::run(cases)
}

/// A server behind one node and a client behind the other.
fn carries(threads: &str, isolation: &str) {
    let (left, right) = pair();
    let mut server = start(&right, "server", threads, isolation);
    let mut said = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    let mut client = start(&left, "client", threads, isolation);
    assert!(client.wait().unwrap().success(), "client");
    assert!(server.wait().unwrap().success(), "server");
}

fn start(namespace: &Namespace, node: &str, threads: &str, isolation: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--node", node, threads, isolation]).stdout(Stdio::piped());
    namespace.spawn(command, Signal::KILL).unwrap()
}

fn tunnels(local: Ipv4Addr, peer: Ipv4Addr, isolation: Isolation) -> Vec<Tunnel> {
    let tunnel = |(number, key): (usize, Option<u32>)| Tunnel {
        key,
        addresses: vec![OWN.into()],
        isolation,
        ..Tunnel::new(&name(number), local.into(), vec![peer.into()], vec!["10.0.0.0/24".parse().unwrap()])
    };
    KEYS.into_iter().enumerate().map(tunnel).collect()
}

fn name(number: usize) -> String {
    format!("t{number}")
}

fn run(tunnels: &[Tunnel], threads: usize) -> (Privileged, Engines) {
    let (privileged, edges) = Privileged::start(tunnels, threads).unwrap();
    let engines = Engines::start(Arc::default(), threads, Some(&[0])).unwrap();
    engines.add(edges).unwrap();
    (privileged, engines)
}

/// Each side sends the tunnel's own byte and expects it back.
fn server(threads: usize, isolation: Isolation) {
    let mut tunnels = tunnels(B, A, isolation);
    for tunnel in &mut tunnels {
        tunnel.addresses = Vec::new();
        tunnel.networks = vec!["172.16.0.0/24".parse().unwrap()];
        tunnel.vips = vec![SERVER.into()];
    }
    let (privileged, engines) = run(&tunnels, threads);
    let listeners: Vec<TcpListener> =
        (0..2).map(|number| privileged.listen(&name(number), SERVER.into()).unwrap().into()).collect();
    capability::drop_all().unwrap();
    println!("ready");
    let serve = |(number, listener): (usize, TcpListener)| {
        listener.set_nonblocking(false).unwrap();
        let (stream, from) = listener.accept().unwrap();
        assert_eq!(from, SocketAddrV4::new(OWN, CLIENT_PORT).into());
        exchange(stream, number as u8 + 10, number as u8 + 20);
    };
    std::thread::scope(|scope| {
        listeners.into_iter().enumerate().for_each(|pair| drop(scope.spawn(move || serve(pair))));
    });
    finish(engines);
}

fn client(threads: usize, isolation: Isolation) {
    let (privileged, engines) = run(&tunnels(A, B, isolation), threads);
    capability::drop_all().unwrap();
    let dial = |number: usize| {
        let socket = privileged.connect_socket(&name(number), false).unwrap();
        rustix::net::bind(&socket, &SocketAddrV4::new(OWN, CLIENT_PORT)).unwrap();
        rustix::io::ioctl_fionbio(&socket, false).unwrap();
        rustix::net::connect(&socket, &SERVER).unwrap();
        exchange(TcpStream::from(socket), number as u8 + 20, number as u8 + 10);
    };
    std::thread::scope(|scope| (0..2).for_each(|number| drop(scope.spawn(move || dial(number)))));
    finish(engines);
}

fn exchange(stream: TcpStream, mine: u8, theirs: u8) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Closing waits until the other side has everything: afterwards the engine is stopped.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::from_secs(20))).unwrap();
    let writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let block = vec![mine; 1 << 20];
            (0..BYTES >> 20).for_each(|_| (&writer).write_all(&block).unwrap());
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let (mut total, mut block) = (0, vec![0; 1 << 20]);
        loop {
            let len = (&stream).read(&mut block).unwrap();
            if len == 0 {
                break;
            }
            assert!(block[..len].iter().all(|byte| *byte == theirs), "bytes of the other tunnel");
            total += len;
        }
        assert_eq!(total, BYTES);
    });
}

fn finish(mut engines: Engines) {
    // The last acknowledgements are still on their way.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(engines.failure(), None);
    for reason in
        [EdgeDrop::SendTooBig, EdgeDrop::SendUnreachable, EdgeDrop::SendFailed, EdgeDrop::ReceivedTooBig]
    {
        assert_eq!(engines.edge_counters().get(reason), 0, "{}", reason.name());
    }
    engines.stop().unwrap();
}

/// A device that somebody deletes ends the threads, and says so; so does the underlay interface.
fn vanished() {
    for (name, expected) in [
        ("ig-t1", "engine thread 0: device ig-t1 of a tunnel is gone"),
        ("left", "engine thread 0: underlay interface left is gone"),
    ] {
        let (_privileged, mut engines) = run(&tunnels(A, B, Isolation::Device), 1);
        let mut netlink = Netlink::open().unwrap();
        let device = netlink.link(name).unwrap().unwrap().index;
        netlink.delete_link(device).unwrap();
        let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
        let failed = engines.failed();
        assert_eq!(
            rustix::event::poll(&mut [PollFd::new(&failed, PollFlags::IN)], Some(&timeout)),
            Ok(1),
            "{name}"
        );
        let failure = engines.failure().unwrap();
        assert!(failure.starts_with(expected), "{failure}");
        engines.stop().unwrap();
    }
}
