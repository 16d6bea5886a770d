//! `ingre lab`: a small data centre out of network namespaces, with the whole job running on it.
//!
//! One process per node, each this program with an ordinary configuration: an ingre node, an L4 node that it reaches
//! only by GRE on a wire, and the real servers of two tenants with equal addresses. The lab itself makes namespaces
//! and wires, hands the listening sockets in, and shows what becomes of each request. All of it ends with the lab.

mod certificates;
mod client;
mod nodes;
mod picture;
mod plan;
mod requirements;
mod topology;
mod watch;

use std::cell::Cell;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpSocket;
use tokio::time::MissedTickBehavior;

use self::certificates::Certificates;
use self::client::Client;
use self::nodes::{Nodes, Said, Start};
use self::topology::Topology;
use self::watch::{Log, Watch};
use crate::signals::{Request, Signals};
use crate::sockets;

/// Ports to try, beginning with the one asked for.
const PORTS: u16 = 100;
/// How often the lab looks whether a node has ended, and notes the counters.
const LOOK: Duration = Duration::from_millis(200);
/// For the line of a request in the access log, and between two looks for it.
const PATIENCE: Duration = Duration::from_secs(5);
const SHORTLY: Duration = Duration::from_millis(5);
/// Name of the node that serves; the lab ends with it.
const INGRE: &str = "ingre";

/// What the lab can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// First port to try for HTTPS; the next free one is taken.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Address of the host to serve HTTPS on; in a container 0.0.0.0, so that a published port reaches it.
    #[arg(long, value_name = "ADDR", default_value_t = Ipv4Addr::LOCALHOST)]
    address: Ipv4Addr,
    /// Make this many requests, show them, and end: 0 if each got the expected answer.
    #[arg(long, value_name = "N")]
    requests: Option<usize>,
}

/// Builds the lab and shows it until Ctrl-C.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    // Bound before anything else: they belong to the host's network, whatever namespaces come.
    let https = bind(options)?;
    let admin =
        sockets::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).context("cannot bind 127.0.0.1")?;
    let rights = requirements::meet()?;
    let topology = Topology::build()?;
    let certificates = Certificates::place()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = Signals::new(&runtime)?;
    runtime.block_on(async {
        let mut nodes = Nodes::new();
        let (https_at, admin_at) = (v4(&https)?, v4(&admin)?);
        let log = tokio::select! {
            log = start(&mut nodes, &topology, &certificates, https, admin) => log?,
            () = stopped(&mut signals) => return Ok(()),
        };
        if !show(&picture::picture(https_at, &nodes))
            || !show(&picture::tries(https_at, &certificates.authority(), rights, &topology.client, &nodes))
        {
            return Ok(());
        }
        let client = Client::new(&certificates.authority())?;
        let shown = Cell::new(0);
        let own = async {
            let result = request(client, &topology, https_at, options.requests.unwrap_or(1), &shown).await;
            match options.requests {
                Some(_) => result,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = watch(&mut nodes, log, Watch::new(admin_at).await, &shown) => result,
            result = own => result,
            () = stopped(&mut signals) => Ok(()),
        }
    })
}

fn bind(options: &Options) -> anyhow::Result<TcpListener> {
    let last = options.port.saturating_add(PORTS - 1);
    let mut refused = None;
    for port in options.port..=last {
        match sockets::bind(SocketAddr::from((options.address, port)), None) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => refused = Some(error),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot listen on {}:{port}", options.address));
            }
        }
    }
    let error = refused.context("no port to try")?;
    Err(error)
        .with_context(|| format!("no free port from {} to {last}; name another with --port", options.port))
}

fn v4(socket: &TcpListener) -> anyhow::Result<SocketAddrV4> {
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => bail!("{address} is no IPv4 address"),
    }
}

