//! Certificates that look after themselves: a thread of its own that puts newer ones into their slots.
//!
//! It decides when a certificate is replaced and says what stands in the way. It never takes part in a handshake, and
//! nobody waits for it: its files may lie on a disk that is gone, its responders may be silent. Each part is a task that
//! follows the snapshots by itself. [`watch`] and [`care`] are pure.

mod care;
mod expiry;
mod fetch;
mod files;
mod page;
mod staples;
mod watch;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;

use crate::config::Source;
use crate::net::clock;
use crate::publish::{Change, Publisher};
use crate::state::Snapshot;
use crate::tls::{Slot, date};

pub use self::page::describe;
pub(crate) use self::page::{metrics, page};

/// Told what an operator wants to know, one line at a time.
type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// What every part works with.
#[derive(Clone)]
pub(crate) struct Desk {
    publisher: Arc<Publisher>,
    notice: Notice,
}

impl Desk {
    pub(crate) fn new(publisher: Arc<Publisher>, notice: Notice) -> Self {
        Self { publisher, notice }
    }

    /// The present snapshot, and every one after it.
    pub(crate) fn snapshots(&self) -> Receiver<Arc<Snapshot>> {
        self.publisher.subscribe()
    }

    /// Every slot of the present snapshot; ask again after a pause, a reload makes and drops some.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        let snapshot = Arc::clone(&self.publisher.subscribe().borrow());
        snapshot.vault.slots()
    }

    /// The same, and for each whether any listener shows its staple.
    fn slots_with_staples(&self) -> (Vec<Arc<Slot>>, Vec<bool>) {
        let snapshot = Arc::clone(&self.publisher.subscribe().borrow());
        let shelves = snapshot.listeners.iter().filter_map(|listener| Some(&listener.tls.as_ref()?.shelf));
        let stapled: HashSet<_> = shelves
            .filter(|shelf| shelf.is_stapled())
            .flat_map(|shelf| shelf.slots().iter().map(Arc::as_ptr))
            .collect();
        let slots = snapshot.vault.slots();
        let wanted = slots.iter().map(|slot| stapled.contains(&Arc::as_ptr(slot))).collect();
        (slots, wanted)
    }

    /// Whom names are asked from; those of the system where there are none.
    fn name_servers(&self) -> Vec<SocketAddr> {
        self.publisher.names().1
    }

    /// Puts newer certificates into their slots, where those that they were made for still stand there, and says so.
    pub(crate) fn replace(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        for (change, put) in changes.iter().zip(self.publisher.install(changes)) {
            if put {
                let what = if change.before.is_some() { "replaced" } else { "there" };
                change.slot.was_replaced(clock::calendar());
                let until = change.slot.facts().map(|facts| format!(", until {}", date(facts.not_after)));
                let until = until.unwrap_or_default();
                self.say(&format!("the certificate {} is {what}{until}", name(&change.slot)));
            }
        }
    }

    /// The same for the slot of a source; nothing where there is none, or where this certificate stands there.
    pub(crate) fn replace_from(&self, source: &Source, key: &Arc<CertifiedKey>) {
        let Some(slot) = self.slots().into_iter().find(|slot| slot.source == *source) else { return };
        let before = slot.get();
        if before.as_ref().is_none_or(|before| !same(before, key)) {
            self.replace(&[Change { slot, before, key: Arc::clone(key) }]);
        }
    }

    /// Notes what stands in the way of a newer certificate, and says so.
    pub(crate) fn failed(&self, slot: &Slot, reason: &str) {
        slot.has_failed(reason, clock::calendar());
        self.say(&format!("the certificate {} stays as it is: {reason}", name(slot)));
    }

    /// Says a line to the operator.
    pub(crate) fn say(&self, line: &str) {
        (self.notice)(line);
    }
}

/// Starts the thread; it ends with the process.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn start(desk: Desk) -> io::Result<()> {
    std::thread::Builder::new().name("certificates".into()).spawn(move || {
        let notice = Arc::clone(&desk.notice);
        if let Err(error) = crate::local_runtime().and_then(|runtime| runtime.block_on(keep(desk))) {
            notice(&format!("certificates are not looked after any more: {error}"));
        }
    })?;
    Ok(())
}

/// Runs every part; returns when one of them has ended, which none should.
async fn keep(desk: Desk) -> io::Result<()> {
    let mut parts = JoinSet::new();
    parts.spawn_local(files::keep(desk.clone()));
    parts.spawn_local(crate::acme::keep(desk.clone()));
    parts.spawn_local(staples::keep(desk.clone()));
    parts.spawn_local(expiry::keep(desk));
    match parts.join_next().await {
        Some(Err(error)) => Err(io::Error::other(error)),
        Some(Ok(())) | None => Ok(()),
    }
}

/// What an operator knows a certificate by: the first of its names, and where it comes from.
pub(crate) fn name(slot: &Slot) -> String {
    let facts = slot.facts();
    let first = facts.as_ref().and_then(|facts| facts.names.first());
    match (&slot.source, first) {
        (Source::Files { certificate, .. }, Some(first)) => {
            format!("for {first} (`{}`)", certificate.display())
        }
        (Source::Files { certificate, .. }, None) => format!("`{}`", certificate.display()),
        (Source::Acme(names), _) => format!("for {}", names.join(", ")),
        (_, Some(first)) => format!("for {first}"),
        (source, None) => format!("{source:?}"),
    }
}

/// Forgets what is known of slots that are gone.
fn forget<V>(known: &mut HashMap<Source, V>, slots: &[Arc<Slot>]) {
    let present: HashSet<_> = slots.iter().map(|slot| &slot.source).collect();
    known.retain(|source, _| present.contains(source));
}

/// Now, in seconds since 1970.
fn seconds_now() -> i64 {
    i64::try_from(clock::calendar()).unwrap_or(i64::MAX)
}

/// Whether two are the same certificate: a staple makes no difference.
fn same(one: &CertifiedKey, other: &CertifiedKey) -> bool {
    one.cert == other.cert
}
