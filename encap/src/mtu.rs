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
pub use notice::{NOTICE_MAX, write_too_big};
pub use path::PathMtu;
pub use underlay::{QuotedKey, QuotedOuter, TooBig, parse_too_big};

use crate::wire::ip::Version;

/// Smallest MTU of IPv4 (RFC 791): a tunnel below it would not carry IP.
pub const MIN: u16 = 68;
/// Smallest MTU of IPv6 (RFC 8200 section 5). A tunnel with less carries it in fragments of the outer packet (RFC 7676
/// section 3.3).
pub const MIN_V6: u16 = 1280;

/// Smallest MTU of a link that carries this version, in bytes.
pub fn smallest(version: Version) -> u16 {
    match version {
        Version::V4 => MIN,
        Version::V6 => MIN_V6,
    }
}
