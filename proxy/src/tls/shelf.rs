//! The certificates of one listener by the name a client asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::slot::Slot;

/// The slots of one listener and, in order, what stands in them.
#[derive(Debug)]
pub(crate) struct Shelf {
    slots: Vec<Arc<Slot>>,
    /// Whether staples are shown.
    stapled: bool,
    index: RwLock<Arc<Index>>,
}

impl Shelf {
    /// Slots in the order of the file, and whether clients are shown their staples.
    pub(crate) fn new(slots: Vec<Arc<Slot>>, stapled: bool) -> Self {
        let index = RwLock::new(Arc::new(Index::of_slots(&slots, stapled)));
        Self { slots, stapled, index }
    }

    /// Whether clients are shown staples.
    pub(crate) fn is_stapled(&self) -> bool {
        self.stapled
    }

    /// The slots, in the order of the file.
    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// Looks again what stands in the slots.
    pub(crate) fn sort(&self) {
        let index = Arc::new(Index::of_slots(&self.slots, self.stapled));
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
        let group = hello.server_name().map_or(0, |name| index.select(&name.to_ascii_lowercase()));
        index.choose(group, hello.signature_schemes()).cloned()
    }
}

/// Certificates by name, several for a name where their keys are of different kinds. The first one, with all that have
/// the same names, is for clients that ask for no name or for one that no certificate has.
#[derive(Debug)]
pub(crate) struct Index {
    keys: Vec<Arc<CertifiedKey>>,
    /// Numbers of certificates for the same name, best first. The first group is for everybody else.
    groups: Vec<Vec<usize>>,
    /// The group of a name.
    exact: HashMap<String, usize>,
    /// Keyed by what stands behind `*.`.
    wildcard: HashMap<String, usize>,
}

impl Index {
    fn of_slots(slots: &[Arc<Slot>], stapled: bool) -> Self {
        let keys = slots.iter().filter_map(|slot| slot.get());
        let without_staple = |key: Arc<CertifiedKey>| match key.ocsp {
            Some(_) if !stapled => Arc::new(CertifiedKey { ocsp: None, ..CertifiedKey::clone(&key) }),
            _ => key,
        };
        Self::new(keys.map(without_staple).collect())
    }

    /// Certificates in the order of the file.
    pub(crate) fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut like_first = vec![0];
        let mut names_of_first = BTreeSet::new();
        for (number, key) in keys.iter().enumerate() {
            let names: BTreeSet<String> = dns_names(key).into_iter().collect();
            if number == 0 {
                names_of_first.clone_from(&names);
            } else if !names.is_empty() && names == names_of_first {
                like_first.push(number);
            }
            for name in names {
                by_name.entry(name).or_default().push(number);
            }
        }
        let mut index = Self { keys, groups: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() };
        let mut known = HashMap::new();
        index.group(like_first, &mut known);
        for (name, numbers) in by_name {
            let group = index.group(numbers, &mut known);
            match name.strip_prefix("*.") {
                Some(rest) => index.wildcard.insert(rest.to_owned(), group),
                None => index.exact.insert(name, group),
            };
        }
        index
    }

    /// The group of these certificates, which is made where there is none yet.
    fn group(&mut self, mut numbers: Vec<usize>, known: &mut HashMap<Vec<usize>, usize>) -> usize {
        // ECDSA first: a shorter handshake, and a cheaper one here.
        numbers.sort_by_key(|&number| {
            self.keys.get(number).is_none_or(|key| key.key.algorithm() != SignatureAlgorithm::ECDSA)
        });
        *known.entry(numbers).or_insert_with_key(|numbers| {
            self.groups.push(numbers.clone());
            self.groups.len() - 1
        })
    }

    /// The group for a name in lower case: of the certificates with this name, else with a wildcard one label up
    /// (RFC 9525 6.3), else the first.
    fn select(&self, name: &str) -> usize {
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).copied().unwrap_or(0)
    }

    /// The best certificate of a group whose key can sign as the client wants; its best at all where none can. In TLS 1.2
    /// the schemes are those that its cipher suites leave.
    fn choose(&self, group: usize, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let group = self.groups.get(group)?;
        let mut able = group.iter().filter_map(|&number| self.keys.get(number));
        let best = able.clone().next();
        able.find(|key| key.key.choose_scheme(schemes).is_some()).or(best)
    }

    /// Whether a client that asks for either name is shown one of the same certificates; both in lower case.
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
