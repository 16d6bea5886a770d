//! What is kept, as plain files that people can read:
//!
//! ```text
//! accounts/HOST-DIGEST/account.json    the account and its key
//! certificates/NAME/chain.pem          the certificate and its intermediates
//! certificates/NAME/key.pem            its key
//! certificates/NAME/meta.json          for which names, from whom, from when to when
//! challenges/TOKEN                     what any node answers while a name is proven
//! wanted/NAME                          somebody has asked a node for it that does not get certificates
//! lock                                 who gets certificates, where several nodes share all this
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::error::AcmeError;
use super::files::{self, Stamp};
use super::schedule::Validity;
use crate::config::certified_key;

/// The directory of everything.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    root: PathBuf,
    /// Which directory of an authority certificates are to come from.
    authority: String,
}

/// A certificate that is kept.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Ready to be shown.
    pub(super) key: Arc<CertifiedKey>,
    /// From when to when it is good; none where it comes from another authority, and is to be replaced.
    pub(super) validity: Option<Validity>,
    /// Which state of the files this is.
    pub(super) stamp: Option<Stamp>,
}

/// What is kept beside a certificate.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    /// In the order of the configuration.
    pub(super) names: Vec<String>,
    /// URL of the directory of the authority.
    authority: String,
    /// Whether it was got because somebody asked for the name.
    #[serde(default)]
    pub(super) on_demand: bool,
    /// For people; the certificate decides.
    not_before: String,
    not_after: String,
}

/// The account as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptAccount {
    /// Whom the authority may write to.
    pub(super) email: Option<String>,
    /// Identifier and key.
    pub(super) credentials: instant_acme::AccountCredentials,
}

impl Storage {
    /// The storage in a directory, which is made where it is not there.
    ///
    /// # Errors
    /// Where a directory can neither be found nor made.
    pub(super) fn open(root: &Path, authority: &str) -> Result<Self, AcmeError> {
        let storage = Self { root: root.to_owned(), authority: authority.to_owned() };
        files::directory(root)?;
        for part in ["accounts", "certificates", "challenges", "wanted"] {
            files::directory(&root.join(part))?;
        }
        Ok(storage)
    }

    /// Where the lock is.
    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    fn certificate(&self, names: &[String]) -> PathBuf {
        self.root.join("certificates").join(place(names))
    }

    /// The state of the files of a certificate.
    pub(super) fn stamp(&self, names: &[String]) -> Option<Stamp> {
        files::stamp(&self.certificate(names).join("meta.json"))
    }

    /// The certificate for these names.
    ///
    /// # Errors
    /// Where its files cannot be read or do not go together.
    pub(super) fn load(&self, names: &[String]) -> Result<Option<Stored>, AcmeError> {
        let directory = self.certificate(names);
        // Before the files: whatever comes meanwhile is seen the next time.
        let stamp = self.stamp(names);
        let Some(chain) = files::read(&directory.join("chain.pem"))? else { return Ok(None) };
        let meta = files::read(&directory.join("meta.json"))?;
        let meta: Option<Meta> = meta.and_then(|text| serde_json::from_str(&text).ok());
        let mut wrong = "there is no key beside it".to_owned();
        // While a pair is replaced, the new key waits under another name for its certificate.
        for name in ["key.pem", "key.pem.next"] {
            let Some(key) = files::read(&directory.join(name))? else { continue };
            match certified_key(&chain, &key) {
                Ok(key) => {
                    let is_ours = meta.as_ref().is_none_or(|meta| meta.authority == self.authority);
                    let validity = validity(&key).filter(|_| is_ours);
                    return Ok(Some(Stored { key, validity, stamp }));
                }
                Err(error) => wrong = error.to_string(),
            }
        }
        Err(AcmeError::Unusable(format!("{}: certificate and key {wrong}", directory.display())))
    }

    /// Keeps a certificate in the place of the one before.
    ///
    /// # Errors
    /// Where a file cannot be written; the old certificate is still good then.
    pub(super) fn save(
        &self,
        names: &[String],
        chain: &str,
        key: &str,
        on_demand: bool,
    ) -> Result<Stored, AcmeError> {
        let unusable = |why: String| AcmeError::Unusable(format!("the certificate: {why}"));
        let ready = certified_key(chain, key).map_err(|error| unusable(error.to_string()))?;
        let validity =
            validity(&ready).ok_or_else(|| unusable("it does not say how long it is good".into()))?;
        let date = |seconds| {
            httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
        };
        let meta = Meta {
            names: names.to_vec(),
            authority: self.authority.clone(),
            on_demand,
            not_before: date(validity.from),
            not_after: date(validity.until.min(LAST_DATE)),
        };
        let meta = serde_json::to_string_pretty(&meta).map_err(|error| unusable(error.to_string()))?;
        let directory = self.certificate(names);
        files::directory(&directory)?;
        let next = directory.join("key.pem.next");
        files::write(&next, key)?;
        files::write(&directory.join("chain.pem"), chain)?;
        files::rename(&next, &directory.join("key.pem"))?;
        files::write(&directory.join("meta.json"), &(meta + "\n"))?;
        Ok(Stored { key: ready, validity: Some(validity), stamp: self.stamp(names) })
    }

