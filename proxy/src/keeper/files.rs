//! Certificates in files: looked at every second, read when they have changed.
//!
//! Files are looked at rather than subscribed to: this sees renames, links that are turned (as Kubernetes does with a
//! whole directory) and disks of other machines alike, and a thousand of them cost a thousandth of a core.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;

use super::watch::{Stamp, Verdict, Watched};
use super::{Desk, forget, same, seconds_now};
use crate::config::{CertificateError, Source, certified_key};
use crate::net::clock;
use crate::publish::Change;
use crate::tls::{Facts, Slot};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Largest file that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Keeps every certificate of files as its files are.
pub(super) async fn keep(desk: Desk) {
    let mut watched: HashMap<Source, Watched> = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let slots = desk.slots();
        forget(&mut watched, &slots);
        let mut changes = Vec::new();
        for slot in slots {
            let Source::Files { certificate, key } = &slot.source else { continue };
            let Some(shown) = slot.get() else { continue };
            let watched = watched.entry(slot.source.clone()).or_default();
            if !watched.is_to_be_read([stamp(certificate), stamp(key)], &shown) {
                continue;
            }
            // The other parts have their turn between any two that are read.
            tokio::task::yield_now().await;
            let read = read(certificate, key).and_then(|new| judge(&slot, &shown, new));
            match watched.read(read, clock::shared()) {
                Verdict::Nothing => {}
                Verdict::Well => slot.is_well(),
                Verdict::Failed(reason) => desk.failed(&slot, &reason),
                Verdict::Replace(new) => {
                    changes.push(Change { slot: Arc::clone(&slot), before: Some(shown), key: new });
                }
            }
        }
        desk.replace(&changes);
    }
}

/// What is to be shown instead; nothing where it is what is shown.
fn judge(
    slot: &Slot,
    shown: &CertifiedKey,
    new: Arc<CertifiedKey>,
) -> Result<Option<Arc<CertifiedKey>>, String> {
    if same(shown, &new) {
        return Ok(None);
    }
    let facts = new.cert.first().and_then(Facts::of).ok_or("the new certificate cannot be read")?;
    if let Some(present) = slot.facts() {
        facts.may_replace(&present, seconds_now())?;
    }
    Ok(Some(new))
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, String> {
    let (chain, key_text) = (text(certificate)?, text(key)?);
    certified_key(&chain, &key_text).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        match error {
            CertificateError::NoCertificate | CertificateError::Pem(_) => format!("`{certificate}` {error}"),
            CertificateError::NoKey => format!("`{key}` {error}"),
            CertificateError::Mismatch(_) => format!("`{certificate}` and `{key}` {error}"),
        }
    })
}

fn text(path: &Path) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read `{}`: {error}", path.display());
    // Opening a pipe waits for somebody to write.
    if !std::fs::metadata(path).map_err(|error| failed(&error))?.is_file() {
        return Err(failed(&"it is no file"));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    let read = file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if read as u64 > MOST_BYTES { Err(failed(&"it is too large")) } else { Ok(text) }
}

/// What the system says of the file that a path, through all its links, leads to.
fn stamp(path: &Path) -> Stamp {
    let of = |metadata: Metadata| {
        let changed = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        (metadata.dev(), metadata.ino(), metadata.len(), changed)
    };
    std::fs::metadata(path).map(of).map_err(|error: io::Error| error.kind())
}
