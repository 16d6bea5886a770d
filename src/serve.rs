//! `ingre run` and `ingre proxy`: the whole program from its configuration to its last connection.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context as _, bail};
use proxy::{Proxy, Start, TunnelSockets};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::oneshot;

use crate::config::{self, Config, Process};
use crate::cpu::Plan;
use crate::handover::{Event, Heir, Kind, Socket, Succession, Taken};
use crate::notice::say;
use crate::signals::{Request, Signals};
use crate::sockets::{self, Bound, HandedIn};
use crate::tunnels::{Carrier, NoTunnels, Prepared};
use crate::{development, exit};

/// How often the program looks whether a part of it has ended.
const WATCH: Duration = Duration::from_millis(200);
/// Name of the built-in real server.
const DEMO: &str = "demo";
/// Every so many looks it looks whether a development certificate has to be made anew.
const RENEWAL: u32 = 50;

/// Serves what the file says until it is told to stop.
pub(crate) fn run(path: &str, external_encap: bool) -> anyhow::Result<()> {
    let handed_in = HandedIn::take()?;
    serve(config::load(path)?, Some(path), external_encap, handed_in)
}

/// Serves one real server at one address.
pub(crate) fn proxy(from: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
    let handed_in = HandedIn::take()?;
    let text = format!(
        "listeners: [{{name: https, address: \"{from}\", tls: {{development: {{names: [localhost, \
         127.0.0.1, \"::1\"{}]}}}}}}]\n\
         pools: [{{name: server, servers: [{{address: \"{to}\"}}]}}]\n\
         routes: [{{domains: [\"*\"], rules: [{{url: /, pool: server}}]}}]\n",
        if from.ip().is_unspecified() { String::new() } else { format!(", \"{}\"", from.ip()) }
    );
    let config = config::parse("command line", &text, Path::new(""))?;
    serve(config, None, false, handed_in)
}

fn serve(
    mut config: Config,
    path: Option<&str>,
    external_encap: bool,
    mut handed_in: HandedIn,
) -> anyhow::Result<()> {
    if config.proxy.listeners.is_empty() {
        bail!(
            "the configuration has no listener: add one under `listeners:` (`ingre encap` runs tunnels alone)"
        );
    }
    if config.process.handover.is_some() && !config.tunnels.is_empty() && !external_encap {
        bail!(
            "handover: the devices of tunnels end with their process, so no other one can take over: run the tunnels \
             apart (`ingre encap`, and `ingre run --external-encap`), or leave `handover:` out and upgrade by a restart"
        );
    }
    raise_descriptor_limit();
    development::complete(&mut config.proxy)?;
    let tunnels = match (config.tunnels.is_empty(), external_encap) {
        (true, _) => None,
        (false, true) => Some(Prepared::external(&config.tunnels)?),
        (false, false) => Some(Prepared::new(&config.tunnels, config.process.engine_threads)?),
    };
    let plan = Plan::new(config.process.workers, &config.process.cpu_affinity);
    let workers = plan.workers;
    let mut succession = Succession::begin(config.process.handover.as_ref())?;
    let taken = succession.taken();
    let listeners = sockets::listeners(&config.proxy, &mut handed_in, taken, tunnels.as_ref(), workers)?;
    let admin = sockets::admin(&config.proxy, &mut handed_in, succession.taken())?;
    handed_in.finish()?;
    let demo = config.process.demo.map(|address| bind_demo(address, succession.taken())).transpose()?;
    let copies = copies(&config, &listeners, admin.as_ref(), demo.as_ref())?;
    encap::linux::capability::drop_all().context("cannot give up privileges")?;
    // Signals only from here on: no helper is forked any more.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = Signals::new(&runtime)?;
    // Threads only from here on: each would keep the privileges that its maker had.
    let carrier = tunnels.map(Prepared::start).transpose()?.map(Arc::new);
    let (demo, stop_demo) = demo.map(start_demo).transpose()?.unzip();

    for (listener, Bound { tcp, quic }) in config.proxy.listeners.iter().zip(&listeners) {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        let inside =
            listener.tunnel.as_ref().map_or(String::new(), |tunnel| format!(" in the tunnel {tunnel}"));
        let too = if quic.is_empty() { "" } else { " with HTTP/3" };
        say(&format!("listener {} serves {scheme}://{}{inside}{too}", listener.name, tcp.local_addr()?));
    }
    if let Some(admin) = &admin {
        say(&format!("admin serves http://{}", admin.local_addr()?));
    }
    if let Some(demo) = demo {
        say(&format!("demo real server on http://{demo}"));
    }
    let metrics = carrier.as_ref().map(Arc::downgrade);
    let tunnels: Arc<dyn TunnelSockets> = match &carrier {
        Some(carrier) => Arc::new(carrier.sockets()),
        None => Arc::new(NoTunnels),
    };
    let drain = config.proxy.drain;
    let (listeners, quic) = listeners.into_iter().map(|Bound { tcp, quic }| (tcp, quic)).unzip();
    let renewal = development::Renewal::of(&config.proxy);
    let served = config.proxy.listeners.clone();
    let names: Vec<_> = served.iter().map(|listener| listener.name.clone()).collect();
    let proxy = Proxy::start(Start {
        config: config.proxy,
        listeners,
        quic,
        quic_keys: succession.keys(),
        predecessors: succession.predecessors(&names)?,
        admin,
        pages: carrier.iter().map(Carrier::page).collect(),
        metrics: Arc::new(move || {
            let carrier = metrics.as_ref().and_then(Weak::upgrade);
            carrier.map_or_else(String::new, |carrier| carrier.metrics())
        }),
        tunnels,
        workers,
        prepare: Arc::new(move |worker| {
            if let Err(error) = plan.pin(worker) {
                say(&format!("worker {worker} is not pinned: {error}"));
            }
        }),
        notice: Arc::new(say),
    })?;
    let standing = succession.succeed()?;
    sockets::steer(&served, &copies, workers);
    proxy.open();
    let watched = runtime.block_on(async {
        // Whoever hears that this one is ready may start the next one.
        let heir = standing.offer(copies, names);
        say(&format!("ready, {workers} workers"));
        let program = Program { proxy: &proxy, path, process: &config.process, carrier: carrier.as_deref() };
        program.watch(signals, heir, stop_demo, (drain, renewal)).await
    });
    proxy.finish();
    // The last hold on the tunnels: the helper takes everything down before this returns.
    drop(carrier);
    watched
}