    fn account(&self) -> PathBuf {
        let host = self.authority.parse::<http::Uri>().ok();
        let host =
            host.as_ref().and_then(http::Uri::host).unwrap_or("authority").replace(['[', ']', ':'], "_");
        self.root.join("accounts").join(format!("{host}-{}", digest(&self.authority)))
    }

    /// The account, where there is one.
    ///
    /// # Errors
    /// Where the file cannot be read: another account is not made in its place.
    pub(super) fn load_account(&self) -> Result<Option<KeptAccount>, AcmeError> {
        let path = self.account().join("account.json");
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let wrong = |error: serde_json::Error| AcmeError::Unusable(format!("`{}`: {error}", path.display()));
        serde_json::from_str(&text).map(Some).map_err(wrong)
    }

    /// Keeps the account.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(super) fn save_account(&self, account: &KeptAccount) -> Result<(), AcmeError> {
        let text = serde_json::to_string_pretty(account)
            .map_err(|error| AcmeError::Unusable(format!("the account: {error}")))?;
        files::directory(&self.account())?;
        files::write(&self.account().join("account.json"), &(text + "\n"))
    }

    /// The authority does not know the account any more: it is put aside.
    ///
    /// # Errors
    /// Where the file cannot be renamed.
    pub(super) fn forget_account(&self) -> Result<(), AcmeError> {
        let path = self.account().join("account.json");
        files::rename(&path, &path.with_extension("json.unknown"))
    }

    /// The names whose certificates are kept because somebody has asked for them.
    pub(super) fn demanded(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.root.join("certificates")) else { return Vec::new() };
        let mut names = Vec::new();
        for path in entries.filter_map(Result::ok).map(|entry| entry.path().join("meta.json")) {
            let meta = files::read(&path).ok().flatten();
            let meta = meta.and_then(|text| serde_json::from_str::<Meta>(&text).ok());
            names.extend(meta.filter(|meta| meta.on_demand).into_iter().flat_map(|meta| meta.names));
        }
        names
    }

    /// Leaves a note that somebody has asked for a name; many notes are too many.
    pub(super) fn put_wish(&self, name: &str) {
        let directory = self.root.join("wanted");
        let present = std::fs::read_dir(&directory).map_or(0, Iterator::count);
        if present < MOST_WISHES {
            // Whoever asks for the name again leaves another one.
            let _ = files::create_new(&directory.join(name), "");
        }
    }

    /// The notes of other nodes, which are taken away.
    pub(super) fn take_wishes(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.root.join("wanted")) else { return Vec::new() };
        let mut names = Vec::new();
        for entry in entries.filter_map(Result::ok).take(MOST_WISHES) {
            files::remove(&entry.path());
            names.extend(entry.file_name().into_string());
        }
        names
    }

    fn token(&self, token: &str) -> Option<PathBuf> {
        super::showcase::is_token(token).then(|| self.root.join("challenges").join(token))
    }

    /// Lets other nodes answer for a token.
    ///
    /// # Errors
    /// Where the file cannot be written, or the authority's token is none.
    pub(super) fn put_token(&self, token: &str, answer: &str) -> Result<(), AcmeError> {
        let path = self.token(token);
        let path =
            path.ok_or_else(|| AcmeError::Unusable("a token with other characters than base64url".into()))?;
        files::write(&path, answer)
    }

    /// The answer for a token that another node may have put here.
    pub(super) fn read_token(&self, token: &str) -> Option<String> {
        files::read(&self.token(token)?).ok()?
    }

    /// Whoever was to get certificates before has left no order open.
    pub(super) fn clear_tokens(&self) {
        let Ok(entries) = std::fs::read_dir(self.root.join("challenges")) else { return };
        entries.filter_map(Result::ok).for_each(|entry| files::remove(&entry.path()));
    }

    /// A token is not asked for any more.
    pub(super) fn remove_token(&self, token: &str) {
        if let Some(path) = self.token(token) {
            files::remove(&path);
        }
    }
}

/// Notes about names that somebody has asked for.
const MOST_WISHES: usize = 256;
/// The last day that a date of HTTP can be written for: end of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

/// From when to when a certificate is good.
fn validity(key: &CertifiedKey) -> Option<Validity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(key.cert.first()?).ok()?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = parsed.validity();
    Some(Validity { from: seconds(validity.not_before), until: seconds(validity.not_after) })
}

/// The directory of a certificate: its first name, and for several names something that tells them from others.
fn place(names: &[String]) -> String {
    let first = names.first().map_or("", String::as_str).replace('*', "_");
    match names.len() {
        0 | 1 => first,
        _ => format!("{first}+{}", digest(&names.join(","))),
    }
}

/// Some hexadecimal digits of a digest.
fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |names: &[&str]| place(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(place(&["a.test"]), "a.test");
        assert_eq!(place(&["*.a.test"]), "_.a.test");
        assert!(place(&["a.test", "b.test"]).starts_with("a.test+"));
        assert_ne!(place(&["a.test", "b.test"]), place(&["a.test", "c.test"]));
    }
}
