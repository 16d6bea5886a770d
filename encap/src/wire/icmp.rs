//! The header of ICMP (RFC 792), which is that of ICMPv6, too, and the messages of ICMP that a tunnel makes and reads, with
//! the MTU of RFC 1191 section 4.

use std::net::IpAddr;

use super::checksum::Sum;
use super::ip::Version;
use super::{WireError, ipv4, ipv6};

/// Length of the header in bytes.
pub const LEN: usize = 8;
/// Echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Source quench (obsolete, RFC 6633).
pub const SOURCE_QUENCH: u8 = 4;
/// Redirect.
pub const REDIRECT: u8 = 5;
/// Echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Time exceeded; code 0 is the TTL.
pub const TIME_EXCEEDED: u8 = 11;
/// Parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;
/// Code of [`UNREACHABLE`]: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// Hops that a packet of this node's own may go.
const TTL: u8 = 64;

/// A header of ICMP or ICMPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Code; its meaning depends on the type.
    pub code: u8,
    /// Checksum as found, or as it shall be.
    pub checksum: u16,
    /// The second word; its meaning depends on the type.
    pub rest: [u8; 4],
}

impl Header {
    /// An echo request or reply. Checksum still zero.
    pub fn echo(kind: u8, identifier: u16, sequence: u16) -> Self {
        let [i0, i1] = identifier.to_be_bytes();
        let [s0, s1] = sequence.to_be_bytes();
        Self { kind, code: 0, checksum: 0, rest: [i0, i1, s0, s1] }
    }

    /// The header and what follows it; in an error message, the quoted packet.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let (head, rest) = bytes.split_first_chunk::<LEN>().ok_or(WireError::Truncated)?;
        let [kind, code, c0, c1, word @ ..] = *head;
        Ok((Self { kind, code, checksum: u16::from_be_bytes([c0, c1]), rest: word }, rest))
    }

    /// Writes the header and returns the room after it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when it does not fit.
    pub fn emit<'b>(&self, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
        let (head, rest) = out.split_first_chunk_mut::<LEN>().ok_or(WireError::Truncated)?;
        let [c0, c1] = self.checksum.to_be_bytes();
        let [r0, r1, r2, r3] = self.rest;
        *head = [self.kind, self.code, c0, c1, r0, r1, r2, r3];
        Ok(rest)
    }
}

/// "Fragmentation needed": the next hop takes packets of at most `mtu` bytes (RFC 1191). Checksum still zero.
pub fn fragmentation_needed(mtu: u16) -> Header {
    let [m0, m1] = mtu.to_be_bytes();
    Header { kind: UNREACHABLE, code: FRAGMENTATION_NEEDED, checksum: 0, rest: [0, 0, m0, m1] }
}

/// Whether a message of this type reports an error about another packet, which it quotes. No error is ever sent about
/// these (RFC 1122 section 3.2.2).
pub fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// MTU of the next hop in bytes, when the message is "fragmentation needed"; 0 from routers older than RFC 1191.
pub fn mtu(header: &Header) -> Option<u16> {
    let [_, _, m0, m1] = header.rest;
    let needed = header.kind == UNREACHABLE && header.code == FRAGMENTATION_NEEDED;
    needed.then_some(u16::from_be_bytes([m0, m1]))
}

