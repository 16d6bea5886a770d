//! One URL rule and everything it can do, as written.

use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use yaml::{ByteSize, Entries, Setting};

use super::{AccessFile, BasicAuthFile, ForwardAuthFile, JwtFile, LimitFile};

/// One URL rule: what it is for, who answers, and what changes on the way.
// What is large and seldom is kept apart: there may be ten thousand of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// `= /exact`, `^~ /prefix`, `~ regex`, `~* regex` (letters of either case) or `/prefix`. Default: /.
    pub url: Option<Setting<String>>,
    /// Further conditions, all of which must hold. Several rules may have the same URL: the one with most conditions is
    /// asked first, then the order of the file decides; where none holds, the next best URL is asked.
    pub when: Option<Box<WhenFile>>,
    /// Pool that answers. One of `pool`, `split`, `redirect` and `respond` stands in every rule.
    pub pool: Option<Setting<String>>,
    /// Several pools, each with its share of the requests (canary).
    pub split: Option<Vec<ShareFile>>,
    /// Answer with a redirect.
    pub redirect: Option<Box<RedirectFile>>,
    /// Answer with a text.
    pub respond: Option<Box<RespondFile>>,
    /// Who may come: the first entry that has the client decides, and without one it may; 403 for others.
    pub access: Option<Vec<AccessFile>>,
    /// How much one client, or everybody together, may have.
    pub limits: Option<Vec<LimitFile>>,
    /// Largest request body, 413 beyond it; at most that of the listener, which counts first. Default: that of the listener.
    pub client_max_body_size: Option<Setting<ByteSize>>,
    /// Ask for a name and a password (401 without).
    pub basic_auth: Option<Box<BasicAuthFile>>,
    /// Ask for a JSON Web Token (401 without).
    pub jwt: Option<Box<JwtFile>>,
    /// Ask another server whether the request may pass.
    pub forward_auth: Option<Box<ForwardAuthFile>>,
    /// Ask the RS for something else than the client asked for.
    pub rewrite: Option<Box<RewriteFile>>,
    /// Also send a copy of the requests to another pool, whose answers are thrown away.
    pub mirror: Option<Box<MirrorFile>>,
    /// Edit the header fields of the request to the RS.
    pub request_headers: Option<Box<EditsFile>>,
    /// Edit the header fields of the response to the client, of errors as well.
    pub response_headers: Option<Box<EditsFile>>,
    /// Let pages of other origins read the answers (CORS).
    pub cors: Option<Box<CorsFile>>,
    /// What clients see instead of errors.
    pub error_pages: Option<Vec<ErrorPageFile>>,
    /// Whether `error_pages` also replace errors that an RS answers with. Default: false.
    pub intercept_errors: Option<Setting<bool>>,
    /// Compress responses for clients that accept it (`compatibility` in CLB). Without it they pass as the RS has
    /// made them (`transparent`).
    pub compress: Option<Box<CompressFile>>,
}

/// Conditions of a rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhenFile {
    /// One of these methods, such as [GET, HEAD].
    #[serde(default)]
    pub methods: Vec<Setting<MethodName>>,
    /// Header fields: `Name: value`, `Name: ~regex`, `Name: "*"` (there at all) or `Name: "!"` (not there).
    #[serde(default)]
    pub headers: Entries<String>,
    /// Parameters of the query, in the same form.
    #[serde(default)]
    pub query: Entries<String>,
    /// Cookies, in the same form.
    #[serde(default)]
    pub cookies: Entries<String>,
    /// Networks, one of which the client is in.
    #[serde(default)]
    pub clients: Vec<Setting<IpNet>>,
}

/// A method, in upper case as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodName(pub Method);

impl yaml::Value for MethodName {
    const NAME: &'static str = "method";
    const WHAT: &'static str = "a method such as GET";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|_| !text.bytes().any(|byte| byte.is_ascii_lowercase())).map(Self)
    }
}

/// A pool's share of the requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareFile {
    /// Name of the pool.
    pub pool: Setting<String>,
    /// Its share, 0 to 100, against the weights of the others.
    pub weight: Setting<u8>,
}

