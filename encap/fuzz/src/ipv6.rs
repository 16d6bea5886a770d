//! Any IPv6 header that is accepted is written back to the same bytes, and whatever its extension headers say lies
//! inside the packet. The mark of congestion is set without touching anything else.

use encap::wire::ip::{ECN, Packet, set_ecn};
use encap::wire::ipv6::{Header, LEN};

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
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
    set_ecn(&mut changed, !before.traffic_class & ECN).expect("there is a header");
    let (after, same) = Packet::parse(&changed).expect("as before");
    assert_eq!(after, Packet { traffic_class: before.traffic_class ^ ECN, ..before });
    assert_eq!(same, transport);
}
