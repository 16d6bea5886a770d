//! What operators see: each certificate, its next attempt and the last error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Source;
use crate::metrics::escape;

/// What is known about all certificates.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    /// Whether this node is the one that gets certificates; none where there is no account.
    writes: Option<bool>,
    certificates: Vec<Status>,
    issued: u64,
    failures: BTreeMap<&'static str, u64>,
}

/// What is known about one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// What it is for.
    pub(crate) names: Vec<String>,
    /// Seconds since 1970 at which it is got or renewed, if nothing happens.
    pub(crate) next: u64,
    /// Failures in a row.
    pub(crate) failures: u32,
}

impl Board {
    /// What is known of a certificate that comes from there.
    pub(crate) fn status(&self, source: &Source) -> Option<Status> {
        let Source::Acme(names) = source else { return None };
        self.lock().certificates.iter().find(|status| status.names == *names).cloned()
    }

    pub(super) fn show(&self, writes: Option<bool>, certificates: Vec<Status>) {
        let mut shown = self.lock();
        (shown.writes, shown.certificates) = (writes, certificates);
    }

    pub(super) fn issued(&self) {
        self.lock().issued += 1;
    }

    pub(super) fn failed(&self, reason: &'static str) {
        *self.lock().failures.entry(reason).or_default() += 1;
    }

    /// Lines for /metrics; none without an account.
    pub(crate) fn metrics(&self) -> String {
        let shown = self.lock();
        let mut out = String::new();
        let Some(writes) = shown.writes else { return out };
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        let name = "ingre_acme_writer";
        head(&mut out, name, "gauge", "Whether this node gets certificates for all that share its storage.");
        let _ = writeln!(out, "{name} {}", u8::from(writes));
        let name = "ingre_acme_issued_total";
        head(&mut out, name, "counter", "Certificates that an authority has issued to this node.");
        let _ = writeln!(out, "{name} {}", shown.issued);
        let name = "ingre_acme_failures_total";
        head(&mut out, name, "counter", "Attempts to get a certificate that failed, by reason.");
        for (reason, count) in &shown.failures {
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {count}");
        }
        let name = "ingre_acme_next_attempt_timestamp_seconds";
        head(&mut out, name, "gauge", "When a certificate is got or renewed.");
        for status in &shown.certificates {
            let label = escape(&status.names.join(","));
            let _ = writeln!(out, "{name}{{certificate=\"{label}\"}} {}", status.next);
        }
        let name = "ingre_acme_consecutive_failures";
        head(&mut out, name, "gauge", "Attempts for a certificate that failed since the last success.");
        for status in &shown.certificates {
            let label = escape(&status.names.join(","));
            let _ = writeln!(out, "{name}{{certificate=\"{label}\"}} {}", status.failures);
        }
        out
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
