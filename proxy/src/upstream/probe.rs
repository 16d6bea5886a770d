//! Active health checks: one task for the whole process asks every RS and publishes the verdicts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::dial::{TunnelSockets, dial};
use crate::config::{self, HealthCheck, Probe};
use crate::h1;
use crate::message::{RequestHead, ResponseHead};
use crate::net::{Io, Stream};
use crate::pool::{Health, HealthCell, ProbeOutcome, ProbePolicy, Transition};
use crate::state::{ServerState, Snapshot};

/// What a check says of itself.
const USER_AGENT: &str = concat!("ingre-healthcheck/", env!("CARGO_PKG_VERSION"));

/// Told of every change of a verdict: pool, RS, change.
pub(crate) type Report = Rc<dyn Fn(&str, std::net::SocketAddr, &Transition)>;

/// The checks of the present snapshot; the only writer of verdicts.
pub(crate) struct Prober {
    tunnels: Arc<dyn TunnelSockets>,
    report: Report,
    running: HashMap<usize, (JoinHandle<()>, Rc<RefCell<Health>>)>,
}

impl Prober {
    pub(crate) fn new(tunnels: Arc<dyn TunnelSockets>, report: Report) -> Self {
        Self { tunnels, report, running: HashMap::new() }
    }

    /// Checks the RS of this snapshot from now on. What is known of an RS that stays is kept.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.running);
        for pool in &snapshot.pools {
            let Some(check) = &pool.config.health_check else { continue };
            for (number, server) in pool.servers.iter().enumerate() {
                let now = Instant::now().into_std();
                let health = match before.remove(&server.slot) {
                    Some((task, health)) => {
                        task.abort();
                        health.borrow_mut().set_policy(policy(check), now);
                        health
                    }
                    None => Rc::new(RefCell::new(Health::new(policy(check), now))),
                };
                let target = Target {
                    check: check.clone(),
                    pool: pool.config.clone(),
                    server: server.clone(),
                    // Spread over a tenth of the interval, the same way every time.
                    jitter: check.interval.mul_f64(0.1 * (number % 8) as f64 / 8.0),
                };
                let task = keep_probing(
                    target,
                    Rc::clone(&health),
                    Arc::clone(&self.tunnels),
                    Rc::clone(&self.report),
                );
                self.running.insert(server.slot, (tokio::task::spawn_local(task), health));
            }
        }
        for (task, _) in before.into_values() {
            task.abort();
        }
    }
}

struct Target {
    check: HealthCheck,
    pool: config::Pool,
    server: ServerState,
    jitter: Duration,
}

fn policy(check: &HealthCheck) -> ProbePolicy {
    ProbePolicy {
        interval: check.interval,
        timeout: check.timeout,
        rise: check.healthy_threshold.into(),
        fall: check.unhealthy_threshold.into(),
    }
}

async fn keep_probing(
    target: Target,
    health: Rc<RefCell<Health>>,
    tunnels: Arc<dyn TunnelSockets>,
    report: Report,
) {
    loop {
        let pause = health.borrow().next_probe(Instant::now().into_std());
        tokio::time::sleep(pause).await;
        health.borrow_mut().probe_started(Instant::now().into_std(), target.jitter);
        let outcome = match tokio::time::timeout(target.check.timeout, probe(&target, &*tunnels)).await {
            Ok(true) => ProbeOutcome::Success,
            Ok(false) | Err(_) => ProbeOutcome::Failure,
        };
        let transition = health.borrow_mut().on_probe(outcome, Instant::now().into_std());
        if let Some(transition) = transition {
            let cell: &HealthCell = &target.server.health;
            cell.set(transition.to);
            report(&target.pool.name, target.server.address, &transition);
        }
    }
}

async fn probe(target: &Target, tunnels: &dyn TunnelSockets) -> bool {
    let tunnel = target.pool.tunnel.as_deref();
    let address = target.server.address;
    let Ok(stream) = dial(address, tunnel, tunnels, target.check.timeout).await else { return false };
    match &target.check.probe {
        Probe::Tcp => true,
        Probe::Http { method, path, host, classes } => {
            let host = host.clone().unwrap_or_else(|| address.to_string());
            let status = ask(Io::new(Stream::Plain(stream)), method, path, host).await;
            status.is_some_and(|status| classes.contains(&(status / 100)))
        }
    }
}

/// The status of one request on a connection of its own.
async fn ask(mut io: Io, method: &Method, path: &str, host: String) -> Option<u16> {
    let mut head = RequestHead {
        method: method.clone(),
        target: path.to_owned(),
        authority: host,
        ..RequestHead::default()
    };
    head.headers.append("User-Agent", USER_AGENT);
    head.headers.append("Connection", "close");
    h1::write_request(&head, h1::Framing::None, io.output.tail());
    std::future::poll_fn(|cx| io.poll_write(cx, &mut false)).await.ok()?;
    let limits = h1::Limits::default();
    loop {
        let read = std::future::poll_fn(|cx| io.poll_read_head(cx)).await.ok()?;
        let mut response = ResponseHead::default();
        match h1::parse_response(&io.input, &limits, method, &mut response).ok()? {
            Some(meta) if response.status.is_informational() => {
                bytes::Buf::advance(&mut io.input, meta.consumed);
            }
            Some(_) => return Some(response.status.as_u16()),
            None if read == 0 => return None,
            None => {}
        }
    }
}
