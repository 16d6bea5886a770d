//! What becomes of a request: its rule, and the head that goes to the RS or the answer that needs none.

use http::{Method, StatusCode};

use super::admit::admit;
use super::noted::Noted;
use super::{Waiting, headers, recipient};
use crate::access_log::{Matched, Record};
use crate::body::Body;
use crate::config::{Action, Mirror, More};
use crate::error::Error;
use crate::listener::{Connection, Response};
use crate::message::{RequestHead, ResponseHead};
use crate::route::{Outcome, normalise_host, normalise_path};
use crate::rule::{Cors, Escape, Facts};
use crate::state::View;

/// What is to be done.
pub(super) enum Plan {
    /// Send it to an RS of the pool with this index, with a body up to this size, and maybe a copy elsewhere.
    Send { pool: usize, body_size: Option<u64>, mirror: Option<Mirror> },
    /// Find out who the client is, and plan again.
    Authorise { rule: usize },
    /// This is the answer.
    Answer(Box<Response>),
}

impl Plan {
    /// Apart, because it is large and most requests are sent on.
    pub(super) fn answer(response: Response) -> Self {
        Self::Answer(Box::new(response))
    }
}

/// Whether a request has been let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody has looked at it.
    Arrived,
    /// It has passed everybody who has to agree.
    Authorised,
}

/// Finds the rule of the request in `record`, applies what it does to the request, and makes the head the one for the
/// RS.
pub(super) fn plan(
    view: &View,
    connection: &Connection,
    waiting: &Waiting,
    stage: Stage,
    record: &mut Record,
    noted: &mut Noted,
) -> Result<Plan, Error> {
    let client = record.client;
    let Some(head) = record.head.as_deref_mut() else { return Err(Error::Internal) };
    if head.method == Method::TRACE {
        return Err(Error::Trace);
    }
    let host = normalise_host(&head.authority).ok_or(Error::Host)?;
    check_certificate(view, connection, &host)?;
    let end = head.target.bytes().position(|byte| byte == b'?').unwrap_or(head.target.len());
    let (path, query) = head.target.split_at(end);
    // `OPTIONS *` asks about the server as a whole (RFC 9110 9.3.7): the rule for `/` decides who that is.
    let normal = normalise_path(if path == "*" { "/" } else { path }).map_err(|_| Error::Path)?;
    let with_query = |path: &str| format!("{path}{query}");
    let facts = Facts {
        head,
        asked: &head.target,
        host: &host,
        path: normal.as_str(),
        client,
        peer: connection.peer,
        https: connection.https,
        sni: connection.sni.as_deref(),
        certificate: connection.proof.as_ref().and_then(|proof| proof.certificate.as_ref()),
        user: record.user.as_deref(),
        answered: None,
    };
    if let Some(to) = &view.listener(connection.listener).https_redirect {
        return Ok(Plan::answer(redirect(to.status, &to.location(&facts))));
    }
    let accepted = |target| view.choose(target, head, client).is_some();
    let (target, adds_slash) = match view.table(connection.listener).find(&host, normal.as_str(), accepted) {
        Outcome::Rule(found) => (found.target, false),
        Outcome::RedirectToSlash(found) => (found.target, true),
        Outcome::NoRule { .. } | Outcome::NoDomain => return Err(Error::NoRoute),
    };
    let number = view.choose(target, head, client).ok_or(Error::Internal)?;
    let rule = view.rule(number);
    let mut matched = Matched { rule: number, pool: None };
    if let Action::Pool(pool) = rule.action {
        matched.pool = Some(pool);
    }
    record.route = Some(matched);
    if stage == Stage::Arrived
        && let Some(more) = &rule.more
    {
        noted.coding = more.compress.as_ref().and_then(|compress| compress.choose(head));
        admit(view, more, head, client, &mut record.permits, noted)?;
        if let Some(answer) = preflight(more, head, noted) {
            return Ok(Plan::answer(answer));
        }
        if more.auth.is_some() {
            return Ok(Plan::Authorise { rule: number });
        }
    }
    if adds_slash {
        let scheme = if connection.https { "https" } else { "http" };
        let path = with_query(&format!("{}/", normal.as_str()));
        let location = format!("{scheme}://{}{path}", head.authority);
        return Ok(Plan::answer(redirect(StatusCode::MOVED_PERMANENTLY, location.as_bytes())));
    }
    let mut target = (path != "*" && normal.forwarded() != path).then(|| with_query(normal.forwarded()));
    let mut edits = None;
    let mut other_host = None;
    if let Some(more) = &rule.more {
        if let Some(rewrite) = &more.rewrite {
            target = rewrite.target(&facts).map_err(|_| Error::Path)?.or(target);
        }
        if let Some(host) = &more.host {
            let host = String::from_utf8(host.render(&facts, None, Escape::Controls));
            other_host = Some(host.ok().filter(|host| normalise_host(host).is_some()).ok_or(Error::Host)?);
        }
        edits = (!more.request_headers.is_empty())
            .then(|| (&more.request_headers, more.request_headers.values(&facts)));
    }
    let pool = match &rule.action {
        Action::Pool(pool) => *pool,
        // That every share is 0 is refused when the configuration is read.
        Action::Split(split) => {
            view.turn(split.number).map(|turn| split.pools[turn].0).ok_or(Error::NoServer)?
        }
        Action::Redirect(to) => return Ok(Plan::answer(redirect(to.status, &to.location(&facts)))),
        Action::Respond(fixed) => {
            return Ok(Plan::answer(Response::text(fixed.status, &fixed.content_type, fixed.body(&facts))));
        }
    };
    record.route = Some(Matched { pool: Some(pool), ..matched });
    if head.method == Method::OPTIONS && recipient::is_last(&mut head.headers) {
        return Ok(Plan::answer(recipient::options()));
    }
    if let Some(target) = target {
        record.asked = Some(std::mem::replace(&mut head.target, target));
    }
    if let Some(host) = other_host {
        record.asked_host = Some(std::mem::replace(&mut head.authority, host));
    }
    headers::request(head, &headers::client(view, connection), waiting.upgrade);
    if let Some(proof) = &connection.proof {
        proof.tell(&mut head.headers);
    }
    if waiting.body.awaits_continue() {
        head.headers.append("Expect", "100-continue");
    }
    if let Some((edits, values)) = edits {
        edits.apply(&mut head.headers, &values);
    }
    noted.tell(&mut head.headers);
    let Some(more) = &rule.more else { return Ok(Plan::Send { pool, body_size: None, mirror: None }) };
    let mirror = more.mirror.filter(|mirror| view.turn(mirror.turns) == Some(0));
    Ok(Plan::Send { pool, body_size: more.body_size, mirror })
}

