//! Who may come to a rule or a listener, and how often, as written.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;
use yaml::{Entries, Setting, Value};

use crate::limit::Key;

/// One entry of an access list: `allow` or `deny`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessFile {
    /// Networks or addresses that may come, or `all`.
    #[serde(default)]
    pub allow: Vec<Setting<Networks>>,
    /// Networks or addresses that may not, or `all`.
    #[serde(default)]
    pub deny: Vec<Setting<Networks>>,
}

/// A network, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Networks {
    /// Everybody.
    All,
    /// These.
    One(IpNet),
}

impl Value for Networks {
    const NAME: &'static str = "networks";
    const WHAT: &'static str = "a network such as 10.0.0.0/8, a single address, or `all`";

    fn parse(text: &str) -> Option<Self> {
        if text == "all" { Some(Self::All) } else { IpNet::parse(text).map(Self::One) }
    }
}

/// A limit; `rate`, `in_flight` or both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitFile {
    /// Most requests in a time, such as 10/s, 600/m or 1000/h; 429 beyond it.
    pub rate: Option<Setting<RateValue>>,
    /// How many of them may come at once. Default: those of one second, at least 1; 1 to 1000000.
    pub burst: Option<Setting<u32>>,
    /// Most requests at a time, 429 beyond it. 1 to 1000000.
    pub in_flight: Option<Setting<u32>>,
    /// What is counted together: `client` (an IPv4 address, or an IPv6 network of 64 bits), `rule` (everything) or
    /// `header:NAME` (its value). Default: client.
    pub per: Option<Setting<KeyValue>>,
}

/// A number of requests in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateValue {
    /// Requests, at least 1.
    pub count: u32,
    /// In this time.
    pub period: Duration,
}

impl Value for RateValue {
    const NAME: &'static str = "rate";
    const WHAT: &'static str = "a rate such as 10/s, 600/m or 1000/h";

    fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let count = count.trim().parse().ok().filter(|count| *count > 0)?;
        Some(Self { count, period: Duration::from_secs(seconds) })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ ?/ ?[smh]$" })
    }
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue(pub Key);

impl Value for KeyValue {
    const NAME: &'static str = "limit key";
    const WHAT: &'static str = "`client`, `rule` or `header:NAME`";

    fn parse(text: &str) -> Option<Self> {
        Key::parse(text).map(Self)
    }
}

/// Names and passwords.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicAuthFile {
    /// File of `name:hash` lines as `htpasswd -B` writes them.
    pub users: Setting<PathBuf>,
    /// What the browser says it is for. Default: restricted.
    pub realm: Option<Setting<String>>,
}

/// JSON Web Tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtFile {
    /// File with the public keys, a JSON Web Key Set.
    pub keys: Setting<PathBuf>,
    /// Cookie with the token. Default: it comes as `Authorization: Bearer`.
    pub cookie: Option<Setting<String>>,
    /// What the claim `iss` must be. Default: anything.
    pub issuer: Option<Setting<String>>,
    /// One of these must be in the claim `aud`. Default: anything.
    #[serde(default)]
    pub audiences: Vec<Setting<String>>,
    /// Fields for the RS and the claims they are filled from, such as `X-User: sub`; a client cannot set them.
    #[serde(default)]
    pub claims: Entries<String>,
}

/// Somebody else who decides.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuthFile {
    /// Pool that is asked: 2xx lets the request pass, any other answer goes to the client.
    pub pool: Setting<String>,
    /// Path it is asked for. Default: /.
    pub path: Option<Setting<String>>,
    /// Fields of its answer that go to the RS; a client cannot set them.
    #[serde(default)]
    pub copy_headers: Vec<Setting<String>>,
}
