//! Any IPv6 header that is accepted is written back to the same bytes, and whatever its extension headers say lies
//! inside the packet. What both versions of IP have in common is changed without touching anything else.
#![no_main]

use encap::wire::ip::{Packet, Version, decrement_ttl, set_traffic_class};
use encap::wire::ipv6::{Header, LEN};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((header, payload)) = Header::parse(bytes) {
        let mut again = [0; LEN];
        header.emit(&mut again).expect("it fits");
        assert_eq!(again, bytes[..LEN]);
        if let Ok(upper) = header.upper(payload) {
            assert!(upper.offset <= payload.len());
            let (packet, transport) = Packet::parse(bytes).expect("it was parsed before");
            assert_eq!((packet.header_len, packet.protocol), (LEN + upper.offset, upper.protocol));
            assert_eq!(transport, &payload[upper.offset..]);
        }
    }
    let _ = Packet::parse_quoted(bytes);

    let Ok((before, transport)) = Packet::parse(bytes) else { return };
    assert_eq!(before.header_len + transport.len(), before.total);
    let mut changed = bytes.to_vec();
    set_traffic_class(&mut changed, !before.traffic_class).expect("there is a header");
    let left = decrement_ttl(&mut changed).expect("there is a header");
    let ttl = if left == 0 { before.ttl } else { before.ttl - 1 };
    let (after, same) = Packet::parse(&changed).expect("as before");
    assert_eq!(after, Packet { traffic_class: !before.traffic_class, ttl, ..before });
    assert_eq!(same, transport);
    set_traffic_class(&mut changed, before.traffic_class).expect("there is a header");
    if left == 0 && before.version() == Version::V6 {
        assert_eq!(changed, bytes);
    }
});
