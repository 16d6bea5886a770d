//! Counters: one shard per worker, written without sharing, added up when somebody asks.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::dns::Known;
use crate::error::Error;
use crate::pool::HealthState;
use crate::state::Snapshot;

/// Status classes 1xx to 5xx.
const CLASSES: usize = 5;

/// Requests by class of status.
#[derive(Debug, Default)]
pub(crate) struct Series([AtomicU64; CLASSES]);

impl Series {
    /// Counts a response.
    pub(crate) fn count(&self, status: u16) {
        if let Some(class) = usize::from(status / 100).checked_sub(1).and_then(|class| self.0.get(class)) {
            add(class, 1);
        }
    }
}

/// Adds to a counter that only this thread writes: cheaper than an operation that other writers would need.
pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Ordering::Relaxed) + number, Ordering::Relaxed);
}

/// How often, by reason.
type Reasons = Mutex<BTreeMap<&'static str, u64>>;
type ByName = Mutex<HashMap<String, Arc<Series>>>;

/// The counters of one worker.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    listeners: ByName,
    pools: ByName,
    failures: Reasons,
    handshake_failures: Reasons,
    /// TLS handshakes with clients so far: whole ones, and those that took a session up again.
    pub(crate) handshakes_full: AtomicU64,
    pub(crate) handshakes_resumed: AtomicU64,
    /// Connections accepted so far, and closed so far.
    pub(crate) accepted: AtomicU64,
    pub(crate) closed: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    retries: AtomicU64,
    /// QUIC datagrams that have come to the wrong worker: passed on, and lost.
    pub(crate) datagrams_passed_on: AtomicU64,
    pub(crate) datagrams_lost: AtomicU64,
    /// The same of those for a process that served before.
    pub(crate) datagrams_to_predecessors: AtomicU64,
    pub(crate) datagrams_to_predecessors_lost: AtomicU64,
}

/// What is counted of a request.
pub(crate) struct Ended {
    pub(crate) status: u16,
    pub(crate) reason: Option<Error>,
    /// Bytes of the request's body and of the response's.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) retries: u8,
}

impl Shard {
    /// Counts a request that has ended.
    pub(crate) fn count(&self, ended: &Ended) {
        if let Some(error) = &ended.reason {
            self.failed(error);
        }
        add(&self.bytes_in, ended.received);
        add(&self.bytes_out, ended.sent);
        add(&self.retries, ended.retries.into());
    }

    /// The series of a listener; asked for once per snapshot, not per request.
    pub(crate) fn listener(&self, name: &str) -> Arc<Series> {
        Self::series(&self.listeners, name)
    }

    /// The series of a pool.
    pub(crate) fn pool(&self, name: &str) -> Arc<Series> {
        Self::series(&self.pools, name)
    }

    /// Counts a failure by its reason.
    pub(crate) fn failed(&self, error: &Error) {
        count(&self.failures, error.code());
    }

    /// Counts a TLS handshake that has failed.
    pub(crate) fn handshake_failed(&self, reason: &'static str) {
        count(&self.handshake_failures, reason);
    }

    fn series(of: &ByName, name: &str) -> Arc<Series> {
        let mut all = of.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }
}

fn count(reasons: &Reasons, reason: &'static str) {
    *reasons.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
}

/// Everything in the Prometheus text format.
pub(crate) fn render(
    shards: &[Arc<Shard>],
    parked: usize,
    snapshot: &Snapshot,
    names: &[(String, Known)],
    log_lost: u64,
) -> String {
    let mut out = String::with_capacity(4096);
    let sum = |counter: fn(&Shard) -> &AtomicU64| -> u64 {
        shards.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum()
    };
    let accepted = sum(|shard| &shard.accepted);
    let mut page = Page(&mut out);
    page.one("ingre_connections_total", "counter", "Connections accepted.", accepted);
    let open = accepted.saturating_sub(sum(|shard| &shard.closed));
    page.one("ingre_connections_open", "gauge", "Connections open now.", open);
    page.workers(shards);
    page.one(
        "ingre_upstream_connections_parked",
        "gauge",
        "Idle connections to RS that any worker may take.",
        parked as u64,
    );
    page.one("ingre_request_body_bytes_total", "counter", "Bytes of request bodies.", sum(|s| &s.bytes_in));
    page.one(
        "ingre_response_body_bytes_total",
        "counter",
        "Bytes of response bodies.",
        sum(|s| &s.bytes_out),
    );
    page.one("ingre_retries_total", "counter", "Requests sent to an RS once more.", sum(|s| &s.retries));
    page.one(
        "ingre_quic_datagrams_passed_on_total",
        "counter",
        "QUIC datagrams passed on to the worker that has their connection.",
        sum(|s| &s.datagrams_passed_on),
    );
    page.one(
        "ingre_quic_datagrams_lost_total",
        "counter",
        "QUIC datagrams lost on the way to another worker.",
        sum(|s| &s.datagrams_lost),
    );
    page.one(
        "ingre_quic_datagrams_to_predecessors_total",
        "counter",
        "QUIC datagrams passed on to a process that served before and has their connection.",
        sum(|s| &s.datagrams_to_predecessors),
    );
    page.one(
        "ingre_quic_datagrams_to_predecessors_lost_total",
        "counter",
        "QUIC datagrams lost on the way to such a process.",
        sum(|s| &s.datagrams_to_predecessors_lost),
    );
    page.one(
        "ingre_access_log_lost_lines_total",
        "counter",
        "Log lines that could not be written.",
        log_lost,
    );
    page.classes(
        "ingre_requests_total",
        "Requests by listener and class of status.",
        "listener",
        shards,
        |s| &s.listeners,
    );
    page.classes("ingre_pool_requests_total", "Requests by pool and class of status.", "pool", shards, |s| {
        &s.pools
    });
    page.reasons("ingre_failures_total", "Requests that failed, by reason.", shards, |s| &s.failures);
    page.handshakes(sum(|s| &s.handshakes_full), sum(|s| &s.handshakes_resumed));
    page.reasons(
        "ingre_tls_handshake_failures_total",
        "TLS handshakes with clients that failed, by reason.",
        shards,
        |s| &s.handshake_failures,
    );
    page.health(snapshot.health());
    page.balance(snapshot);
    page.names(names);
    out
}

