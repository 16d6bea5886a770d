//! The proxy's part of the configuration file, as written: strings with positions, no logic.
//!
//! Doc comments here become the descriptions in the JSON Schema, so they speak to the person who writes
//! the file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use yaml::{ByteSize, Setting};

/// An address and port where clients connect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerFile {
    /// Unique name; `routes[].listeners` refers to it, and so does a socket handed in (LISTEN_FDNAMES).
    pub name: Setting<String>,
    /// Address and port, such as `0.0.0.0:443` or `[::]:443`. The VIP when `tunnel` is set.
    pub address: Setting<SocketAddr>,
    /// Listen inside this tunnel: clients arrive in GRE, answers go back the way they came.
    pub tunnel: Option<Setting<String>>,
    /// HTTPS; plain HTTP when absent.
    pub tls: Option<TlsFile>,
    /// Offer HTTP/2 by ALPN (HTTPS only). Default: true.
    pub http2: Option<Setting<bool>>,
    /// Most connections at a time; further ones wait in the kernel's queue. Default: 65536.
    pub max_connections: Option<Setting<usize>>,
    /// Time for the TLS handshake and a whole request head, 408 after it. Default: 60s, 1s to 120s.
    pub client_header_timeout: Option<Setting<Duration>>,
    /// Longest pause between two pieces of a request body, 408 after it. Default: 60s, 1s to 120s.
    pub client_body_timeout: Option<Setting<Duration>>,
    /// Longest pause while the client takes no byte of the response. Default: 60s, 1s to 1h.
    pub send_timeout: Option<Setting<Duration>>,
    /// How long an idle connection is kept. Default: 75s, 0 to 1h.
    pub keepalive_timeout: Option<Setting<Duration>>,
    /// Longest request head, 431 beyond it. Default: 64k, 1k to 256k.
    pub client_header_size: Option<Setting<ByteSize>>,
    /// Most header fields of a request, 431 beyond it. Default: 100, 8 to 128.
    pub client_header_count: Option<Setting<usize>>,
    /// Largest request body, 413 beyond it; 0 is no limit. Default: 60M.
    pub client_max_body_size: Option<Setting<ByteSize>>,
}

/// Certificates of a listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// Certificates, chosen by the name the client asks for (SNI); the first one is for everybody else.
    #[serde(default)]
    pub certificates: Vec<CertificateFile>,
    /// A certificate that ingre makes itself, signed by a development CA of its own.
    pub development: Option<DevelopmentFile>,
}

/// A certificate and its private key, both PEM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFile {
    /// File with the certificate and the intermediates behind it.
    pub certificate: Setting<PathBuf>,
    /// File with the private key.
    pub key: Setting<PathBuf>,
}

/// A development certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DevelopmentFile {
    /// Where CA, certificate and keys are kept; relative to the configuration file. Default: certs.
    pub directory: Option<Setting<PathBuf>>,
    /// Names the certificate is for. Default: localhost, 127.0.0.1 and ::1.
    #[serde(default)]
    pub names: Vec<Setting<String>>,
}

/// A named set of real servers (RS).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolFile {
    /// Unique name; rules refer to it.
    pub name: Setting<String>,
    /// Reach the RS through this tunnel.
    pub tunnel: Option<Setting<String>>,
    /// The real servers, 1 to 1000.
    pub servers: Vec<ServerFile>,
    /// Active health checks; on with the defaults when absent.
    #[serde(default)]
    pub health_check: HealthCheckFile,
    /// When every RS has failed its checks: `use_all` (as CLB does) or `refuse` (503). Default: use_all.
    pub all_down: Option<AllDownFile>,
    /// Longest time for a connection to an RS; then another RS is tried, once, and then it is 504. Default: 4s, 100ms to 120s.
    pub connect_timeout: Option<Setting<Duration>>,
    /// Longest pause while the RS sends nothing, 504 after it. Default: 60s, 1s to 1h.
    pub read_timeout: Option<Setting<Duration>>,
    /// Longest pause while the RS takes nothing, 504 after it. Default: 60s, 1s to 1h.
    pub send_timeout: Option<Setting<Duration>>,
    /// Most idle connections kept per RS and worker; 0 keeps none. Default: 256.
    pub keepalive: Option<Setting<usize>>,
    /// How long an idle connection to an RS is kept. Default: 60s, 1s to 1h.
    pub keepalive_timeout: Option<Setting<Duration>>,
}

