//! The certificates of one listener by the name a client asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::slot::Slot;
use crate::acme::{ALPN, Showcase};
use crate::config::OnDemand;

/// The slots of one listener and, in order, what stands in them.
#[derive(Debug)]
pub(crate) struct Shelf {
    slots: Vec<Arc<Slot>>,
    /// Whether staples are shown.
    stapled: bool,
    index: RwLock<Arc<Index>>,
    /// What is shown to authorities.
    showcase: Arc<Showcase>,
    /// For which names certificates are got when somebody asks.
    on_demand: Option<OnDemand>,
}

impl Shelf {
    /// Slots in the order of the file, and whether clients are shown their staples.
    pub(crate) fn new(
        slots: Vec<Arc<Slot>>,
        stapled: bool,
        showcase: Arc<Showcase>,
        on_demand: Option<OnDemand>,
    ) -> Self {
        let index = RwLock::new(Arc::new(Index::of_slots(&slots, stapled)));
        Self { slots, stapled, index, showcase, on_demand }
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

    fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// For which names certificates are got when somebody asks.
    pub(crate) fn on_demand(&self) -> Option<&OnDemand> {
        self.on_demand.as_ref()
    }

    /// Whether a client that asks for either name is shown the same; both in lower case.
    pub(crate) fn is_same(&self, one: &str, other: &str) -> bool {
        let index = self.index();
        let is_demanded = |name: &str| index.find(name).is_none() && self.allows(name);
        one == other || index.is_same(one, other) && !is_demanded(one) && !is_demanded(other)
    }

    fn allows(&self, name: &str) -> bool {
        self.on_demand.as_ref().is_some_and(|on_demand| on_demand.allows(name))
    }
}

impl ResolvesServerCert for Shelf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if self.showcase.is_alpn()
            && let Some(mut protocols) = hello.alpn()
            && protocols.any(|protocol| protocol == ALPN)
        {
            return self.showcase.proof(hello.server_name(), hello.alpn()?);
        }
        let index = self.index();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let found = name.as_deref().and_then(|name| index.find(name));
        if let (None, Some(name)) = (found, &name)
            && self.allows(name)
            && let Some(key) = self.showcase.demand(name)
        {
            return Some(key);
        }
        index.choose(found.unwrap_or(0), hello.signature_schemes()).cloned()
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
    /// (RFC 9525 6.3).
    fn find(&self, name: &str) -> Option<usize> {
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).copied()
    }

    /// The same, then the first.
    fn select(&self, name: &str) -> usize {
        self.find(name).unwrap_or(0)
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
