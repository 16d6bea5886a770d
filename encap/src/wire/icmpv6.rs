//! The messages of ICMPv6 (RFC 4443) that a tunnel makes and reads. The header is that of ICMP.
//!
//! The checksum covers a pseudo-header, too ([`Sum::pseudo`](super::checksum::Sum::pseudo) with
//! [`ICMPV6`](super::ipv6::ICMPV6)).

pub use super::icmp::{Header, LEN};

/// Destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Redirect (RFC 4861).
pub const REDIRECT: u8 = 137;

/// "Packet too big": the next hop takes packets of at most `mtu` bytes (RFC 4443 section 3.2). Checksum still zero.
pub fn packet_too_big(mtu: u32) -> Header {
    Header { kind: PACKET_TOO_BIG, code: 0, checksum: 0, rest: mtu.to_be_bytes() }
}

/// Whether a message of this type is about another packet: errors, which are the types below 128, and redirects. No
/// error is ever sent about these (RFC 4443 section 2.4 (e)).
pub fn is_error(kind: u8) -> bool {
    kind < ECHO_REQUEST || kind == REDIRECT
}

/// MTU of the next hop in bytes, when the message is "packet too big".
pub fn mtu(header: &Header) -> Option<u32> {
    (header.kind == PACKET_TOO_BIG).then_some(u32::from_be_bytes(header.rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_questions() {
        assert!([1, 2, 3, 4, 100, 127, REDIRECT].into_iter().all(is_error));
        assert!(![ECHO_REQUEST, ECHO_REPLY, 135, 136].into_iter().any(is_error));
    }

    #[test]
    fn what_messages_say() {
        let too_big = packet_too_big(1280);
        assert_eq!((too_big.kind, too_big.code, too_big.rest), (2, 0, [0, 0, 5, 0]));
        assert_eq!(mtu(&too_big), Some(1280));
        assert_eq!(mtu(&Header::echo(ECHO_REPLY, 0x0102, 0x0304)), None);
    }
}
