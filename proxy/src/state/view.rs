//! One worker's hold on a snapshot: whose turn it is, and where its requests are counted.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::snapshot::{ListenerState, ServerState, Snapshot};
use crate::config;
use crate::metrics::{Ended, Series, Shard, add};
use crate::pool::{Excluded, RoundRobin};
use crate::route::RouteTable;

/// The view that new requests start with.
pub(crate) struct Current(RefCell<Rc<View>>);

impl Current {
    pub(crate) fn new(view: View) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Rc::new(view))))
    }

    pub(crate) fn view(&self) -> Rc<View> {
        Rc::clone(&self.0.borrow())
    }

    /// New requests start with this one; the others keep theirs.
    pub(crate) fn replace(&self, view: View) {
        *self.0.borrow_mut() = Rc::new(view);
    }
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

    /// Idle connections that may be kept under this slot; 0 where its RS is gone.
    pub(crate) fn most_kept(&self, slot: usize) -> usize {
        self.snapshot.slots.get(slot).copied().unwrap_or(0)
    }

    /// Counts a request that has ended, at this listener and, if it came so far, for this pool.
    pub(crate) fn count(&self, listener: usize, pool: Option<usize>, ended: &Ended) {
        if let Some(series) = self.by_listener.get(listener) {
            series.count(ended.status);
        }
        if let Some(series) = pool.and_then(|pool| self.by_pool.get(pool)) {
            series.count(ended.status);
        }
        self.metrics.count(ended);
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn connection(&self) -> OpenConnection {
        add(&self.metrics.accepted, 1);
        OpenConnection(Arc::clone(&self.metrics))
    }
}

/// A connection that is open.
pub(crate) struct OpenConnection(Arc<Shard>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        add(&self.0.closed, 1);
    }
}
