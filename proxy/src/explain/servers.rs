//! Who might answer, and how much patience everybody has.

use super::{Explained, Page};
use crate::config::{Action, HashKey, Method, Pool, Protocol, Rule, Server, show_duration};
use crate::error::Error;

impl Explained<'_> {
    /// Tells it; an error where nobody could.
    pub(super) fn tell_servers(&self, page: &mut Page, rule: &Rule) -> Result<(), Error> {
        let shares = match &rule.action {
            Action::Pool(pool) => vec![(*pool, 1)],
            Action::Split(split) => split.pools.clone(),
            Action::Redirect(_) | Action::Respond(_) => return Ok(()),
        };
        let limits = self.listener;
        let of_rule = rule.more.as_ref().and_then(|more| more.body_size).unwrap_or(u64::MAX);
        page.line(
            "client may",
            format!(
                "send {} within {} and a body of {} with pauses of {}, and take nothing for {}",
                size(limits.client_header_size as u64),
                show_duration(&limits.client_header_timeout),
                size(limits.client_max_body_size.min(of_rule)),
                show_duration(&limits.client_body_timeout),
                show_duration(&limits.send_timeout),
            ),
        );
        let all: u32 = shares.iter().map(|(_, weight)| u32::from(*weight)).sum();
        let mut serves = false;
        for (pool, weight) in shares {
            let Some(pool) = self.config.pools.get(pool) else { continue };
            let share = if all == u32::from(weight) {
                String::new()
            } else {
                format!(" for {} of {all} requests", weight)
            };
            serves |= weight > 0 && tell_pool(page, pool, &share);
        }
        if serves { Ok(()) } else { Err(Error::NoServer) }
    }
}

/// Whether the pool has an RS for a request.
fn tell_pool(page: &mut Page, pool: &Pool, share: &str) -> bool {
    let tunnel =
        pool.tunnel.as_ref().map_or(String::new(), |tunnel| format!(", through the tunnel {tunnel}"));
    page.line("pool", format!("{}{share}{tunnel}, {}", pool.name, spoken(pool)));
    let checked = match &pool.health_check {
        Some(check) => format!("checked every {}", show_duration(&check.interval)),
        None => "not checked".to_owned(),
    };
    page.below(format!(
        "{checked}; may take {} to accept, {} to take and {} to answer",
        show_duration(&pool.connect_timeout),
        show_duration(&pool.send_timeout),
        show_duration(&pool.read_timeout),
    ));
    if let Some(balancing) = &pool.balancing {
        page.below(balanced(&balancing.method));
        if let Some(sticky) = &balancing.sticky {
            page.below(format!("but first the RS that the cookie `{}` names", sticky.cookie));
        }
    }
    for server in &pool.servers {
        page.below(format!("RS {}, {}", server.address, described(server)));
    }
    for named in &pool.named {
        page.below(format!(
            "RS {}:{}, each of its addresses, {}",
            named.name,
            named.port,
            described(&named.server)
        ));
    }
    pool.servers.iter().chain(pool.named.iter().map(|named| &named.server)).any(|server| server.weight > 0)
}

/// What its RS are spoken to in.
fn spoken(pool: &Pool) -> String {
    let protocol = match pool.protocol {
        Protocol::Http1 => "HTTP/1.1",
        Protocol::Http2 => "HTTP/2",
        Protocol::Grpc => "gRPC",
    };
    match &pool.tls {
        None => format!("{protocol} in clear"),
        Some(tls) if tls.roots.is_none() && tls.pins.is_empty() => {
            format!("{protocol} over TLS, not verified")
        }
        Some(_) => format!("{protocol} over TLS, verified"),
    }
}

fn described(server: &Server) -> String {
    let most = server.max_connections.map(|most| format!(", at most {most} requests"));
    let backup = if server.backup { ", backup" } else { "" };
    let drained = if server.weight == 0 { " (drained)" } else { "" };
    format!("weight {}{drained}{}{backup}", server.weight, most.unwrap_or_default())
}

fn balanced(method: &Method) -> String {
    let key = |key: &HashKey| match key {
        HashKey::Client => "client".to_owned(),
        HashKey::Host => "host".to_owned(),
        HashKey::Path => "path".to_owned(),
        HashKey::Uri => "path and query".to_owned(),
        HashKey::Header(name) => format!("header field {name}"),
        HashKey::Cookie(name) => format!("cookie {name}"),
        HashKey::Query(name) => format!("query parameter {name}"),
    };
    match method {
        Method::WeightedRoundRobin => "in turn, by weight".to_owned(),
        Method::LeastConnections => "the RS with the fewest requests for its weight".to_owned(),
        Method::IpHash => "the RS that the client's address leads to".to_owned(),
        Method::PeakEwma => "the quicker of two RS picked at random".to_owned(),
        Method::Maglev(by) | Method::RingHash(by) => format!("the RS that the {} leads to", key(by)),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        u64::MAX => "any size".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}k", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}
