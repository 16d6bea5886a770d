//! The `acme:` section, and the certificates of listeners that come from there.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use schemars::{Schema, json_schema};
use yaml::{Position, Reader, Setting, Value};

use super::Listener;
use super::file::{AcmeFile, EabFile, ListenerFile, ManagedFile, OnDemandFile};
use super::upstream::read_roots;

/// Where Let's Encrypt lists what it can do.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Most names of one certificate; the usual authorities sign no more.
const MOST_NAMES: usize = 100;

/// The account with a certificate authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// URL of the directory, https.
    pub directory: String,
    /// Whom the authority may write to.
    pub email: Option<String>,
    /// Where everything is kept.
    pub storage: PathBuf,
    /// Who may have signed the certificate of the authority's own server.
    pub roots: Arc<[CertificateDer<'static>]>,
    /// What ties the account to another one.
    pub eab: Option<Eab>,
    /// Key of new certificates.
    pub key_type: KeyType,
    /// How names are proven.
    pub challenge: Challenge,
    /// Kind of certificate.
    pub profile: Option<String>,
}

/// External account binding (RFC 8555 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eab {
    /// Identifier of the key.
    pub key_id: String,
    /// The key.
    pub hmac_key: Vec<u8>,
}

/// The key of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA with P-256.
    P256,
    /// ECDSA with P-384.
    P384,
    /// RSA with 2048 bits.
    Rsa2048,
}

impl Value for KeyType {
    const NAME: &'static str = "key_type";
    const WHAT: &'static str = "p256, p384 or rsa2048";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "p256" => Some(Self::P256),
            "p384" => Some(Self::P384),
            "rsa2048" => Some(Self::Rsa2048),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "enum": ["p256", "p384", "rsa2048"] })
    }
}

/// How it is proven that a name is ours, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By a file on port 80.
    Http01,
    /// By a certificate on port 443.
    TlsAlpn01,
    /// By a record in the DNS.
    Dns01,
}

impl Value for ChallengeKind {
    const NAME: &'static str = "challenge";
    const WHAT: &'static str = "http-01, tls-alpn-01 or dns-01";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "http-01" => Some(Self::Http01),
            "tls-alpn-01" => Some(Self::TlsAlpn01),
            "dns-01" => Some(Self::Dns01),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "enum": ["http-01", "tls-alpn-01", "dns-01"] })
    }
}

/// How it is proven that a name is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// RFC 8555 8.3.
    Http01,
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555 8.4, by this program.
    Dns01(DnsHook),
}

/// The program that sets records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHook {
    /// What is run; looked for as the system does it, where it is no path.
    pub program: PathBuf,
    /// What comes before our own arguments.
    pub arguments: Vec<String>,
    /// Longest time for one call.
    pub timeout: Duration,
}

/// The certificates of a listener that an authority issues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managed {
    /// The names of each certificate, in lower case.
    pub certificates: Vec<Vec<String>>,
    /// Certificates that are got when somebody asks.
    pub on_demand: Option<OnDemand>,
}

/// Certificates that are got when somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDemand {
    /// For which names, in lower case; `*.` stands for one label.
    pub allow: Vec<String>,
    /// Most of them.
    pub max_certificates: usize,
    /// Most names that are tried in an hour.
    pub max_per_hour: u32,
}

impl OnDemand {
    /// Whether a certificate may be got for this name, in lower case.
    pub(crate) fn allows(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        is_name(name)
            && self.allow.iter().any(|allowed| match allowed.strip_prefix("*.") {
                Some(rest) => parent == Some(rest),
                None => allowed == name,
            })
    }
}

pub(super) fn read(file: &AcmeFile, base: &Path, reader: &mut Reader<'_>) -> Option<Acme> {
    // A section without any setting has no position of its own.
    let at = position(file).unwrap_or(Position { line: 0, column: 1 });
    let directory = read_directory(file.directory.as_ref(), reader);
    let email = file.email.as_ref().and_then(|email| read_email(email, reader));
    let storage = base.join(reader.read_or(file.storage.as_ref(), PathBuf::from("acme")));
    let eab = file.eab.as_ref().and_then(|eab| read_eab(eab, reader));
    let challenge = read_challenge(file, at, base, reader);
    let key_type = reader.read_or(file.key_type.as_ref(), KeyType::P256);
    let profile = file.profile.as_ref().and_then(|profile| reader.read(profile));
    let roots = read_roots(file.ca.as_ref(), at, base, reader)?;
    Some(Acme { directory: directory?, email, storage, roots, eab, key_type, challenge: challenge?, profile })
}

