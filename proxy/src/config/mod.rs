//! What the operator wrote, made reliable: defaulted, checked, and without any reference to nothing.
//!
//! [`mod@file`] mirrors the YAML, [`read()`] turns it into a [`Config`] and notes every problem with its position.
//! Pure: files come in through the reader's sources.

mod certificate;
pub mod file;
mod listener;
mod pool;
mod read;
mod route;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
pub use rustls::sign::CertifiedKey;

use crate::route::RouteTable;

pub use self::certificate::{CertificateError, certified_key};
pub use self::read::{Sections, read};

/// Everything the proxy needs to start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// Sets of real servers.
    pub pools: Vec<Pool>,
    /// Domains and URL rules.
    pub routes: Routes,
    /// Proxies in front whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where request lines go.
    pub access_log: AccessLog,
    /// Address of the admin listener.
    pub admin: Option<SocketAddr>,
    /// How the program leaves.
    pub drain: Drain,
}

/// VIP, port, TLS and limits.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Unique name.
    pub name: String,
    /// What it binds.
    pub address: SocketAddr,
    /// Name of the tunnel it listens in.
    pub tunnel: Option<String>,
    /// HTTPS where present.
    pub tls: Option<Tls>,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Longest time for TLS handshake and request head.
    pub client_header_timeout: Duration,
    /// Longest pause in a request body.
    pub client_body_timeout: Duration,
    /// Longest pause while the client takes nothing.
    pub send_timeout: Duration,
    /// How long an idle connection is kept.
    pub keepalive_timeout: Duration,
    /// Longest request head in bytes.
    pub client_header_size: usize,
    /// Most fields of a request.
    pub client_header_count: usize,
    /// Largest request body in bytes; `u64::MAX` is no limit.
    pub client_max_body_size: u64,
}

/// Certificates and protocols of an HTTPS listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificates in the order of the file; the first is the default.
    pub certificates: Vec<Arc<CertifiedKey>>,
    /// A certificate still to be made by the program.
    pub development: Option<Development>,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
}

/// A development certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Development {
    /// Where CA, certificate and keys are kept.
    pub directory: PathBuf,
    /// Names and addresses it is for.
    pub names: Vec<String>,
}

/// A named set of real servers.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// Name of the tunnel its RS are reached through.
    pub tunnel: Option<String>,
    /// The real servers; at least one.
    pub servers: Vec<Server>,
    /// Active checks; none when switched off.
    pub health_check: Option<HealthCheck>,
    /// Whether requests are refused when every RS is down, instead of using all.
    pub refuse_when_down: bool,
    /// Longest time for a connection.
    pub connect_timeout: Duration,
    /// Longest pause while the RS sends nothing.
    pub read_timeout: Duration,
    /// Longest pause while the RS takes nothing.
    pub send_timeout: Duration,
    /// Most idle connections per RS and worker.
    pub keepalive: usize,
    /// How long an idle connection is kept.
    pub keepalive_timeout: Duration,
}

/// One real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Address and port.
    pub address: SocketAddr,
    /// Share of the requests; 0 drains.
    pub weight: u8,
}

/// Active health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is sent and expected.
    pub probe: Probe,
    /// From the start of one check to the next.
    pub interval: Duration,
    /// For one check; shorter than the interval.
    pub timeout: Duration,
    /// Successes in a row that bring an RS back.
    pub healthy_threshold: u8,
    /// Failures in a row that take it out.
    pub unhealthy_threshold: u8,
}

/// One kind of check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A connection is enough.
    Tcp,
    /// A request and its status.
    Http {
        /// GET or HEAD.
        method: http::Method,
        /// Path, beginning with `/`.
        path: String,
        /// Host field; the RS's address when absent.
        host: Option<String>,
        /// Hundreds digits of the healthy statuses.
        classes: Vec<u16>,
    },
}

/// Domains and URL rules, compiled.
#[derive(Debug, Clone)]
pub struct Routes {
    /// The names of each domain as written, in the order of the file.
    pub domains: Vec<String>,
    /// Every URL rule; a table's target is an index into this.
    pub rules: Vec<Rule>,
    /// One table per listener, in the order of the listeners.
    pub tables: Vec<Arc<RouteTable>>,
}

/// One URL rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Index of its domain.
    pub domain: usize,
    /// Pattern as written.
    pub url: String,
    /// Index of the pool that answers.
    pub pool: usize,
}

/// Where request lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// How the program leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Still accepting, while /readyz says 503.
    pub delay: Duration,
    /// Then for open requests.
    pub timeout: Duration,
}