/// Starts every node, those behind the tunnels first; returns the ingre node's access log.
async fn start(
    nodes: &mut Nodes,
    topology: &Topology,
    certificates: &Certificates,
    https: TcpListener,
    admin: TcpListener,
) -> anyhow::Result<Log> {
    let (https_at, admin_at) = (https.local_addr()?, admin.local_addr()?);
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    for (name, namespace, address) in [
        ("tenant-a-1", &topology.tenant_a, plan::RS[0]),
        ("tenant-a-2", &topology.tenant_a, plan::RS[1]),
        ("tenant-b-1", &topology.tenant_b, plan::RS[0]),
        ("tenant-b-2", &topology.tenant_b, plan::RS[1]),
    ] {
        let listen = format!("{address}:{}", plan::RS_PORT);
        nodes.start(Start {
            name,
            namespace,
            arguments: words(&["demo", "--name", name, "--listen", &listen]),
            environment: Vec::new(),
            config: String::new(),
            sockets: Vec::new(),
            ready: "real server",
        })?;
    }
    nodes.start(Start {
        name: "l4",
        namespace: &topology.l4,
        arguments: words(&["encap", "-c", "-"]),
        environment: Vec::new(),
        config: plan::l4(),
        sockets: Vec::new(),
        ready: "carrying",
    })?;
    nodes.ready(&["tenant-a-1", "tenant-a-2", "tenant-b-1", "tenant-b-2", "l4"]).await?;
    let log = nodes.start(Start {
        name: INGRE,
        namespace: &topology.ingre,
        arguments: words(&["run", "-c", "-"]),
        environment: vec![(plan::CERTIFICATES, certificates.directory().to_owned())],
        config: plan::ingre(https_at, admin_at),
        sockets: vec![(plan::HTTPS.to_owned(), https.into()), ("admin".to_owned(), admin.into())],
        ready: "ready",
    })?;
    nodes.ready(&[INGRE]).await?;
    Ok(Log::new(log))
}

/// Makes `count` requests of the lab's own, one when the line of the one before has been `shown`: the first from the
/// client through the VIP, which shows both legs, the others from the host.
///
/// # Errors
/// At the end, when some got another answer than expected; at once when the access log does not tell of one.
async fn request(
    client: Client,
    topology: &Topology,
    https: SocketAddrV4,
    count: usize,
    shown: &Cell<usize>,
) -> anyhow::Result<()> {
    let (mut answered, mut wrong) = (0, 0);
    let ip = if https.ip().is_unspecified() { Ipv4Addr::LOCALHOST } else { *https.ip() };
    for number in 0..count {
        // One turn is the VIP's.
        let turn = number % (plan::TRIES.len() + 1);
        let (expected, result) = match turn.checked_sub(1).and_then(|turn| plan::TRIES.get(turn)) {
            None => {
                let socket = client::socket_in(&topology.client)?;
                let vip = SocketAddr::from((plan::VIP, 443));
                (200, client.get(socket, vip, &plan::VIP.to_string(), "/").await)
            }
            Some(to) => {
                let host = SocketAddr::from((ip, https.port()));
                (to.status, client.get(TcpSocket::new_v4()?, host, to.domain, to.path).await)
            }
        };
        match result {
            Ok(status) => {
                answered += 1;
                wrong += usize::from(status != expected);
                let has_shown = async {
                    while shown.get() < answered {
                        tokio::time::sleep(SHORTLY).await;
                    }
                };
                let what = || format!("the access log does not tell of request {}", number + 1);
                tokio::time::timeout(PATIENCE, has_shown).await.with_context(what)?;
            }
            Err(error) => {
                wrong += 1;
                show(&format!("request {} of the lab has failed: {error:#}\n", number + 1));
            }
        }
    }
    if wrong > 0 {
        bail!("{wrong} of {count} requests got another answer than expected");
    }
    Ok(())
}

/// Shows requests and what the nodes say until the ingre node ends, or nobody reads any more.
async fn watch(nodes: &mut Nodes, mut log: Log, mut watch: Watch, shown: &Cell<usize>) -> anyhow::Result<()> {
    let mut open = true;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            lines = log.next(), if open => {
                let Some(lines) = lines else {
                    open = false;
                    continue;
                };
                if !show(&watch.show(&lines).await) {
                    return Ok(());
                }
                shown.set(shown.get() + lines.len());
            }
            Some(Said { node, line }) = nodes.said() => {
                // Each RS is found healthy at the start.
                if !line.ends_with("is Up, was Probing") {
                    show(&format!("[{node}] {line}\n"));
                }
            }
            _ = look.tick() => {
                match nodes.ended() {
                    None => {}
                    Some((INGRE, status)) => bail!("the ingre node has ended ({status})"),
                    Some((node, status)) => {
                        show(&format!("[{node}] has ended ({status}): see what requests get now; Ctrl-C ends the lab\n"));
                    }
                }
                watch.sample().await;
            }
        }
    }
}

async fn stopped(signals: &mut Signals) {
    while signals.next().await == Request::ReopenLog {}
}

/// Shows a text; `false` when nobody reads any more.
fn show(text: &str) -> bool {
    std::io::stdout().write_all(text.as_bytes()).is_ok()
}
