//! The ICMP header (RFC 792) and the messages that a tunnel makes and reads, with the MTU of RFC 1191 section 4.

use super::WireError;

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

/// An ICMP header.
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
    /// "Fragmentation needed": the next hop takes packets of at most `mtu` bytes (RFC 1191). Checksum still zero.
    pub fn fragmentation_needed(mtu: u16) -> Self {
        let [m0, m1] = mtu.to_be_bytes();
        Self { kind: UNREACHABLE, code: FRAGMENTATION_NEEDED, checksum: 0, rest: [0, 0, m0, m1] }
    }

    /// "Time exceeded": no hop was left. Checksum still zero.
    pub fn time_exceeded() -> Self {
        Self { kind: TIME_EXCEEDED, code: 0, checksum: 0, rest: [0; 4] }
    }

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

    /// Whether the message reports an error about another packet, which it quotes. No error is ever sent about
    /// these (RFC 1122 section 3.2.2).
    pub fn is_error(&self) -> bool {
        matches!(self.kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    /// MTU of the next hop in bytes, when the message is "fragmentation needed"; 0 from routers older than RFC 1191.
    pub fn mtu(&self) -> Option<u16> {
        let [_, _, m0, m1] = self.rest;
        let needed = self.kind == UNREACHABLE && self.code == FRAGMENTATION_NEEDED;
        needed.then_some(u16::from_be_bytes([m0, m1]))
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
        assert!([3, 4, 5, 11, 12].into_iter().all(of));
        assert!(![ECHO_REPLY, ECHO_REQUEST, 13].into_iter().any(of));
        assert_eq!(Header::parse(&[3; 7]), Err(WireError::Truncated));
    }

    #[test]
    fn what_messages_say() {
        let needed = Header::fragmentation_needed(1472);
        assert_eq!((needed.mtu(), needed.echo_ids()), (Some(1472), None));
        assert_eq!(Header { code: 3, ..needed }.mtu(), None, "port unreachable");
        let echo = Header::echo(ECHO_REQUEST, 0x0102, 0x0304);
        assert_eq!((echo.kind, echo.rest), (8, [1, 2, 3, 4]));
        assert_eq!((echo.mtu(), echo.echo_ids()), (None, Some((0x0102, 0x0304))));
        let exceeded = Header::time_exceeded();
        assert_eq!((exceeded.kind, exceeded.code, exceeded.rest), (11, 0, [0; 4]));
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
