//! ingre: an HTTPS ingress that carries its own traffic in GRE.

mod certs;
mod cli;
mod commands;
mod config;
mod cpu;
mod development;
mod encapsulate;
mod exit;
mod explain;
mod handover;
mod lab;
mod notice;
mod serve;
mod signals;
mod sockets;
mod table;
mod tunnels;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
