//! The thread's part: follows the configuration, listens to workers, and lets the [`Office`] work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::demand::Tries;
use super::lock::BEAT;
use super::office::{Names, Office, RUNNING};
use super::schedule::Now;
use super::showcase::{Question, Showcase};
use super::storage::Storage;
use super::task::Finished;
use crate::config::{Challenge, OnDemand, Source};
use crate::keeper::Desk;
use crate::net::clock;
use crate::state::Snapshot;
use crate::tls::Slot;

/// How long until a storage that is none is looked at again.
const AGAIN: Duration = Duration::from_secs(60);

/// Puts what is kept in its place, before anybody is served.
pub(crate) fn load(snapshot: &Snapshot, notice: &dyn Fn(&str)) {
    let Some(settings) = &snapshot.acme else { return };
    let config = &settings.config;
    let storage = match Storage::open(&config.storage, &config.directory) {
        Ok(storage) => storage,
        Err(error) => return notice(&format!("no certificate is loaded: {error}")),
    };
    for (names, slot) in wanted(&slots(snapshot)) {
        // That one cannot be read is said by the thread, which looks as well.
        if let Ok(Some(stored)) = storage.load(names) {
            slot.put(stored.key);
        }
    }
    let mut demanded = HashMap::new();
    for name in kept_on_demand(snapshot, &storage) {
        if let Ok(Some(stored)) = storage.load(std::slice::from_ref(&name)) {
            let slot = Slot::new(Source::Acme(vec![name.clone()]), Some(stored.key));
            demanded.insert(name, Arc::new(slot));
        }
    }
    snapshot.showcase.set_demanded(demanded);
    snapshot.sort_certificates();
}

/// The names that are kept because somebody has asked for them, and that may be.
fn kept_on_demand(snapshot: &Snapshot, storage: &Storage) -> Vec<String> {
    let mut tls = snapshot.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    if tls.all(|tls| tls.shelf.on_demand().is_none()) {
        return Vec::new();
    }
    storage.demanded().into_iter().filter(|name| allowed(snapshot, name).is_some()).collect()
}

/// The slots of every listener.
fn slots(snapshot: &Snapshot) -> Vec<Arc<Slot>> {
    let tls = snapshot.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    tls.flat_map(|tls| tls.shelf.slots()).map(Arc::clone).collect()
}

/// Those of them whose certificates come from an authority.
fn wanted(slots: &[Arc<Slot>]) -> HashMap<&Names, &Arc<Slot>> {
    let mut wanted = HashMap::new();
    for slot in slots {
        if let Source::Acme(names) = &slot.source {
            wanted.insert(names, slot);
        }
    }
    wanted
}

/// The first listener that lets certificates for this name be got when somebody asks, and how many.
fn allowed<'a>(snapshot: &'a Snapshot, name: &str) -> Option<(&'a str, &'a OnDemand)> {
    snapshot.listeners.iter().find_map(|listener| {
        let on_demand = listener.tls.as_ref()?.shelf.on_demand()?;
        on_demand.allows(name).then_some((listener.name.as_str(), on_demand))
    })
}

