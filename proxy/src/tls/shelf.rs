//! The certificates of one listener by the name a client asks for.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::slot::Slot;

/// The slots of one listener and, in order, what stands in them.
#[derive(Debug)]
pub(crate) struct Shelf {
    slots: Vec<Arc<Slot>>,
    index: RwLock<Arc<Index>>,
}

impl Shelf {
    /// Slots in the order of the file.
    pub(crate) fn new(slots: Vec<Arc<Slot>>) -> Self {
        let index = RwLock::new(Arc::new(Index::of_slots(&slots)));
        Self { slots, index }
    }

    /// The slots, in the order of the file.
    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// Looks again what stands in the slots.
    pub(crate) fn sort(&self) {
        let index = Arc::new(Index::of_slots(&self.slots));
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
    }

    /// What stands there now.
    pub(crate) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Shelf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let index = self.index();
        let chosen = hello.server_name().map_or(0, |name| index.select(&name.to_ascii_lowercase()));
        index.keys.get(chosen).cloned()
    }
}

/// Certificates by name. The first one is for clients that ask for no name or for one that no certificate has.
#[derive(Debug)]
pub(crate) struct Index {
    keys: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, usize>,
    /// Keyed by what stands behind `*.`.
    wildcard: HashMap<String, usize>,
}

impl Index {
    fn of_slots(slots: &[Arc<Slot>]) -> Self {
        Self::new(slots.iter().filter_map(|slot| slot.get()).collect())
    }

    /// Certificates in the order of the file.
    pub(crate) fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        for (index, key) in keys.iter().enumerate() {
            for name in dns_names(key) {
                match name.strip_prefix("*.") {
                    Some(rest) => wildcard.entry(rest.to_owned()).or_insert(index),
                    None => exact.entry(name).or_insert(index),
                };
            }
        }
        Self { keys, exact, wildcard }
    }

    /// Number of the certificate for a name in lower case: the exact one, then the wildcard one label up
    /// (RFC 9525 6.3), then the first.
    fn select(&self, name: &str) -> usize {
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).copied().unwrap_or(0)
    }

    /// Whether a client that asks for either name is shown the same; both in lower case.
    pub(crate) fn is_same(&self, one: &str, other: &str) -> bool {
        one == other || self.select(one) == self.select(other)
    }
}

/// Names a certificate is for, in lower case.
fn dns_names(key: &CertifiedKey) -> Vec<String> {
    let Some(certificate) = key.cert.first() else { return Vec::new() };
    match webpki::EndEntityCert::try_from(certificate) {
        Ok(parsed) => parsed.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        Err(_) => Vec::new(),
    }
}
