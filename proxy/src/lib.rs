//! The layer-7 proxy: an HTTP request from a client to a real server (RS) and the answer back.
//!
//! # Life of a request
//!
//! `listener` accepts on the VIP and takes a permit -> TLS, certificate by SNI -> the head within a timeout
//! ([`h1`], or HTTP/2) -> `forward`: domain and URL to a rule ([`route`]), or 404 / 421 -> an RS that is available
//! ([`pool`]), or 503 -> header fields -> `upstream`: a kept connection or a new one, through the tunnel the pool
//! names -> both bodies streamed, never collected -> one retry where it is safe -> the outcome into metrics and the
//! access log.
//!
//! Pure modules (no async, no sockets, no clock, no files): [`config`], [`h1`], [`route`], [`pool`], `error`.

mod access_log;
mod admin;
mod body;
pub mod config;
pub mod demo;
mod drain;
mod error;
mod forward;
pub mod h1;
pub mod h2;
mod listener;
pub mod message;
mod metrics;
mod net;
pub mod pool;
pub mod route;
mod run;
mod spread;
mod state;
mod upstream;
mod worker;

pub use self::admin::{Page, serve_pages};
pub use self::error::{Error, Fault};
pub use self::run::{Proxy, Start, StartError};
pub use self::upstream::TunnelSockets;

/// The runtime of one thread: tasks stay on it and need not be `Send`.
fn local_runtime() -> std::io::Result<tokio::runtime::LocalRuntime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())
}
