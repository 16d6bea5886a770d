//! An address as text, written once per connection and not per request.

use std::io::Write as _;
use std::net::IpAddr;

/// The longest text of an address: IPv6 with an IPv4 tail.
const LONGEST: usize = 45;

/// An IP address as the fields of a message say it; one of IPv4 as such, also where a socket of IPv6 took the
/// connection.
#[derive(Debug, Clone, Copy)]
pub struct AddressText {
    text: [u8; LONGEST],
    len: u8,
}

impl AddressText {
    /// The text of an address.
    pub fn of(address: IpAddr) -> Self {
        let mut text = [0; LONGEST];
        let mut rest = &mut text[..];
        let complete = write!(rest, "{}", address.to_canonical());
        debug_assert!(complete.is_ok(), "the longest address fits");
        let len = LONGEST - rest.len();
        Self { text, len: len as u8 }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.len.into()).unwrap_or_default()
    }
}
