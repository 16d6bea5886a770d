//! What operators see of certificates: the page /certificates, which `ingre certs` shows, and a part of /metrics.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::Hash;
use std::sync::Arc;

use serde_json::{Value, json};

use super::seconds_now;
use crate::admin::Page;
use crate::config::{Config, Source};
use crate::metrics::escape;
use crate::state::Snapshot;
use crate::tls::{Facts, Record, Slot, StapleRecord, TlsState, date};

/// The page: every certificate of the present snapshot, as JSON.
pub(crate) fn page(snapshot: impl Fn() -> Arc<Snapshot> + Send + Sync + 'static) -> Page {
    let text = move || {
        let now = seconds_now();
        let snapshot = snapshot();
        let slots = by_slot(&snapshot);
        let entries = slots.iter().map(|(slot, listeners)| {
            let mut entry =
                entry(&slot.source, slot.facts().as_deref(), listeners, Some(&slot.record()), now);
            if let Some(status) = snapshot.showcase.board.status(&slot.source) {
                entry["next_attempt"] = date(i64::try_from(status.next).unwrap_or(i64::MAX)).into();
                entry["consecutive_failures"] = status.failures.into();
            }
            entry
        });
        format!("{:#}\n", json!({ "certificates": entries.collect::<Vec<_>>() }))
    };
    Page { path: "/certificates", kind: "application/json", text: Arc::new(text) }
}

/// The certificates of a configuration, as the page /certificates shows them.
pub fn describe(config: &Config) -> Value {
    let now = seconds_now();
    let each = config.listeners.iter().flat_map(|listener| {
        let certificates = listener.tls.iter().flat_map(|tls| &tls.certificates);
        certificates.map(|certificate| (certificate, listener.name.as_str()))
    });
    let all = together(each, |certificate| &certificate.source);
    let entries = all.into_iter().map(|(certificate, listeners)| {
        let facts = certificate.key.cert.first().and_then(Facts::of);
        entry(&certificate.source, facts.as_ref(), &listeners, None, now)
    });
    json!({ "certificates": entries.collect::<Vec<_>>() })
}

/// The slots in the order of the file, then those of names that somebody has asked for, each with the names of its listeners.
fn by_slot(snapshot: &Snapshot) -> Vec<(Arc<Slot>, Vec<String>)> {
    let each = snapshot.listeners.iter().flat_map(|listener| {
        let slots = listener.tls.iter().flat_map(|tls| tls.shelf.slots());
        slots.map(|slot| (Arc::clone(slot), listener.name.as_str()))
    });
    let mut all = together(each, Arc::as_ptr);
    for (name, slot) in snapshot.showcase.demanded() {
        let allows = |tls: &TlsState| tls.shelf.on_demand().is_some_and(|on_demand| on_demand.allows(&name));
        let listeners =
            snapshot.listeners.iter().filter(|listener| listener.tls.as_ref().is_some_and(allows));
        all.push((slot, listeners.map(|listener| listener.name.clone()).collect()));
    }
    all
}

/// Each thing once, in order, with everything that was named beside it.
fn together<'a, T, K: Hash + Eq>(
    each: impl Iterator<Item = (T, &'a str)>,
    key: impl Fn(&T) -> K,
) -> Vec<(T, Vec<String>)> {
    let mut places = HashMap::new();
    let mut all: Vec<(T, Vec<String>)> = Vec::new();
    for (thing, name) in each {
        let place = *places.entry(key(&thing)).or_insert(all.len());
        match all.get_mut(place) {
            Some((_, names)) => names.push(name.to_owned()),
            None => all.push((thing, vec![name.to_owned()])),
        }
    }
    all
}

fn entry(
    source: &Source,
    facts: Option<&Facts>,
    listeners: &[String],
    record: Option<&Record>,
    now: i64,
) -> Value {
    let mut entry = json!({
        "listeners": listeners,
        "problem": problem(facts, record, now),
    });
    match source {
        Source::Files { certificate, key } => {
            entry["source"] = "files".into();
            entry["files"] = json!([certificate, key]);
        }
        Source::Development(_) => entry["source"] = "development".into(),
        Source::Acme(names) => {
            entry["source"] = "acme".into();
            entry["names"] = json!(names);
        }
    }
    if let Some(facts) = facts {
        entry["names"] = json!(facts.names);
        entry["subject"] = facts.subject.as_str().into();
        entry["issuer"] = facts.issuer.as_str().into();
        entry["serial"] = facts.serial.as_str().into();
        entry["key"] = facts.key.as_str().into();
        entry["not_before"] = date(facts.not_before).into();
        entry["not_after"] = date(facts.not_after).into();
        entry["seconds_left"] = facts.not_after.saturating_sub(now).into();
    }
    if let Some(record) = record {
        let time = |seconds: u64| date(i64::try_from(seconds).unwrap_or(i64::MAX));
        entry["replacements"] = record.replacements.into();
        entry["replaced"] = record.replaced.map(time).into();
        entry["failures"] = record.failures.into();
        entry["last_error"] = record.failure.as_ref().map(|(reason, _)| reason.as_str()).into();
        entry["staple"] = staple(&record.staple);
        entry["failing_since"] = record.failure.as_ref().map(|(_, since)| time(*since)).into();
    }
    entry
}

