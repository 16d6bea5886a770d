//! Starts the workers and the control thread, reloads, drains.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

use crate::access_log::Log;
use crate::acme;
use crate::admin::{self, Admin, Page};
use crate::config::{CertifiedKey, Config, Source};
use crate::dns::{Follower, Names};
use crate::drain::{Drain, HandOver};
use crate::keeper::{self, Desk};
use crate::listener::QuicSocket;
use crate::metrics::{self, Shard, add};
use crate::publish::Publisher;
use crate::quic::{Count, Passage, Predecessor, Quic, QuicKeys, Secrets};
use crate::spread::Spread;
use crate::upstream::{Lobby, Prober, TunnelSockets};
use crate::worker::{Command, Worker};

/// Everything the proxy starts with.
pub struct Start {
    /// What to serve.
    pub config: Config,
    /// One bound socket per listener of the configuration, in its order.
    pub listeners: Vec<TcpListener>,
    /// The bound UDP sockets of each listener for HTTP/3, in the same order: best one per worker, in a group in which the
    /// kernel chooses by the first two bytes of the connection ID modulo their number; or more or fewer; or none where there
    /// is no HTTP/3.
    pub quic: Vec<Vec<UdpSocket>>,
    /// What QUIC's connection IDs and tokens are made with.
    pub quic_keys: QuicKeys,
    /// Processes that served these sockets before and still have connections of QUIC.
    pub predecessors: Vec<Predecessor>,
    /// The bound admin socket.
    pub admin: Option<TcpListener>,
    /// Further admin pages.
    pub pages: Vec<Page>,
    /// Further lines for /metrics, in the Prometheus text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Who makes sockets that belong to a tunnel.
    pub tunnels: Arc<dyn TunnelSockets>,
    /// Number of workers, at least 1.
    pub workers: usize,
    /// Called on each worker's thread before it works, with its number.
    pub prepare: Arc<dyn Fn(usize) + Send + Sync>,
    /// Told what an operator wants to know, one line at a time.
    pub notice: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Why the proxy did not start or reload.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something in the configuration that shows only now.
    #[error("{0}")]
    Config(String),
    /// The access log cannot be opened.
    #[error("the access log cannot be opened: {0}")]
    AccessLog(io::Error),
    /// A socket or thread cannot be made.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

/// What another process takes over.
pub struct Successor {
    /// Of each listener, whether it accepts there from now on.
    pub listeners: Vec<bool>,
    /// Whether it serves the admin pages.
    pub admin: bool,
    /// Where what it passes on of each listener's UDP comes from; none where this process goes on reading.
    pub ways: Vec<Option<UnixDatagram>>,
}

/// How long is waited for workers that have much to do.
const STALLED: Duration = Duration::from_secs(1);

/// A running proxy.
pub struct Proxy {
    publisher: Arc<Publisher>,
    ready: Arc<AtomicBool>,
    /// What a reload cannot change.
    fixed: Vec<String>,
    bound: Vec<Bound>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    commands: Vec<mpsc::UnboundedSender<Command>>,
    open: watch::Sender<bool>,
    drain: Drain,
    log: Log,
    desk: Desk,
}

impl Proxy {
    /// Makes everything ready to serve; [`Proxy::open`] begins.
    ///
    /// # Errors
    /// Where a certificate, the log, a socket or a thread fails; nothing is left running then.
    pub fn start(mut start: Start) -> Result<Self, StartError> {
        let log = Log::open(&start.config.access_log).map_err(StartError::AccessLog)?;
        let permits: Vec<_> = start
            .config
            .listeners
            .iter()
            .map(|listener| Arc::new(Semaphore::new(listener.max_connections)))
            .collect();
        let fixed = fixed_parts(&start.config);
        let bound = start
            .listeners
            .iter()
            .zip(&start.quic)
            .map(|(tcp, quic)| Ok(Bound { port: tcp.local_addr()?.port(), http3: !quic.is_empty() }));
        let bound = bound.collect::<io::Result<Vec<_>>>()?;
        as_bound(&mut start.config, &bound);
        let secrets = Secrets::new(&start.quic_keys);
        let mut quic = Quic::new(start.quic, start.workers, start.predecessors);
        let (open, opened) = watch::channel(false);
        let shards: Vec<_> = (0..start.workers).map(|_| Arc::new(Shard::default())).collect();
        let drain = Drain::new();
        let mut workers = Vec::new();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..start.workers).map(|_| mpsc::unbounded_channel()).unzip();
        let publisher = Arc::new(Publisher::new(start.config, senders.clone()).map_err(StartError::Config)?);
        let snapshot = Arc::clone(&publisher.subscribe().borrow());
        acme::load(&snapshot, &*start.notice);
        let lobby = Arc::<Lobby>::default();
        let spread = Spread::new(senders.iter().cloned());
        for (number, (shard, commands)) in shards.iter().zip(receivers).enumerate() {
            let mut listeners = Vec::new();
            for (socket, permits) in start.listeners.iter().zip(&permits) {
                socket.set_nonblocking(true)?;
                // Connections inherit it. Without it the end of a response waits for an acknowledgement.
                socket2::SockRef::from(socket).set_tcp_nodelay(true)?;
                listeners.push((socket.try_clone()?, Arc::clone(permits)));
            }
            let quic = quic.of(number, &count(shard))?.into_iter().map(|(index, sockets, post)| QuicSocket {
                sockets,
                index,
                permits: Arc::clone(&permits[index]),
                post,
                secrets: secrets.clone(),
            });
            let worker = Worker {
                number,
                listeners,
                quic: quic.collect(),
                snapshot: Arc::clone(&snapshot),
                tunnels: Arc::clone(&start.tunnels),
                metrics: Arc::clone(shard),
                log: log.clone(),
                drain: drain.clone(),
                spread: spread.of(number),
                lobby: Arc::clone(&lobby),
                commands,
            };
            let prepare = Arc::clone(&start.prepare);
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                prepare(number);
                worker.run()
            })?;
            workers.push(thread);
        }
        let desk = Desk::new(Arc::clone(&publisher), Arc::clone(&start.notice));
        keeper::start(desk.clone())?;
        let ready = Arc::new(AtomicBool::new(true));
        let control = Control {
            publisher: Arc::clone(&publisher),
            admin: start.admin,
            pages: start.pages,
            metrics: start.metrics,
            ready: Arc::clone(&ready),
            shards,
            lobby,
            log: log.clone(),
            tunnels: start.tunnels,
            notice: start.notice,
            drain: drain.clone(),
            opened,
        };
        std::thread::Builder::new().name("control".into()).spawn(move || control.run())?;
        Ok(Self { publisher, ready, fixed, bound, workers, commands: senders, open, drain, log, desk })
    }

    /// Accepts from now on.
    pub fn open(&self) {
        self.tell(|| Command::Open);
        self.open.send_replace(true);
    }

    /// Another process serves from now on: connections end when they are idle, as after [`Proxy::drain`], but kept-alive ones
    /// of HTTP/1.1 may bring a request for so long. Returns when nothing is read any more from the sockets that it reads.
    pub async fn hand_over(&self, successor: Successor, idle: Duration) {
        let Successor { listeners, admin, ways } = successor;
        self.read(ways).await;
        self.drain.hand_over(HandOver { listeners, admin, idle });
    }

    /// The process that has taken over is gone: what comes by UDP for connections of this one is read here again.
    pub async fn read_again(&self) {
        self.read(Vec::new()).await;
    }

    async fn read(&self, ways: Vec<Option<UnixDatagram>>) {
        let (done, mut all_done) = mpsc::channel(1);
        let ways: Arc<[_]> = ways.into();
        self.tell(|| Command::Read(Arc::clone(&ways), done.clone()));
        drop(done);
        let _ = tokio::time::timeout(STALLED, all_done.recv()).await;
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for commands in &self.commands {
            // A worker that is gone is noticed by its thread.
            let _ = commands.send(command());
        }
    }

    /// Serves this configuration from now on; requests under way end with the one they began with.
    ///
    /// # Errors
    /// Where it differs in what only a restart can change, or cannot be set up; then nothing changes.
    pub fn reload(&self, mut config: Config) -> Result<(), StartError> {
        if self.fixed != fixed_parts(&config) {
            let text = "names, addresses, tunnels, connection limits and HTTP/3 of listeners, the admin address \
                        and the access log change only with a restart";
            return Err(StartError::Config(text.into()));
        }
        as_bound(&mut config, &self.bound);
        self.publisher.reload(config).map_err(StartError::Config)
    }

    /// Shows another certificate from now on, where the configuration has one from this source.
    pub fn replace_certificate(&self, source: &Source, key: &Arc<CertifiedKey>) {
        self.desk.replace_from(source, key);
    }

    /// Opens the access log's file again.
    pub fn reopen_log(&self) {
        self.log.reopen();
    }

    /// From now on /readyz answers 503.
    pub fn not_ready(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }

    /// Whether a worker has ended although nobody asked it to.
    pub fn has_failed(&self) -> bool {
        self.workers.iter().any(JoinHandle::is_finished)
    }

    /// Accepts nothing more; connections end when they are idle.
    pub fn drain(&self) {
        self.not_ready();
        self.drain.start();
    }

    /// Writes out what is left of the access log, and leaves certificates to other nodes.
    pub fn finish(self) {
        self.publisher.subscribe().borrow().showcase.leave();
        self.log.finish();
    }

    /// Whether the last connection has ended after [`Proxy::drain`].
    pub fn has_drained(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished)
    }
}

