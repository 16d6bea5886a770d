//! Who has to agree before the request passes.

use std::net::IpAddr;

use super::{Explained, Page};
use crate::config::{More, show_duration};
use crate::error::Error;
use crate::limit::Limit;

impl Explained<'_> {
    /// Tells it; an error where this client may not come at all.
    pub(super) fn tell_admission(&self, page: &mut Page, more: &More, client: IpAddr) -> Result<(), Error> {
        if !more.access.allows(client) {
            return Err(Error::AccessDenied);
        }
        for limit in more.limits.iter().filter_map(|number| self.config.routes.limits.get(*number)) {
            page.line("limit", limited(limit));
        }
        let Some(auth) = &more.auth else { return Ok(()) };
        if auth.basic.is_some() {
            page.line("wanted", "a name and a password (`basic_auth`); else 401");
        }
        if auth.jwt.is_some() {
            page.line("wanted", "a token (`jwt`); else 401");
        }
        if let Some(forward) = &auth.forward {
            let pool = self.config.pools.get(forward.pool).map_or("", |pool| &pool.name);
            page.line("wanted", format!("2xx from the pool {pool} for {} (`forward_auth`)", forward.path));
        }
        Ok(())
    }
}

fn limited(limit: &Limit) -> String {
    let rate = limit.rate.map(|rate| {
        let (interval, burst) = (show_duration(&rate.interval()), rate.burst());
        format!("one request every {interval}, {burst} at once")
    });
    let in_flight = limit.in_flight.map(|most| format!("{most} in flight"));
    let limits: Vec<_> = rate.into_iter().chain(in_flight).collect();
    format!("{} for each {}; else 429", limits.join(" and "), limit.per)
}
