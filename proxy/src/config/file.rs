//! The proxy's part of the configuration file, as written: strings with positions, no logic.
//!
//! Doc comments here become the descriptions in the JSON Schema, so they speak to the person who writes
//! the file.

mod acme;
mod admission;
mod client_certificate;
mod rule;
mod tls_settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use yaml::{ByteSize, Setting};

pub use self::acme::*;
pub use self::admission::*;
pub use self::client_certificate::*;
pub use self::rule::*;
pub use self::tls_settings::*;
use super::ServerAddress;
use super::upstream::TlsVersion;

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
    /// Answer every request with a redirect to the same address under https:// (plain HTTP only).
    pub https_redirect: Option<HttpsRedirectFile>,
    /// Offer HTTP/2 by ALPN (HTTPS only). Default: true.
    pub http2: Option<Setting<bool>>,
    /// Speak HTTP/3 (QUIC) too, on the same address and UDP port (HTTPS only, not inside a tunnel). Default: true for
    /// HTTPS outside tunnels.
    pub http3: Option<Setting<bool>>,
    /// The port that Alt-Svc names to clients, where they reach the UDP port under another one. Default: the port of
    /// `address`.
    pub http3_port: Option<Setting<u16>>,
    /// Accept requests with which a client takes up an earlier session of HTTP/3 (0-RTT, RFC 8470): those with a safe method
    /// and without content go to the RS with `Early-Data: 1`, all others are answered with 425. Not for domains with client
    /// certificates. Default: false.
    pub http3_early_data: Option<Setting<bool>>,
    /// Most connections at a time; further ones wait in the kernel's queue. Default: 65536.
    pub max_connections: Option<Setting<usize>>,
    /// Most connections of one client (an IPv4 address, or an IPv6 network of 64 bits) at a time; further ones are closed.
    /// Default: no limit.
    pub max_connections_per_client: Option<Setting<u32>>,
    /// Who may connect: the first entry that has the client decides, and without one it may. The connections of others
    /// are closed.
    pub access: Option<Vec<AccessFile>>,
    /// Time for the TLS handshake and a whole request head, 408 after it. Default: 60s, 1s to 120s.
    pub client_header_timeout: Option<Setting<Duration>>,
    /// Longest pause between two pieces of a request body, 408 after it. Default: 60s, 1s to 120s.
    pub client_body_timeout: Option<Setting<Duration>>,
    /// Longest pause while the client takes no byte of the response. Default: 60s, 1s to 1h.
    pub send_timeout: Option<Setting<Duration>>,
    /// How long an idle connection is kept. Default: 75s, 0 to 1h.
    pub keepalive_timeout: Option<Setting<Duration>>,
    /// Requests after which a connection is closed, 1 to 1000000000. Default: no limit.
    pub keepalive_requests: Option<Setting<u32>>,
    /// Longest request head, 431 beyond it. Default: 64k, 1k to 256k.
    pub client_header_size: Option<Setting<ByteSize>>,
    /// Most header fields of a request, 431 beyond it. Default: 100, 8 to 128.
    pub client_header_count: Option<Setting<usize>>,
    /// Largest request body, 413 beyond it; 0 is no limit. Default: 60M.
    pub client_max_body_size: Option<Setting<ByteSize>>,
}