/// What counts the datagrams of a worker.
fn count(shard: &Arc<Shard>) -> Count {
    let shard = Arc::clone(shard);
    Arc::new(move |passage, number| {
        let counter = match passage {
            Passage::PassedOn => &shard.datagrams_passed_on,
            Passage::Lost => &shard.datagrams_lost,
            Passage::ToPredecessor => &shard.datagrams_to_predecessors,
            Passage::ToPredecessorLost => &shard.datagrams_to_predecessors_lost,
        };
        add(counter, number);
    })
}

/// What a reload cannot change, as text to compare.
fn fixed_parts(config: &Config) -> Vec<String> {
    let listeners = config.listeners.iter().map(|listener| {
        let tls = listener.tls.is_some();
        format!(
            "{} {} {:?} {} {tls} {}",
            listener.name, listener.address, listener.tunnel, listener.max_connections, listener.http3
        )
    });
    listeners.chain([format!("{:?} {:?}", config.admin, config.access_log)]).collect()
}

/// What has become of a listener of the configuration.
struct Bound {
    port: u16,
    http3: bool,
}

/// Puts into a configuration what is known only of bound sockets.
fn as_bound(config: &mut Config, bound: &[Bound]) {
    for (listener, bound) in config.listeners.iter_mut().zip(bound) {
        listener.address.set_port(bound.port);
        listener.http3 = bound.http3;
    }
}

