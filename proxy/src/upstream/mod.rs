//! The way to the RS: connections, kept alive and taken up again, one set per worker.

mod dial;
mod exchange;
mod probe;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use self::dial::TunnelSockets;
pub(crate) use self::dial::dial;
pub(crate) use self::exchange::{Exchange, Place};
pub(crate) use self::probe::Prober;
use crate::error::Error;
use crate::net::{Io, Stream, clock};
use crate::state::View;

/// Idle connections of one worker, by the slot of their RS.
pub(crate) struct Upstreams {
    idle: RefCell<Vec<VecDeque<Idle>>>,
    tunnels: Arc<dyn TunnelSockets>,
}

struct Idle {
    io: Box<Io>,
    until: Instant,
}

impl Upstreams {
    pub(crate) fn new(tunnels: Arc<dyn TunnelSockets>) -> Rc<Self> {
        Rc::new(Self { idle: RefCell::default(), tunnels })
    }

    /// The connection used last that is still good, if there is one.
    pub(crate) fn take(&self, view: &View, pool: usize, server: usize, now: Instant) -> Option<Box<Io>> {
        let slot = view.server(pool, server).slot;
        let mut idle = self.idle.borrow_mut();
        let queue = idle.get_mut(slot)?;
        while let Some(Idle { io, until }) = queue.pop_back() {
            if now < until && is_quiet(&io) {
                return Some(io);
            }
        }
        None
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
        queue.push_back(Idle { io, until: clock::now() + config.keepalive_timeout });
    }

    /// A new connection.
    pub(crate) async fn connect(&self, view: &View, pool: usize, server: usize) -> Result<Box<Io>, Error> {
        let config = view.pool(pool);
        let address = view.server(pool, server).address;
        let stream = dial(address, config.tunnel.as_deref(), &*self.tunnels, config.connect_timeout).await?;
        Ok(Box::new(Io::new(Stream::Plain(stream))))
    }

    /// Closes what has been idle for too long, and everything of RS that are gone; what stays gives its buffers back.
    pub(crate) fn sweep(&self, view: &View) {
        let now = Instant::now();
        for (slot, queue) in self.idle.borrow_mut().iter_mut().enumerate() {
            if view.has_slot(slot) {
                queue.retain_mut(|idle| {
                    idle.io.release();
                    now < idle.until && is_quiet(&idle.io)
                });
            } else {
                queue.clear();
            }
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

/// Whether an idle connection is open and silent: an RS that closed it or sent something unasked has
/// made it useless (RFC 9112 9.3, 9.2).
fn is_quiet(io: &Io) -> bool {
    let Stream::Plain(stream) = &io.stream else { return true };
    let mut byte = [0];
    io.input.is_empty()
        && matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
