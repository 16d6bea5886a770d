//! What each fuzz target checks. libFuzzer runs it on whatever it makes up, `tests/seeds.rs` of the crate on what is in
//! `seeds/TARGET`, without a nightly compiler.

pub mod coalesce;
mod common;
pub mod engine_in;
pub mod engine_out;
pub mod fragment;
pub mod gre;
pub mod icmp;
pub mod ipv6;
pub mod segment;

/// A check: it panics where what it says does not hold for the bytes.
pub type Check = fn(&[u8]);

/// Every target, by the name of its seeds.
pub const TARGETS: &[(&str, Check)] = &[
    ("coalesce", coalesce::check),
    ("engine_in", engine_in::check),
    ("engine_out", engine_out::check),
    ("fragment", fragment::check),
    ("gre", gre::check),
    ("icmp", icmp::check),
    ("ipv6", ipv6::check),
    ("segment", segment::check),
];