/// Where an HTTP listener sends everybody.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpsRedirectFile {
    /// 301, 302, 307 or 308. Default: 301.
    pub status: Option<Setting<u16>>,
    /// Port under which clients reach HTTPS. Default: 443.
    pub port: Option<Setting<u16>>,
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
    /// Certificates that ingre gets from a certificate authority and renews, by the account in `acme:` at the top.
    pub acme: Option<ManagedFile>,
    /// Show clients what the issuer says about revocation (OCSP), where a certificate names a responder. Default: true.
    pub ocsp_stapling: Option<Setting<bool>>,
    /// Clients that have to show a certificate themselves (mTLS), by domain. Default: none.
    #[serde(default)]
    pub client_certificates: Vec<ClientCertificatesFile>,
    /// What is offered, by Mozilla's names: `intermediate` (TLS 1.2 and 1.3) or `modern` (1.3 alone). Default: intermediate.
    pub policy: Option<TlsPolicyFile>,
    /// Oldest version of TLS: 1.2 or 1.3. Default: that of the policy.
    pub min_version: Option<Setting<TlsVersion>>,
    /// What clients keep so that their next handshake is a short one. Default: tickets sealed by a secret of this process.
    pub session_tickets: Option<SessionTicketsFile>,
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
    /// What the real servers speak: `http` (HTTP/1.1), `https`, `h2` (HTTP/2 over TLS), `h2c` (HTTP/2 in clear, without
    /// asking first), `grpc` (h2c with deadlines and checks of gRPC) or `grpcs` (the same over TLS). Default: http.
    pub protocol: Option<ProtocolFile>,
    /// How `https`, `h2` and `grpcs` speak TLS.
    pub tls: Option<UpstreamTlsFile>,
    /// The real servers, 1 to 1000.
    pub servers: Vec<ServerFile>,
    /// Active health checks; on with the defaults when absent.
    #[serde(default)]
    pub health_check: HealthCheckFile,
    /// Who gets the next request: `weighted_round_robin`, `least_connections` (for its weight), `ip_hash`, `peak_ewma`
    /// (the quicker of two), `maglev` or `ring_hash` (by `hash_key`). Default: weighted_round_robin.
    pub balance: Option<BalanceFile>,
    /// What `maglev` and `ring_hash` hash: `client`, `host`, `path`, `uri`, `header:NAME`, `cookie:NAME` or
    /// `query:NAME`; where a request has none, the turns decide. Default: client.
    pub hash_key: Option<Setting<String>>,
    /// Most requests in flight at each RS, unless it says otherwise; 1 to 1000000. Default: no limit.
    pub max_connections: Option<Setting<u32>>,
    /// Where requests wait while every RS is full.
    pub queue: Option<QueueFile>,
    /// Most requests in flight of the whole pool, those that wait included; 503 at once beyond it; 1 to 1000000. Default: no limit.
    pub max_requests: Option<Setting<u32>>,
    /// Clients stay at their RS by a cookie. Not with `ip_hash` and `least_connections`.
    pub sticky: Option<StickyFile>,
    /// An RS that comes back up is given its share little by little in this time. Default: 0s, at most 900s.
    pub slow_start: Option<Setting<Duration>>,
    /// Spare an RS whose requests fail in a row.
    pub ejection: Option<EjectionFile>,
    /// When every RS has failed its checks: `use_all` (as CLB does) or `refuse` (503). Default: use_all.
    pub all_down: Option<AllDownFile>,
    /// Longest time for a connection to an RS; then another RS is tried, once, and then it is 504. Default: 4s, 100ms to 120s.
    pub connect_timeout: Option<Setting<Duration>>,
    /// Longest pause while the RS sends nothing, 504 after it. Default: 60s, 1s to 1h.
    pub read_timeout: Option<Setting<Duration>>,
    /// Longest pause while the RS takes nothing, 504 after it. Default: 60s, 1s to 1h.
    pub send_timeout: Option<Setting<Duration>>,
    /// When a request is sent to another RS. Without this: once, and only where it is certain that the first has not
    /// acted on it.
    pub retries: Option<RetriesFile>,
    /// Most idle connections kept per RS and worker; 0 keeps none. Default: 256.
    pub keepalive: Option<Setting<usize>>,
    /// How long an idle connection to an RS is kept. Default: 60s, 1s to 1h.
    pub keepalive_timeout: Option<Setting<Duration>>,
}

/// Retries of a pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesFile {
    /// Most attempts after the first. Default: 1, 0 to 5.
    pub attempts: Option<Setting<u8>>,
    /// Reasons beside those that are certain to be safe, for requests without content that may be repeated (GET, HEAD,
    /// OPTIONS, PUT, DELETE): `timeout` (no response in time), `closed` (the connection broke before one), statuses
    /// such as 503, classes such as 5xx. Default: none.
    #[serde(default)]
    pub on: Vec<Setting<String>>,
    /// Longest wait for the head of a response. Default: read_timeout; 10ms to 1h.
    pub per_try_timeout: Option<Setting<Duration>>,
    /// Retries for every 100 requests of a worker, beside ten to begin with. Default: 20, 0 to 100.
    pub budget: Option<Setting<u8>>,
}

/// What real servers speak.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolFile {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 in clear, with prior knowledge.
    H2c,
    /// gRPC: HTTP/2 in clear.
    Grpc,
    /// gRPC: HTTP/2 over TLS.
    Grpcs,
}

/// TLS toward real servers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTlsFile {
    /// Check the certificate of a real server: who signed it, for which name, until when. Default: true.
    pub verify: Option<Setting<bool>>,
    /// PEM file with the authorities to trust. Default: those of the system.
    pub ca: Option<Setting<PathBuf>>,
    /// Name to ask for (SNI), which the certificate must have. Default: the name of the real servers, where `address` has
    /// one and the same for all. Without either none is asked for, and the certificate must have
    /// the address of the real server; the system's authorities sign no such thing, so that it needs a `ca`.
    pub server_name: Option<Setting<String>>,
    /// PEM file with the certificate to show to a real server that asks for one, and the intermediates behind it.
    pub certificate: Option<Setting<PathBuf>>,
    /// PEM file with its private key.
    pub key: Option<Setting<PathBuf>>,
    /// The certificate of a real server must have one of these keys, whether or not it is verified: SHA-256 of the
    /// SubjectPublicKeyInfo, in base64. Default: any key.
    #[serde(default)]
    pub pin_sha256: Vec<Setting<String>>,
    /// Oldest version of TLS: 1.2 or 1.3. Default: 1.2.
    pub min_version: Option<Setting<TlsVersion>>,
}

