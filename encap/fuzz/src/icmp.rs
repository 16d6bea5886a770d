//! Whatever a router reports and whatever packet a notice is about, nothing panics, no report is below what every link
//! takes, and every notice is a packet with right checksums.

use encap::mtu::{NOTICE_MAX, clamp_mss, parse_too_big, smallest, write_too_big};
use encap::wire::checksum::Sum;
use encap::wire::ip::{Packet, Version};
use encap::wire::{icmp, virtio};

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    for version in [Version::V4, Version::V6] {
        if let Ok(report) = parse_too_big(version, bytes) {
            assert!(report.mtu >= smallest(version));
            assert_eq!(Version::of_address(report.quoted.source), version);
        }
        // The checksum of ICMP would keep the fuzzer out.
        if let Ok((header, _)) = icmp::Header::parse(bytes) {
            let mut message = bytes.to_vec();
            icmp::Header { checksum: 0, ..header }.emit(&mut message).expect("it fits");
            let checksum = Sum::default().bytes(&message).finish();
            icmp::Header { checksum, ..header }.emit(&mut message).expect("it fits");
            let _ = parse_too_big(version, &message);
        }
        let _ = clamp_mss(&mut bytes.to_vec(), version, 1400, false);
    }
    if let Ok((header, rest)) = icmp::Header::parse(bytes) {
        let mut again = bytes.to_vec();
        assert_eq!(header.emit(&mut again).expect("it fits"), rest);
        assert_eq!(again, bytes);
    }
    tell(bytes);
}

fn tell(bytes: &[u8]) {
    let mut out = [0; NOTICE_MAX];
    let Ok(len) = write_too_big(bytes, 1400, &mut out) else { return };
    let (about, _) = Packet::parse(bytes).expect("a notice is about a packet");
    let (header, packet) = virtio::Header::parse(&out[..len]).expect("a virtio header");
    assert_eq!(header, virtio::Header::default());
    let (told, message) = Packet::parse(packet).expect("a packet");
    assert_eq!((told.total, told.destination), (packet.len(), about.source));
    assert!(message.ends_with(&bytes[..message.len() - icmp::LEN]));
    let sum = match told.version() {
        Version::V4 => Sum::default(),
        Version::V6 => Sum::pseudo(told.source, told.destination, told.protocol, message.len() as u16),
    };
    assert_eq!(sum.bytes(message).finish(), 0);
}
