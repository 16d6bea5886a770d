//! Where certificates stand: whoever keeps one up to date puts it there, every handshake reads it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustls::sign::CertifiedKey;

use super::facts::Facts;
use crate::config::{Certificate, Source};

/// The place of one certificate.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Where the certificate comes from.
    pub(crate) source: Source,
    shown: RwLock<Option<Shown>>,
    record: Mutex<Record>,
}

/// What stands in a slot.
#[derive(Debug, Clone)]
struct Shown {
    key: Arc<CertifiedKey>,
    facts: Option<Arc<Facts>>,
}

impl Shown {
    fn new(key: Arc<CertifiedKey>) -> Self {
        let facts = key.cert.first().and_then(Facts::of).map(Arc::new);
        Self { key, facts }
    }
}

/// How the care for a certificate went. Times are seconds since 1970.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// When it was last replaced while the program ran.
    pub(crate) replaced: Option<u64>,
    /// How often.
    pub(crate) replacements: u64,
    /// What stands in the way of a newer one, and since when.
    pub(crate) failure: Option<(String, u64)>,
    /// How often something did.
    pub(crate) failures: u64,
    /// How its staple fares.
    pub(crate) staple: StapleRecord,
}

/// How the staple of a certificate fares. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StapleRecord {
    /// Whether a responder is asked for it.
    pub(crate) wanted: bool,
    /// Whether clients insist on it.
    pub(crate) needed: bool,
    /// Until when the one that is shown is good; none is shown where absent.
    pub(crate) good_until: Option<i64>,
    /// Since when the certificate is revoked.
    pub(crate) revoked: Option<i64>,
    /// Why there is no newer one.
    pub(crate) error: Option<String>,
}

impl StapleRecord {
    /// Whether clients insist on it, and it is known that there is none.
    pub(crate) fn is_missing(&self) -> bool {
        self.needed && self.good_until.is_none() && (self.error.is_some() || self.revoked.is_some())
    }
}

impl Slot {
    /// A place for what comes from there.
    pub(crate) fn new(source: Source, key: Option<Arc<CertifiedKey>>) -> Self {
        Self { source, shown: RwLock::new(key.map(Shown::new)), record: Mutex::default() }
    }

    /// The certificate; none where there is none yet.
    pub(crate) fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.shown().map(|shown| shown.key)
    }

    /// What the certificate says about itself; nothing where there is none, or one that only the TLS library can read.
    pub(crate) fn facts(&self) -> Option<Arc<Facts>> {
        self.shown()?.facts
    }

    /// Another certificate from the next look on. Shelves have to be put in order again ([`super::shelf::Shelf::sort`]): it may
    /// be for other names.
    pub(crate) fn put(&self, key: Arc<CertifiedKey>) {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Some(Shown::new(key));
    }

    /// How the care for it went.
    pub(crate) fn record(&self) -> Record {
        self.lock_record().clone()
    }

    /// It was replaced: nothing stands in the way any more.
    pub(crate) fn was_replaced(&self, now: u64) {
        let mut record = self.lock_record();
        record.failure = None;
        record.replaced = Some(now);
        record.replacements += 1;
    }

    /// Something stands in the way of a newer one; the first moment of the same trouble is kept.
    pub(crate) fn has_failed(&self, reason: &str, now: u64) {
        let mut record = self.lock_record();
        let since =
            record.failure.take().filter(|(known, _)| known == reason).map_or(now, |(_, since)| since);
        record.failure = Some((reason.to_owned(), since));
        record.failures += 1;
    }

    /// Nothing stands in the way any more, although nothing was replaced.
    pub(crate) fn is_well(&self) {
        self.lock_record().failure = None;
    }

    /// How its staple fares.
    pub(crate) fn note_staple(&self, staple: StapleRecord) {
        self.lock_record().staple = staple;
    }

    fn shown(&self) -> Option<Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock_record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slots of every listener.
#[derive(Debug, Default)]
pub(crate) struct Vault {
    slots: Mutex<HashMap<Source, Arc<Slot>>>,
}

impl Vault {
    /// The slot of a certificate; a new one has what the configuration has read, any other keeps what is there.
    pub(crate) fn slot(&self, certificate: &Certificate) -> Arc<Slot> {
        let new = || {
            let key = Some(Arc::clone(&certificate.key));
            Arc::new(Slot::new(certificate.source.clone(), key))
        };
        Arc::clone(self.lock().entry(certificate.source.clone()).or_insert_with(new))
    }

    /// The slot of a certificate that an authority issues for these names; empty where there was none.
    pub(crate) fn issued_slot(&self, names: &[String]) -> Arc<Slot> {
        let source = Source::Acme(names.to_vec());
        let new = || Arc::new(Slot::new(source.clone(), None));
        Arc::clone(self.lock().entry(source.clone()).or_insert_with(new))
    }

    /// Every slot.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        self.lock().values().map(Arc::clone).collect()
    }

    /// A configuration has just been read, at this second since 1970: its certificates are the newest, and these with
    /// those that are issued for these names are all there are. One that is there already stays as it is, with its staple,
    /// and so does one that holds where the new one does not.
    pub(crate) fn adopt<'a>(
        &self,
        certificates: impl Iterator<Item = &'a Certificate>,
        issued: impl Iterator<Item = &'a Vec<String>>,
        now: i64,
    ) {
        let issued = issued.map(|names| self.issued_slot(names));
        let mut slots: HashMap<_, _> = issued.map(|slot| (slot.source.clone(), slot)).collect();
        for certificate in certificates {
            let slot = self.slot(certificate);
            let new = Shown::new(Arc::clone(&certificate.key));
            let stays = slot.shown().is_some_and(|old| {
                let worse = |new: &Arc<Facts>| {
                    old.facts.as_ref().is_some_and(|old| new.may_replace(old, now).is_err())
                };
                old.key.cert == new.key.cert || new.facts.as_ref().is_some_and(worse)
            });
            if !stays {
                slot.put(new.key);
            }
            slots.insert(certificate.source.clone(), slot);
        }
        *self.lock() = slots;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
