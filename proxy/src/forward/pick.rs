//! Who gets a request of a pool that balances by more than turns, and the wait where every RS is full.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::apart::apart;
use crate::config::{self, HashKey};
use crate::error::{Error, Fault};
use crate::message::{RequestHead, ResponseHead};
use crate::net::clock;
use crate::pool::{Excluded, cookie, hash};
use crate::route::normalise_host;
use crate::state::{Ask, Balancer, Grant, Outcome, Picked, View};

/// The RS for a request, with its room there where that is counted; waits where every one is full and the pool lets it.
#[inline]
pub(super) async fn pick(
    view: &View,
    pool: usize,
    tried: &Excluded,
    head: &RequestHead,
    client: IpAddr,
) -> Result<(usize, Option<Grant>), Error> {
    let Some(balancer) = view.balancer(pool) else {
        return view.pick(pool, tried).map(|server| (server, None)).ok_or(Error::NoServer);
    };
    let grant = granted(view, balancer, pool, tried, head, client).await?;
    Ok((grant.server(), Some(grant)))
}

async fn granted(
    view: &View,
    balancer: &Arc<Balancer>,
    pool: usize,
    tried: &Excluded,
    head: &RequestHead,
    client: IpAddr,
) -> Result<Grant, Error> {
    let admitted = balancer.admit().ok_or(Error::PoolFull)?;
    let ask = Ask {
        tried,
        key: balancer.hash_key().and_then(|key| hash_of(key, head, client)),
        bound: balancer.sticky.as_ref().and_then(|sticky| sticky.bound(&head.headers, clock::calendar())),
    };
    let mut admitted = Some(admitted);
    let mut attempt = || match view.pick_by(balancer, pool, &ask) {
        Picked::Full => None,
        Picked::Nobody => Some(Err(Error::NoServer)),
        Picked::Server(held) => admitted.take().map(|admitted| Ok(held.with(admitted))),
    };
    // Nobody overtakes those who wait.
    let at_once = if balancer.line().len() == 0 { attempt() } else { None };
    match at_once {
        Some(decided) => decided,
        None => apart(|| wait(balancer, attempt)).await,
    }
}

async fn wait(
    balancer: &Balancer,
    attempt: impl FnMut() -> Option<Result<Grant, Error>>,
) -> Result<Grant, Error> {
    let config::Queue { size, timeout } = balancer.queue;
    if size == 0 {
        return Err(Error::NoRoom);
    }
    let ticket = balancer.line().line_up(size).ok_or(Error::QueueFull)?;
    tokio::time::timeout(timeout, ticket.wait(attempt)).await.map_err(|_| Error::QueueTimeout)?
}

/// The head of a response has come: the balancer learns from it, and a sticky client is bound to its RS.
pub(super) fn answered(
    view: &View,
    pool: usize,
    server: usize,
    took: Option<Duration>,
    response: &mut ResponseHead,
    https: bool,
) {
    let Some(balancer) = view.balancer(pool) else { return };
    view.learn(balancer, pool, server, Outcome::Status(response.status.as_u16()), took);
    if let Some(sticky) = &balancer.sticky {
        let address = view.server(pool, server).address;
        sticky.bind(&mut response.headers, address, https, clock::calendar());
    }
}

/// There will be no response.
pub(super) fn failed(view: &View, pool: usize, server: usize, took: Option<Duration>, error: &Error) {
    let Some(balancer) = view.balancer(pool) else { return };
    // That a tunnel gives no socket is no fault of one RS, and neither is what the client does.
    if error.fault() == Fault::Upstream && *error != Error::Tunnel {
        view.learn(balancer, pool, server, Outcome::Failed, took);
    }
}

/// The hash of what a request is balanced by; `None` where it has no such thing.
fn hash_of(key: &HashKey, head: &RequestHead, client: IpAddr) -> Option<u64> {
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    let hash = match key {
        HashKey::Client => match client.to_canonical() {
            IpAddr::V4(address) => hash(&address.octets()),
            IpAddr::V6(address) => hash(&address.octets()),
        },
        HashKey::Host => hash(normalise_host(&head.authority)?.as_bytes()),
        HashKey::Path => hash(path.as_bytes()),
        HashKey::Uri => hash(head.target.as_bytes()),
        HashKey::Header(name) => hash(head.headers.get(name)?),
        HashKey::Cookie(name) => hash(cookie(head.headers.get_all("cookie"), name)?),
        HashKey::Query(name) => {
            let value = |pair: &'_ str| pair.strip_prefix(name.as_str())?.strip_prefix('=').map(str::len);
            let pair = query.split('&').find(|pair| value(pair).is_some())?;
            hash(pair.as_bytes())
        }
    };
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str) -> RequestHead {
        let mut head = RequestHead {
            target: target.into(),
            authority: "Shop.example:8443".into(),
            ..RequestHead::default()
        };
        head.headers.append("X-User", "ann");
        head.headers.append("Cookie", "a=1; session=s1");
        head
    }

    fn of(key: HashKey, target: &str) -> Option<u64> {
        hash_of(&key, &head(target), "192.0.2.1".parse().unwrap())
    }

    #[test]
    fn each_key_is_that_part_of_a_request_and_no_other() {
        use HashKey::{Client, Cookie, Header, Host, Path, Query, Uri};
        let (one, other) = ("/a?id=1&x=1", "/a?x=2&id=1");
        for (key, same) in [
            (Client, true),
            (Host, true),
            (Path, true),
            (Uri, false),
            (Header("x-user".into()), true),
            (Cookie("session".into()), true),
            (Query("id".into()), true),
            (Query("x".into()), false),
        ] {
            assert!(of(key.clone(), one).is_some(), "{key:?}");
            assert_eq!(of(key.clone(), one) == of(key.clone(), other), same, "{key:?}");
        }
        assert_ne!(of(Path, "/a"), of(Path, "/b"));
        assert_eq!(of(Host, "/"), Some(hash(b"shop.example")));
        for absent in [Header("x-other".into()), Cookie("sess".into()), Query("i".into())] {
            assert_eq!(of(absent, one), None);
        }
        let mapped = hash_of(&Client, &head("/"), "::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(mapped, of(Client, "/"));
    }
}
