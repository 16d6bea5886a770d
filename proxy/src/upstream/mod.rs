//! The way to the RS: connections, kept alive and taken up again, one set per worker.

mod dial;
mod exchange;
mod h2;
mod http1;
mod lobby;
mod probe;
mod tls;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::time::Instant;

pub use self::dial::TunnelSockets;
use self::dial::reach;
pub(crate) use self::exchange::{Exchange, Link, OnInterim, Place};
use self::h2::{Links, Wanted};
pub(crate) use self::lobby::Lobby;
use self::lobby::Parked;
pub(crate) use self::probe::Prober;
use crate::config::Protocol;
use crate::error::Error;
use crate::net::{Io, clock};
use crate::state::View;

/// How long a worker keeps an idle connection to itself.
const PARK: Duration = Duration::from_secs(1);

/// Connections of one worker, by the slot of their RS.
pub(crate) struct Upstreams {
    idle: RefCell<Vec<VecDeque<Idle>>>,
    links: Links,
    lobby: Arc<Lobby>,
    tunnels: Arc<dyn TunnelSockets>,
}

struct Idle {
    io: Box<Io>,
    since: Instant,
    until: Instant,
}

impl Upstreams {
    pub(crate) fn new(lobby: Arc<Lobby>, tunnels: Arc<dyn TunnelSockets>) -> Rc<Self> {
        Rc::new(Self { idle: RefCell::default(), links: Links::default(), lobby, tunnels })
    }

    /// A connection with room, if there is one: of those that are idle the one used last that is still good.
    pub(crate) fn take(&self, view: &View, pool: usize, server: usize, now: Instant) -> Option<Link> {
        let slot = view.server(pool, server).slot;
        let config = view.pool(pool);
        match config.protocol {
            Protocol::Http1 => self.take_idle(slot, config.tunnel.is_some(), now).map(Link::Http1),
            Protocol::Http2 | Protocol::Grpc => self.links.take(slot).map(Link::Http2),
        }
    }

    fn take_idle(&self, slot: usize, in_tunnel: bool, now: Instant) -> Option<Box<Io>> {
        let own = || {
            let mut idle = self.idle.borrow_mut();
            let queue = idle.get_mut(slot)?;
            while let Some(Idle { mut io, until, .. }) = queue.pop_back() {
                if now < until && is_quiet(&mut io) && (!in_tunnel || leads_somewhere(&io)) {
                    return Some(io);
                }
            }
            None
        };
        own().or_else(|| {
            while let Some(parked) = self.lobby.take(slot, now) {
                let Ok(stream) = parked.stream.wake() else { continue };
                let mut io = Box::new(Io::new(stream));
                if (!io.stream.is_tls() || is_quiet(&mut io)) && (!in_tunnel || leads_somewhere(&io)) {
                    return Some(io);
                }
            }
            None
        })
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(&self, io: Box<Io>, view: &View, pool: usize, server: usize) {
        let config = view.pool(pool);
        let slot = view.server(pool, server).slot;
        let mut idle = self.idle.borrow_mut();
        if idle.len() <= slot {
            idle.resize_with(slot + 1, VecDeque::new);
        }
        let Some(queue) = idle.get_mut(slot) else { return };
        if config.keepalive == 0 {
            return;
        }
        if queue.len() >= config.keepalive {
            queue.pop_front();
        }
        let since = clock::now();
        queue.push_back(Idle { io, since, until: since + config.keepalive_timeout });
    }

    /// A new connection, TLS and all.
    pub(crate) async fn connect(&self, view: &View, pool: usize, server: usize) -> Result<Link, Error> {
        let config = view.pool(pool);
        let server = view.server(pool, server);
        let patience = config.connect_timeout;
        let dial = reach(server.address, config.tunnel.as_deref(), view.tls(pool), &*self.tunnels, patience);
        match config.protocol {
            Protocol::Http1 => Ok(Link::Http1(Box::new(Io::new(dial.await?)))),
            Protocol::Http2 | Protocol::Grpc => {
                let keepalive = if config.keepalive == 0 { Duration::ZERO } else { config.keepalive_timeout };
                let wanted = Wanted { slot: server.slot, in_tunnel: config.tunnel.is_some(), keepalive };
                self.links.connect(wanted, dial).await.map(Link::Http2)
            }
        }
    }

    /// Closes what has been idle for too long, and everything of RS that are gone; what was not needed for a moment is
    /// left to all workers.
    pub(crate) fn sweep(&self, view: &View) {
        let now = clock::now();
        self.lobby.sweep(now, |slot| view.most_kept(slot) > 0);
        self.links.sweep(|slot| view.most_kept(slot) > 0);
        for (slot, queue) in self.idle.borrow_mut().iter_mut().enumerate() {
            if view.most_kept(slot) > 0 {
                while let Some(idle) = queue.pop_front_if(|idle| now >= idle.since + PARK) {
                    self.park(slot, idle, view);
                }
            } else {
                queue.clear();
            }
        }
    }

    fn park(&self, slot: usize, idle: Idle, view: &View) {
        if let Some(stream) = idle.io.stream.rest() {
            self.lobby.park(slot, Parked { stream, until: idle.until }, view.most_kept(slot));
        }
    }

    /// Sweeps from time to time, for as long as the worker lives.
    pub(crate) async fn keep_swept(self: Rc<Self>, view: impl Fn() -> Rc<View>) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.sweep(&view());
        }
    }
}

/// Whether the device that a connection is bound to still exists. A tunnel that was made anew has another device, of the
/// same name: what is sent on the old connection goes nowhere, and nobody says so.
fn leads_somewhere(io: &Io) -> bool {
    SockRef::from(io.stream.tcp()).device().is_ok()
}

/// Whether an idle connection is open and silent, with nothing left over from before.
fn is_quiet(io: &mut Io) -> bool {
    io.input.is_empty() && io.stream.is_quiet()
}
