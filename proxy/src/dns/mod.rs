//! Names of RS: resolved without anybody waiting for it, resolved again when their time is over.
//!
//! It decides what addresses a name stands for. It never touches a request: a change becomes another snapshot, in which
//! an RS that stays keeps its state. [`message`] and [`system`] are pure.

mod client;
mod follow;
mod message;
mod system;

use std::net::{IpAddr, SocketAddr};

pub(crate) use self::follow::{Follower, Known, Names};

/// The addresses of a name, asked for once: from these servers, or, if there are none, from what the system is configured
/// for.
///
/// # Errors
/// Why there are none.
pub(crate) async fn addresses(servers: &[SocketAddr], name: &str) -> Result<Vec<IpAddr>, String> {
    let found = client::lookup(servers, name).await?;
    Ok([found.v6, found.v4].into_iter().flatten().flatten().collect())
}
