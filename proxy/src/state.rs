//! What the workers work from: a [`Snapshot`] of the configuration, swapped whole at a reload, and each
//! worker's own [`View`] of it. The state of an RS is kept by (pool, address) from one snapshot to the next.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipnet::IpNet;
use rustls::ServerConfig;

use crate::access_log::Record;
use crate::config::{self, Config};
use crate::listener::{Certificates, Limits};
use crate::metrics::{Series, Shard};
use crate::pool::{AllDown, Excluded, HealthCell, Pool, RealServer, RoundRobin};
use crate::route::RouteTable;

/// Everything a request needs, unchanging.
pub(crate) struct Snapshot {
    pub(crate) listeners: Vec<ListenerState>,
    pub(crate) pools: Vec<PoolState>,
    routes: config::Routes,
    trusted: Vec<IpNet>,
    /// Slots that connections may still be kept under.
    slots: Vec<bool>,
}

/// A listener as requests see it.
pub(crate) struct ListenerState {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<TlsState>,
}

/// TLS of a listener.
pub(crate) struct TlsState {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) certificates: Arc<Certificates>,
}

/// A pool with the state of its RS.
pub(crate) struct PoolState {
    pub(crate) config: config::Pool,
    pub(crate) pool: Pool,
    pub(crate) servers: Vec<ServerState>,
}

/// Where an RS stands.
#[derive(Clone)]
pub(crate) struct ServerState {
    pub(crate) address: SocketAddr,
    pub(crate) health: Arc<HealthCell>,
    /// Number of its connection queue, the same in every snapshot.
    pub(crate) slot: usize,
}

impl Snapshot {
    /// The snapshot of a configuration, taking over what is known of its RS.
    ///
    /// # Errors
    /// Where a certificate cannot be used; the text names the listener.
    pub(crate) fn build(config: Config, previous: Option<&Self>) -> Result<Self, String> {
        let mut slots = previous.map_or_else(Vec::new, |previous| vec![false; previous.slots.len()]);
        let pools = config.pools.into_iter().map(|pool| pool_state(pool, previous, &mut slots)).collect();
        let listeners = config
            .listeners
            .iter()
            .enumerate()
            .map(|(index, listener)| {
                let before = previous.and_then(|previous| previous.listeners.get(index)?.tls.as_ref());
                let tls = match &listener.tls {
                    Some(tls) => Some(crate::listener::tls_state(tls, before).map_err(|error| {
                        format!("TLS of the listener `{}` cannot be set up: {error}", listener.name)
                    })?),
                    None => None,
                };
                Ok(ListenerState { name: listener.name.clone(), limits: Limits::from(listener), tls })
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { listeners, pools, routes: config.routes, trusted: config.trusted_proxies, slots })
    }

    /// Whether X-Forwarded-For of this peer is believed.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        !self.trusted.is_empty() && self.trusted.iter().any(|network| network.contains(&peer))
    }
}

fn pool_state(config: config::Pool, previous: Option<&Snapshot>, slots: &mut Vec<bool>) -> PoolState {
    let before = previous.and_then(|p| p.pools.iter().find(|pool| pool.config.name == config.name));
    let known: HashMap<SocketAddr, &ServerState> =
        before.into_iter().flat_map(|pool| &pool.servers).map(|server| (server.address, server)).collect();
    let checked = config.health_check.is_some();
    let was_checked = before.is_some_and(|pool| pool.config.health_check.is_some());
    let servers: Vec<ServerState> = config
        .servers
        .iter()
        .map(|server| {
            let old = known.get(&server.address);
            let slot = old.map_or(slots.len(), |old| old.slot);
            if slots.len() <= slot {
                slots.resize(slot + 1, false);
            }
            slots[slot] = true;
            let health = match old {
                Some(old) if was_checked == checked => Arc::clone(&old.health),
                _ if checked => Arc::new(HealthCell::probing(before.is_some())),
                _ => Arc::new(HealthCell::unchecked()),
            };
            ServerState { address: server.address, health, slot }
        })
        .collect();
    let all_down = if config.refuse_when_down { AllDown::Refuse } else { AllDown::UseAll };
    let members = config.servers.iter().zip(&servers).map(|(server, state)| {
        (RealServer { address: server.address, weight: server.weight }, Arc::clone(&state.health))
    });
    PoolState { pool: Pool::new(members, all_down), servers, config }
}