fn position(file: &AcmeFile) -> Option<Position> {
    let texts = [&file.directory, &file.email, &file.profile].map(|text| text.as_ref().map(Setting::at));
    let hook = file.dns_hook.first().map(Setting::at);
    let hook = hook.or(file.challenge.as_ref().map(Setting::at));
    let paths = [&file.storage, &file.ca].map(|path| path.as_ref().map(Setting::at));
    texts.into_iter().chain(paths).chain([hook]).flatten().min_by_key(|at| at.line)
}

fn read_directory(setting: Option<&Setting<String>>, reader: &mut Reader<'_>) -> Option<String> {
    let Some(setting) = setting else { return Some(LETS_ENCRYPT.into()) };
    let text = reader.read(setting)?;
    let uri: Option<http::Uri> = text.parse().ok();
    let is_https = uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
    if !is_https {
        let help = Some("such as https://acme-v02.api.letsencrypt.org/directory".into());
        let shown = text.escape_default();
        reader.problem(setting.at(), format!("`{shown}` is no address that begins with https://"), help);
    }
    is_https.then_some(text)
}

fn read_email(setting: &Setting<String>, reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.read(setting)?;
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?,<>%".contains(&byte));
    let is_address = text.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && is_name(domain));
    if !is_address || !is_plain(&text) {
        let help = Some("one address, such as ops@example.com".into());
        reader.problem(setting.at(), format!("`{}` is no address of e-mail", text.escape_default()), help);
    }
    Some(text)
}

fn read_eab(file: &EabFile, reader: &mut Reader<'_>) -> Option<Eab> {
    let key_id = reader.read(&file.key_id);
    let text = reader.read(&file.hmac_key)?;
    let Ok(hmac_key) = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')) else {
        // Not shown: it is a secret.
        let help = Some("the key as the authority shows it: letters, digits, - and _".into());
        reader.problem(file.hmac_key.at(), "this is no base64url", help);
        return None;
    };
    Some(Eab { key_id: key_id?, hmac_key })
}

fn read_challenge(file: &AcmeFile, at: Position, base: &Path, reader: &mut Reader<'_>) -> Option<Challenge> {
    let hour = Duration::from_secs(3600);
    let show = super::show_duration;
    let range = Duration::from_secs(1)..=hour;
    let timeout = reader.read_within(file.dns_hook_timeout.as_ref(), range, show, Duration::from_secs(300));
    let mut words = reader.read_all(&file.dns_hook).into_iter();
    let program = words.next();
    let at = file.challenge.as_ref().map_or(at, Setting::at);
    match (reader.read_or(file.challenge.as_ref(), ChallengeKind::Http01), program) {
        (ChallengeKind::Dns01, Some(program)) if !program.is_empty() => {
            // A bare name is looked for as the system does it.
            let program = if program.contains('/') { base.join(program) } else { program.into() };
            Some(Challenge::Dns01(DnsHook { program, arguments: words.collect(), timeout }))
        }
        (ChallengeKind::Dns01, _) => {
            let help =
                Some("add `dns_hook: [/path/of/program]`, which is called with present or cleanup".into());
            reader.problem(at, "`challenge: dns-01` needs a program that sets records", help);
            None
        }
        (_, Some(_)) => {
            let help = Some("add `challenge: dns-01`, or leave `dns_hook` out".into());
            reader.problem(at, "`dns_hook` is for `challenge: dns-01` alone", help);
            None
        }
        (ChallengeKind::Http01, None) => Some(Challenge::Http01),
        (ChallengeKind::TlsAlpn01, None) => Some(Challenge::TlsAlpn01),
    }
}

/// The certificates of a listener. Whether they can be had is looked at by [`check`].
pub(super) fn read_managed(file: &ManagedFile, reader: &mut Reader<'_>) -> Managed {
    let mut certificates = Vec::new();
    for group in &file.domains {
        let names: Vec<String> = group.settings().iter().filter_map(|name| read_name(name, reader)).collect();
        let distinct: HashSet<&String> = names.iter().collect();
        if let (Some(at), true) = (group.at(), distinct.len() < names.len()) {
            reader.problem(at, "a name stands twice in one certificate", None);
        }
        if let (Some(at), true) = (group.at(), names.len() > MOST_NAMES) {
            let help = Some("make two entries of it".into());
            reader.problem(at, format!("more than {MOST_NAMES} names for one certificate"), help);
        }
        if !names.is_empty() {
            certificates.push(names);
        }
    }
    Managed { certificates, on_demand: file.on_demand.as_ref().map(|file| read_on_demand(file, reader)) }
}

