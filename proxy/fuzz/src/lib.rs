//! What each fuzz target checks. libFuzzer runs it on whatever it makes up, `tests/seeds.rs` of the crate on what is in
//! `seeds/TARGET`, without a nightly compiler.

pub mod chunked;
pub mod h2;
pub mod h2_client;
pub mod h3;
pub mod hpack;
pub mod request;
pub mod response;

/// A check: it panics where what it says does not hold for the bytes.
pub type Check = fn(&[u8]);

/// Every target, by the name of its seeds.
pub const TARGETS: &[(&str, Check)] = &[
    ("chunked", chunked::check),
    ("h2", h2::check),
    ("h2_client", h2_client::check),
    ("h3", h3::check),
    ("hpack", hpack::check),
    ("request", request::check),
    ("response", response::check),
];
