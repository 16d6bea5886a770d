//! Where certificates stand: one writer puts them there, every handshake reads them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustls::sign::CertifiedKey;

use crate::config::{Certificate, Source};

/// The place of one certificate.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Where the certificate comes from.
    pub(crate) source: Source,
    key: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Slot {
    /// The certificate; none where there is none yet.
    pub(crate) fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another certificate from the next look on. Shelves have to be put in order again ([`super::Shelf::sort`]): it may
    /// be for other names.
    pub(crate) fn put(&self, key: Arc<CertifiedKey>) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
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
            let key = RwLock::new(Some(Arc::clone(&certificate.key)));
            Arc::new(Slot { source: certificate.source.clone(), key })
        };
        Arc::clone(self.lock().entry(certificate.source.clone()).or_insert_with(new))
    }

    /// Every slot.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        self.lock().values().map(Arc::clone).collect()
    }

    /// A configuration has just been read: its certificates are the newest, and all there are.
    pub(crate) fn adopt<'a>(&self, certificates: impl Iterator<Item = &'a Certificate>) {
        let mut slots = HashMap::new();
        for certificate in certificates {
            let slot = self.slot(certificate);
            slot.put(Arc::clone(&certificate.key));
            slots.insert(certificate.source.clone(), slot);
        }
        *self.lock() = slots;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
