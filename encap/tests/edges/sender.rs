//! A side that sends and one that receives.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use encap::linux::capability;
use encap::linux::namespace::Namespace;
use encap::linux::netlink::Netlink;
use encap::socket::{
    Carrier, Follower, Outlet, PacketReceiver, RawSender, SendReport, SendSockets, Transmitter,
    open_link_sender, open_receivers, open_sender,
};

use super::packets::batch;
use super::pair::pair_with_ipv6;
use super::{index, link, readable};

#[expect(clippy::disallowed_methods, reason = "the clock that the engine thread would read")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The left side, which sends; the follower has no privileges, as in the engine.
pub(crate) struct Sender {
    pub(crate) namespace: Namespace,
    pub(crate) transmitter: Transmitter,
    pub(crate) follower: Follower,
    pub(crate) to: IpAddr,
}

impl Sender {
    pub(crate) fn new(namespace: Namespace, from: IpAddr, to: IpAddr, by_link: bool) -> Self {
        Self::with_outlet(namespace, from, to, by_link, None)
    }

    /// The same with an outlet.
    pub(crate) fn with_outlet(
        namespace: Namespace,
        from: IpAddr,
        to: IpAddr,
        by_link: bool,
        outlet: Option<Outlet>,
    ) -> Self {
        let (sockets, follower) = namespace
            .run_in(|| {
                let sockets = SendSockets {
                    raw: RawSender::new(open_sender("left", from).unwrap()),
                    link: by_link.then(|| open_link_sender(index("left"), true).unwrap()),
                    outlet,
                    device: index("left"),
                    local: from,
                };
                capability::drop_all().unwrap();
                (sockets, Follower::open().unwrap())
            })
            .unwrap();
        Self { namespace, transmitter: Transmitter::new(Arc::new(sockets)), follower, to }
    }

    pub(crate) fn send(&mut self, packets: &[Vec<u8>]) -> SendReport {
        let list: Vec<_> = packets.iter().map(|packet| (packet.clone(), self.to)).collect();
        self.follow();
        self.transmitter.send(now(), &mut batch(&list), &mut self.follower)
    }

    pub(crate) fn follow(&mut self) {
        while readable(&self.follower, Duration::ZERO) {
            self.follower.read(|event| self.transmitter.handle(event)).unwrap();
        }
    }

    /// Sends until the next hop is known.
    pub(crate) fn settle(&mut self, packet: &[u8]) {
        for _ in 0..50 {
            if self.send(&[packet.to_vec()]).on_link == 1 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("still routed");
    }

    pub(crate) fn kernel<T: Send>(&self, task: impl FnOnce(&mut Netlink, u32) -> T + Send) -> T {
        self.namespace.run_in(|| task(&mut Netlink::open().unwrap(), index("left"))).unwrap()
    }
}

pub(crate) fn sides(from: IpAddr, to: IpAddr) -> (Sender, Namespace, PacketReceiver) {
    sides_with(from, to, true)
}

pub(crate) fn sides_with(from: IpAddr, to: IpAddr, rings: bool) -> (Sender, Namespace, PacketReceiver) {
    let (left, right) = pair_with_ipv6();
    let carriers = [Carrier::Gre, Carrier::GreInUdp];
    let receivers = right
        .run_in(|| {
            open_receivers(link("right").index, 14, to, &carriers, 1, rings.then_some(link("right").mtu))
                .unwrap()
        })
        .unwrap();
    let receiver = PacketReceiver::new(receivers.into_iter().next().unwrap()).unwrap();
    (Sender::new(left, from, to, true), right, receiver)
}
