//! Fetches staples: what the issuer of a certificate says about its revocation, shown to clients in the handshake
//! (RFC 6066 8, RFC 8446 4.4.2.1).
//!
//! A handshake never waits for any of this: it shows the staple that is there, or none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio::task::JoinSet;

use super::care::{Care, Staple};
use super::{Desk, fetch, forget, name, seconds_now};
use crate::config::Source;
use crate::ocsp::{Answer, Question, Status};
use crate::publish::Change;
use crate::tls::{Slot, StapleRecord};

/// Between two looks at what is due.
const PERIOD: Duration = Duration::from_secs(1);
/// Responders that are asked at a time.
const AT_ONCE: usize = 8;

/// What is known about the staple of one slot.
struct Entry {
    /// The certificate that all of this is about.
    certificate: CertificateDer<'static>,
    wanted: bool,
    must_staple: bool,
    /// Nothing where nobody can be asked.
    responder: Option<(String, Question)>,
    care: Care,
    /// The staple that is shown.
    staple: Option<Vec<u8>>,
    in_flight: bool,
}

/// A response and what it says, or why there is none that counts.
type Fetched = Result<(Vec<u8>, Answer), String>;

/// Keeps a staple for every certificate that has a responder.
pub(super) async fn keep(desk: Desk) {
    let mut entries: HashMap<Source, Entry> = HashMap::new();
    let mut fetches: JoinSet<(Source, CertificateDer<'static>, Fetched)> = JoinSet::new();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => look(&desk, &mut entries, &mut fetches),
            Some(fetched) = fetches.join_next(), if !fetches.is_empty() => {
                // A fetch that has panicked leaves its certificate with what it has.
                let Ok((source, certificate, fetched)) = fetched else { continue };
                let Some(entry) = entries.get_mut(&source).filter(|entry| entry.certificate == certificate)
                else { continue };
                let slot = desk.slots().into_iter().find(|slot| slot.source == source);
                if let Some(slot) = slot {
                    entry.take(&desk, &slot, fetched);
                }
            }
        }
    }
}

/// Looks at every certificate: what is new, what is due, what is too old.
fn look(
    desk: &Desk,
    entries: &mut HashMap<Source, Entry>,
    fetches: &mut JoinSet<(Source, CertificateDer<'static>, Fetched)>,
) {
    let now = seconds_now();
    let (slots, wanted) = desk.slots_with_staples();
    forget(entries, &slots);
    for (slot, wanted) in slots.into_iter().zip(wanted) {
        let Some(shown) = slot.get() else { continue };
        let Some(first) = shown.cert.first() else { continue };
        let known = entries.get(&slot.source);
        if known.is_none_or(|known| known.certificate != *first || known.wanted != wanted) {
            let entry = Entry::new(desk, &slot, &shown, wanted);
            entries.insert(slot.source.clone(), entry);
        }
        let Some(entry) = entries.get_mut(&slot.source) else { continue };
        if entry.care.has_outlived(now) {
            entry.staple = None;
            desk.say(&format!(
                "the staple of the certificate {} is outdated and not shown any more",
                name(&slot)
            ));
            entry.note(desk, &slot, Some("the last one is outdated".to_owned()), None);
        }
        entry.show(desk, &slot, &shown);
        if let Some((url, question)) = &entry.responder
            && !entry.in_flight
            && fetches.len() < AT_ONCE
            && entry.care.is_due(now)
        {
            entry.in_flight = true;
            let (source, certificate) = (slot.source.clone(), entry.certificate.clone());
            let (url, question, servers) = (url.clone(), question.clone(), desk.name_servers());
            fetches.spawn_local(async move {
                let fetched = match fetch::post(&url, &question.request(), &servers).await {
                    Ok(response) => match question.read(&response, seconds_now()) {
                        Ok(answer) => Ok((response, answer)),
                        Err(error) => Err(format!("{url}: {error}")),
                    },
                    Err(error) => Err(format!("{url}: {error}")),
                };
                (source, certificate, fetched)
            });
        }
    }
}

impl Entry {
    fn new(desk: &Desk, slot: &Arc<Slot>, shown: &CertifiedKey, wanted: bool) -> Self {
        let facts = slot.facts();
        let must_staple = facts.as_ref().is_some_and(|facts| facts.must_staple);
        let url = facts.as_ref().and_then(|facts| facts.responder.clone());
        let (responder, failure) = match (wanted, url) {
            (false, _) => (None, must_staple.then(|| "`ocsp_stapling` is off".to_owned())),
            (true, None) => (None, must_staple.then(|| "the certificate names no responder".to_owned())),
            (true, Some(url)) => match Question::about(&shown.cert) {
                Ok(question) => (Some((url, question)), None),
                Err(error) => (None, Some(error.to_string())),
            },
        };
        let certificate = shown.cert.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let entry = Self {
            certificate,
            wanted,
            must_staple,
            responder,
            care: Care::default(),
            staple: None,
            in_flight: false,
        };
        if let Some(reason) = &failure {
            desk.say(&format!("the certificate {} gets no staple: {reason}", name(slot)));
        }
        entry.note(desk, slot, failure, None);
        entry
    }

    /// Takes an answer, or what came instead of one.
    fn take(&mut self, desk: &Desk, slot: &Arc<Slot>, fetched: Fetched) {
        self.in_flight = false;
        let (response, answer) = match fetched {
            Ok((response, answer)) => (response, Ok(answer)),
            Err(reason) => (Vec::new(), Err(reason)),
        };
        let next = self.care.answered(&answer, seconds_now(), crate::net::random_byte());
        match next.staple {
            Staple::Show => self.staple = Some(response),
            Staple::Drop => self.staple = None,
            Staple::Keep => {}
        }
        if let Some(line) = next.say {
            desk.say(&format!("the certificate {} {line}", name(slot)));
        }
        let (error, revoked) = match answer {
            Ok(Answer { status: Status::Good, .. }) => (None, None),
            Ok(Answer { status: Status::Revoked(since), .. }) => (None, Some(since)),
            Ok(Answer { status: Status::Unknown, .. }) => {
                (Some("the responder does not know it".to_owned()), None)
            }
            Err(reason) => (Some(reason), None),
        };
        self.note(desk, slot, error, revoked);
        if let Some(shown) = slot.get().filter(|shown| shown.cert.first() == Some(&self.certificate)) {
            self.show(desk, slot, &shown);
        }
    }

    /// Shows the staple that is to be shown, or none.
    fn show(&self, desk: &Desk, slot: &Arc<Slot>, shown: &Arc<CertifiedKey>) {
        if shown.ocsp == self.staple {
            return;
        }
        let key = CertifiedKey { ocsp: self.staple.clone(), ..CertifiedKey::clone(shown) };
        let change = Change { slot: Arc::clone(slot), before: Some(Arc::clone(shown)), key: Arc::new(key) };
        // Where another certificate has come in between, the next look sees it.
        desk.publisher.install(&[change]);
    }

    /// Notes how things stand, and warns where clients will not accept it.
    fn note(&self, desk: &Desk, slot: &Arc<Slot>, error: Option<String>, revoked: Option<i64>) {
        let needed = self.must_staple && self.staple.is_none();
        if needed && (error.is_some() || revoked.is_some()) && !slot.record().staple.is_missing() {
            desk.say(&format!(
                "ATTENTION: the certificate {} obliges clients to refuse it without a staple, and there is none",
                name(slot)
            ));
        }
        slot.note_staple(StapleRecord {
            wanted: self.responder.is_some(),
            needed: self.must_staple,
            good_until: self.care.good_until(),
            revoked,
            error,
        });
    }
}