/// Writes a whole packet, ICMP or ICMPv6 as its addresses are: IP header, `header` with its checksum, `payload`. Returns
/// its length. Nobody may fragment it.
///
/// # Errors
/// [`WireError::Version`] for addresses of two versions, [`WireError::Truncated`] when it does not fit,
/// [`WireError::Length`] when it is longer than a packet can be.
pub fn write_packet(
    source: IpAddr,
    destination: IpAddr,
    header: Header,
    payload: &[u8],
    out: &mut [u8],
) -> Result<usize, WireError> {
    let length = |bytes: usize| u16::try_from(bytes).map_err(|_| WireError::Length);
    let message_len = LEN + payload.len();
    let (message, pseudo) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ip = ipv4::Header {
                tos: 0,
                total_length: length(ipv4::LEN + message_len)?,
                identification: 0,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                ttl: TTL,
                protocol: ipv4::ICMP,
                source,
                destination,
                options: &[],
            };
            (ip.emit(out)?, Sum::default())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let payload_length = length(message_len)?;
            let ip = ipv6::Header {
                traffic_class: 0,
                flow_label: 0,
                payload_length,
                next_header: ipv6::ICMPV6,
                hop_limit: TTL,
                source,
                destination,
            };
            (ip.emit(out)?, Sum::pseudo(source, destination, ipv6::ICMPV6, payload_length))
        }
        _ => return Err(WireError::Version),
    };
    let message = message.get_mut(..message_len).ok_or(WireError::Truncated)?;
    Header { checksum: 0, ..header }.emit(message)?.copy_from_slice(payload);
    let checksum = pseudo.bytes(message).finish();
    Header { checksum, ..header }.emit(message)?;
    Ok(Version::of_address(source).header_len() + message_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checksum::tests::naive;
    use super::super::ip::Packet;
    use super::*;

    #[test]
    fn errors_and_questions() {
        assert!([3, 4, 5, 11, 12].into_iter().all(is_error));
        assert!(![ECHO_REPLY, ECHO_REQUEST, 13].into_iter().any(is_error));
        assert_eq!(Header::parse(&[3; 7]), Err(WireError::Truncated));
    }

    #[test]
    fn what_messages_say() {
        let needed = fragmentation_needed(1472);
        assert_eq!(mtu(&needed), Some(1472));
        assert_eq!(mtu(&Header { code: 3, ..needed }), None, "port unreachable");
        let echo = Header::echo(ECHO_REQUEST, 0x0102, 0x0304);
        assert_eq!((echo.kind, echo.rest, mtu(&echo)), (8, [1, 2, 3, 4], None));
    }

    #[test]
    fn whole_packets_of_both_versions() {
        let ends = |a: [u8; 4], b: [u8; 4]| (IpAddr::from(a), IpAddr::from(b));
        let (v4, v4_to) = ends([192, 0, 2, 1], [192, 0, 2, 2]);
        let (v6, v6_to) = (IpAddr::from([1; 16]), IpAddr::from([2; 16]));
        for (source, destination, kind, protocol) in
            [(v4, v4_to, ECHO_REQUEST, ipv4::ICMP), (v6, v6_to, 128, ipv6::ICMPV6)]
        {
            let mut out = [0xee; 64];
            let header = Header::echo(kind, 1, 2);
            let len = write_packet(source, destination, header, b"hello", &mut out).unwrap();
            let (packet, message) = Packet::parse(&out[..len]).unwrap();
            assert_eq!((packet.source, packet.destination), (source, destination));
            assert_eq!((packet.protocol, packet.total, packet.dont_fragment), (protocol, len, true));
            let (read, payload) = Header::parse(message).unwrap();
            assert_eq!((Header { checksum: 0, ..read }, payload), (header, &b"hello"[..]));
            let pseudo = [[0, 0], [(message.len() as u16) >> 8, message.len() as u16], [0, protocol.into()]];
            let pseudo: Vec<u8> = pseudo.concat().iter().map(|word| *word as u8).collect();
            let naive = match source {
                IpAddr::V4(_) => naive(&[message]),
                IpAddr::V6(_) => naive(&[&out[8..40], &pseudo, message]),
            };
            assert_eq!(naive, 0);
            assert!(write_packet(source, destination, header, b"hello", &mut out[..len - 1]).is_err());
        }
        assert_eq!(write_packet(v4, v6, Header::echo(8, 1, 2), b"", &mut [0; 99]), Err(WireError::Version));
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_emit(kind: u8, code: u8, checksum: u16, rest: [u8; 4]) {
            let header = Header { kind, code, checksum, rest };
            let mut bytes = [0; LEN + 2];
            header.emit(&mut bytes).unwrap();
            prop_assert_eq!(Header::parse(&bytes).unwrap(), (header, &[0; 2][..]));
        }
    }
}
