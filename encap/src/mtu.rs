//! What keeps packets small enough: the overhead, the MSS clamp, what senders are told, and what the underlay tells.
//!
//! Pure functions and small state machines. The engine decides when to use them.

mod allowance;
mod mss;
mod notice;
mod path;
mod underlay;

pub use allowance::Allowance;
pub use mss::clamp_mss;
pub use notice::{NOTICE_MAX, Notice};
pub use path::PathMtu;
pub use underlay::{QuotedKey, QuotedOuter, TooBig, parse_too_big};

use crate::wire::ip::Version;

/// Smallest MTU of IPv4 (RFC 791): a tunnel below it would not carry IP.
pub const MIN: u16 = 68;
/// Smallest MTU of IPv6 (RFC 8200 section 5). A tunnel with less carries it in fragments of the outer packet (RFC 7676
/// section 3.3).
pub const MIN_V6: u16 = 1280;

/// The MTU left for inner packets, in bytes, or `None` when it would be below [`MIN`].
pub fn inner(underlay: u16, overhead: u16) -> Option<u16> {
    underlay.checked_sub(overhead).filter(|mtu| *mtu >= MIN)
}

/// Smallest MTU of a link that carries this version, in bytes.
pub fn smallest(version: Version) -> u16 {
    match version {
        Version::V4 => MIN,
        Version::V6 => MIN_V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_inner_packets() {
        assert_eq!(inner(1500, 28), Some(1472));
        assert_eq!(inner(96, 28), Some(68));
        assert_eq!(inner(95, 28), None);
        assert_eq!(inner(20, 28), None);
        assert_eq!([Version::V4, Version::V6].map(smallest), [68, 1280]);
    }
}
