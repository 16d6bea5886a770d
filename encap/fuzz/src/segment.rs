//! Whatever packet is cut, at whatever size, every segment is a packet with right checksums, and together they are the
//! payload.

use encap::segment::{SuperPacket, copy_finished, finish};
use encap::wire::checksum::Sum;
use encap::wire::ip::Packet;
use encap::wire::{ipv4, tcp, udp};

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    let Some(([s0, s1, start, offset], packet)) = bytes.split_first_chunk() else { return };
    let size = usize::from(u16::from_be_bytes([*s0, *s1]));
    if let Ok(whole) = SuperPacket::tcp(packet, size) {
        check_cut(&whole, packet);
    }
    if let Ok(whole) = SuperPacket::udp(packet, size) {
        check_cut(&whole, packet);
    }
    let (start, offset) = (usize::from(*start), usize::from(*offset));
    let (mut copy, mut place) = (vec![0; packet.len()], packet.to_vec());
    let copied = copy_finished(packet, start, offset, &mut copy);
    assert_eq!(finish(&mut place, start, offset), copied.map(drop));
    if let Ok(sum) = copied {
        assert_eq!(copy, place);
        // Nothing but zeros, which is no packet, has a sum of two forms.
        if copy.iter().any(|byte| *byte != 0) {
            assert_eq!(sum.finish(), Sum::default().bytes(&copy).finish());
        }
    }
}

fn check_cut(whole: &SuperPacket<'_>, packet: &[u8]) {
    let (mut joined, mut total) = (Vec::new(), 0);
    for index in 0..whole.count() {
        let mut out = vec![0; whole.len_of(index)];
        total += out.len();
        let sum = whole.write(index, &mut out).expect("the place is as long as the segment");
        assert_eq!(sum.finish(), Sum::default().bytes(&out).finish());
        let (ip, transport) = Packet::parse(&out).expect("a packet");
        assert_eq!(ip.total, out.len());
        let pseudo = Sum::pseudo(ip.source, ip.destination, ip.protocol, transport.len() as u16);
        assert_eq!(pseudo.bytes(transport).finish(), 0);
        joined.extend_from_slice(data(ip.protocol, transport));
    }
    assert_eq!(total, whole.bytes());
    let (ip, transport) = Packet::parse(packet).expect("it was parsed before");
    assert_eq!(joined, data(ip.protocol, transport));
}

fn data(protocol: u8, transport: &[u8]) -> &[u8] {
    if protocol == ipv4::TCP {
        tcp::Header::parse(transport).expect("a segment").1
    } else {
        udp::Header::parse(transport).expect("a datagram").1
    }
}