struct Page<'a>(&'a mut String);

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn workers(&mut self, shards: &[Arc<Shard>]) {
        let name = "ingre_worker_connections_open";
        self.head(name, "gauge", "Connections open now, by worker.");
        for (worker, shard) in shards.iter().enumerate() {
            let closed = shard.closed.load(Ordering::Relaxed);
            let open = shard.accepted.load(Ordering::Relaxed).saturating_sub(closed);
            let _ = writeln!(self.0, "{name}{{worker=\"{worker}\"}} {open}");
        }
    }

    fn classes(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        shards: &[Arc<Shard>],
        of: fn(&Shard) -> &ByName,
    ) {
        let mut sums: BTreeMap<String, [u64; CLASSES]> = BTreeMap::new();
        for shard in shards {
            for (value, series) in of(shard).lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let sum = sums.entry(value.clone()).or_default();
                for (sum, class) in sum.iter_mut().zip(&series.0) {
                    *sum += class.load(Ordering::Relaxed);
                }
            }
        }
        self.head(name, "counter", help);
        for (value, sum) in sums {
            for (class, count) in (1..).zip(sum).filter(|&(_, count)| count > 0) {
                let value = escape(&value);
                let _ = writeln!(self.0, "{name}{{{label}=\"{value}\",code=\"{class}xx\"}} {count}");
            }
        }
    }

    fn handshakes(&mut self, full: u64, resumed: u64) {
        let name = "ingre_tls_handshakes_total";
        self.head(
            name,
            "counter",
            "TLS handshakes with clients: whole ones, and those of a session that is taken up again.",
        );
        for (kind, count) in [("full", full), ("resumed", resumed)] {
            let _ = writeln!(self.0, "{name}{{kind=\"{kind}\"}} {count}");
        }
    }

    fn reasons(&mut self, name: &str, help: &str, shards: &[Arc<Shard>], of: fn(&Shard) -> &Reasons) {
        self.head(name, "counter", help);
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for shard in shards {
            for (reason, count) in of(shard).lock().unwrap_or_else(PoisonError::into_inner).iter() {
                *sums.entry(reason).or_default() += count;
            }
        }
        for (reason, count) in sums {
            let _ = writeln!(self.0, "{name}{{reason=\"{reason}\"}} {count}");
        }
    }

    fn health<'a>(&mut self, health: impl Iterator<Item = (&'a str, SocketAddr, HealthState)>) {
        let name = "ingre_server_up";
        self.head(name, "gauge", "Whether an RS passed its last checks; absent while there is no verdict.");
        for (pool, server, state) in health {
            let up = match state {
                HealthState::Up => 1,
                HealthState::Down => 0,
                HealthState::Probing | HealthState::Unchecked => continue,
            };
            let pool = escape(pool);
            let _ = writeln!(self.0, "{name}{{pool=\"{pool}\",server=\"{server}\"}} {up}");
        }
    }
}

impl Page<'_> {
    /// The pools that balance by more than turns.
    fn balance(&mut self, snapshot: &Snapshot) {
        if snapshot.balancers().next().is_none() {
            return;
        }
        let name = "ingre_pool_requests_waiting";
        self.head(name, "gauge", "Requests that wait until an RS has room.");
        for (pool, balancer) in snapshot.balancers() {
            let _ = writeln!(self.0, "{name}{{pool=\"{}\"}} {}", escape(pool), balancer.line().len());
        }
        let name = "ingre_server_requests_in_flight";
        self.head(name, "gauge", "Requests at an RS, where they are counted.");
        self.loads(name, snapshot, |in_flight, _| in_flight);
        let name = "ingre_server_ejected";
        self.head(name, "gauge", "Whether an RS is spared because its requests failed.");
        self.loads(name, snapshot, |_, ejected| Some(ejected.into()));
    }

    /// The names of RS.
    fn names(&mut self, names: &[(String, Known)]) {
        if names.is_empty() {
            return;
        }
        let mut gauge = |metric: &str, kind: &str, help: &str, value: fn(&Known) -> u64| {
            self.head(metric, kind, help);
            for (name, known) in names {
                let _ = writeln!(self.0, "{metric}{{name=\"{}\"}} {}", escape(name), value(known));
            }
        };
        gauge("ingre_name_addresses", "gauge", "Addresses that a name of RS stands for.", |known| {
            known.addresses as u64
        });
        gauge("ingre_name_failures_total", "counter", "How often a name was not resolved.", |known| {
            known.failures
        });
    }

    fn loads(&mut self, name: &str, snapshot: &Snapshot, value: fn(Option<u32>, bool) -> Option<u32>) {
        for (pool, balancer) in snapshot.balancers() {
            let pool = escape(pool);
            for (server, in_flight, ejected) in balancer.loads() {
                let Some(value) = value(in_flight, ejected) else { continue };
                let _ = writeln!(self.0, "{name}{{pool=\"{pool}\",server=\"{server}\"}} {value}");
            }
        }
    }
}

/// A text as the value of a label.
pub(crate) fn escape(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n")
}
