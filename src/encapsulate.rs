//! `ingre encap`: the tunnels alone, as a sidecar of a proxy without privileges or as an L4 node.

use std::time::Duration;

use anyhow::bail;

use crate::notice::say;
use crate::signals::{Request, Signals};
use crate::tunnels::Prepared;
use crate::{config, exit};

/// Carries until it is told to stop.
pub(crate) fn run(path: &str) -> anyhow::Result<()> {
    let config = config::load(path)?;
    if config.process.tunnels.is_empty() {
        bail!("the configuration has no tunnel: add one under `tunnels:`");
    }
    let prepared = Prepared::new(&config.process.tunnels, config.process.engine_threads)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = Signals::new(&runtime)?;
    let carrier = prepared.start()?;
    say(&format!("carrying {} tunnels", config.process.tunnels.len()));
    runtime.block_on(async {
        loop {
            tokio::select! {
                request = signals.next() => match request {
                    Request::Stop => return Ok(()),
                    Request::Reload | Request::ReopenLog => say("tunnels change only with a restart"),
                },
                () = tokio::time::sleep(Duration::from_millis(200)) => {
                    if let Some(reason) = carrier.failure() {
                        exit::abandon(&format!("the tunnels have failed: {reason}"));
                    }
                }
            }
        }
    })
}
