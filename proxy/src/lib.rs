//! The layer-7 proxy: an HTTP request from a client to a real server (RS) and the answer back.
//!
//! # Life of a request
//!
//! `listener` accepts on the VIP and takes a permit -> TLS, certificate by SNI -> the head within a timeout
//! ([`h1`], HTTP/2 or HTTP/3) -> `forward`: domain, URL and conditions to a rule ([`route`], [`rule`]), or 404 / 421 -> who may
//! come ([`limit`], [`auth`]), or 403, 429, 401 -> what the rule changes -> an RS that is available ([`pool`]), or 503 ->
//! `upstream`: a kept connection or a new one, through the tunnel the pool names -> both bodies streamed, never
//! collected -> a retry where it is safe -> what the rule does to the response -> the outcome into metrics and the
//! access log.
//!
//! Pure modules (no async, no sockets, no clock, no files): [`auth`], [`config`], [`h1`], [`h2`], [`h3`], [`limit`], [`route`],
//! [`rule`], [`pool`], `ocsp`, `error`.

mod access_log;
mod acme;
mod admin;
mod apart;
pub mod auth;
mod body;
pub mod config;
pub mod demo;
mod digits;
mod dns;
mod drain;
mod error;
pub mod explain;
mod field;
mod forward;
mod grpc;
pub mod h1;
pub mod h2;
pub mod h3;
mod keeper;
pub mod limit;
mod listener;
pub mod message;
mod metrics;
mod multiplex;
mod net;
mod ocsp;
pub mod pool;
mod publish;
mod quic;
pub mod route;
pub mod rule;
mod run;
mod spread;
mod state;
mod tls;
mod upstream;
mod worker;

pub use self::admin::{Page, serve_pages};
pub use self::error::{Error, Fault, TlsFault};
pub use self::keeper::describe as describe_certificates;
pub use self::quic::{ID_IN_LONG, ID_IN_SHORT, Predecessor, QuicKeys};
pub use self::run::{Proxy, Start, StartError, Successor};
pub use self::upstream::TunnelSockets;

/// The runtime of one thread: tasks stay on it and need not be `Send`.
fn local_runtime() -> std::io::Result<tokio::runtime::LocalRuntime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())
}
