//! Whatever a router reports and whatever packet a notice is about, nothing panics, no report is below what every link
//! takes, and every notice is a packet with right checksums that is not about another error.
#![no_main]

use encap::mtu::{NOTICE_MAX, Notice, clamp_mss, parse_too_big, smallest};
use encap::wire::checksum::Sum;
use encap::wire::ip::{Packet, Version};
use encap::wire::{icmp, icmpv6, virtio};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
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
    if let Ok((header, rest)) = icmpv6::Header::parse(bytes) {
        let mut again = bytes.to_vec();
        assert_eq!(header.emit(&mut again).expect("it fits"), rest);
        assert_eq!(again, bytes);
    }
    for notice in [Notice::TooBig { mtu: 1400 }, Notice::TimeExceeded] {
        tell(notice, bytes);
    }
});

fn tell(notice: Notice, bytes: &[u8]) {
    let mut out = [0; NOTICE_MAX];
    let Ok(len) = notice.write(bytes, None, &mut out) else { return };
    let (about, transport) = Packet::parse(bytes).expect("a notice is about a packet");
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
    // A notice is an error itself.
    assert!(!notice.may_be_about(&told, message));
    let _ = notice.may_be_about(&about, transport);
}
