//! Whatever a TUN device gives, nothing panics, every packet fits the underlay, and no frame exceeds its bounds.

use encap::batch::Batch;
use encap::engine::{MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT};
use encap::wire::ipv4;

use super::common;

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    let mut engine = common::engine();
    let mut batch = Batch::new(MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT);
    engine.handle_tun_input(common::now(), 0, &mut bytes.to_vec(), &mut batch);
    for packet in batch.packets() {
        let (packet, to) = (packet.bytes(), packet.destination);
        let (ip, _) = ipv4::Header::parse(&packet).expect("an IPv4 packet");
        assert_eq!((ip.source, ip.destination, to), (common::LOCAL, common::PEER, common::PEER.into()));
        assert!(
            usize::from(ip.total_length) == packet.len() && packet.len() <= usize::from(common::MTU) + 28
        );
    }
    while engine.poll_tun().is_some() {}
}