/// The usual 1024 descriptors are 500 proxied requests; the hard limit is what the operator has set.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        say(&format!("the limit of open files stays as it is: {error}"));
    }
}

/// A copy of every socket that can be handed over.
fn copies(
    config: &Config,
    listeners: &[Bound],
    admin: Option<&TcpListener>,
    demo: Option<&TcpListener>,
) -> std::io::Result<Vec<Socket>> {
    if config.process.handover.is_none() {
        return Ok(Vec::new());
    }
    let mut copies = sockets::copies(&config.proxy.listeners, listeners)?;
    let others = [
        (Kind::Admin, sockets::ADMIN, config.proxy.admin, admin),
        (Kind::Demo, DEMO, config.process.demo, demo),
    ];
    for (kind, name, address, socket) in others {
        if let (Some(address), Some(socket)) = (address, socket) {
            copies.push(sockets::copy(kind, sockets::alone(name, address), socket)?);
        }
    }
    Ok(copies)
}

/// What is served, and by what it is ruled.
struct Program<'a> {
    proxy: &'a Proxy,
    path: Option<&'a str>,
    process: &'a Process,
    carrier: Option<&'a Carrier>,
}

/// Why the program leaves.
enum End {
    /// It was told to.
    Asked,
    /// Another process has taken over.
    Succeeded,
}

