//! The way to the RS: connections, kept alive and taken up again, one set per worker.

mod dial;
mod exchange;
mod lobby;
mod probe;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

pub use self::dial::TunnelSockets;
pub(crate) use self::dial::dial;
pub(crate) use self::exchange::{Exchange, Place};
pub(crate) use self::lobby::Lobby;
use self::lobby::Parked;
pub(crate) use self::probe::Prober;
use crate::error::Error;
use crate::net::{Io, Stream, clock};
use crate::state::View;

/// How long a worker keeps an idle connection to itself.
const PARK: Duration = Duration::from_secs(1);

/// Idle connections of one worker, by the slot of their RS.
pub(crate) struct Upstreams {
    idle: RefCell<Vec<VecDeque<Idle>>>,
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
        Rc::new(Self { idle: RefCell::default(), lobby, tunnels })
    }

    /// The connection used last that is still good, if there is one.
    pub(crate) fn take(&self, view: &View, pool: usize, server: usize, now: Instant) -> Option<Box<Io>> {
        let slot = view.server(pool, server).slot;
        let in_tunnel = view.pool(pool).tunnel.is_some();
        let own = || {
            let mut idle = self.idle.borrow_mut();
            let queue = idle.get_mut(slot)?;
            while let Some(Idle { io, until, .. }) = queue.pop_back() {
                if now < until && is_quiet(&io) && (!in_tunnel || leads_somewhere(&io)) {
                    return Some(io);
                }
            }
            None
        };
        own().or_else(|| {
            while let Some(parked) = self.lobby.take(slot, now) {
                let Ok(stream) = TcpStream::from_std(parked.stream) else { continue };
                let io = Box::new(Io::new(Stream::Plain(stream)));
                if !in_tunnel || leads_somewhere(&io) {
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

    /// A new connection.
    pub(crate) async fn connect(&self, view: &View, pool: usize, server: usize) -> Result<Box<Io>, Error> {
        let config = view.pool(pool);
        let address = view.server(pool, server).address;
        let stream = dial(address, config.tunnel.as_deref(), &*self.tunnels, config.connect_timeout).await?;
        Ok(Box::new(Io::new(Stream::Plain(stream))))
    }

    /// Closes what has been idle for too long, and everything of RS that are gone; what was not needed for a moment is
    /// left to all workers.
    pub(crate) fn sweep(&self, view: &View) {
        let now = clock::now();
        self.lobby.sweep(now, |slot| view.most_kept(slot) > 0);
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
        let Stream::Plain(stream) = idle.io.stream else { return };
        if let Ok(stream) = stream.into_std() {
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
    let Stream::Plain(stream) = &io.stream else { return true };
    SockRef::from(stream).device().is_ok()
}

/// Whether an idle connection is open and silent: an RS that closed it or sent something unasked has
/// made it useless (RFC 9112 9.3, 9.2).
fn is_quiet(io: &Io) -> bool {
    let Stream::Plain(stream) = &io.stream else { return true };
    let mut byte = [0];
    io.input.is_empty()
        && matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
