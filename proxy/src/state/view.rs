//! One worker's hold on a snapshot: whose turn it is, and where its requests are counted.

use std::cell::{Cell, Ref, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::balancer::{Ask, Balancer, Outcome, Own, Picked};
use super::snapshot::{ListenerState, PoolState, ServerState, Snapshot};
use super::upstream_tls::UpstreamTls;
use crate::acme::Showcase;
use crate::config;
use crate::error::Error;
use crate::limit::Limiter;
use crate::message::RequestHead;
use crate::metrics::{Ended, Series, Shard, add};
use crate::pool::{Excluded, RoundRobin};
use crate::route::RouteTable;

/// What one retry costs, and the most that is saved for them.
const ONE_RETRY: u32 = 100;
const MOST_SAVED: u32 = 10 * ONE_RETRY;

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
    own: Vec<RefCell<Own>>,
    /// Of each split of the rules.
    splits: Vec<RefCell<RoundRobin>>,
    /// By pool, what may still be spent on retries, in hundredths of one.
    savings: Vec<Cell<u32>>,
    by_listener: Vec<Arc<Series>>,
    by_pool: Vec<Arc<Series>>,
    metrics: Arc<Shard>,
}

impl View {
    /// A view for the worker with this number, which knows what its last one has learned.
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        worker: usize,
        metrics: Arc<Shard>,
        last: Option<&Self>,
    ) -> Self {
        let own = |pool: &PoolState| match &pool.balancer {
            Some(balancer) => {
                let known = last.and_then(|last| last.known(&pool.config.name));
                let known = known.as_ref().map(|(balancer, own)| (&**balancer, &**own));
                balancer.own(&pool.pool, worker, known)
            }
            None => Own::plain(&pool.pool, worker),
        };
        let own = snapshot.pools.iter().map(|pool| RefCell::new(own(pool))).collect();
        let split =
            |shares: &Vec<u8>| RefCell::new(RoundRobin::new(shares.iter().copied().map(u32::from), worker));
        let splits = snapshot.routes.splits.iter().map(split).collect();
        let by_listener =
            snapshot.listeners.iter().map(|listener| metrics.listener(&listener.name)).collect();
        let by_pool = snapshot.pools.iter().map(|pool| metrics.pool(&pool.config.name)).collect();
        let savings = snapshot.pools.iter().map(|_| Cell::new(MOST_SAVED)).collect();
        Self { snapshot, own, splits, savings, by_listener, by_pool, metrics }
    }

    /// What is known of a pool that balances by more than turns.
    fn known(&self, pool: &str) -> Option<(&Balancer, Ref<'_, Own>)> {
        let index = self.snapshot.pools.iter().position(|state| state.config.name == pool)?;
        Some((self.snapshot.pools.get(index)?.balancer.as_deref()?, self.own.get(index)?.borrow()))
    }

    /// What everybody sees.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
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

    /// The first rule, from this one on, whose conditions hold.
    pub(crate) fn choose(&self, first: usize, head: &RequestHead, client: IpAddr) -> Option<usize> {
        self.snapshot.routes.choose(first, head, client)
    }

    pub(crate) fn domain_name(&self, domain: usize) -> &str {
        &self.snapshot.routes.domains[domain]
    }

    pub(crate) fn pool(&self, pool: usize) -> &config::Pool {
        &self.snapshot.pools[pool].config
    }

    /// How the RS of a pool are spoken to in TLS.
    pub(crate) fn tls(&self, pool: usize) -> Option<&UpstreamTls> {
        self.snapshot.pools[pool].tls.as_deref()
    }

    pub(crate) fn server(&self, pool: usize, server: usize) -> &ServerState {
        &self.snapshot.pools[pool].servers[server]
    }

    /// What is shown to authorities.
    pub(crate) fn showcase(&self) -> &Showcase {
        &self.snapshot.showcase
    }

    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.snapshot.trusts(peer)
    }

    /// What balances a pool by more than turns.
    pub(crate) fn balancer(&self, pool: usize) -> Option<&Arc<Balancer>> {
        self.snapshot.pools[pool].balancer.as_ref()
    }

    /// The RS whose turn it is, none of those tried.
    pub(crate) fn pick(&self, pool: usize, tried: &Excluded) -> Option<usize> {
        self.snapshot.pools[pool].pool.pick(&mut self.own[pool].borrow_mut().turns, tried)
    }

    /// The RS that the balancer of a pool chooses.
    pub(crate) fn pick_by(&self, balancer: &Arc<Balancer>, pool: usize, ask: &Ask<'_>) -> Picked {
        balancer.pick(&self.snapshot.pools[pool].pool, &mut self.own[pool].borrow_mut(), ask)
    }

    /// Tells the balancer of a pool how a request went.
    pub(crate) fn learn(
        &self,
        balancer: &Balancer,
        pool: usize,
        server: usize,
        outcome: Outcome,
        took: Option<Duration>,
    ) {
        balancer.learn(&mut self.own[pool].borrow_mut(), server, outcome, took);
    }

    /// Saves a part of a retry for a request, where the pool has a budget.
    pub(crate) fn save_for_retries(&self, pool: usize) {
        if let (Some(retries), Some(saved)) = (&self.pool(pool).retries, self.savings.get(pool)) {
            saved.set((saved.get() + u32::from(retries.budget)).min(MOST_SAVED));
        }
    }

    /// Whether a retry is within the budget, which it then lessens. Without one it always is.
    pub(crate) fn spend_on_retry(&self, pool: usize) -> bool {
        let (Some(_), Some(saved)) = (&self.pool(pool).retries, self.savings.get(pool)) else { return true };
        let left = saved.get().checked_sub(ONE_RETRY);
        saved.set(left.unwrap_or(saved.get()));
        left.is_some()
    }

    /// The limit with this number.
    pub(crate) fn limiter(&self, number: usize) -> Option<&Limiter> {
        self.snapshot.limits.get(number).map(|limiter| &**limiter)
    }

    /// Whose turn it is in a split.
    pub(crate) fn turn(&self, split: usize) -> Option<usize> {
        let shares = self.snapshot.routes.splits.get(split)?;
        let share = |index| shares.get(index).copied().map_or(0, u32::from);
        self.splits.get(split)?.borrow_mut().pick(share)
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

    /// Counts a connection that was closed for this reason before anything was read.
    pub(crate) fn refused(&self, error: &Error) {
        self.metrics.failed(error);
    }

    /// Counts a TLS handshake that has come to its end.
    pub(crate) fn handshake(&self, resumed: bool) {
        add(if resumed { &self.metrics.handshakes_resumed } else { &self.metrics.handshakes_full }, 1);
    }

    /// Counts a TLS handshake that has failed for this reason.
    pub(crate) fn handshake_failed(&self, reason: &'static str) {
        self.metrics.handshake_failed(reason);
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
