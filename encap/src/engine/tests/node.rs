//! An engine with its clock, its counters and a batch, as a test drives it.

use super::*;
use crate::batch::{Gso, Packet};

/// A packet for the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) to: IpAddr,
    pub(super) gso: Option<Gso>,
}

/// An engine, a clock and a batch.
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) counters: Vec<Arc<TunnelCounters>>,
    pub(super) unmatched: Arc<TunnelCounters>,
    pub(super) batch: Batch,
    pub(super) now: Instant,
}

impl Node {
    pub(super) fn new(tunnels: &[Tunnel]) -> Self {
        Self::with_mtu(tunnels, MTU)
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    pub(super) fn with_mtu(tunnels: &[Tunnel], mtu: u16) -> Self {
        let (now, counters) = (Instant::now(), Counters::default());
        let mut engine = Engine::new(now, &counters, 1);
        let mut of_tunnels = Vec::new();
        for (index, tunnel) in tunnels.iter().enumerate() {
            let counted = TunnelCounters::new(tunnel);
            engine.set_tunnel(now, index, tunnel, mtu, Arc::clone(&counted), true);
            of_tunnels.push(counted);
        }
        let batch = Batch::new(MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT);
        Self { engine, counters: of_tunnels, unmatched: Arc::clone(counters.unmatched()), batch, now }
    }

    /// What the network is given for one frame of the TUN, and by which peers.
    pub(super) fn send(&mut self, header: virtio::Header, packet: &[u8]) -> Vec<(Vec<u8>, Ipv4Addr)> {
        self.send_by(0, header, packet)
    }

    pub(super) fn send_by(
        &mut self,
        tunnel: usize,
        header: virtio::Header,
        packet: &[u8],
    ) -> Vec<(Vec<u8>, Ipv4Addr)> {
        self.batch.clear();
        self.engine.handle_tun_input(self.now, tunnel, &mut tun_frame(header, packet), &mut self.batch);
        let to = |packet: Packet<'_>| match packet.destination {
            IpAddr::V4(to) => to,
            IpAddr::V6(to) => panic!("{to}"),
        };
        self.batch.packets().map(|packet| (packet.bytes().into_owned(), to(packet))).collect()
    }

    /// What the network is given for one whole packet of the TUN of the first tunnel.
    pub(super) fn outward(&mut self, packet: &[u8]) -> Vec<Sent> {
        self.outward_by(0, virtio::Header::default(), packet)
    }

    /// What the network is given for one frame of the TUN.
    pub(super) fn outward_by(&mut self, tunnel: usize, header: virtio::Header, packet: &[u8]) -> Vec<Sent> {
        self.batch.clear();
        self.engine.handle_tun_input(self.now, tunnel, &mut tun_frame(header, packet), &mut self.batch);
        self.sent()
    }

    /// What is in the batch.
    pub(super) fn sent(&self) -> Vec<Sent> {
        let sent = |packet: Packet<'_>| Sent {
            bytes: packet.bytes().into_owned(),
            to: packet.destination,
            gso: packet.gso,
        };
        self.batch.packets().map(sent).collect()
    }

    /// What the TUN is given for one outer packet.
    pub(super) fn receive(
        &mut self,
        header: virtio::Header,
        outer: &[u8],
    ) -> Option<(virtio::Header, Vec<u8>)> {
        let mut frame = tun_frame(header, &[&[0xee; LINK], outer].concat());
        let delivery = self.deliver(&mut frame).pop()?;
        Some((delivery.header, frame[delivery.range].to_vec()))
    }

    /// Everything that TUN devices are given for one frame of the network: the tunnel, and what is written.
    pub(super) fn inward(
        &mut self,
        header: virtio::Header,
        outer: &[u8],
    ) -> Vec<(usize, virtio::Header, Vec<u8>)> {
        let mut frame = tun_frame(header, &[&[0xee; LINK], outer].concat());
        let deliveries = self.deliver(&mut frame);
        let written = |delivery: Delivery| (delivery.tunnel, delivery.header, frame[delivery.range].to_vec());
        deliveries.into_iter().map(written).collect()
    }

    /// What the engine says to a TUN device of its own accord: the tunnel, and the packet.
    pub(super) fn told(&mut self) -> Option<(usize, Vec<u8>)> {
        let (tunnel, frame) = self.engine.poll_tun()?;
        let (header, packet) = virtio::Header::parse(frame).unwrap();
        assert_eq!(header, virtio::Header::default());
        Some((tunnel, packet.to_vec()))
    }

    /// What is to be written for a frame of the network.
    pub(super) fn deliver(&mut self, frame: &mut [u8]) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        self.engine.handle_tunnel_input(self.now, LINK, frame, &mut deliveries);
        deliveries
    }

    /// As `receive`, for a packet that is not merged.
    pub(super) fn receive_plain(&mut self, outer: &[u8]) -> Option<Vec<u8>> {
        let (header, packet) = self.receive(virtio::Header::default(), outer)?;
        assert_eq!(header, virtio::Header::default());
        Some(packet)
    }

    /// All drops so far, of all tunnels.
    pub(super) fn drops(&self) -> Vec<DropReason> {
        let all = self.counters.iter().chain([&self.unmatched]).flat_map(|counted| counted.snapshot().drops);
        all.flat_map(|(reason, count)| std::iter::repeat_n(reason, count as usize)).collect()
    }
}

pub(super) fn tun_frame(header: virtio::Header, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; virtio::LEN];
    header.emit(&mut frame).unwrap();
    [&frame, packet].concat()
}
