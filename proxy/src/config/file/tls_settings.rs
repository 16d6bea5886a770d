//! How TLS is spoken on a listener, as written.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use yaml::Setting;

/// What is offered to clients, by Mozilla's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsPolicyFile {
    /// TLS 1.2 and 1.3, for nearly everybody.
    Intermediate,
    /// TLS 1.3 alone.
    Modern,
}

/// What clients keep so that their next handshake is a short one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionTicketsFile {
    /// Whether clients are given tickets. Default: true.
    pub enabled: Option<Setting<bool>>,
    /// File with secrets, one a line, each of at least 32 characters: nodes that share it take each other's tickets, also
    /// after a restart. The first one seals, all of them open. Read again at every reload. Default: a secret that is made
    /// at the start.
    pub file: Option<Setting<PathBuf>>,
    /// Time after which another key seals; tickets of the one before still count. The same on nodes that share a file.
    /// Default: 12h, 1m to 72h.
    pub rotate: Option<Setting<Duration>>,
}