fn preflight(more: &More, head: &RequestHead, noted: &mut Noted) -> Option<Response> {
    let cors = more.cors.as_ref()?;
    let answer = cors.judge(head);
    let response = Cors::is_preflight(head).then(|| {
        let mut response = Box::new(ResponseHead::new(StatusCode::NO_CONTENT));
        cors.preflight(head, &answer, &mut response.headers);
        Response::new(response, Body::empty())
    });
    // The answer to a preflight request is complete.
    noted.cors = response.is_none().then_some(answer);
    response
}

/// A client that asked for one certificate may not use the connection for a host of another (RFC 9110 7.4).
/// Without SNI there was no choice, and nothing is refused. What it was asked to prove has to be what the host wants.
fn check_certificate(view: &View, connection: &Connection, host: &str) -> Result<(), Error> {
    let Some(tls) = &view.listener(connection.listener).tls else { return Ok(()) };
    if !tls.admits(connection.proof.as_deref(), host) {
        return Err(Error::Misdirected);
    }
    let Some(sni) = &connection.sni else { return Ok(()) };
    if tls.shelf.is_same(sni, host) { Ok(()) } else { Err(Error::Misdirected) }
}

/// A redirect to this address.
pub(super) fn redirect(status: StatusCode, location: &[u8]) -> Response {
    let mut response = Response::text(status, "text/plain; charset=utf-8", "");
    response.head.headers.append("Location", location);
    response
}