/// One real server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerFile {
    /// Address and port.
    pub address: Setting<SocketAddr>,
    /// Share of the requests, 0 to 100; 0 drains it: nothing new, running requests finish. Default: 10.
    pub weight: Option<Setting<u8>>,
}

/// Active health checks of a pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheckFile {
    /// `http`, `tcp` (a connection is enough) or `off`. Default: http.
    #[serde(rename = "type")]
    pub kind: Option<HealthKindFile>,
    /// GET or HEAD. Default: GET.
    pub method: Option<MethodFile>,
    /// Path of the request. Default: /.
    pub path: Option<Setting<String>>,
    /// Host of the request. Default: the address of the RS.
    pub host: Option<Setting<String>>,
    /// Classes of status that count as healthy, such as [2xx, 3xx]. Default: [2xx, 3xx].
    pub status: Option<Vec<StatusClassFile>>,
    /// Time from the start of one check to the next. Default: 5s, 2s to 300s.
    pub interval: Option<Setting<Duration>>,
    /// Time for one check; shorter than the interval. Default: 2s, or half the interval where that is less; 100ms to 60s.
    pub timeout: Option<Setting<Duration>>,
    /// Successes in a row that bring an RS back. Default: 3, 1 to 10.
    pub healthy_threshold: Option<Setting<u8>>,
    /// Failures in a row that take it out. Default: 3, 1 to 10.
    pub unhealthy_threshold: Option<Setting<u8>>,
}

/// How an RS is checked.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthKindFile {
    /// An HTTP request.
    Http,
    /// A TCP connection.
    Tcp,
    /// Not at all.
    Off,
}

/// Method of a health check.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum MethodFile {
    /// GET.
    #[serde(rename = "GET")]
    Get,
    /// HEAD.
    #[serde(rename = "HEAD")]
    Head,
}

/// Class of a status code.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum StatusClassFile {
    /// 200 to 299.
    #[serde(rename = "2xx")]
    Success,
    /// 300 to 399.
    #[serde(rename = "3xx")]
    Redirection,
    /// 400 to 499.
    #[serde(rename = "4xx")]
    ClientError,
    /// 500 to 599.
    #[serde(rename = "5xx")]
    ServerError,
}

/// What to do when every RS of a pool is down.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllDownFile {
    /// Use them all.
    UseAll,
    /// Answer 503.
    Refuse,
}

/// Domains and their URL rules.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// `www.example.com`, `*.example.com`, `www.example.*`, `~regex`, or `*` for every other domain.
    pub domains: Vec<Setting<String>>,
    /// Listeners this stands on. Default: all.
    pub listeners: Option<Vec<Setting<String>>>,
    /// URL rules, best match wins: exact, `^~` prefix, regexes in order, longest prefix.
    pub rules: Vec<RuleFile>,
}

/// One URL rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// `= /exact`, `^~ /prefix`, `~ regex`, `~* regex` (letters of either case) or `/prefix`.
    pub url: Setting<String>,
    /// Pool that answers.
    pub pool: Setting<String>,
}

/// The access log: one JSON line per request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogFile {
    /// `stdout`, `stderr`, `off` or a file, opened again on USR1. Default: stdout.
    pub output: Option<Setting<String>>,
}

/// The admin listener: /livez, /readyz, /metrics and /tunnels, plain HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminFile {
    /// Address and port; loopback unless you protect it otherwise.
    pub address: Setting<SocketAddr>,
}

/// How the program leaves.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainFile {
    /// After TERM, keep accepting this long while /readyz says 503. Default: 0s, at most 1h.
    pub delay: Option<Setting<Duration>>,
    /// Then finish what is open for at most this long. Default: 30s, at most 1h.
    pub timeout: Option<Setting<Duration>>,
}

/// Networks of proxies in front whose X-Forwarded-For is believed.
pub type TrustedProxiesFile = Vec<Setting<IpNet>>;
