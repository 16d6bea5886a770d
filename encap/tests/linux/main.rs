//! The Linux edges against a real kernel, in network namespaces that the tests make. Without root every test
//! says why it is skipped.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../common/mod.rs"]
mod common;
mod links;
mod routes;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    common::run([links::cases(), routes::cases(), watch::cases()].into_iter().flatten().collect())
}

const PROTOCOL: u8 = 71;
