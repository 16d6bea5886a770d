//! Redirects that lead to redirects: a client would be sent round, maybe for ever. Only those are seen whose address
//! is known without a request.

use http::Uri;

use super::{Action, Listener, Routes};
use crate::route::{Outcome, normalise_host, normalise_path};
use crate::rule::Template;

/// A rule whose redirect leads to another one, and where that is; both are indices of rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// All of them. `standing` says on which listeners the domain of a rule stands.
pub(super) fn find(
    routes: &Routes,
    listeners: &[Listener],
    standing: impl Fn(usize, usize) -> bool,
) -> Vec<Chain> {
    let mut chains = Vec::new();
    for (from, rule) in routes.rules.iter().enumerate() {
        let Action::Redirect(redirect) = &rule.action else { continue };
        for (index, listener) in listeners.iter().enumerate().filter(|(i, _)| standing(rule.domain, *i)) {
            let to = match leads_back(&redirect.to, listener) {
                true => Some(from),
                false => {
                    redirect.to.constant().and_then(|to| target(to, index, rule.domain, routes, listeners))
                }
            };
            chains.extend(to.map(|to| Chain { from, to }));
        }
    }
    chains.dedup_by_key(|chain| chain.from);
    chains
}

/// Whether the redirect leads to the very address that was asked for.
fn leads_back(to: &Template, listener: &Listener) -> bool {
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    ["$request_uri", "$uri", "$uri$is_args$args"].iter().any(|path| {
        ["$host", "$http_host"]
            .iter()
            .any(|host| Template::parse(&format!("{scheme}://{host}{path}"), 0).is_ok_and(|same| same == *to))
    })
}

/// The redirect that stands at a constant address.
fn target(
    to: &str,
    listener: usize,
    domain: usize,
    routes: &Routes,
    listeners: &[Listener],
) -> Option<usize> {
    let uri: Uri = to.parse().ok()?;
    let path = normalise_path(uri.path()).ok()?;
    let own_name = routes.domains.get(domain)?.split(", ").find(|name| !name.contains(['*', '~']));
    let host = uri.authority().map_or(own_name, |authority| Some(authority.as_str()))?;
    let host = normalise_host(host)?;
    let is_same_scheme = |candidate: usize| match uri.scheme_str() {
        None => candidate == listener,
        Some(scheme) => {
            let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
            let address = listeners.get(candidate).map(|other| (other.tls.is_some(), other.address.port()));
            address == Some((scheme == "https", port))
        }
    };
    let reached = |table: usize| {
        let is_plain = |rule: usize| routes.rules.get(rule).is_some_and(|rule| rule.when.is_none());
        match routes.tables.get(table)?.find(&host, path.as_str(), is_plain) {
            Outcome::Rule(found) => Some(found.target),
            _ => None,
        }
    };
    let is_redirect =
        |rule: &usize| routes.rules.get(*rule).is_some_and(|rule| matches!(rule.action, Action::Redirect(_)));
    (0..listeners.len())
        .filter(|index| is_same_scheme(*index))
        .find_map(|index| reached(index).filter(is_redirect))
}
