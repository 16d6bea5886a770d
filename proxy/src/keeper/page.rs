//! What operators see of certificates: the page /certificates, which `ingre certs` shows, and a part of /metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::seconds_now;
use crate::admin::Page;
use crate::config::{Config, Source};
use crate::metrics::escape;
use crate::state::Snapshot;
use crate::tls::{Facts, Record, Slot, date};

/// The page: every certificate of the present snapshot, as JSON.
pub(crate) fn page(snapshot: impl Fn() -> Arc<Snapshot> + Send + Sync + 'static) -> Page {
    let text = move || {
        let now = seconds_now();
        let slots = by_slot(&snapshot());
        let entries = slots.iter().map(|(slot, listeners)| {
            entry(&slot.source, slot.facts().as_deref(), listeners, Some(&slot.record()), now)
        });
        format!("{:#}\n", json!({ "certificates": entries.collect::<Vec<_>>() }))
    };
    Page { path: "/certificates", kind: "application/json", text: Arc::new(text) }
}

/// The certificates of a configuration, as the page /certificates shows them.
pub fn describe(config: &Config) -> Value {
    let now = seconds_now();
    let mut all: Vec<(&crate::config::Certificate, Vec<String>)> = Vec::new();
    for listener in &config.listeners {
        for certificate in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            match all.iter_mut().find(|(known, _)| known.source == certificate.source) {
                Some((_, listeners)) => listeners.push(listener.name.clone()),
                None => all.push((certificate, vec![listener.name.clone()])),
            }
        }
    }
    let entries = all.into_iter().map(|(certificate, listeners)| {
        let facts = certificate.key.cert.first().and_then(Facts::of);
        entry(&certificate.source, facts.as_ref(), &listeners, None, now)
    });
    json!({ "certificates": entries.collect::<Vec<_>>() })
}

/// The slots in the order of the file, each with the names of its listeners.
fn by_slot(snapshot: &Snapshot) -> Vec<(Arc<Slot>, Vec<String>)> {
    let mut all: Vec<(Arc<Slot>, Vec<String>)> = Vec::new();
    for listener in &snapshot.listeners {
        for slot in listener.tls.iter().flat_map(|tls| tls.shelf.slots()) {
            match all.iter_mut().find(|(known, _)| Arc::ptr_eq(known, slot)) {
                Some((_, listeners)) => listeners.push(listener.name.clone()),
                None => all.push((Arc::clone(slot), vec![listener.name.clone()])),
            }
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
    record?.failure.as_ref().map(|(reason, _)| reason.clone())
}

/// The certificates' part of /metrics.
pub(crate) fn metrics(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let slots = by_slot(snapshot);
    if slots.is_empty() {
        return out;
    }
    // Of several on one listener with the same first name, such as one for each kind of key, the one that ends first.
    let mut series: BTreeMap<(String, String), [i64; 4]> = BTreeMap::new();
    for (slot, listeners) in &slots {
        let Some(facts) = slot.facts() else { continue };
        let record = slot.record();
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let values = [
            facts.not_after,
            record.failure.is_some().into(),
            count(record.replacements),
            count(record.failures),
        ];
        let name = facts.names.first().cloned().unwrap_or_default();
        for listener in listeners {
            let all = series.entry((listener.clone(), name.clone()));
            all.and_modify(|[end, failing, replaced, failed]| {
                *end = (*end).min(values[0]);
                *failing = (*failing).max(values[1]);
                *replaced += values[2];
                *failed += values[3];
            })
            .or_insert(values);
        }
    }
    let metrics = [
        ("not_after_seconds", "gauge", "When a certificate ends, in seconds since 1970."),
        ("failing", "gauge", "Whether something stands in the way of a newer certificate."),
        ("replacements_total", "counter", "How often a certificate was replaced without a reload."),
        ("failures_total", "counter", "How often it could not be."),
    ];
    for (number, (name, kind, help)) in metrics.into_iter().enumerate() {
        // Writing to a String cannot fail.
        let _ =
            writeln!(out, "# HELP ingre_certificate_{name} {help}\n# TYPE ingre_certificate_{name} {kind}");
        for ((listener, first), values) in &series {
            let (listener, first) = (escape(listener), escape(first));
            let value = values[number];
            let _ =
                writeln!(out, "ingre_certificate_{name}{{listener=\"{listener}\",name=\"{first}\"}} {value}");
        }
    }
    out
}
