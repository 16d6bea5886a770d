//! Which worker serves a new connection. All of them accept from the same sockets, and whoever is awake first gets
//! a burst whole: it passes on what others have more room for.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::worker::Command;

/// A connection that was accepted, not read from yet.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    /// Index of the listener.
    pub(crate) listener: usize,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// One worker's way to the others.
#[derive(Clone)]
pub(crate) struct Spread {
    workers: Arc<[Worker]>,
    own: usize,
}

struct Worker {
    /// Connections it serves or is about to get.
    connections: AtomicUsize,
    commands: mpsc::UnboundedSender<Command>,
}

/// Counts a connection of a worker for as long as it lives.
pub(crate) struct Seat {
    workers: Arc<[Worker]>,
    worker: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(worker) = self.workers.get(self.worker) {
            worker.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Spread {
    /// For workers that listen to these commands, one each.
    pub(crate) fn new(commands: impl Iterator<Item = mpsc::UnboundedSender<Command>>) -> Self {
        let workers =
            commands.map(|commands| Worker { connections: AtomicUsize::new(0), commands }).collect();
        Self { workers, own: 0 }
    }

    /// The view of the worker with this number.
    pub(crate) fn of(&self, own: usize) -> Self {
        Self { workers: Arc::clone(&self.workers), own }
    }

    /// Connections of this worker.
    pub(crate) fn connections(&self) -> usize {
        self.workers.get(self.own).map_or(0, |worker| worker.connections.load(Ordering::Relaxed))
    }

    /// The worker that has room for a new connection before this one has.
    pub(crate) fn elsewhere(&self) -> Option<usize> {
        let load = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        let (index, fewest) = self.workers.iter().enumerate().min_by_key(|(_, worker)| load(worker))?;
        (load(fewest) < self.connections()).then_some(index)
    }

    /// Gives a connection to another worker; returns it where that one has left already.
    pub(crate) fn pass_on(&self, worker: usize, accepted: Accepted) -> Option<Accepted> {
        let seat = self.seat(worker);
        let Some(worker) = self.workers.get(worker) else { return Some(accepted) };
        match worker.commands.send(Command::Serve(Box::new((accepted, seat)))) {
            Err(mpsc::error::SendError(Command::Serve(refused))) => Some(refused.0),
            _ => None,
        }
    }

    /// Counts a connection of this worker.
    pub(crate) fn own_seat(&self) -> Seat {
        self.seat(self.own)
    }

    fn seat(&self, worker: usize) -> Seat {
        if let Some(worker) = self.workers.get(worker) {
            worker.connections.fetch_add(1, Ordering::Relaxed);
        }
        Seat { workers: Arc::clone(&self.workers), worker }
    }
}
