//! Everything that goes with one account: its certificates, what is due, and what is under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use super::Settings;
use super::account::Accounts;
use super::board::{Board, Status};
use super::client::Client;
use super::error::AcmeError;
use super::files::Stamp;
use super::lock::{BEAT, Lock};
use super::schedule::{Attempts, Now, Validity, Window};
use super::showcase::Showcase;
use super::storage::{Storage, Stored};
use super::task::{Finished, Outcome, Task};
use crate::config::Source;
use crate::keeper::{self, Desk};
use crate::publish::Change;
use crate::tls::Slot;

/// Orders and questions to the authority at a time.
pub(super) const RUNNING: usize = 4;
/// How often the authority is asked when it would have a certificate renewed, whatever it says (RFC 9773 4.3.2).
const SHORTEST_QUESTION: Duration = Duration::from_secs(60);
const LONGEST_QUESTION: Duration = Duration::from_secs(24 * 3600);
/// The same after a failure.
const FAILED_QUESTION: Duration = Duration::from_secs(3600);

/// The names of a certificate.
pub(super) type Names = Vec<String>;

/// Everything that goes with one account.
pub(super) struct Office {
    pub(super) number: u64,
    pub(super) settings: Arc<Settings>,
    pub(super) storage: Storage,
    accounts: Arc<Accounts>,
    /// Shared with whoever ends the program.
    lock: Arc<Mutex<Lock>>,
    next_beat: Duration,
    entries: BTreeMap<Names, Entry>,
    running: usize,
    /// Whether the authority did the last time what it does for every certificate.
    reached: bool,
    /// Failures to get so far.
    authority: Attempts,
    /// Names that were asked for and could not be had were let go of.
    forgotten: bool,
    /// What went wrong with the lock, so that it is said once.
    trouble: Option<String>,
}

/// One certificate.
struct Entry {
    validity: Option<Validity>,
    stamp: Option<Stamp>,
    /// The one that is shown.
    shown: Option<CertificateDer<'static>>,
    slot: Arc<Slot>,
    /// It is there because somebody has asked for its name.
    on_demand: bool,
    attempts: Attempts,
    busy: bool,
    window: Option<Window>,
    /// When the authority is asked for the window, by the steady clock.
    next_question: Duration,
}

impl Office {
    /// Nothing is read and nothing is asked for yet.
    ///
    /// # Errors
    /// Where there is no storage.
    pub(super) fn new(number: u64, settings: &Arc<Settings>) -> Result<Self, AcmeError> {
        let config = &settings.config;
        let storage = Storage::open(&config.storage, &config.directory)?;
        let client = Client::new(&config.roots, &settings.resolver)
            .map_err(|error| AcmeError::Unusable(format!("the authorities to trust: {error}")))?;
        let mut id = [0; 8];
        // Without it two nodes might take each other for themselves.
        aws_lc_rs::rand::fill(&mut id).map_err(|_| AcmeError::Unusable("no random numbers".into()))?;
        Ok(Self {
            number,
            settings: Arc::clone(settings),
            accounts: Arc::new(Accounts::new(config, client, &storage)),
            lock: Arc::new(Mutex::new(Lock::new(storage.lock(), u64::from_ne_bytes(id)))),
            storage,
            next_beat: Duration::ZERO,
            entries: BTreeMap::new(),
            running: 0,
            reached: false,
            authority: Attempts::default(),
            forgotten: false,
            trouble: None,
        })
    }

    /// These are the certificates that are wanted from now on; names that somebody has asked for stay where `allowed`.
    pub(super) fn follow(&mut self, wanted: &HashMap<&Names, &Arc<Slot>>, allowed: impl Fn(&str) -> bool) {
        let is_allowed = |names: &Names| names.first().is_some_and(|name| allowed(name));
        self.entries.retain(|names, entry| match wanted.get(names) {
            Some(slot) => Arc::ptr_eq(slot, &entry.slot),
            None => entry.on_demand && is_allowed(names),
        });
        let new = wanted.iter().filter(|(names, _)| !self.entries.contains_key(**names));
        let new: Vec<_> = new.map(|(names, slot)| ((*names).clone(), Entry::new(slot, false))).collect();
        self.entries.extend(new);
    }

    /// The certificate for a name that somebody has asked for is wanted from now on.
    pub(super) fn demand(&mut self, name: &str) {
        let names = vec![name.to_owned()];
        let new = || Entry::new(&Arc::new(Slot::new(Source::Acme(vec![name.to_owned()]), None)), true);
        self.entries.entry(names).or_insert_with(new);
    }

