//! What everybody works from: the configuration with the addresses of its names, made a snapshot and handed to all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::sign::CertifiedKey;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::net::clock;
use crate::state::Snapshot;
use crate::tls::Slot;
use crate::worker::Command;

/// Makes snapshots, one at a time.
pub(crate) struct Publisher {
    source: Mutex<Source>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
}

/// A certificate in the place of another.
pub(crate) struct Change {
    /// Where.
    pub(crate) slot: Arc<Slot>,
    /// What is there.
    pub(crate) before: Option<Arc<CertifiedKey>>,
    /// What comes.
    pub(crate) key: Arc<CertifiedKey>,
}

/// What a snapshot is made of.
struct Source {
    config: Config,
    /// By name.
    addresses: BTreeMap<String, Vec<IpAddr>>,
}

impl Source {
    fn build(&self, previous: Option<&Snapshot>) -> Result<Arc<Snapshot>, String> {
        Snapshot::build(self.config.with_addresses(&self.addresses), previous).map(Arc::new)
    }
}

impl Publisher {
    /// The first snapshot; names have no address yet.
    ///
    /// # Errors
    /// As [`Snapshot::build`].
    pub(crate) fn new(config: Config, workers: Vec<mpsc::UnboundedSender<Command>>) -> Result<Self, String> {
        let source = Source { config, addresses: BTreeMap::new() };
        let snapshot = watch::channel(source.build(None)?).0;
        Ok(Self { source: Mutex::new(source), snapshot, workers })
    }

    /// The present snapshot, and every one after it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Another configuration from now on; names that stay keep their addresses.
    ///
    /// # Errors
    /// As [`Snapshot::build`]; then nothing changes.
    pub(crate) fn reload(&self, config: Config) -> Result<(), String> {
        let mut source = self.lock();
        let names = config.names();
        let mut addresses = source.addresses.clone();
        addresses.retain(|name, _| names.contains(name));
        self.publish(&mut source, Source { config, addresses })?;
        let snapshot = self.snapshot.borrow();
        let tls = source.config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let issued = tls.clone().flat_map(|tls| &tls.managed.certificates);
        let now = i64::try_from(clock::calendar()).unwrap_or(i64::MAX);
        snapshot.vault.adopt(tls.flat_map(|tls| &tls.certificates), issued, now);
        snapshot.sort_certificates();
        Ok(())
    }

    /// Puts each of these certificates into its slot where the one before it still stands there; `None` is an empty slot.
    /// Returns which of them were put. No reload and no other snapshot comes in between.
    pub(crate) fn install(&self, changes: &[Change]) -> Vec<bool> {
        let source = self.lock();
        let put = changes.iter().map(|change| {
            let stands = change.slot.get();
            let same = match (&stands, &change.before) {
                (Some(stands), Some(before)) => Arc::ptr_eq(stands, before),
                (stands, before) => stands.is_none() && before.is_none(),
            };
            if same {
                change.slot.put(Arc::clone(&change.key));
            }
            same
        });
        let put = put.collect();
        self.snapshot.borrow().sort_certificates();
        drop(source);
        put
    }

    /// A name stands for these addresses from now on.
    ///
    /// # Errors
    /// As [`Snapshot::build`]; then nothing changes.
    pub(crate) fn resolved(&self, name: &str, addresses: Vec<IpAddr>) -> Result<(), String> {
        let mut source = self.lock();
        let mut all = source.addresses.clone();
        all.insert(name.to_owned(), addresses);
        let config = source.config.clone();
        self.publish(&mut source, Source { config, addresses: all })
    }

    /// Every name of the configuration, and the servers that know them; none where those of the system do.
    pub(crate) fn names(&self) -> (BTreeSet<String>, Vec<SocketAddr>) {
        let source = self.lock();
        (source.config.names(), source.config.resolver.clone())
    }

    /// What a name stands for.
    pub(crate) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.lock().addresses.get(name).cloned().unwrap_or_default()
    }

    fn publish(&self, present: &mut Source, next: Source) -> Result<(), String> {
        let before = Arc::clone(&self.snapshot.borrow());
        let snapshot = next.build(Some(&before))?;
        for commands in &self.workers {
            // A worker that is gone is noticed by its thread.
            let _ = commands.send(Command::Follow(Arc::clone(&snapshot)));
        }
        self.snapshot.send_replace(snapshot);
        *present = next;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
