//! What the operator wrote, made reliable: defaulted, checked, and without any reference to nothing.
//!
//! [`mod@file`] mirrors the YAML, [`read()`] turns it into a [`Config`] and notes every problem with its position.
//! Pure: files come in through the reader's sources.

mod acme;
mod admission;
mod balance;
mod certificate;
mod chain;
mod client_certificate;
mod compress;
pub mod file;
mod listener;
mod names;
mod pool;
mod read;
mod retries;
mod route;
mod rule;
mod tls_settings;
mod upstream;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
pub use rustls::sign::CertifiedKey;

use crate::auth::{Jwt, Users};
use crate::limit::{AccessList, Limit};
use crate::route::RouteTable;
use crate::rule::{
    Compress, Conditions, Cors, Edits, ErrorPages, Fixed, Redirect, Rewrite, Statuses, Template,
};

pub use self::acme::{Acme, Challenge, ChallengeKind, DnsHook, Eab, KeyType, Managed, OnDemand};
pub use self::certificate::{CertificateError, certified_key};
pub use self::client_certificate::{ClientCertificates, ClientFields, ClientPolicy, PolicyId};
pub use self::names::ServerAddress;
pub(crate) use self::read::show_duration;
pub use self::read::{Sections, read};
pub use self::tls_settings::SessionTickets;
pub use self::upstream::{ClientCertificate, Protocol, TlsVersion, UpstreamTls};

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
    /// Who knows the names of real servers; whoever the system asks where this is empty.
    pub resolver: Vec<SocketAddr>,
    /// Address of the admin listener.
    pub admin: Option<SocketAddr>,
    /// How the program leaves.
    pub drain: Drain,
    /// The account with a certificate authority.
    pub acme: Option<Acme>,
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
    /// Whether HTTP/3 is spoken on the same address and port.
    pub http3: bool,
    /// The port under which clients reach HTTP/3, where it is another one.
    pub http3_port: Option<u16>,
    /// Every request is sent here.
    pub https_redirect: Option<Redirect>,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Most connections of one client at a time.
    pub per_client: Option<Limit>,
    /// Who may connect.
    pub access: AccessList,
    /// Longest time for TLS handshake and request head.
    pub client_header_timeout: Duration,
    /// Longest pause in a request body.
    pub client_body_timeout: Duration,
    /// Longest pause while the client takes nothing.
    pub send_timeout: Duration,
    /// How long an idle connection is kept.
    pub keepalive_timeout: Duration,
    /// Requests after which a connection is closed.
    pub keepalive_requests: Option<u32>,
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
    pub certificates: Vec<Certificate>,
    /// A certificate still to be made by the program.
    pub development: Option<Development>,
    /// Certificates that an authority issues; behind the others.
    pub managed: Managed,
    /// Clients that have to show a certificate themselves.
    pub client_certificates: Option<ClientCertificates>,
    /// The oldest version of TLS.
    pub min_version: TlsVersion,
    /// How sessions are taken up again.
    pub session_tickets: Option<SessionTickets>,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
    /// Whether requests are accepted with which a client of HTTP/3 takes up an earlier session.
    pub early_data: bool,
    /// Whether staples are shown.
    pub ocsp_stapling: bool,
}

/// A certificate that clients are shown.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where it comes from.
    pub source: Source,
    /// The certificate and its key as they were read.
    pub key: Arc<CertifiedKey>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// Two PEM files.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// Made by the program, for these names.
    Development(Vec<String>),
    /// Issued by a certificate authority, for these names.
    Acme(Vec<String>),
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
    /// What its RS speak.
    pub protocol: Protocol,
    /// How its RS are spoken to in TLS; in clear where absent.
    pub tls: Option<UpstreamTls>,
    /// The real servers with an address.
    pub servers: Vec<Server>,
    /// The real servers with a name; one at least of both.
    pub named: Vec<Named>,
    /// Active checks; none when switched off.
    pub health_check: Option<HealthCheck>,
    /// Whether requests are refused when every RS is down, instead of using all.
    pub refuse_when_down: bool,
    /// What is not plain weighted round robin.
    pub balancing: Option<Balancing>,
    /// Longest time for a connection.
    pub connect_timeout: Duration,
    /// Longest pause while the RS sends nothing.
    pub read_timeout: Duration,
    /// Longest pause while the RS takes nothing.
    pub send_timeout: Duration,
    /// When a request is sent to another RS although it may have reached the first.
    pub retries: Option<Box<Retries>>,
    /// Most idle connections per RS and worker.
    pub keepalive: usize,
    /// How long an idle connection is kept.
    pub keepalive_timeout: Duration,
}

/// When a request is sent to another RS although it may have reached the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retries {
    /// Most attempts after the first.
    pub attempts: u8,
    /// No response in time.
    pub on_timeout: bool,
    /// The connection broke before a response.
    pub on_closed: bool,
    /// These statuses.
    pub statuses: Statuses,
    /// Longest wait for the head of a response.
    pub per_try_timeout: Option<Duration>,
    /// Retries for every 100 requests.
    pub budget: u8,
}

/// One real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Address and port.
    pub address: SocketAddr,
    /// Share of the requests; 0 drains.
    pub weight: u8,
    /// Used only while no other RS is usable.
    pub backup: bool,
    /// Most requests in flight.
    pub max_connections: Option<u32>,
}

/// Real servers that are known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// In lower case.
    pub name: String,
    /// Port of all of them.
    pub port: u16,
    /// What each of them is, but for its address.
    pub server: Server,
}

