//! `ingre run` and `ingre proxy`: the whole program from its configuration to its last connection.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context as _, bail};
use proxy::{Proxy, Start, TunnelSockets};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::{self, Config, Process};
use crate::cpu::Plan;
use crate::notice::say;
use crate::signals::{Request, Signals};
use crate::sockets::{self, Bound, HandedIn};
use crate::tunnels::{Carrier, NoTunnels, Prepared};
use crate::{development, exit};

/// How often the program looks whether a part of it has ended.
const WATCH: Duration = Duration::from_millis(200);
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
    raise_descriptor_limit();
    development::complete(&mut config.proxy)?;
    let tunnels = match (config.tunnels.is_empty(), external_encap) {
        (true, _) => None,
        (false, true) => Some(Prepared::external(&config.tunnels)?),
        (false, false) => Some(Prepared::new(&config.tunnels, config.process.engine_threads)?),
    };
    let plan = Plan::new(config.process.workers, &config.process.cpu_affinity);
    let workers = plan.workers;
    let listeners = sockets::listeners(&config.proxy, &mut handed_in, tunnels.as_ref(), workers)?;
    let admin = sockets::admin(&config.proxy, &mut handed_in)?;
    handed_in.finish()?;
    let demo = config.process.demo.map(bind_demo).transpose()?;
    encap::linux::capability::drop_all().context("cannot give up privileges")?;
    // Signals only from here on: no helper is forked any more.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = Signals::new(&runtime)?;
    // Threads only from here on: each would keep the privileges that its maker had.
    let carrier = tunnels.map(Prepared::start).transpose()?.map(Arc::new);
    let demo = demo.map(start_demo).transpose()?;

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
    let proxy = Proxy::start(Start {
        config: config.proxy,
        listeners,
        quic,
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
    say(&format!("ready, {workers} workers"));
    let watch = watch(signals, &proxy, path, carrier.as_deref(), &config.process, (drain, renewal));
    let watched = runtime.block_on(watch);
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

/// Obeys signals until the program has drained or a part of it has failed.
async fn watch(
    mut signals: Signals,
    proxy: &Proxy,
    path: Option<&str>,
    carrier: Option<&Carrier>,
    process: &Process,
    (mut drain, mut renewal): (proxy::config::Drain, development::Renewal),
) -> anyhow::Result<()> {
    let mut looks = 0;
    loop {
        let request = tokio::select! {
            request = signals.next() => request,
            () = tokio::time::sleep(WATCH) => {
                if proxy.has_failed() {
                    exit::abandon("a worker has ended unexpectedly; see above");
                }
                if let Some(reason) = carrier.and_then(Carrier::failure) {
                    exit::abandon(&format!("the tunnels have failed: {reason}"));
                }
                looks += 1;
                if looks % RENEWAL == 0 {
                    renewal.look(|source, key| proxy.replace_certificate(source, key));
                }
                continue;
            }
        };
        match request {
            Request::ReopenLog => proxy.reopen_log(),
            Request::Reload => match reload(proxy, path, process, carrier) {
                Ok(new) => {
                    (drain, renewal) = new;
                    say("reloaded");
                }
                Err(error) => say(&format!(
                    "not reloaded, the old configuration stays: {}",
                    crate::notice::chain(&error)
                )),
            },
            Request::Stop => break,
        }
    }
    say(&format!("draining for at most {:?}; a second signal ends at once", drain.delay + drain.timeout));
    proxy.not_ready();
    let drained = async {
        tokio::time::sleep(drain.delay).await;
        proxy.drain();
        let patience = async {
            while !proxy.has_drained() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(drain.timeout, patience).await
    };
    let hurried = async { while signals.next().await != Request::Stop {} };
    tokio::select! {
        done = drained => match done {
            Ok(()) => say("drained"),
            Err(_) => say("the drain timeout has passed; open connections are cut"),
        },
        () = hurried => say("leaving at once"),
    }
    Ok(())
}

/// Reads the file again; returns how the program is to leave from now on, and what it makes anew.
fn reload(
    proxy: &Proxy,
    path: Option<&str>,
    process: &Process,
    carrier: Option<&Carrier>,
) -> anyhow::Result<(proxy::config::Drain, development::Renewal)> {
    let path = path.filter(|&path| path != "-").context("there is no file to read again")?;
    let mut config = config::load(path)?;
    if config.process != *process {
        bail!("workers, engine_threads, cpu_affinity and demo change only with a restart");
    }
    development::complete(&mut config.proxy)?;
    let told = (config.proxy.drain, development::Renewal::of(&config.proxy));
    // New tunnels are there before the first request that needs them, old ones until after the last.
    let change = match carrier {
        Some(carrier) => {
            carrier.differs(&config.tunnels).then(|| carrier.change(&config.tunnels)).transpose()?
        }
        None if config.tunnels.is_empty() => None,
        None => {
            bail!("the first tunnel needs a restart: this process has given up the privilege to make one")
        }
    };
    proxy.reload(config.proxy)?;
    if let (Some(carrier), Some(change)) = (carrier, change) {
        carrier.finish(change)?;
    }
    Ok(told)
}

fn bind_demo(address: SocketAddr) -> anyhow::Result<TcpListener> {
    sockets::bind(address, None).with_context(|| format!("demo: cannot listen on {address}"))
}

fn start_demo(socket: TcpListener) -> anyhow::Result<SocketAddr> {
    let address = socket.local_addr()?;
    std::thread::Builder::new().name("demo".into()).spawn(move || {
        if let Err(error) = proxy::demo::serve(socket, "demo") {
            say(&format!("the demo real server has ended: {error}"));
        }
    })?;
    Ok(address)
}
