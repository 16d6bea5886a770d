//! The ICMPv6 header (RFC 4443) and the messages that a tunnel makes and reads.
//!
//! The checksum covers a pseudo-header, too ([`Sum::pseudo`](super::checksum::Sum::pseudo) with
//! [`ICMPV6`](super::ipv6::ICMPV6)).

use super::WireError;

/// Length of the header in bytes.
pub const LEN: usize = 8;
/// Destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Time exceeded; code 0 is the hop limit.
pub const TIME_EXCEEDED: u8 = 3;
/// Parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Redirect (RFC 4861).
pub const REDIRECT: u8 = 137;

/// An ICMPv6 header.
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
    /// "Packet too big": the next hop takes packets of at most `mtu` bytes (RFC 4443 section 3.2). Checksum still
    /// zero.
    pub fn packet_too_big(mtu: u32) -> Self {
        Self { kind: PACKET_TOO_BIG, code: 0, checksum: 0, rest: mtu.to_be_bytes() }
    }

    /// "Time exceeded": no hop was left (RFC 4443 section 3.3). Checksum still zero.
    pub fn time_exceeded() -> Self {
        Self { kind: TIME_EXCEEDED, code: 0, checksum: 0, rest: [0; 4] }
    }

    /// An echo request or reply (RFC 4443 section 4). Checksum still zero.
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

    /// Whether the message is about another packet: errors, which are the types below 128, and redirects. No error
    /// is ever sent about these (RFC 4443 section 2.4 (e)).
    pub fn is_error(&self) -> bool {
        self.kind < ECHO_REQUEST || self.kind == REDIRECT
    }

    /// MTU of the next hop in bytes, when the message is "packet too big".
    pub fn mtu(&self) -> Option<u32> {
        (self.kind == PACKET_TOO_BIG).then_some(u32::from_be_bytes(self.rest))
    }

    /// Identifier and sequence number, when the message is an echo request or reply.
    pub fn echo_ids(&self) -> Option<(u16, u16)> {
        let [i0, i1, s0, s1] = self.rest;
        let ids = (u16::from_be_bytes([i0, i1]), u16::from_be_bytes([s0, s1]));
        matches!(self.kind, ECHO_REQUEST | ECHO_REPLY).then_some(ids)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_and_questions() {
        let of = |kind| Header { kind, code: 0, checksum: 0, rest: [0; 4] }.is_error();
        assert!([1, 2, 3, 4, 100, 127, REDIRECT].into_iter().all(of));
        assert!(![ECHO_REQUEST, ECHO_REPLY, 135, 136].into_iter().any(of));
        assert_eq!(Header::parse(&[3; 7]), Err(WireError::Truncated));
    }

    #[test]
    fn what_messages_say() {
        let too_big = Header::packet_too_big(1280);
        assert_eq!((too_big.kind, too_big.code, too_big.rest), (2, 0, [0, 0, 5, 0]));
        assert_eq!((too_big.mtu(), too_big.echo_ids()), (Some(1280), None));
        let echo = Header::echo(ECHO_REPLY, 0x0102, 0x0304);
        assert_eq!((echo.kind, echo.rest), (129, [1, 2, 3, 4]));
        assert_eq!((echo.mtu(), echo.echo_ids()), (None, Some((0x0102, 0x0304))));
        let exceeded = Header::time_exceeded();
        assert_eq!((exceeded.kind, exceeded.code, exceeded.rest), (3, 0, [0; 4]));
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
