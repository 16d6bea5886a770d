//! Packets that are lost before the program has seen them: they are counted all the same.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use rustix::process::Signal;
use socket2::SockRef;

use crate::harness::site::{OWN, SERVERS, drops, tunnels};
use crate::harness::{Case, Host, Need, Site, until};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun];
/// More than the queue of a device holds.
const SENT: u64 = 3000;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::a_full_queue_is_counted_device", NEEDS, || full_queue("device")),
        Case::needing("tunnel::a_full_queue_is_counted_namespace", NEEDS, || full_queue("namespace")),
    ]
}

/// Nobody reads the device for a while; the kernel keeps what its queue holds and drops the rest.
fn full_queue(isolation: &str) {
    let site = Site::new();
    let node = site.setup(isolation).start();
    let hosts = match isolation {
        "device" => vec![site.node.clone()],
        _ => Host::held_by(helper_of(node.pid())),
    };
    let sockets: Vec<_> = hosts.iter().filter_map(|host| host.run(socket)).collect();
    let [socket] = &sockets[..] else { panic!("{} sockets on the device", sockets.len()) };
    assert_eq!(drops(&node, "a", "device_queue_full"), 0);
    node.signal(Signal::STOP);
    for _ in 0..SENT {
        // What the device has no room for is not an error of who sends it.
        let _ = socket.send(b"x");
    }
    node.signal(Signal::CONT);
    until("every packet", || {
        let page = tunnels(&node);
        let entry = page["tunnels"].as_array().unwrap().iter().find(|entry| entry["name"] == "a").unwrap();
        let (left, lost) = (entry["packets_out"].as_u64()?, entry["drops"]["device_queue_full"].as_u64()?);
        (left > 0 && left + lost == SENT).then_some(())
    });
    assert_eq!(drops(&node, "b", "device_queue_full"), 0, "the other tunnel lost nothing");
    let lost = drops(&node, "a", "device_queue_full");
    let line = format!("ingre_tunnel_drops_total{{tunnel=\"a\",reason=\"device_queue_full\"}} {lost}");
    assert!(node.page("/metrics").1.contains(&line), "{line}");
}

/// A socket whose packets leave by the device of the first tunnel; none where that is not.
fn socket() -> Option<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    SockRef::from(&socket).bind_device(Some(b"tun-a")).ok()?;
    let socket = socket.connect((SERVERS[0], 9)).map(|()| socket).unwrap();
    assert_eq!(socket.local_addr().unwrap().ip(), OWN);
    Some(socket)
}

/// The process that the program keeps for what needs privileges.
fn helper_of(process: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}
