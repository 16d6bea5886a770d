//! One worker: a single-threaded runtime that accepts from every listener and serves what it accepted.
//! Nothing on the request path is shared with another worker but what is configured to be.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use crate::access_log::{Lines, Log};
use crate::drain::Drain;
use crate::forward::{Authoriser, Compressors, Forwarder, Mirrors};
use crate::listener::{Endpoint, Listener, Listening, QuicSocket};
use crate::metrics::Shard;
use crate::spread::{Accepted, Seat, Spread};
use crate::state::{Current, Snapshot, View};
use crate::upstream::{Lobby, TunnelSockets, Upstreams};

/// How often a leaving worker looks whether its last connection has ended.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// What a worker is told.
pub(crate) enum Command {
    /// Serve a connection that another worker has accepted.
    Serve(Box<(Accepted, Seat)>),
    /// Work from this from now on.
    Follow(Arc<Snapshot>),
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
        let mut accepting = Vec::new();
        for (index, (socket, permits)) in self.listeners.into_iter().enumerate() {
            let listening = Listening { socket: tokio::net::TcpListener::from_std(socket)?, index, permits };
            let task = Rc::clone(&listener).accept(listening, self.spread.clone());
            accepting.push(tokio::task::spawn_local(task));
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

        let mut draining = self.drain.draining();
        loop {
            tokio::select! {
                () = draining.started() => break,
                command = self.commands.recv() => match command {
                    Some(Command::Follow(snapshot)) => {
                        current.replace(view(snapshot, Some(&current.view())));
                        endpoints.iter().for_each(|endpoint| endpoint.follow(&current.view()));
                    }
                    Some(Command::Serve(passed_on)) => listener.serve(passed_on.0, passed_on.1),
                    None => break,
                },
                Some(()) = failure.recv() => return Err(io::Error::other("a UDP socket has failed")),
            }
        }
        for task in accepting {
            // A panic there has been reported already; there is nothing more to accept.
            let _ = task.await;
        }
        loop {
            // What another worker has passed on meanwhile is served as well.
            tokio::select! {
                Some(Command::Serve(passed_on)) = self.commands.recv() => {
                    listener.serve(passed_on.0, passed_on.1);
                }
                () = tokio::time::sleep(LAST_LOOK) => {}
            }
            if self.spread.connections() == 0 {
                self.commands.close();
                let mut late = false;
                while let Some(command) = self.commands.recv().await {
                    if let Command::Serve(passed_on) = command {
                        late = true;
                        listener.serve(passed_on.0, passed_on.1);
                    }
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
