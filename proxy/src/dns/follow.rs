//! Keeps the addresses of names up to date: asks again when they expire, and keeps what is known when nobody answers.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::client::{Found, lookup};
use crate::net::random_byte;
use crate::publish::Publisher;

/// However long a server says that its answer holds.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);
/// Longest pause after failures; each one doubles it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the metrics say about each name.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<BTreeMap<String, Known>>);

/// What is known about a name.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Known {
    /// Number of its addresses.
    pub(crate) addresses: usize,
    /// How often it could not be resolved.
    pub(crate) failures: u64,
}

impl Names {
    /// Every name, in order.
    pub(crate) fn all(&self) -> Vec<(String, Known)> {
        self.lock().iter().map(|(name, known)| (name.clone(), *known)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Told what an operator wants to know.
type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// One task for each name of the present configuration.
pub(crate) struct Follower {
    publisher: Arc<Publisher>,
    notice: Notice,
    names: Arc<Names>,
    servers: Vec<SocketAddr>,
    running: HashMap<String, JoinHandle<()>>,
}

impl Follower {
    pub(crate) fn new(publisher: Arc<Publisher>, notice: Notice, names: Arc<Names>) -> Self {
        Self { publisher, notice, names, servers: Vec::new(), running: HashMap::new() }
    }

    /// Follows the names of the present configuration from now on.
    pub(crate) fn follow(&mut self) {
        let (wanted, servers) = self.publisher.names();
        let same = self.servers == servers;
        self.servers = servers;
        self.running.retain(|name, task| {
            let stays = same && wanted.contains(name);
            if !stays {
                task.abort();
            }
            stays
        });
        self.names.lock().retain(|name, _| wanted.contains(name));
        for name in wanted {
            let follow = || {
                tokio::task::spawn_local(keep_resolved(
                    name.clone(),
                    self.servers.clone(),
                    Arc::clone(&self.publisher),
                    Arc::clone(&self.notice),
                    Arc::clone(&self.names),
                ))
            };
            self.running.entry(name.clone()).or_insert_with(follow);
        }
    }
}

async fn keep_resolved(
    name: String,
    servers: Vec<SocketAddr>,
    publisher: Arc<Publisher>,
    notice: Notice,
    names: Arc<Names>,
) {
    let mut failures = 0;
    loop {
        let known = publisher.addresses(&name);
        let (fresh, ttl, failure) = match lookup(&servers, &name).await {
            Ok(found) => {
                let incomplete = found.v4.is_none() || found.v6.is_none();
                let failure = incomplete.then(|| "the answer is incomplete".to_owned());
                let ttl = found.ttl;
                (merged(&known, found), ttl, failure)
            }
            Err(failure) => (known.clone(), Duration::ZERO, Some(failure)),
        };
        if let Some(failure) = &failure
            && failures == 0
        {
            let kept = fresh.len();
            notice(&format!("the name {name} is not resolved: {failure}; it keeps {kept} addresses"));
        }
        failures = failure.as_ref().map_or(0, |_| failures + 1);
        let entry = Known { addresses: fresh.len(), failures: u64::from(failure.is_some()) };
        count(&names, &name, entry);
        if fresh != known {
            let shown: Vec<_> = fresh.iter().map(ToString::to_string).collect();
            notice(&format!("the name {name} stands for {}", shown.join(", ")));
            if let Err(error) = publisher.resolved(&name, fresh) {
                notice(&format!("the addresses of {name} cannot be used: {error}"));
            }
        }
        tokio::time::sleep(pause(ttl, failures, random_byte())).await;
    }
}

fn count(names: &Names, name: &str, seen: Known) {
    let mut all = names.lock();
    let known = all.entry(name.to_owned()).or_default();
    known.addresses = seen.addresses;
    known.failures += seen.failures;
}

/// What was found; of a family that no server could speak for, what was known.
fn merged(known: &[IpAddr], found: Found) -> Vec<IpAddr> {
    let old = |v4: bool| known.iter().copied().filter(|ip| ip.is_ipv4() == v4).collect();
    let mut all: Vec<IpAddr> = found.v4.unwrap_or_else(|| old(true));
    all.extend(found.v6.unwrap_or_else(|| old(false)));
    // Servers turn the order with every answer.
    all.sort_unstable();
    all.dedup();
    all
}

/// How long to wait before asking again, up to a tenth less at random so that many names or nodes do not ask at once.
fn pause(ttl: Duration, failures: u32, random: u8) -> Duration {
    let whole = match failures {
        0 => ttl.clamp(SHORTEST, LONGEST),
        failures => SHORTEST.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST_PAUSE),
    };
    whole - whole / 10 * random.into() / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_pause_is_the_time_that_is_left_within_bounds() {
        assert_eq!(pause(60 * SECOND, 0, 0), 60 * SECOND);
        assert_eq!(pause(60 * SECOND, 0, 255), 54 * SECOND);
        assert_eq!(pause(Duration::ZERO, 0, 0), SECOND);
        assert_eq!(pause(864_000 * SECOND, 0, 0), 3600 * SECOND);
        let after = [1, 2, 3, 6, u32::MAX].map(|failures| pause(Duration::ZERO, failures, 0).as_secs());
        assert_eq!(after, [1, 2, 4, 30, 30]);
    }

    #[test]
    fn a_family_nobody_speaks_for_is_kept() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let known = [ip("192.0.2.1"), ip("2001:db8::1")];
        let found = |v4: Option<&str>, v6: Option<&str>| Found {
            v4: v4.map(|text| vec![ip(text)]),
            v6: v6.map(|text| vec![ip(text)]),
            ttl: SECOND,
        };
        let merge = |v4, v6| merged(&known, found(v4, v6));
        assert_eq!(merge(Some("192.0.2.9"), None), [ip("192.0.2.9"), ip("2001:db8::1")]);
        assert_eq!(merge(None, Some("2001:db8::9")), [ip("192.0.2.1"), ip("2001:db8::9")]);
        let gone =
            Found { v4: Some(vec![ip("192.0.2.9"), ip("192.0.2.2")]), v6: Some(Vec::new()), ttl: SECOND };
        assert_eq!(merged(&known, gone), [ip("192.0.2.2"), ip("192.0.2.9")]);
    }
}