/// How a pool shares requests out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancing {
    /// Who gets the next request.
    pub method: Method,
    /// Most requests in flight of the whole pool.
    pub max_requests: Option<u32>,
    /// Where requests wait while every RS is full.
    pub queue: Option<Queue>,
    /// The cookie that keeps clients at their RS.
    pub sticky: Option<Sticky>,
    /// How long an RS that came back up takes to get its whole share; zero for none of that.
    pub slow_start: Duration,
    /// When an RS is spared for its failures.
    pub ejection: Option<Ejection>,
}

/// Who gets the next request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// Everybody in turn.
    WeightedRoundRobin,
    /// Who has the fewest requests in flight for its weight.
    LeastConnections,
    /// By the client's address.
    IpHash,
    /// The quicker of two.
    PeakEwma,
    /// By a key, with a table.
    Maglev(HashKey),
    /// By a key, on a ring.
    RingHash(HashKey),
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// Address of the client.
    Client,
    /// Host, in lower case.
    Host,
    /// Path without the query.
    Path,
    /// Path and query.
    Uri,
    /// First value of a field.
    Header(String),
    /// Value of a cookie.
    Cookie(String),
    /// First value of a parameter of the query, as it is written.
    Query(String),
}

/// Where requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Most that wait.
    pub size: usize,
    /// Longest wait.
    pub timeout: Duration,
}

/// A sticky cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
    /// How long it holds after the last response.
    pub max_age: Duration,
    /// What seals it; something random where absent.
    pub secret: Option<String>,
}

/// When an RS is spared for its failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row.
    pub failures: u32,
    /// Time from the first to the last.
    pub interval: Duration,
    /// How long it is spared the first time.
    pub base_time: Duration,
    /// Most RS at a time, percent.
    pub max_percent: u8,
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
        /// The healthy statuses.
        status: Vec<RangeInclusive<u16>>,
    },
    /// A request to the health service of gRPC; for all services where none is named.
    Grpc {
        /// The service asked for.
        service: Option<String>,
        /// The authority of the request; the RS's address when absent.
        host: Option<String>,
    },
}

/// Domains and URL rules, compiled.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// The names of each domain as written, in the order of the file.
    pub domains: Vec<String>,
    /// Every URL rule; a table's target is an index into this, of the first of the rules with one URL.
    pub rules: Vec<Rule>,
    /// The limits of all rules.
    pub limits: Vec<Limit>,
    /// The weights of every split: of requests over pools, or into those that are copied and those that are not.
    pub splits: Vec<Vec<u8>>,
    /// One table per listener, in the order of the listeners.
    pub tables: Vec<Arc<RouteTable>>,
}

/// One URL rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Index of its domain.
    pub domain: usize,
    /// Pattern as written.
    pub url: String,
    /// What it asks of a request beyond domain and URL.
    pub when: Option<Box<Conditions>>,
    /// The rule that is asked where these conditions do not hold: of the same URL, with fewer of them.
    pub next: Option<usize>,
    /// Who answers.
    pub action: Action,
    /// What most rules do without.
    pub more: Option<Box<More>>,
}

/// Who answers a request.
#[derive(Debug, Clone)]
pub enum Action {
    /// The pool with this index.
    Pool(usize),
    /// One of several pools, in turns: index and weight.
    Split(Split),
    /// Nobody: the client is sent elsewhere.
    Redirect(Box<Redirect>),
    /// Nobody: the answer stands in the configuration.
    Respond(Box<Fixed>),
}

/// Several pools with their shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Number of this split among all, for the turns that are kept elsewhere.
    pub number: usize,
    /// Index of each pool, and its weight.
    pub pools: Vec<(usize, u8)>,
}

/// What a rule does beyond naming who answers.
#[derive(Debug, Clone, Default)]
pub struct More {
    /// Who may come.
    pub access: AccessList,
    /// Numbers of its limits among all.
    pub limits: Vec<usize>,
    /// Largest request body in bytes.
    pub body_size: Option<u64>,
    /// Who has to agree.
    pub auth: Option<Box<Auth>>,
    /// Another target for the RS.
    pub rewrite: Option<Rewrite>,
    /// Another host for the RS.
    pub host: Option<Template>,
    /// Copies of requests.
    pub mirror: Option<Mirror>,
    /// Edits of the request.
    pub request_headers: Edits,
    /// Edits of the response.
    pub response_headers: Edits,
    /// What pages of other origins may do.
    pub cors: Option<Cors>,
    /// What clients see instead of errors.
    pub error_pages: ErrorPages,
    /// How responses are compressed.
    pub compress: Option<Compress>,
}

/// Who has to agree before a request passes: all of these.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// Names and passwords.
    pub basic: Option<BasicAuth>,
    /// Tokens.
    pub jwt: Option<Arc<Jwt>>,
    /// Another server.
    pub forward: Option<ForwardAuth>,
}

/// Names and passwords.
#[derive(Debug, Clone)]
pub struct BasicAuth {
    /// What it is for.
    pub realm: String,
    /// Who may come.
    pub users: Arc<Users>,
}

/// Another server that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Index of its pool.
    pub pool: usize,
    /// Target it is asked for.
    pub path: String,
    /// Fields of its answer for the RS.
    pub copy_headers: Vec<String>,
}

/// Where copies of requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// Index of the pool.
    pub pool: usize,
    /// Number of the split whose first share are the requests that are copied.
    pub turns: usize,
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
