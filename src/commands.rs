//! The small commands.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap_complete::Shell;

use crate::config::{self, File};
use crate::sockets;
use crate::tunnels::{self, ShowOptions};

/// How long `healthcheck` waits for each step.
const PATIENCE: Duration = Duration::from_secs(2);
/// Far more than a page with thousands of tunnels.
const MAX_PAGE_BYTES: u64 = 64 << 20;

pub(crate) fn validate(path: &str) -> anyhow::Result<()> {
    let config = config::load(path)?;
    print(&format!(
        "{path}: {} listeners, {} domains, {} URL rules, {} pools, {} tunnels\n",
        config.proxy.listeners.len(),
        config.proxy.routes.domains.len(),
        config.proxy.routes.rules.len(),
        config.proxy.pools.len(),
        config.tunnels.len()
    ))
}

pub(crate) fn schema() -> anyhow::Result<()> {
    print(&schema_text()?)
}

fn schema_text() -> anyhow::Result<String> {
    let mut schema = schemars::schema_for!(File);
    schema.insert("title".into(), "ingre".into());
    Ok(format!("{}\n", serde_json::to_string_pretty(&schema)?))
}

pub(crate) fn version() -> anyhow::Result<()> {
    print(concat!("ingre ", env!("CARGO_PKG_VERSION"), "\n"))
}

pub(crate) fn completion(shell: Shell, command: &mut clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "ingre", &mut script);
    print(&String::from_utf8(script)?)
}

/// A demo RS on each of these addresses; ends with the process.
pub(crate) fn demo(addresses: &[SocketAddr], name: &str) -> anyhow::Result<()> {
    let mut threads = Vec::new();
    for (index, &address) in addresses.iter().enumerate() {
        let socket = sockets::bind(address, None).with_context(|| format!("cannot listen on {address}"))?;
        let name = if addresses.len() > 1 { format!("{name}-{}", index + 1) } else { name.to_owned() };
        crate::notice::say(&format!("real server {name} on http://{}", socket.local_addr()?));
        threads.push(std::thread::spawn(move || proxy::demo::serve(socket, &name, std::future::pending())));
    }
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a demo server has panicked"))??;
    }
    Ok(())
}

pub(crate) fn healthcheck(path: &str, admin: Option<SocketAddr>) -> anyhow::Result<()> {
    let address = admin_of(path, admin)?;
    let (status, _) = fetch(address, "/readyz")
        .with_context(|| format!("no answer from the admin listener on {address}"))?;
    if status != 200 {
        bail!("not ready: /readyz on {address} answers {status}");
    }
    print("ready\n")
}

/// Shows the tunnels of a running ingre.
pub(crate) fn tunnels(path: &str, options: &ShowOptions) -> anyhow::Result<()> {
    tunnels::show(admin_of(path, options.admin)?, options)
}

/// Where the admin listener is: as given, or as the configuration says.
fn admin_of(path: &str, given: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let address = match given {
        Some(address) => address,
        None => config::load(path)?.proxy.admin.context(
            "the configuration has no admin listener to ask: add `admin: {address: 127.0.0.1:9901}`",
        )?,
    };
    Ok(reachable(address))
}

/// The address to connect to for what a listener is bound to.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// Status and body of a page of the admin listener.
pub(crate) fn fetch(address: SocketAddr, page: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    io::Read::take(stream, MAX_PAGE_BYTES).read_to_string(&mut answer).map_err(|error| {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                anyhow::anyhow!("it does not end what it says, and was silent for {} s", PATIENCE.as_secs())
            }
            _ => error.into(),
        }
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("the answer is no HTTP")?, body.to_owned()))
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_schema_is_the_one_that_is_printed() {
        let shipped = include_str!("../docs/config.schema.json");
        let printed = schema_text().expect("a schema");
        assert!(shipped == printed, "run: cargo run -- schema > docs/config.schema.json");
    }
}
