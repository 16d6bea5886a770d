//! The configuration as requests need it, unchanging. The state of an RS is kept by (pool, address) from one
//! snapshot to the next.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::limits::Limits;
use super::tls::{TlsState, tls_state};
use crate::config::{self, Config};
use crate::pool::{AllDown, HealthCell, HealthState, Pool, RealServer};

/// Everything a request needs, unchanging.
pub(crate) struct Snapshot {
    pub(crate) listeners: Vec<ListenerState>,
    pub(crate) pools: Vec<PoolState>,
    pub(super) routes: config::Routes,
    trusted: Vec<IpNet>,
    /// By slot, idle connections that may be kept; 0 where the RS is gone.
    pub(super) slots: Vec<usize>,
}

/// A listener as requests see it.
pub(crate) struct ListenerState {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<TlsState>,
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
        let mut slots = previous.map_or_else(Vec::new, |previous| vec![0; previous.slots.len()]);
        let pools = config.pools.into_iter().map(|pool| pool_state(pool, previous, &mut slots)).collect();
        let listeners = config
            .listeners
            .iter()
            .enumerate()
            .map(|(index, listener)| {
                let before = previous.and_then(|previous| previous.listeners.get(index)?.tls.as_ref());
                let tls = match &listener.tls {
                    Some(tls) => Some(tls_state(tls, before).map_err(|error| {
                        format!("TLS of the listener `{}` cannot be set up: {error}", listener.name)
                    })?),
                    None => None,
                };
                Ok(ListenerState { name: listener.name.clone(), limits: Limits::from(listener), tls })
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { listeners, pools, routes: config.routes, trusted: config.trusted_proxies, slots })
    }

    /// Every RS with its pool and its verdict.
    pub(crate) fn health(&self) -> impl Iterator<Item = (&str, SocketAddr, HealthState)> {
        self.pools.iter().flat_map(|pool| {
            pool.servers.iter().map(|server| (pool.config.name.as_str(), server.address, server.health.get()))
        })
    }

    /// Whether X-Forwarded-For of this peer is believed.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        !self.trusted.is_empty() && self.trusted.iter().any(|network| network.contains(&peer))
    }
}

fn pool_state(config: config::Pool, previous: Option<&Snapshot>, slots: &mut Vec<usize>) -> PoolState {
    // An address behind another tunnel is another RS, maybe of another tenant: nothing is taken over.
    let same = |pool: &&PoolState| pool.config.name == config.name && pool.config.tunnel == config.tunnel;
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
            let slot = old.map_or(slots.len(), |old| old.slot);
            if slots.len() <= slot {
                slots.resize(slot + 1, 0);
            }
            slots[slot] = config.keepalive;
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
