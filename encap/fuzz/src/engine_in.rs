//! Whatever a peer puts into GRE, and whatever the kernel says about it, nothing panics and what is delivered is one
//! whole IPv4 packet. The outer headers are made here, so that the fuzzer gets past them.

use encap::wire::{gre, ipv4, virtio};

use super::common;

const LINK: usize = 14;

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    let Some((head, inner)) = bytes.split_first_chunk::<{ virtio::LEN + 1 }>() else { return };
    let gre = gre::Header { protocol: gre::IPV4, checksum: None, key: Some(common::KEY), sequence: None };
    let Ok(total_length) = u16::try_from(ipv4::LEN + gre.len() + inner.len()) else { return };
    let outer = ipv4::Header {
        tos: head[virtio::LEN],
        total_length,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: ipv4::GRE,
        source: common::PEER,
        destination: common::LOCAL,
        options: &[],
    };
    let mut frame = vec![0; virtio::LEN + LINK + usize::from(total_length)];
    frame[..virtio::LEN].copy_from_slice(&head[..virtio::LEN]);
    let place = outer.emit(&mut frame[virtio::LEN + LINK..]).expect("it fits");
    gre.emit(place).expect("it fits").copy_from_slice(inner);

    let mut engine = common::engine();
    let (now, mut deliveries) = (common::now(), Vec::new());
    engine.handle_tunnel_input(now, LINK, &mut frame, &mut deliveries);
    for delivery in deliveries {
        let packet = &frame[delivery.range];
        let (ip, _) = ipv4::Header::parse(packet).expect("an IPv4 packet");
        assert_eq!(usize::from(ip.total_length), packet.len());
    }
    engine.handle_tunnel_input(now, LINK, &mut bytes.to_vec(), &mut Vec::new());
}
