//! Client certificates of a listener, as written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use yaml::Setting;

/// Which clients have to show a certificate, and what RS are told about it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificatesFile {
    /// The domains this is for, spelled and matched as those of `routes`. A connection is for the domain that the client
    /// asks for in the handshake (SNI); a request for another one of these is answered with 421. Default: `"*"`, everything.
    #[serde(default)]
    pub domains: Vec<Setting<String>>,
    /// PEM file with the authorities that may sign.
    pub ca: Setting<PathBuf>,
    /// `required`: no handshake without a certificate. `optional`: a client may have none, but not a bad one.
    /// Default: required.
    pub mode: Option<ClientModeFile>,
    /// PEM file with the revocation lists, one of every authority of a chain. A list whose time is over revokes everything.
    /// Default: nothing is revoked.
    pub crl: Option<Setting<PathBuf>>,
    /// What RS are told: `x_ssl_client` (X-SSL-Client-Verify, -S-DN, -I-DN, -Serial, -Fingerprint), `client_cert` (the
    /// certificate in Client-Cert, RFC 9440) or `off`. Clients never get such fields through. Default: x_ssl_client.
    pub headers: Option<ClientFieldsFile>,
}

/// Whether a client may do without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientModeFile {
    /// It may not.
    Required,
    /// It may.
    Optional,
}

/// What RS are told about a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientFieldsFile {
    /// X-SSL-Client-Verify and what else begins so.
    XSslClient,
    /// Client-Cert (RFC 9440).
    ClientCert,
    /// Nothing.
    Off,
}
