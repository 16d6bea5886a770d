//! `policy:`, `min_version:` and `session_tickets:` of a listener's `tls:`.

use std::path::Path;
use std::time::Duration;

use yaml::{Reader, Setting};

use super::TlsVersion;
use super::file::{SessionTicketsFile, TlsFile, TlsPolicyFile};

/// Shortest secret and most of them.
const SHORTEST: usize = 32;
const MOST: usize = 16;

/// What session tickets are sealed with.
#[derive(Clone)]
pub struct SessionTickets {
    /// The first one seals, all of them open; one that is made at the start where there is none.
    pub secrets: Vec<String>,
    /// Time after which another key seals, in whole seconds.
    pub rotate: Duration,
}

/// Without the secrets.
impl std::fmt::Debug for SessionTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionTickets").field("rotate", &self.rotate).finish_non_exhaustive()
    }
}

/// The oldest version of TLS that is spoken.
pub(super) fn read_min_version(file: &TlsFile, reader: &mut Reader<'_>) -> TlsVersion {
    let oldest = match file.policy {
        Some(TlsPolicyFile::Modern) => TlsVersion::Tls13,
        Some(TlsPolicyFile::Intermediate) | None => TlsVersion::Tls12,
    };
    let Some(setting) = &file.min_version else { return oldest };
    let version = reader.read_or(Some(setting), oldest);
    if version == TlsVersion::Tls12 && oldest == TlsVersion::Tls13 {
        let help = "leave `min_version` out, or write `policy: intermediate`";
        reader.problem(setting.at(), "`policy: modern` is TLS 1.3 alone", Some(help.into()));
    }
    version
}

/// How sessions are taken up again; nothing where they are not.
pub(super) fn read_tickets(
    file: Option<&SessionTicketsFile>,
    base: &Path,
    reader: &mut Reader<'_>,
) -> Option<SessionTickets> {
    let usual = SessionTicketsFile::default();
    let file = file.unwrap_or(&usual);
    let enabled = reader.read_or(file.enabled.as_ref(), true);
    let rotate = reader.read_within(
        file.rotate.as_ref(),
        Duration::from_secs(60)..=Duration::from_secs(72 * 3600),
        super::read::show_duration,
        Duration::from_secs(12 * 3600),
    );
    if let (false, Some(at)) =
        (enabled, file.file.as_ref().map(Setting::at).or(file.rotate.as_ref().map(Setting::at)))
    {
        let help = "leave it out, or write `enabled: true`";
        reader.problem(at, "without session tickets there is nothing to seal", Some(help.into()));
    }
    let secrets = match &file.file {
        Some(setting) => read_secrets(setting, base, reader)?,
        None => Vec::new(),
    };
    enabled.then_some(SessionTickets { secrets, rotate })
}

fn read_secrets(
    setting: &Setting<std::path::PathBuf>,
    base: &Path,
    reader: &mut Reader<'_>,
) -> Option<Vec<String>> {
    let text = reader.read_file(setting, base)?;
    let secrets: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let problem = match secrets.len() {
        0 => "this file holds no secret".to_owned(),
        1..=MOST => match secrets.iter().position(|secret| secret.len() < SHORTEST) {
            None => return Some(secrets),
            Some(number) => {
                format!("secret {} of this file is shorter than {SHORTEST} characters", number + 1)
            }
        },
        many => format!("this file holds {many} secrets, more than {MOST}"),
    };
    reader.problem(setting.at(), problem, Some("one a line, such as `openssl rand -base64 48` makes".into()));
    None
}
