//! The configuration as requests need it, unchanging. The state of an RS is kept by (pool, address) from one
//! snapshot to the next.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::balancer::Balancer;
use super::limits::Limits;
use super::slots::{Lease, Slots};
use super::sticky::Sticky;
use super::upstream_tls::UpstreamTls;
use crate::acme::{self, Showcase};
use crate::config::{self, Config};
use crate::limit::{AccessList, Limit, Limiter};
use crate::pool::{AllDown, HealthCell, HealthState, Pool, RealServer};
use crate::rule::Redirect;
use crate::tls::{EarlySessions, TlsState, Vault};

/// Everything a request needs, unchanging.
pub(crate) struct Snapshot {
    pub(crate) listeners: Vec<ListenerState>,
    pub(crate) pools: Vec<PoolState>,
    pub(super) routes: config::Routes,
    /// The limits of the rules, by number.
    pub(super) limits: Vec<Arc<Limiter>>,
    trusted: Vec<IpNet>,
    /// By slot, idle connections that may be kept; 0 where the RS is gone.
    pub(super) slots: Vec<usize>,
    numbers: Arc<Slots>,
    /// The certificates; the same in every snapshot.
    pub(crate) vault: Arc<Vault>,
    /// How certificates are got from an authority.
    pub(crate) acme: Option<Arc<acme::Settings>>,
    /// What is shown to authorities; the same in every snapshot.
    pub(crate) showcase: Arc<Showcase>,
    /// Sessions that begin with requests; the same in every snapshot.
    early: Arc<EarlySessions>,
    /// Seals cookies where nothing else is configured; the same in every snapshot.
    random: [u8; 32],
}

/// A listener as requests see it.
pub(crate) struct ListenerState {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<TlsState>,
    /// Every request is sent here.
    pub(crate) https_redirect: Option<Redirect>,
    /// Most connections of one client.
    pub(crate) per_client: Option<Arc<Limiter>>,
    /// Who may connect.
    pub(crate) access: AccessList,
}

/// A pool with the state of its RS.
pub(crate) struct PoolState {
    pub(crate) config: config::Pool,
    pub(crate) pool: Pool,
    pub(crate) servers: Vec<ServerState>,
    /// How its RS are spoken to in TLS.
    pub(crate) tls: Option<Arc<UpstreamTls>>,
    /// What balances by more than turns.
    pub(crate) balancer: Option<Arc<Balancer>>,
}

/// Where an RS stands.
#[derive(Clone)]
pub(crate) struct ServerState {
    pub(crate) address: SocketAddr,
    pub(crate) health: Arc<HealthCell>,
    /// Number of its connection queue, the same in every snapshot.
    pub(crate) slot: usize,
    lease: Arc<Lease>,
}

impl Snapshot {
    /// The snapshot of a configuration, taking over what is known of its RS.
    ///
    /// # Errors
    /// Where a certificate cannot be used, or the crypto library refuses; the text names the listener or pool.
    pub(crate) fn build(config: Config, previous: Option<&Self>) -> Result<Self, String> {
        let numbers = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.numbers));
        let vault = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.vault));
        let early = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.early));
        let showcase = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.showcase));
        let acme = acme::Settings::of(&config);
        let proves = acme.as_ref().is_some_and(|acme| acme.proves_by_tls());
        let random = previous.map_or_else(random, |previous| Ok(previous.random))?;
        let pools = config
            .pools
            .into_iter()
            .map(|pool| pool_state(pool, previous, &numbers, &random))
            .collect::<Result<Vec<_>, String>>()?;
        let mut slots = vec![0; numbers.count()];
        for pool in &pools {
            for server in &pool.servers {
                slots[server.slot] = pool.config.keepalive;
            }
        }
        let listeners = config
            .listeners
            .iter()
            .map(|listener| {
                let tls = match &listener.tls {
                    Some(tls) => Some(
                        TlsState::new(&listener.name, tls, &vault, (&showcase, proves), (&random, &early))
                            .map_err(|error| {
                                format!("TLS of the listener `{}` cannot be set up: {error}", listener.name)
                            })?,
                    ),
                    None => None,
                };
                Ok(ListenerState {
                    name: listener.name.clone(),
                    limits: Limits::from(listener),
                    tls,
                    https_redirect: listener.https_redirect.clone(),
                    per_client: listener.per_client.as_ref().map(|limit| limiter(limit, previous)),
                    access: listener.access.clone(),
                })
            })
            .collect::<Result<_, String>>()?;
        let limits = config.routes.limits.iter().map(|limit| limiter(limit, previous)).collect();
        Ok(Self {
            listeners,
            pools,
            routes: config.routes,
            limits,
            trusted: config.trusted_proxies,
            slots,
            numbers,
            vault,
            acme,
            showcase,
            early,
            random,
        })
    }

    /// Puts the certificates of every listener in order, after one was replaced.
    pub(crate) fn sort_certificates(&self) {
        for tls in self.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            tls.shelf.sort();
        }
    }

    /// Every RS with its pool and its verdict.
    pub(crate) fn health(&self) -> impl Iterator<Item = (&str, SocketAddr, HealthState)> {
        self.pools.iter().flat_map(|pool| {
            pool.servers.iter().map(|server| (pool.config.name.as_str(), server.address, server.health.get()))
        })
    }

    /// Every pool that balances by more than turns.
    pub(crate) fn balancers(&self) -> impl Iterator<Item = (&str, &Balancer)> + Clone {
        self.pools.iter().filter_map(|pool| Some((pool.config.name.as_str(), pool.balancer.as_deref()?)))
    }

    /// Whether X-Forwarded-For of this peer is believed.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        !self.trusted.is_empty() && self.trusted.iter().any(|network| network.contains(&peer))
    }
}

