//! One worker: a single-threaded runtime that accepts from every listener, once it is told so, and serves what it accepted.
//! Nothing on the request path is shared with another worker but what is configured to be.

use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::access_log::{Lines, Log};
use crate::drain::Drain;
use crate::forward::{Authoriser, Compressors, Forwarder, Mirrors};
use crate::listener::{Endpoint, Listener, Listening, QuicSocket};
use crate::metrics::Shard;
use crate::quic::Origin;
use crate::spread::{Accepted, Seat, Spread};
use crate::state::{Current, Snapshot, View};
use crate::upstream::{Lobby, TunnelSockets, Upstreams};

/// How often a leaving worker looks whether its last connection has ended.
const LAST_LOOK: Duration = Duration::from_millis(10);
/// The longest that a worker from which another process has taken over stays for clients who come back with a token of ours.
const RETURN: Duration = Duration::from_secs(1);

/// What a worker is told.
pub(crate) enum Command {
    /// Serve a connection that another worker has accepted.
    Serve(Box<(Accepted, Seat)>),
    /// Work from this from now on.
    Follow(Arc<Snapshot>),
    /// Accept, and read what comes by UDP.
    Open,
    /// Another process reads what comes by UDP from now on, and passes on what is ours: for each listener, where. Or it does
    /// not any more. The sender is dropped when that is done.
    Read(Arc<[Option<UnixDatagram>]>, mpsc::Sender<()>),
}

/// Everything a worker starts with.
pub(crate) struct Worker {
    pub(crate) number: usize,
    /// Every listening socket, a descriptor of this worker's own.
    pub(crate) listeners: Vec<(std::net::TcpListener, Arc<Semaphore>)>,
    /// What HTTP/3 is spoken on.
    pub(crate) quic: Vec<QuicSocket>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) tunnels: Arc<dyn TunnelSockets>,
    pub(crate) metrics: Arc<Shard>,
    pub(crate) log: Log,
    pub(crate) drain: Drain,
    pub(crate) spread: Spread,
    pub(crate) lobby: Arc<Lobby>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
}

impl Worker {
    /// Works until the drain has started and the last connection has ended.
    pub(crate) fn run(self) -> io::Result<()> {
        crate::local_runtime()?.block_on(self.work())
    }

    async fn work(mut self) -> io::Result<()> {
        let view =
            |snapshot, last: Option<&View>| View::new(snapshot, self.number, Arc::clone(&self.metrics), last);
        let current = Current::new(view(Arc::clone(&self.snapshot), None));
        let upstreams = Upstreams::new(self.lobby, self.tunnels);
        let lines = Lines::new(self.log);
        let forwarder = Rc::new(Forwarder {
            current: Rc::clone(&current),
            upstreams: Rc::clone(&upstreams),
            lines: Rc::clone(&lines),
            mirrors: Mirrors::default(),
            compressors: Compressors::default(),
            authoriser: Authoriser::default(),
        });
        let serving = Rc::clone(&current);
        let listener = Rc::new(Listener {
            view: Box::new(move || serving.view()),
            handler: forwarder,
            draining: self.drain.draining(),
        });
        let mut waiting = Vec::new();
        for (index, (socket, permits)) in self.listeners.into_iter().enumerate() {
            waiting.push(Listening { socket: tokio::net::TcpListener::from_std(socket)?, index, permits });
        }
        let mut endpoints = Vec::new();
        let (failed, mut failure) = mpsc::channel::<()>(1);
        for socket in self.quic {
            let endpoint = Endpoint::new(socket, &current.view())?;
            let (accepting, failed) = (endpoint.clone(), failed.clone());
            let task = accepting.accept(Rc::clone(&listener), self.spread.clone());
            tokio::task::spawn_local(async move {
                task.await;
                let _ = failed.try_send(());
            });
            endpoints.push(endpoint);
        }
        let sweeping = Rc::clone(&current);
        tokio::task::spawn_local(upstreams.keep_swept(move || sweeping.view()));
        tokio::task::spawn_local(Rc::clone(&lines).keep_flushed());

        let accepting = RefCell::new(Vec::new());
        let mut obey = |command: Command| match command {
            Command::Follow(snapshot) => {
                current.replace(view(snapshot, Some(&current.view())));
                endpoints.iter().for_each(|endpoint| endpoint.follow(&current.view()));
            }
            Command::Serve(passed_on) => listener.serve(passed_on.0, passed_on.1),
            Command::Open => {
                endpoints.iter().for_each(|endpoint| endpoint.read_from(Origin::Network));
                for listening in waiting.drain(..) {
                    let task = Rc::clone(&listener).accept(listening, self.spread.clone());
                    accepting.borrow_mut().push(tokio::task::spawn_local(task));
                }
            }
            Command::Read(ways, _done) => {
                for endpoint in &endpoints {
                    endpoint.read_from(match ways.get(endpoint.index()) {
                        Some(Some(way)) => successor(way),
                        _ => Origin::Network,
                    });
                }
            }
        };
        let mut draining = self.drain.draining();
        loop {
            tokio::select! {
                () = draining.started() => break,
                command = self.commands.recv() => match command {
                    Some(command) => obey(command),
                    None => break,
                },
                Some(()) = failure.recv() => return Err(io::Error::other("a UDP socket has failed")),
            }
        }
        let stays_until = draining.handed_over().map(|what| Instant::now() + what.idle.min(RETURN));
        for task in accepting.take() {
            // A panic there has been reported already; there is nothing more to accept.
            let _ = task.await;
        }
        loop {
            // What another worker has passed on meanwhile is served as well.
            tokio::select! {
                Some(command) = self.commands.recv() => obey(command),
                () = tokio::time::sleep(LAST_LOOK) => {}
            }
            let stays = stays_until.is_some_and(|until| Instant::now() < until);
            if self.spread.connections() == 0 && !stays {
                self.commands.close();
                let mut late = false;
                while let Some(command) = self.commands.recv().await {
                    late |= matches!(command, Command::Serve(_));
                    obey(command);
                }
                if !late {
                    break;
                }
            }
        }
        for endpoint in endpoints {
            endpoint.finish().await;
        }
        lines.flush();
        Ok(())
    }
}

/// What another process passes on. Where descriptors have run out, nothing: what is read from the network would be lost to
/// that process.
fn successor(way: &UnixDatagram) -> Origin {
    let way = way.try_clone().and_then(tokio::net::UnixDatagram::from_std);
    way.map_or(Origin::Nowhere, Origin::Successor)
}
