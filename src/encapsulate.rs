//! `ingre encap`: the tunnels alone, as a sidecar of a proxy without privileges or as an L4 node.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::bail;

use crate::notice::say;
use crate::signals::{Request, Signals};
use crate::sockets::HandedIn;
use crate::tunnels::{Carrier, Prepared};
use crate::{config, exit, notice, sockets};

/// Carries until it is told to stop.
pub(crate) fn run(path: &str, admin: Option<SocketAddr>) -> anyhow::Result<()> {
    let mut config = config::load(path)?;
    if config.tunnels.is_empty() {
        bail!("the configuration has no tunnel: add one under `tunnels:`");
    }
    let has_listeners = !config.proxy.listeners.is_empty();
    config.proxy.admin = admin.or(config.proxy.admin.filter(|_| !has_listeners));
    let prepared = Prepared::new(&config.tunnels, config.process.engine_threads)?;
    let mut handed_in = HandedIn::take()?;
    let admin = sockets::admin(&config.proxy, &mut handed_in, None)?;
    handed_in.finish()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = Signals::new(&runtime)?;
    let carrier = Arc::new(prepared.start()?);
    if let Some(admin) = admin {
        say(&format!("admin serves http://{}", admin.local_addr()?));
        let metrics = Arc::downgrade(&carrier);
        let metrics = move || metrics.upgrade().map_or_else(String::new, |carrier| carrier.metrics());
        proxy::serve_pages(admin, vec![carrier.page(), proxy::Page::metrics(Arc::new(metrics))])?;
    }
    say(&format!("carrying {} tunnels", config.tunnels.len()));
    let ended = runtime.block_on(watch(&mut signals, &carrier, path));
    // The helper takes everything down before this returns; nobody else holds the tunnels for longer than a page takes.
    let weak: Weak<Carrier> = Arc::downgrade(&carrier);
    drop(carrier);
    while weak.strong_count() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    ended
}

async fn watch(signals: &mut Signals, carrier: &Carrier, path: &str) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::Stop => return Ok(()),
                Request::ReopenLog => say("there is no log to open again"),
                Request::Reload => match reload(carrier, path) {
                    Ok(count) => say(&format!("reloaded, carrying {count} tunnels")),
                    Err(error) => {
                        say(&format!("not reloaded, the old configuration stays: {}", notice::chain(&error)));
                    }
                },
            },
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                if let Some(reason) = carrier.failure() {
                    exit::abandon(&format!("the tunnels have failed: {reason}"));
                }
            }
        }
    }
}

/// Reads the file again; returns how many tunnels there are now.
fn reload(carrier: &Carrier, path: &str) -> anyhow::Result<usize> {
    if path == "-" {
        bail!("there is no file to read again");
    }
    let config = config::load(path)?;
    let change = carrier.change(&config.tunnels)?;
    carrier.finish(change)?;
    Ok(config.tunnels.len())
}
