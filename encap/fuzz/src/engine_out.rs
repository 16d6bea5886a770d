//! Whatever a TUN device gives, nothing panics, every packet fits the underlay, cut by us or by others, and no frame exceeds its
//! bounds.

use encap::batch::{Batch, Takers};
use encap::engine::{MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT};
use encap::wire::ipv4;

use super::common;

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    for uncut in [false, true] {
        check_one(bytes, uncut);
    }
}

fn check_one(bytes: &[u8], uncut: bool) {
    let mut engine = common::engine();
    if uncut {
        engine.leave_uncut(0, Takers::Everybody);
    }
    let mut batch = Batch::new(MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT);
    engine.handle_tun_input(common::now(), 0, &mut bytes.to_vec(), &mut batch);
    for packet in batch.packets() {
        let (packet, to, gso) = (packet.bytes(), packet.destination, packet.gso);
        let (ip, _) = ipv4::Header::parse(&packet).expect("an IPv4 packet");
        assert_eq!((ip.source, ip.destination, to), (common::LOCAL, common::PEER, common::PEER.into()));
        let longest = gso.map_or(packet.len(), |gso| {
            let inner = gso.inner.expect("the tunnel is not one in UDP");
            assert!(uncut && inner.ip_at < inner.transport_at && inner.transport_at < gso.headers);
            assert!(usize::from(gso.headers) + usize::from(gso.size) < packet.len());
            (gso.headers + gso.size).into()
        });
        assert!(usize::from(ip.total_length) == packet.len() && longest <= usize::from(common::MTU) + 28);
    }
    while engine.poll_tun().is_some() {}
}