/// Gets and renews certificates for as long as there are snapshots.
pub(crate) async fn keep(desk: Desk) {
    let mut snapshots = desk.snapshots();
    let showcase = Arc::clone(&snapshots.borrow_and_update().showcase);
    let Some(mut waiting) = showcase.waiting() else { return };
    let (finished, mut results) = mpsc::channel(RUNNING);
    let mut manager = Manager {
        desk,
        showcase,
        snapshots: snapshots.clone(),
        finished,
        office: None,
        offices: 0,
        tries: Tries::default(),
        again: Duration::ZERO,
    };
    manager.follow();
    loop {
        let wait = manager.work();
        tokio::select! {
            changed = snapshots.changed() => match changed {
                Ok(()) => manager.follow(),
                Err(_) => return,
            },
            Some(result) = results.recv() => manager.finished(result),
            Some(question) = waiting.questions.recv() => manager.answer(question),
            Some(name) = waiting.wishes.recv() => manager.wish(&name),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Manager {
    desk: Desk,
    showcase: Arc<Showcase>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    finished: mpsc::Sender<Finished>,
    office: Option<Office>,
    /// How many there were: what was begun for another one is not for this one.
    offices: u64,
    tries: Tries,
    /// When it is tried again to have one, by the steady clock.
    again: Duration,
}

impl Manager {
    /// Follows the present configuration from now on.
    fn follow(&mut self) {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let Some(settings) = &snapshot.acme else {
            self.showcase.set(false, false);
            self.showcase.set_demanded(HashMap::new());
            self.showcase.board.show(None, Vec::new());
            self.showcase.leave();
            self.office = None;
            return;
        };
        let challenge = &settings.config.challenge;
        self.showcase.set(*challenge == Challenge::Http01, *challenge == Challenge::TlsAlpn01);
        if self.office.as_ref().is_none_or(|office| office.settings != *settings) {
            // The old one gives its lock away first: it may be the same.
            self.showcase.leave();
            self.office = None;
            self.offices += 1;
            match Office::new(self.offices, settings) {
                Ok(office) => {
                    self.showcase.set_lock(office.lock());
                    self.office = Some(office);
                }
                Err(error) => {
                    self.again = clock::shared() + AGAIN;
                    return self.desk.say(&format!("no certificate can be got: {error}"));
                }
            }
        }
        let Some(office) = &mut self.office else { return };
        office.follow(&wanted(&slots(&snapshot)), |name| allowed(&snapshot, name).is_some());
        kept_on_demand(&snapshot, &office.storage).iter().for_each(|name| office.demand(name));
        office.look_at_files(&self.desk);
        self.showcase.set_demanded(office.demanded());
    }

    /// Does what is due; returns when to look again.
    fn work(&mut self) -> Duration {
        let now = now();
        if self.office.is_none() && self.snapshots.borrow().acme.is_some() && now.steady >= self.again {
            self.follow();
        }
        let Some(office) = &mut self.office else { return AGAIN };
        let mut wishes = Vec::new();
        if office.beat(now, &self.desk) {
            let snapshot = self.snapshots.borrow();
            match office.writes() {
                true => wishes = office.storage.take_wishes(),
                // What another node has got because somebody asked.
                false => {
                    let new = kept_on_demand(&snapshot, &office.storage).into_iter();
                    let new: Vec<_> = new.filter(|name| !office.has(name)).collect();
                    if !new.is_empty() {
                        new.iter().for_each(|name| office.demand(name));
                        office.look_at_files(&self.desk);
                        self.showcase.set_demanded(office.demanded());
                    }
                }
            }
        }
        wishes.iter().for_each(|name| self.wish(name));
        let Some(office) = &mut self.office else { return AGAIN };
        let wait = office.work(now, &self.showcase, &self.finished);
        if office.has_forgotten() {
            self.showcase.set_demanded(office.demanded());
        }
        office.show(now, &self.showcase.board);
        wait.clamp(Duration::from_millis(10), BEAT)
    }

    fn finished(&mut self, finished: Finished) {
        let Some(office) = self.office.as_mut().filter(|office| office.number == finished.office) else {
            return;
        };
        office.finished(&finished.names, finished.what, now(), &self.desk, &self.showcase.board);
    }

    /// Another node may have put a token into the storage; what this one has put there it knows without asking.
    fn answer(&self, question: Question) {
        let office = self.office.as_ref().filter(|office| !office.writes());
        let answer = office.and_then(|office| office.storage.read_token(&question.token));
        // Whoever has asked may be gone.
        let _ = question.answer.send(answer);
    }

    /// Somebody has asked for a name. The node that writes gets the certificate; any other leaves it a note.
    fn wish(&mut self, name: &str) {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let Some(office) = &mut self.office else { return };
        let Some((listener, limits)) = allowed(&snapshot, name) else { return };
        if office.has(name) {
            return;
        }
        if !office.writes() {
            return office.storage.put_wish(name);
        }
        let present = office.demanded();
        let present = present.keys().filter(|name| limits.allows(name)).count();
        if self.tries.admit(listener, limits, present, clock::shared()) {
            office.demand(name);
            self.showcase.set_demanded(office.demanded());
        } else {
            self.showcase.board.failed("on_demand_limit");
        }
    }
}

fn now() -> Now {
    Now { calendar: clock::calendar(), steady: clock::shared() }
}