/// A redirect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectFile {
    /// Where to, with variables: `https://$host$request_uri`.
    pub to: Setting<String>,
    /// 301, 302, 303, 307 or 308. Default: 302.
    pub status: Option<Setting<u16>>,
    /// Regular expression over the path, whose captures are $1 to $9 in `to`.
    pub regex: Option<Setting<String>>,
}

/// An answer that needs no RS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RespondFile {
    /// 200 to 599. Default: 200.
    pub status: Option<Setting<u16>>,
    /// Text, with variables; `${file:PATH}` is the content of a file. Default: empty.
    pub body: Option<Setting<String>>,
    /// Default: text/plain; charset=utf-8.
    pub content_type: Option<Setting<String>>,
}

/// Another target for the RS; `prefix` or `path`, and `host` with either or alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewriteFile {
    /// Stands instead of the part of the path that `url` has matched: `/` strips it.
    pub prefix: Option<Setting<String>>,
    /// The whole new path, with variables. The query stays; one written here comes before it, and `?` at the end
    /// drops it.
    pub path: Option<Setting<String>>,
    /// Regular expression over the path, whose captures are $1 to $9 in `path`; where it does not match, the path stays.
    pub regex: Option<Setting<String>>,
    /// Host that the RS is asked for, with variables. Default: that of the request.
    pub host: Option<Setting<String>>,
}

/// A copy of requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorFile {
    /// Pool that gets the copies.
    pub pool: Setting<String>,
    /// How many of 100 requests are copied. Default: 100, 1 to 100.
    pub percent: Option<Setting<u8>>,
}

/// Edits of header fields: removed, then set, then added. Values may have variables; an empty value adds nothing.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditsFile {
    /// Names of fields that go.
    #[serde(default)]
    pub remove: Vec<Setting<String>>,
    /// Fields that stand once, with this value.
    #[serde(default)]
    pub set: Entries<String>,
    /// Fields that are added to what is there.
    #[serde(default)]
    pub add: Entries<String>,
}

/// What pages of other origins may do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsFile {
    /// Origins such as `https://app.example.com` or `~^https://[a-z]+\.example\.com$`, or "*". Default: *.
    #[serde(default)]
    pub origins: Vec<Setting<String>>,
    /// Methods they may use. Default: GET, HEAD, POST, PUT, PATCH, DELETE.
    #[serde(default)]
    pub methods: Vec<Setting<MethodName>>,
    /// Request fields they may set. Default: whatever the browser asks for.
    #[serde(default)]
    pub headers: Vec<Setting<String>>,
    /// Response fields they may read, beside the harmless ones.
    #[serde(default)]
    pub expose: Vec<Setting<String>>,
    /// Whether cookies come along; then `origins` must not be "*". Default: false.
    pub credentials: Option<Setting<bool>>,
    /// How long a browser may remember. Default: 10m, 0 to 24h.
    pub max_age: Option<Setting<Duration>>,
}

/// What is shown instead of an error: `body` or `redirect`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorPageFile {
    /// Statuses and classes of status, such as [404, 5xx]; the first page that has a status counts.
    pub status: Vec<Setting<String>>,
    /// Text, with variables; `${file:PATH}` is the content of a file.
    pub body: Option<Setting<String>>,
    /// Default: text/html; charset=utf-8.
    pub content_type: Option<Setting<String>>,
    /// Status that is sent with the body. Default: that of the error.
    pub respond_status: Option<Setting<u16>>,
    /// Address the client is sent to (302), with variables.
    pub redirect: Option<Setting<String>>,
}

/// Compression of responses. Never compressed: what the RS has coded itself, parts (206), streams of events, gRPC, and
/// what `Cache-Control: no-transform` forbids.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompressFile {
    /// Which algorithms, in the order of preference among those that the client likes equally well. Default:
    /// [zstd, br, gzip].
    #[serde(default)]
    pub algorithms: Vec<AlgorithmFile>,
    /// Media types, without parameters. Default: text/html, text/css, text/plain, JavaScript, JSON, XML, SVG and the
    /// others of CLB.
    #[serde(default)]
    pub types: Vec<Setting<String>>,
    /// Shorter responses are left as they are, where their length is known. Default: 1k, 0 to 1M.
    pub min_size: Option<Setting<ByteSize>>,
}

/// A content coding.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlgorithmFile {
    /// Zstandard.
    Zstd,
    /// Brotli.
    Br,
    /// Gzip.
    Gzip,
}