/// What is wrong with a certificate now; nothing where somebody who is woken at night would have nothing to do.
fn problem(facts: Option<&Facts>, record: Option<&Record>, now: i64) -> Option<String> {
    match facts {
        Some(facts) if now > facts.not_after => return Some("expired".into()),
        Some(facts) if now < facts.not_before => return Some("not yet valid".into()),
        Some(_) => {}
        None => return Some("no certificate".into()),
    }
    let record = record?;
    match &record.staple {
        StapleRecord { revoked: Some(_), .. } => return Some("revoked".into()),
        staple if staple.is_missing() => return Some("clients insist on a staple and there is none".into()),
        _ => {}
    }
    record.failure.as_ref().map(|(reason, _)| reason.clone())
}

fn staple(record: &StapleRecord) -> Value {
    let state = match record {
        StapleRecord { wanted: false, .. } => "none",
        StapleRecord { revoked: Some(_), .. } => "revoked",
        StapleRecord { good_until: Some(_), .. } => "good",
        StapleRecord { error: Some(_), .. } => "missing",
        _ => "asked for",
    };
    json!({
        "state": state,
        "required": record.needed,
        "good_until": record.good_until.map(date),
        "revoked": record.revoked.map(date),
        "last_error": record.error,
    })
}

/// The certificates' part of /metrics.
pub(crate) fn metrics(snapshot: &Snapshot) -> String {
    let slots = by_slot(snapshot).into_iter();
    let all: Vec<_> =
        slots.filter_map(|(slot, listeners)| Some((listeners, slot.facts()?, slot.record()))).collect();
    if all.is_empty() {
        return String::new();
    }
    let mut out = String::new();
    for metric in &METRICS {
        // Of several on one listener with the same first name, such as one for each kind of key, one series.
        let mut series: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for (listeners, facts, record) in &all {
            let Some(value) = (metric.value)(facts, record) else { continue };
            let name = facts.names.first().map_or("", String::as_str);
            for listener in listeners {
                let series = series.entry((listener, name));
                series.and_modify(|other| *other = (metric.both)(*other, value)).or_insert(value);
            }
        }
        let Metric { name, kind, help, .. } = metric;
        // Writing to a String cannot fail.
        let _ =
            writeln!(out, "# HELP ingre_certificate_{name} {help}\n# TYPE ingre_certificate_{name} {kind}");
        for ((listener, first), value) in series {
            let (listener, first) = (escape(listener), escape(first));
            let labels = format!("listener=\"{listener}\",name=\"{first}\"");
            let _ = writeln!(out, "ingre_certificate_{name}{{{labels}}} {value}");
        }
    }
    out
}

/// One of the metrics.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// Of one certificate, where it has one.
    value: fn(&Facts, &Record) -> Option<i64>,
    /// Of two together.
    both: fn(i64, i64) -> i64,
}

const METRICS: [Metric; 6] = [
    Metric {
        name: "not_after_seconds",
        kind: "gauge",
        help: "When a certificate ends, in seconds since 1970.",
        value: |facts, _| Some(facts.not_after),
        both: i64::min,
    },
    Metric {
        name: "failing",
        kind: "gauge",
        help: "Whether something stands in the way of a newer certificate.",
        value: |_, record| Some(record.failure.is_some().into()),
        both: i64::max,
    },
    Metric {
        name: "replacements_total",
        kind: "counter",
        help: "How often a certificate was replaced without a reload.",
        value: |_, record| i64::try_from(record.replacements).ok(),
        both: i64::saturating_add,
    },
    Metric {
        name: "failures_total",
        kind: "counter",
        help: "How often it could not be.",
        value: |_, record| i64::try_from(record.failures).ok(),
        both: i64::saturating_add,
    },
    Metric {
        name: "last_replacement_seconds",
        kind: "gauge",
        help: "When it was replaced last, in seconds since 1970; absent before the first time.",
        value: |_, record| i64::try_from(record.replaced?).ok(),
        both: i64::max,
    },
    Metric {
        name: "staple_not_after_seconds",
        kind: "gauge",
        help: "Until when its staple is good, in seconds since 1970; absent where none is shown.",
        value: |_, record| record.staple.good_until,
        both: i64::min,
    },
];
