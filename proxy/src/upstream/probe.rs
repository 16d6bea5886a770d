//! Active health checks: one task for the whole process asks every RS and publishes the verdicts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::dial::{TunnelSockets, reach};
use super::h2;
use crate::config::{self, HealthCheck, Probe, Protocol};
use crate::grpc;
use crate::h1;
use crate::message::{RequestHead, ResponseHead};
use crate::net::Io;
use crate::pool::{Health, HealthCell, HealthState, ProbeOutcome, ProbePolicy, Transition};
use crate::state::{Balancer, ServerState, Snapshot, UpstreamTls};

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
                    tls: pool.tls.clone(),
                    server: server.clone(),
                    balancer: pool.balancer.clone(),
                    number,
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
    tls: Option<Arc<UpstreamTls>>,
    server: ServerState,
    balancer: Option<Arc<Balancer>>,
    /// Of the RS in its pool.
    number: usize,
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
            let returns = transition.from == HealthState::Down || cell.joined_live();
            if let Some(balancer) = &target.balancer
                && transition.to == HealthState::Up
            {
                balancer.is_up(target.number, returns);
            }
            report(&target.pool.name, target.server.address, &transition);
        }
    }
}

async fn probe(target: &Target, tunnels: &dyn TunnelSockets) -> bool {
    let tunnel = target.pool.tunnel.as_deref();
    let address = target.server.address;
    // Of an RS that only has to accept, nothing more is asked.
    let tls = target.tls.as_deref().filter(|_| target.check.probe != Probe::Tcp);
    let Ok(stream) = reach(address, tunnel, tls, tunnels, target.check.timeout).await else { return false };
    match &target.check.probe {
        Probe::Tcp => true,
        Probe::Http { method, path, host, status: healthy } => {
            let head = request(method, path, host.clone().unwrap_or_else(|| address.to_string()));
            let status = match target.pool.protocol {
                Protocol::Http1 => ask(Io::new(stream), head).await,
                Protocol::Http2 | Protocol::Grpc => {
                    h2::ask(stream, &head, &[]).await.map(|answer| answer.head.status.as_u16())
                }
            };
            status.is_some_and(|status| healthy.iter().any(|range| range.contains(&status)))
        }
        Probe::Grpc { service, host } => {
            let host = host.clone().unwrap_or_else(|| address.to_string());
            let mut head = request(&Method::POST, grpc::HEALTH_CHECK, host);
            head.headers.append("content-type", "application/grpc");
            head.headers.append("te", "trailers");
            let content = grpc::health_request(service.as_deref().unwrap_or_default());
            let answer = h2::ask(stream, &head, &content).await;
            answer.is_some_and(|answer| serves(&answer, service.is_some()))
        }
    }
}

/// Whether the answer of a health service means that the RS serves. One that has no such service speaks gRPC all the
/// same, which is enough where no service was asked for.
fn serves(answer: &h2::Answer, named: bool) -> bool {
    let headers = answer.trailers.as_ref().unwrap_or(&answer.head.headers);
    match grpc::status_in(headers) {
        Some(grpc::status::OK) => answer.head.status == StatusCode::OK && grpc::is_serving(&answer.content),
        Some(grpc::status::UNIMPLEMENTED) => !named,
        _ => false,
    }
}

fn request(method: &Method, path: &str, host: String) -> RequestHead {
    let mut head = RequestHead {
        method: method.clone(),
        target: path.to_owned(),
        authority: host,
        ..RequestHead::default()
    };
    head.headers.append("User-Agent", USER_AGENT);
    head
}

/// The status of one request of HTTP/1.1 on a connection of its own.
async fn ask(mut io: Io, mut head: RequestHead) -> Option<u16> {
    head.headers.append("Connection", "close");
    h1::write_request(&head, h1::Framing::None, io.output.tail());
    std::future::poll_fn(|cx| io.poll_write(cx, &mut false)).await.ok()?;
    let limits = h1::Limits::default();
    loop {
        let read = std::future::poll_fn(|cx| io.poll_read_head(cx)).await.ok()?;
        let mut response = ResponseHead::default();
        match h1::parse_response(&io.input, &limits, &head.method, &mut response).ok()? {
            Some(meta) if response.status.is_informational() => {
                bytes::Buf::advance(&mut io.input, meta.consumed);
            }
            Some(_) => return Some(response.status.as_u16()),
            None if read == 0 => return None,
            None => {}
        }
    }
}
