//! Certificates that a certificate authority issues (ACME, RFC 8555), as written.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use yaml::{Group, Setting};

use crate::config::acme::{ChallengeKind, KeyType};

/// The account with a certificate authority that speaks ACME. With it you agree to the terms of service of the authority.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeFile {
    /// Where the authority lists what it can do (https). Default: that of Let's Encrypt,
    /// `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory: Option<Setting<String>>,
    /// Whom the authority may write to. Default: nobody.
    pub email: Option<Setting<String>>,
    /// Directory for the account, certificates and keys; relative to the configuration file. Nodes that share it share
    /// certificates, and one of them gets them. Default: acme.
    pub storage: Option<Setting<PathBuf>>,
    /// PEM file with the authorities to trust when the server behind `directory` is spoken to. Default: those of the
    /// system.
    pub ca: Option<Setting<PathBuf>>,
    /// What ties the account to one that you have with the authority already (external account binding).
    pub eab: Option<EabFile>,
    /// Key of new certificates: `p256`, `p384` (ECDSA) or `rsa2048`. Default: p256.
    pub key_type: Option<Setting<KeyType>>,
    /// How it is proven that a name is yours: `http-01` (on port 80), `tls-alpn-01` (on port 443) or `dns-01` (by
    /// `dns_hook`; the only one for wildcards). Default: http-01.
    pub challenge: Option<Setting<ChallengeKind>>,
    /// Program that sets and removes TXT records, and its arguments, for `dns-01`; a path is relative to the configuration
    /// file. It is called with `present` or
    /// `cleanup`, the name and the value behind these arguments, and comes back when the record can be seen.
    #[serde(default)]
    pub dns_hook: Vec<Setting<String>>,
    /// Longest time for one call of `dns_hook`. Default: 300s, 1s to 1h.
    pub dns_hook_timeout: Option<Setting<Duration>>,
    /// Kind of certificate, of those that the authority offers, such as `shortlived`. Default: whatever the authority
    /// takes for usual.
    pub profile: Option<Setting<String>>,
}

/// What an authority gives to those who have an account with it already.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EabFile {
    /// Identifier of the key.
    pub key_id: Setting<String>,
    /// The key, in base64url.
    pub hmac_key: Setting<String>,
}

/// The certificates of a listener that an authority issues.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagedFile {
    /// A certificate for each entry: a name, or several names in brackets that are to stand in one certificate.
    #[serde(default)]
    pub domains: Vec<Group<String>>,
    /// Certificates for names that are known only when somebody asks for them.
    pub on_demand: Option<OnDemandFile>,
}

/// Certificates that are got when a client asks for a name for the first time; that client fails or sees another one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnDemandFile {
    /// The names for which this may happen: whole names, and `*.example.com` for every name one label longer.
    pub allow: Vec<Setting<String>>,
    /// Most certificates that come about in this way, 1 to 10000. Default: 100.
    pub max_certificates: Option<Setting<usize>>,
    /// Most names that are tried in an hour, 1 to 1000. Default: 20.
    pub max_per_hour: Option<Setting<u32>>,
}