/// The limiter of a limit: the one that was there before, where nothing has changed.
fn limiter(limit: &Limit, previous: Option<&Snapshot>) -> Arc<Limiter> {
    let known = previous.into_iter().flat_map(|previous| {
        let of_listeners = previous.listeners.iter().filter_map(|listener| listener.per_client.as_ref());
        previous.limits.iter().chain(of_listeners)
    });
    let mut same = known.filter(|limiter| limiter.limit() == limit);
    same.next().map_or_else(|| Arc::new(Limiter::new(limit.clone())), Arc::clone)
}

fn random() -> Result<[u8; 32], String> {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "there is no source of random numbers")?;
    Ok(random)
}

fn pool_state(
    config: config::Pool,
    previous: Option<&Snapshot>,
    numbers: &Arc<Slots>,
    random: &[u8],
) -> Result<PoolState, String> {
    // An address behind another tunnel is another RS, maybe of another tenant, and nothing is known of one that is to
    // be spoken to in another way: nothing is taken over, no connection least of all.
    let same = |pool: &&PoolState| {
        pool.config.name == config.name
            && pool.config.tunnel == config.tunnel
            && pool.config.protocol == config.protocol
            && pool.config.tls == config.tls
    };
    let before = previous.and_then(|previous| previous.pools.iter().find(same));
    let known: HashMap<SocketAddr, &ServerState> =
        before.into_iter().flat_map(|pool| &pool.servers).map(|server| (server.address, server)).collect();
    let checked = config.health_check.is_some();
    let was_checked = before.is_some_and(|pool| pool.config.health_check.is_some());
    let servers: Vec<ServerState> = config
        .servers
        .iter()
        .map(|server| {
            let old = known.get(&server.address);
            let lease = old.map_or_else(|| numbers.lease(), |old| Arc::clone(&old.lease));
            let health = match old {
                Some(old) if was_checked == checked => Arc::clone(&old.health),
                _ if checked => Arc::new(HealthCell::probing(before.is_some())),
                _ => Arc::new(HealthCell::unchecked()),
            };
            ServerState { address: server.address, health, slot: lease.number, lease }
        })
        .collect();
    let all_down = if config.refuse_when_down { AllDown::Refuse } else { AllDown::UseAll };
    let members: Vec<_> = config
        .servers
        .iter()
        .map(|server| RealServer { address: server.address, weight: server.weight, backup: server.backup })
        .collect();
    let balancer = match &config.balancing {
        None => None,
        Some(balancing) => {
            let sticky = balancing.sticky.as_ref().map(|sticky| Sticky::new(sticky, &config.name, random));
            let before = before.and_then(|before| before.balancer.as_deref());
            Some(Arc::new(Balancer::new(&config, balancing, &members, sticky.transpose()?, before)))
        }
    };
    let cells = servers.iter().map(|state| Arc::clone(&state.health));
    let pool = Pool::new(members.into_iter().zip(cells), all_down);
    let tls =
        match (&config.tls, before) {
            (Some(_), Some(before)) => before.tls.clone(),
            (Some(tls), None) => Some(Arc::new(UpstreamTls::new(tls, config.protocol).map_err(|error| {
                format!("TLS toward the pool `{}` cannot be set up: {error}", config.name)
            })?)),
            (None, _) => None,
        };
    Ok(PoolState { pool, servers, tls, balancer, config })
}