    /// Whether a name is cared for already.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(&vec![name.to_owned()])
    }

    /// The certificates that are there because somebody has asked, by name.
    pub(super) fn demanded(&self) -> HashMap<String, Arc<Slot>> {
        let demanded = self.entries.iter().filter(|(_, entry)| entry.on_demand);
        let slot = |(names, entry): (&Names, &Entry)| Some((names.first()?.clone(), Arc::clone(&entry.slot)));
        demanded.filter_map(slot).collect()
    }

    /// Lets go of names that somebody has asked for and that could not be had: whoever asks again begins anew.
    fn forget(&mut self, now: Now) {
        let before = self.entries.len();
        self.entries.retain(|_, entry| {
            let is_over = entry.validity.is_none_or(|validity| validity.until <= now.calendar);
            let is_due = entry.attempts.wait(now, entry.validity, entry.window) == Duration::ZERO;
            !(entry.on_demand && entry.attempts.failures > 0 && !entry.busy && is_over && is_due)
        });
        self.forgotten = self.entries.len() < before;
    }

    /// Whether names were let go of in the last [`Office::work`].
    pub(super) fn has_forgotten(&self) -> bool {
        self.forgotten
    }

    /// Writes or looks at the lock where that is due, and looks at what other nodes have stored; whether it was due.
    pub(super) fn beat(&mut self, now: Now, desk: &Desk) -> bool {
        if now.steady < self.next_beat {
            return false;
        }
        self.next_beat = now.steady + BEAT;
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let held = lock.is_held();
        let trouble = lock.beat(now.steady).err().map(|error| error.to_string());
        if let Some(new) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            desk.say(&format!("no certificate can be got: {new}"));
        }
        self.trouble = trouble;
        if !held && lock.is_held() {
            self.storage.clear_tokens();
            desk.say("this node gets the certificates");
        } else if held && !lock.is_held() {
            let other = lock.other().unwrap_or_else(|| "nobody".into());
            desk.say(&format!("another node gets the certificates: {other}"));
        }
        drop(lock);
        self.look_at_files(desk);
        true
    }

    /// Whether this node gets certificates.
    pub(super) fn writes(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_held()
    }

    /// What is given away at the end of the program.
    pub(super) fn lock(&self) -> Arc<Mutex<Lock>> {
        Arc::clone(&self.lock)
    }

    /// Begins what is due; how long until something else is.
    pub(super) fn work(
        &mut self,
        now: Now,
        showcase: &Arc<Showcase>,
        finished: &mpsc::Sender<Finished>,
    ) -> Duration {
        let beat = self.next_beat.saturating_sub(now.steady);
        if !self.writes() {
            return beat;
        }
        self.forget(now);
        self.start(now, showcase, finished).min(beat)
    }

    /// Shows what the storage has and is not shown yet: at the start, and where another node has put something there.
    pub(super) fn look_at_files(&mut self, desk: &Desk) {
        let mut changes = Vec::new();
        for (names, entry) in self.entries.iter_mut().filter(|(_, entry)| !entry.busy) {
            let stamp = self.storage.stamp(names);
            if stamp == entry.stamp {
                continue;
            }
            // What cannot be read is not read again before it changes.
            entry.stamp = stamp;
            match self.storage.load(names) {
                Ok(Some(stored)) => {
                    entry.take(&stored);
                    let is_shown = entry.slot.get().is_some_and(|shown| shown.cert == stored.key.cert);
                    if !is_shown {
                        changes.push(entry.change(stored));
                    }
                }
                Ok(None) => {}
                Err(error) => desk.failed(&entry.slot, &error.to_string()),
            }
        }
        desk.replace(&changes);
    }

    /// Begins what is due; how long until something else is.
    fn start(&mut self, now: Now, showcase: &Arc<Showcase>, finished: &mpsc::Sender<Finished>) -> Duration {
        let mut wait = self.authority.wait(now, None, None);
        if wait > Duration::ZERO {
            return wait;
        }
        // One at a time shows whether the authority is there, or is back.
        let most = if self.reached { RUNNING } else { 1 };
        wait = LONGEST_QUESTION;
        for (names, entry) in &mut self.entries {
            if entry.busy {
                continue;
            }
            let order = entry.attempts.wait(now, entry.validity, entry.window);
            let question = match entry.validity {
                Some(_) => entry.next_question.saturating_sub(now.steady),
                None => LONGEST_QUESTION,
            };
            wait = wait.min(order).min(question);
            if self.running >= most || order.min(question) > Duration::ZERO {
                continue;
            }
            self.running += 1;
            entry.busy = true;
            let task = Task {
                settings: Arc::clone(&self.settings),
                accounts: Arc::clone(&self.accounts),
                storage: self.storage.clone(),
                showcase: Arc::clone(showcase),
                names: names.clone(),
                on_demand: entry.on_demand,
                // Another authority knows nothing of it.
                shown: entry.validity.and(entry.shown.clone()),
            };
            let (office, finished) = (self.number, finished.clone());
            tokio::task::spawn_local(async move {
                let names = task.names.clone();
                let what = if order == Duration::ZERO { task.order().await } else { task.question().await };
                // Without a receiver the program ends.
                let _ = finished.send(Finished { office, names, what }).await;
            });
        }
        // Whatever has no place now is looked at when something has finished.
        if wait == Duration::ZERO { BEAT } else { Attempts::look(wait) }
    }

    /// What has come of something that was begun.
    pub(super) fn finished(&mut self, names: &Names, what: Outcome, now: Now, desk: &Desk, board: &Board) {
        self.running = self.running.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(names) else { return };
        entry.busy = false;
        match what {
            Outcome::Window(Ok((window, again))) => {
                entry.window = Some(window);
                entry.next_question = now.steady + again.clamp(SHORTEST_QUESTION, LONGEST_QUESTION);
            }
            Outcome::Window(Err(instant_acme::Error::Unsupported(_))) => {
                entry.window = None;
                entry.next_question = now.steady + LONGEST_QUESTION;
            }
            Outcome::Window(Err(_)) => entry.next_question = now.steady + FAILED_QUESTION,
            Outcome::Order(result, left_over) => {
                let shown = keeper::name(&entry.slot);
                if let Some(error) = left_over {
                    desk.say(&format!("of the proof for the certificate {shown} something is left: {error}"));
                }
                match result {
                    Ok(stored) => {
                        self.reached = true;
                        self.authority.succeeded(0);
                        board.issued();
                        entry.take(&stored);
                        desk.replace(&[entry.change(stored)]);
                    }
                    Err(error) => {
                        let setback = error.setback();
                        self.reached = !setback.common;
                        if self.reached {
                            self.authority.succeeded(0);
                        } else if self.authority.wait(now, None, None) == Duration::ZERO {
                            // Of several that were under way, the first one.
                            self.authority.failed(setback, None, now.steady, random());
                        }
                        entry.attempts.failed(setback, entry.validity, now.steady, random());
                        board.failed(error.reason());
                        entry.slot.has_failed(&error.to_string(), now.calendar);
                        let wait = entry.attempts.wait(now, entry.validity, entry.window).as_secs();
                        desk.say(&format!(
                            "the certificate {shown} is not issued: {error}; next attempt in {wait}s"
                        ));
                    }
                }
            }
        }
    }

    /// Shows operators how things stand.
    pub(super) fn show(&self, now: Now, board: &Board) {
        let status = |(names, entry): (&Names, &Entry)| Status {
            names: names.clone(),
            next: now.calendar + entry.attempts.wait(now, entry.validity, entry.window).as_secs(),
            failures: entry.attempts.failures,
        };
        board.show(Some(self.writes()), self.entries.iter().map(status).collect());
    }
}

impl Entry {
    fn new(slot: &Arc<Slot>, on_demand: bool) -> Self {
        Self {
            validity: None,
            stamp: None,
            shown: None,
            slot: Arc::clone(slot),
            on_demand,
            attempts: Attempts::new(random()),
            busy: false,
            window: None,
            next_question: Duration::ZERO,
        }
    }

    /// This is the certificate from now on.
    fn take(&mut self, stored: &Stored) {
        self.validity = stored.validity;
        self.stamp = stored.stamp;
        self.shown = stored.key.cert.first().cloned();
        self.window = None;
        self.next_question = Duration::ZERO;
        self.attempts.succeeded(random());
    }

    /// Puts a certificate in the place of whatever stands there.
    fn change(&self, stored: Stored) -> Change {
        Change { slot: Arc::clone(&self.slot), before: self.slot.get(), key: stored.key }
    }
}

fn random() -> u8 {
    let mut random = [0];
    // Without it there is no jitter.
    let _ = aws_lc_rs::rand::fill(&mut random);
    random[0]
}