fn read_on_demand(file: &OnDemandFile, reader: &mut Reader<'_>) -> OnDemand {
    OnDemand {
        allow: file.allow.iter().filter_map(|name| read_name(name, reader)).collect(),
        max_certificates: reader.read_within(
            file.max_certificates.as_ref(),
            1..=10_000,
            usize::to_string,
            100,
        ),
        max_per_hour: reader.read_within(file.max_per_hour.as_ref(), 1..=1000, u32::to_string, 20),
    }
}

fn read_name(setting: &Setting<String>, reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.read(setting)?.to_ascii_lowercase();
    let text = text.strip_suffix('.').map_or(text.as_str(), |bare| bare).to_owned();
    let shown = text.escape_default();
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        let help = Some("name the domain that leads to it".into());
        reader.problem(setting.at(), format!("`{shown}` is an address: certificates are for names"), help);
        return None;
    }
    if is_name(text.strip_prefix("*.").unwrap_or(&text)) {
        return Some(text);
    }
    let help = match text.is_ascii() {
        true => "letters, digits and hyphens between dots, with `*` as the first label alone",
        false => "write it as it stands in the DNS, beginning with xn--",
    };
    reader.problem(setting.at(), format!("`{shown}` is no domain name"), Some(help.into()));
    None
}

/// A name of a host as authorities sign it (RFC 1123 2.1).
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Whether what listeners want can be had.
pub(super) fn check(
    file: Option<&AcmeFile>,
    acme: Option<&Acme>,
    files: &[ListenerFile],
    listeners: &[Listener],
    reader: &mut Reader<'_>,
) {
    let managed = files.iter().filter_map(|file| Some((file, file.tls.as_ref()?.acme.as_ref()?)));
    for (listener, managed) in managed {
        let on_demand = managed.on_demand.as_ref();
        let names = managed.domains.iter().flat_map(|group| group.settings());
        let at = names.clone().next().map_or(listener.address.at(), Setting::at);
        if managed.domains.is_empty() && on_demand.is_none() {
            let help = Some("list names under `domains:`".into());
            reader.problem(listener.address.at(), "`acme` of this listener names no domain", help);
        }
        if let Some(on_demand) = on_demand.filter(|on_demand| on_demand.allow.is_empty()) {
            let help =
                Some("list the names, or `*.example.com`; anybody could order certificates else".into());
            let at = on_demand.max_certificates.as_ref().map_or(listener.address.at(), Setting::at);
            reader.problem(at, "`on_demand` without a name under `allow`", help);
        }
        if file.is_none() {
            let help =
                "write a section `acme:` with your `email:`; with it you agree to the terms of service";
            reader.problem(at, "there is no account with an authority for `acme`", Some(help.into()));
        }
        if acme.is_some_and(|acme| !matches!(acme.challenge, Challenge::Dns01(_))) {
            for name in names {
                if reader.read(name).is_some_and(|name| name.starts_with("*.")) {
                    let help = Some("write `challenge: dns-01` with a `dns_hook`, or list the names".into());
                    reader.problem(name.at(), "a wildcard can be proven by dns-01 alone", help);
                }
            }
        }
        let guards = listener.tls.as_ref().is_some_and(|tls| !tls.client_certificates.is_empty());
        if guards && acme.is_some_and(|acme| acme.challenge == Challenge::TlsAlpn01) {
            let help =
                Some("write `challenge: http-01` or `dns-01`: the authority shows no certificate".into());
            reader.problem(at, "tls-alpn-01 on a listener with `client_certificates`", help);
        }
        let is_plain = |listener: &Listener| listener.tls.is_none();
        if acme.is_some_and(|acme| acme.challenge == Challenge::Http01) && !listeners.iter().any(is_plain) {
            let help = "add a listener without `tls` for port 80, or write `challenge: tls-alpn-01`";
            reader.problem(at, "http-01 needs a listener for plain HTTP", Some(help.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_on_demand() {
        let allow = ["a.test", "*.b.test"].map(str::to_owned).into();
        let on_demand = OnDemand { allow, max_certificates: 1, max_per_hour: 1 };
        for (name, allowed) in [
            ("a.test", true),
            ("x.b.test", true),
            ("x.a.test", false),
            ("b.test", false),
            ("y.x.b.test", false),
            (".b.test", false),
            ("_x.b.test", false),
            ("*.b.test", false),
            ("test", false),
        ] {
            assert_eq!(on_demand.allows(name), allowed, "{name}");
        }
    }

    #[test]
    fn names() {
        for good in ["a", "a.test", "xn--bcher-kva.example", "1.example", "a-b.c"] {
            assert!(is_name(good), "{good}");
        }
        let long = format!("{}a", "a.".repeat(127));
        for bad in ["", ".", "a..b", "-a.test", "a-.test", "a_b.test", "a b", "*.a", &"a".repeat(64), &long] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
