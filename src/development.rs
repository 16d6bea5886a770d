//! Development certificates: a CA of our own, and certificates signed by it, made when they are first needed.
//!
//! The keys are readable by their owner only. A file that is there is used as it is; it is replaced only when
//! it is for other names or about to expire.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use proxy::config::{Certificate, Development, Source, certified_key};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

/// Life of a certificate, in days; browsers refuse more than 398.
const LEAF_DAYS: u64 = 390;
const CA_DAYS: u64 = 3650;
/// Made anew when it has fewer days left.
const RENEW_DAYS: u64 = 30;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Adds the development certificate of every listener that asks for one.
pub(crate) fn complete(config: &mut proxy::config::Config) -> anyhow::Result<()> {
    for tls in config.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
        let Some(development) = &tls.development else { continue };
        let key = ensure(development).with_context(|| {
            format!("cannot make a development certificate in `{}`", development.directory.display())
        })?;
        let source = Source::Development(development.names.clone());
        tls.certificates.push(Certificate { source, key });
    }
    Ok(())
}

/// Adds the development certificates that are there already; makes none.
pub(crate) fn find(config: &mut proxy::config::Config) {
    for tls in config.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
        let Some(development) = &tls.development else { continue };
        let read = |name: &str| std::fs::read_to_string(development.directory.join(name)).ok();
        let key = read("dev.pem").zip(read("dev.key")).map(|(chain, key)| certified_key(&chain, &key));
        if let Some(Ok(key)) = key {
            let source = Source::Development(development.names.clone());
            tls.certificates.push(Certificate { source, key });
        }
    }
}

/// Certificates of a running program that are made anew when their time comes.
pub(crate) struct Renewal {
    known: Vec<Development>,
    /// Whether it was said that one cannot be made.
    failed: bool,
}

impl Renewal {
    /// Those of a configuration.
    pub(crate) fn of(config: &proxy::config::Config) -> Self {
        let tls = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        Self { known: tls.filter_map(|tls| tls.development.clone()).collect(), failed: false }
    }

    /// Makes those that are due, and hands each to `replace`.
    pub(crate) fn look(&mut self, replace: impl Fn(&Source, &Arc<proxy::config::CertifiedKey>)) {
        for development in &self.known {
            if is_recent(&development.directory.join("dev.pem")) {
                continue;
            }
            match ensure(development) {
                Ok(key) => {
                    self.failed = false;
                    replace(&Source::Development(development.names.clone()), &key);
                }
                // It is tried again at every look.
                Err(_) if self.failed => {}
                Err(error) => {
                    self.failed = true;
                    let directory = development.directory.display();
                    crate::notice::say(&format!(
                        "cannot renew the development certificate in `{directory}`: {error:#}"
                    ));
                }
            }
        }
    }
}

fn ensure(development: &Development) -> anyhow::Result<Arc<proxy::config::CertifiedKey>> {
    let directory = &development.directory;
    std::fs::create_dir_all(directory)?;
    let [ca_path, ca_key_path, path, key_path, names_path] =
        ["dev-ca.pem", "dev-ca.key", "dev.pem", "dev.key", "dev.names"].map(|name| directory.join(name));
    let is_for_all =
        |known: &str| development.names.iter().all(|name| known.lines().any(|line| line == name));
    if let (Ok(chain), Ok(key), Ok(known)) = (
        std::fs::read_to_string(&path),
        std::fs::read_to_string(&key_path),
        std::fs::read_to_string(&names_path),
    ) && is_for_all(&known)
        && is_recent(&path)
        && ca_path.exists()
        && let Ok(key) = certified_key(&chain, &key)
    {
        return Ok(key);
    }
    let ca = certificate_authority(&ca_path, &ca_key_path)?;
    let (chain, key) = leaf(&development.names, &ca)?;
    write(&key_path, &key, 0o600)?;
    write(&path, &chain, 0o644)?;
    write(&names_path, &format!("{}\n", development.names.join("\n")), 0o644)?;
    crate::notice::say(&format!(
        "made a development certificate in {}; curl --cacert {} trusts it",
        directory.display(),
        ca_path.display()
    ));
    Ok(certified_key(&chain, &key)?)
}

fn is_recent(path: &Path) -> bool {
    let age =
        std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok().and_then(|t| t.elapsed().ok());
    age.is_some_and(|age| age < DAY * u32::try_from(LEAF_DAYS - RENEW_DAYS).unwrap_or(0))
}

fn certificate_authority(path: &Path, key_path: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    if path.exists()
        && let Ok(key) = std::fs::read_to_string(key_path)
    {
        let key = KeyPair::from_pem(&key).with_context(|| format!("`{}` is damaged", key_path.display()))?;
        return Ok(Issuer::new(ca_params(), key));
    }
    let key = KeyPair::generate()?;
    let certificate = ca_params().self_signed(&key)?;
    write(key_path, &key.serialize_pem(), 0o600)?;
    write(path, &certificate.pem(), 0o644)?;
    Ok(Issuer::new(ca_params(), key))
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ingre development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(CA_DAYS);
    params
}

fn leaf(names: &[String], ca: &Issuer<'static, KeyPair>) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ingre development certificate");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = validity(LEAF_DAYS);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// From yesterday, for clocks that are behind, for so many days.
fn validity(days: u64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    #[expect(clippy::disallowed_methods, reason = "a certificate is valid from the day it is made")]
    let now = SystemTime::now();
    let days = u32::try_from(days).unwrap_or(u32::MAX);
    ((now - DAY).into(), (now + DAY * days).into())
}

/// Writes a whole file at once: a reader sees the old one or the new one.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(std::fs::rename(&part, path)?)
}