impl Program<'_> {
    /// Obeys signals, and hands over, until the program has drained or a part of it has failed.
    async fn watch(
        self,
        mut signals: Signals,
        mut heir: Heir,
        mut demo: Option<oneshot::Sender<()>>,
        (mut drain, mut renewal): (proxy::config::Drain, development::Renewal),
    ) -> anyhow::Result<()> {
        let mut looks = 0;
        let end = loop {
            let request = tokio::select! {
                request = signals.next() => request,
                event = heir.next() => match self.obey(event, drain, &mut demo).await {
                    Some(end) => break end,
                    None => continue,
                },
                () = tokio::time::sleep(WATCH) => {
                    if self.proxy.has_failed() {
                        exit::abandon("a worker has ended unexpectedly; see above");
                    }
                    if let Some(reason) = self.carrier.and_then(Carrier::failure) {
                        exit::abandon(&format!("the tunnels have failed: {reason}"));
                    }
                    looks += 1;
                    if looks % RENEWAL == 0 {
                        renewal.look(|source, key| self.proxy.replace_certificate(source, key));
                    }
                    continue;
                }
            };
            match request {
                Request::ReopenLog => self.proxy.reopen_log(),
                Request::Reload => match self.reload() {
                    Ok(new) => {
                        (drain, renewal) = new;
                        say("reloaded");
                    }
                    Err(error) => say(&format!(
                        "not reloaded, the old configuration stays: {}",
                        crate::notice::chain(&error)
                    )),
                },
                Request::Stop => break End::Asked,
            }
        };
        let delay = match end {
            End::Asked => {
                // Who connects from now on is to be refused, not kept waiting.
                heir.refuse();
                let most = drain.delay + drain.timeout;
                say(&format!("draining for at most {most:?}; a second signal ends at once"));
                self.proxy.not_ready();
                drain.delay
            }
            End::Succeeded => Duration::ZERO,
        };
        let drained = async {
            tokio::time::sleep(delay).await;
            if matches!(end, End::Asked) {
                self.proxy.drain();
            }
            let patience = async {
                while !self.proxy.has_drained() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(drain.timeout, patience).await
        };
        let hurried = async {
            loop {
                tokio::select! {
                    request = signals.next() => match request {
                        Request::Stop => break,
                        Request::ReopenLog => self.proxy.reopen_log(),
                        Request::Reload => {}
                    },
                    event = heir.next() => {
                        self.obey(event, drain, &mut demo).await;
                    }
                }
            }
        };
        tokio::select! {
            done = drained => match done {
                Ok(()) => say("drained"),
                Err(_) => say("the drain timeout has passed; open connections are cut"),
            },
            () = hurried => say("leaving at once"),
        }
        Ok(())
    }

    /// Lets another process take over, or goes on without it.
    async fn obey(
        &self,
        event: Event,
        drain: proxy::config::Drain,
        demo: &mut Option<oneshot::Sender<()>>,
    ) -> Option<End> {
        match event {
            Event::Ready { peer, successor, demo: takes_demo, done } => {
                self.proxy.hand_over(*successor, drain.timeout / 2).await;
                if let Some(stop) = demo.take_if(|_| takes_demo) {
                    // Its thread is there for as long as the process.
                    let _ = stop.send(());
                }
                drop(done);
                let most = drain.timeout;
                say(&format!("{peer} takes over; draining for at most {most:?}, a signal ends at once"));
                Some(End::Succeeded)
            }
            Event::Gone(peer) => {
                say(&format!(
                    "{peer}, which has taken over, has ended: another one may take over from this one"
                ));
                self.proxy.read_again().await;
                None
            }
        }
    }

    /// Reads the file again; returns how the program is to leave from now on, and what it makes anew.
    fn reload(&self) -> anyhow::Result<(proxy::config::Drain, development::Renewal)> {
        let path = self.path.filter(|&path| path != "-").context("there is no file to read again")?;
        let mut config = config::load(path)?;
        if config.process != *self.process {
            bail!("workers, engine_threads, cpu_affinity, demo and handover change only with a restart");
        }
        development::complete(&mut config.proxy)?;
        let told = (config.proxy.drain, development::Renewal::of(&config.proxy));
        // New tunnels are there before the first request that needs them, old ones until after the last.
        let change = match self.carrier {
            Some(carrier) => {
                carrier.differs(&config.tunnels).then(|| carrier.change(&config.tunnels)).transpose()?
            }
            None if config.tunnels.is_empty() => None,
            None => {
                bail!("the first tunnel needs a restart: this process has given up the privilege to make one")
            }
        };
        self.proxy.reload(config.proxy)?;
        if let (Some(carrier), Some(change)) = (self.carrier, change) {
            carrier.finish(change)?;
        }
        Ok(told)
    }
}

fn bind_demo(address: SocketAddr, taken: Option<&mut Taken>) -> anyhow::Result<TcpListener> {
    let taken = taken.and_then(|taken| taken.tcp(Kind::Demo, sockets::alone(DEMO, address)));
    let bind = || sockets::bind(address, None);
    taken.map_or_else(bind, Ok).with_context(|| format!("demo: cannot listen on {address}"))
}

fn start_demo(socket: TcpListener) -> anyhow::Result<(SocketAddr, oneshot::Sender<()>)> {
    let address = socket.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    std::thread::Builder::new().name("demo".into()).spawn(move || {
        let stopped = async {
            // Nobody stops it where the sender is dropped.
            if stopped.await.is_err() {
                std::future::pending().await
            }
        };
        if let Err(error) = proxy::demo::serve(socket, DEMO, stopped) {
            say(&format!("the demo real server has ended: {error}"));
        }
    })?;
    Ok((address, stop))
}