/// One worker's hold on a snapshot, with the turns that it takes. A request keeps the view it started with.
pub(crate) struct View {
    snapshot: Arc<Snapshot>,
    turns: Vec<RefCell<RoundRobin>>,
    by_listener: Vec<Arc<Series>>,
    by_pool: Vec<Arc<Series>>,
    metrics: Arc<Shard>,
}

impl View {
    /// A view for the worker with this number.
    pub(crate) fn new(snapshot: Arc<Snapshot>, worker: usize, metrics: Arc<Shard>) -> Self {
        let turns = snapshot.pools.iter().map(|pool| RefCell::new(pool.pool.turns(worker))).collect();
        let by_listener =
            snapshot.listeners.iter().map(|listener| metrics.listener(&listener.name)).collect();
        let by_pool = snapshot.pools.iter().map(|pool| metrics.pool(&pool.config.name)).collect();
        Self { snapshot, turns, by_listener, by_pool, metrics }
    }

    pub(crate) fn listener(&self, listener: usize) -> &ListenerState {
        &self.snapshot.listeners[listener]
    }

    pub(crate) fn listener_name(&self, listener: usize) -> &str {
        &self.listener(listener).name
    }

    pub(crate) fn table(&self, listener: usize) -> &RouteTable {
        &self.snapshot.routes.tables[listener]
    }

    pub(crate) fn rule(&self, rule: usize) -> &config::Rule {
        &self.snapshot.routes.rules[rule]
    }

    pub(crate) fn domain_name(&self, domain: usize) -> &str {
        &self.snapshot.routes.domains[domain]
    }

    pub(crate) fn pool(&self, pool: usize) -> &config::Pool {
        &self.snapshot.pools[pool].config
    }

    pub(crate) fn server(&self, pool: usize, server: usize) -> &ServerState {
        &self.snapshot.pools[pool].servers[server]
    }

    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.snapshot.trusts(peer)
    }

    /// The RS whose turn it is, none of those tried.
    pub(crate) fn pick(&self, pool: usize, tried: &Excluded) -> Option<usize> {
        self.snapshot.pools[pool].pool.pick(&mut self.turns[pool].borrow_mut(), tried, |_| true)
    }

    /// Whether connections are kept under this slot.
    pub(crate) fn has_slot(&self, slot: usize) -> bool {
        self.snapshot.slots.get(slot).copied().unwrap_or(false)
    }

    /// Counts a request that has ended.
    pub(crate) fn count(&self, record: &Record) {
        let status = record.status;
        if let Some(series) = self.by_listener.get(record.listener) {
            series.count(status);
        }
        if let Some(series) = record.route.and_then(|route| self.by_pool.get(route.pool)) {
            series.count(status);
        }
        if let Some(error) = &record.reason {
            self.metrics.failed(error);
        }
        self.metrics.bytes_in.fetch_add(record.received.get(), Ordering::Relaxed);
        self.metrics.bytes_out.fetch_add(record.sent, Ordering::Relaxed);
        self.metrics.retries.fetch_add(record.retries.into(), Ordering::Relaxed);
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn connection(&self) -> OpenConnection {
        self.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(&self.metrics))
    }

    /// Connections this worker has open.
    pub(crate) fn open_connections(&self) -> u64 {
        let closed = self.metrics.closed.load(Ordering::Relaxed);
        self.metrics.accepted.load(Ordering::Relaxed).saturating_sub(closed)
    }
}

/// A connection that is open.
pub(crate) struct OpenConnection(Arc<Shard>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}