/// The thread that probes RS, resolves their names and answers the admin pages.
struct Control {
    publisher: Arc<Publisher>,
    admin: Option<TcpListener>,
    pages: Vec<Page>,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    ready: Arc<AtomicBool>,
    shards: Vec<Arc<Shard>>,
    lobby: Arc<Lobby>,
    log: Log,
    tunnels: Arc<dyn TunnelSockets>,
    notice: Arc<dyn Fn(&str) + Send + Sync>,
    drain: Drain,
    opened: watch::Receiver<bool>,
}

impl Control {
    fn run(self) {
        let notice = Arc::clone(&self.notice);
        let result = crate::local_runtime().and_then(|runtime| runtime.block_on(self.control()));
        if let Err(error) = result {
            notice(&format!("health checks and admin have ended: {error}"));
        }
    }

    async fn control(mut self) -> io::Result<()> {
        let mut snapshots = self.publisher.subscribe();
        let names = Arc::<Names>::default();
        if let Some(listener) = self.admin.take() {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (shards, log, snapshots) = (self.shards.clone(), self.log.clone(), snapshots.clone());
            let (further, lobby, names) = (self.metrics, self.lobby, Arc::clone(&names));
            let of_certificates = snapshots.clone();
            self.pages.push(keeper::page(move || Arc::clone(&of_certificates.borrow())));
            self.pages.push(Page::metrics(Arc::new(move || {
                let snapshot = Arc::clone(&snapshots.borrow());
                metrics::render(&shards, lobby.len(), &snapshot, &names.all(), log.lost())
                    + &keeper::metrics(&snapshot)
                    + &snapshot.showcase.board.metrics()
                    + &further()
            })));
            let admin = Rc::new(Admin { ready: self.ready, pages: self.pages });
            let (draining, mut opened) = (self.drain.draining(), self.opened);
            tokio::task::spawn_local(async move {
                // The handle going away means the program ends.
                let _ = opened.wait_for(|&open| open).await;
                admin::serve(listener, admin, draining).await;
            });
        }
        let mut follower = Follower::new(self.publisher, Arc::clone(&self.notice), names);
        let notice = self.notice;
        let mut prober = Prober::new(
            self.tunnels,
            Rc::new(move |pool, server, change| {
                let (from, to) = (change.from, change.to);
                notice(&format!("pool {pool}: {server} is {to:?}, was {from:?}"));
            }),
        );
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            prober.follow(&snapshot);
            drop(snapshot);
            follower.follow();
            if snapshots.changed().await.is_err() {
                // The handle is gone: the program ends.
                tokio::time::sleep(Duration::MAX).await;
            }
        }
    }
}