/// One real server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerFile {
    /// Address and port, or a name and port: each address of the name is a real server then.
    pub address: Setting<ServerAddress>,
    /// Share of the requests, 0 to 100; 0 drains it: nothing new, running requests finish. Default: 10.
    pub weight: Option<Setting<u8>>,
    /// Used only while no other RS is usable. Default: false.
    pub backup: Option<Setting<bool>>,
    /// Most requests in flight, 1 to 1000000. Default: that of the pool.
    pub max_connections: Option<Setting<u32>>,
}

/// Who gets the next request.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceFile {
    /// Everybody in turn, by weight.
    WeightedRoundRobin,
    /// Who has the fewest requests in flight for its weight.
    LeastConnections,
    /// Always the same RS for a client's address.
    IpHash,
    /// The quicker of two that are picked at random.
    PeakEwma,
    /// Always the same RS for a key, by a table.
    Maglev,
    /// Always the same RS for a key, by points on a ring.
    RingHash,
}

/// Where requests wait while every RS is full: first come, first served.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueFile {
    /// Most requests that wait, 503 beyond it; 0 to 65536. Default: 0, nobody waits.
    pub size: Option<Setting<usize>>,
    /// Longest wait, 504 after it. Default: 5s, 10ms to 60s.
    pub timeout: Option<Setting<Duration>>,
}

/// A cookie that ingre sets and that keeps a client at its RS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyFile {
    /// Its name. Default: ingre.
    pub cookie: Option<Setting<String>>,
    /// How long it holds after the last response. Default: 3600s, 30s to 3600s.
    pub max_age: Option<Setting<Duration>>,
    /// What seals it, at least 16 characters, the same on every node that serves the pool. Default: made at the start and
    /// kept across reloads.
    pub secret: Option<Setting<String>>,
}

/// Passive health: 5xx, failed connections and timeouts count.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EjectionFile {
    /// So many failures in a row eject an RS. Default: 5, 1 to 1000.
    pub failures: Option<Setting<u32>>,
    /// The last one comes this long after the first one at most. Default: 10s, 1s to 1h.
    pub interval: Option<Setting<Duration>>,
    /// How long it is spared the first time; twice, three times, ... ten times as long when it happens again.
    /// Default: 30s, 1s to 1h.
    pub base_time: Option<Setting<Duration>>,
    /// Most RS ejected at a time, percent of the pool, rounded up, but never the last one. Default: 50, 1 to 100.
    pub max_percent: Option<Setting<u8>>,
}

/// Active health checks of a pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheckFile {
    /// `http`, `grpc` (grpc.health.v1, over HTTP/2), `tcp` (a connection is enough) or `off`. Default: what the pool's
    /// `protocol` is, grpc or http.
    #[serde(rename = "type")]
    pub kind: Option<HealthKindFile>,
    /// Service that a check of type grpc asks for; it must be SERVING. Default: none, and an RS that has no health service
    /// (UNIMPLEMENTED) counts as healthy too.
    pub service: Option<Setting<String>>,
    /// GET or HEAD. Default: GET.
    pub method: Option<MethodFile>,
    /// Path of the request. Default: /.
    pub path: Option<Setting<String>>,
    /// Host of the request. Default: the address of the RS.
    pub host: Option<Setting<String>>,
    /// What counts as healthy: classes such as 2xx and single numbers such as 404. Default: [2xx, 3xx].
    pub status: Option<Vec<Setting<String>>>,
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
    /// A request to the health service of gRPC.
    Grpc,
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
    /// URL rules, best match wins: exact, `^~` prefix, regexes in order, longest prefix. Of rules with the same URL
    /// the one with most conditions that hold.
    // Boxed: room for four is made for the first, and most domains have one or two.
    pub rules: Vec<Box<RuleFile>>,
}

/// The access log: one JSON line per request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogFile {
    /// `stdout`, `stderr`, `off` or a file, opened again on USR1. Default: stdout.
    pub output: Option<Setting<String>>,
}

/// The admin listener: /livez, /readyz, /metrics, /certificates and /tunnels, plain HTTP.
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

/// Who knows the names of real servers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolverFile {
    /// DNS servers with their ports, such as 10.0.0.2:53. Default: /etc/hosts and those in /etc/resolv.conf.
    #[serde(default)]
    pub servers: Vec<Setting<SocketAddr>>,
}

/// Networks of proxies in front whose X-Forwarded-For is believed.
pub type TrustedProxiesFile = Vec<Setting<IpNet>>;
