//! The request path, the steps in order: route -> pick -> send -> respond.

pub(crate) mod headers;
mod retry;

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

use self::headers::Client;
use self::retry::{Attempt, may_retry};
use crate::access_log::{Lines, Matched, Record};
use crate::body::{Body, Counter};
use crate::error::Error;
use crate::listener::{Connection, Handler, Refused, Request, Response, Switched};
use crate::message::{RequestHead, ResponseHead};
use crate::pool::Excluded;
use crate::route::{Outcome, normalise_host, normalise_path};
use crate::state::{Current, View};
use crate::upstream::{Exchange, Place, Upstreams};

/// Forwards requests; one per worker.
pub(crate) struct Forwarder {
    pub(crate) current: Rc<Current>,
    pub(crate) upstreams: Rc<Upstreams>,
    pub(crate) lines: Rc<Lines>,
}

impl Handler for Forwarder {
    type Connection = Connection;

    async fn handle(&self, connection: &Connection, request: Request) -> Response {
        let view = self.current.view();
        let Request { head, body, upgrade, arrived, received } = request;
        let trusted = |address: IpAddr| view.trusts(address);
        let client = headers::client_address(&head.headers, connection.peer.ip(), &trusted);
        // Exact only where somebody reads it.
        let started = if self.lines.is_on() { Instant::now() } else { arrived };
        let mut record = self.record(&view, connection, client, started, received);
        let head = record.head.insert(head);
        let answered = match prepare(&view, connection, head, upgrade) {
            Err(error) => Err(error),
            Ok(Prepared { matched, asked, next }) => {
                record.route = Some(matched);
                record.asked = asked;
                match next {
                    Next::Redirect(location) => Ok(redirect(&location)),
                    Next::Send => {
                        self.send(&view, connection, body, upgrade, matched.pool, &mut record).await
                    }
                }
            }
        };
        finish(answered, record)
    }

    fn refuse(&self, connection: &Connection, refused: Refused) -> Response {
        let view = self.current.view();
        let mut record =
            self.record(&view, connection, connection.peer.ip(), Instant::now(), Counter::default());
        record.head = refused.head;
        finish(Err(refused.error), record)
    }
}

/// The answer with its log record, or the page that says why there is none.
fn finish(answered: Result<Response, Error>, mut record: Box<Record>) -> Response {
    let mut response = answered.unwrap_or_else(|error| {
        record.reason = Some(error);
        Response::failed(&error)
    });
    record.status = response.head.status.as_u16();
    response.record = Some(record);
    response
}

impl Forwarder {
    /// Sends the request to an RS, and once more to another where that is safe.
    async fn send(
        &self,
        view: &Rc<View>,
        connection: &Connection,
        mut body: Body,
        upgrade: bool,
        pool: usize,
        record: &mut Record,
    ) -> Result<Response, Error> {
        let Some(head) = &record.head else { return Err(Error::Internal) };
        let client_timeout = view.listener(connection.listener).limits.body_timeout;
        let mut tried = Excluded::default();
        let mut failed = None;
        let mut begun = record.started;
        loop {
            // Where no other RS is left, the failure of the last one is the answer.
            let Some(server) = view.pick(pool, &tried) else { return Err(failed.unwrap_or(Error::NoServer)) };
            record.server = Some(server);
            let mut attempt = Attempt::new(&head.method, body.is_empty());
            let io = match self.upstreams.take(view, pool, server, begun) {
                Some(io) => {
                    attempt.reused = true;
                    Ok(io)
                }
                None => {
                    let connected = self.upstreams.connect(view, pool, server).await;
                    record.connect = self.lines.is_on().then(|| begun.elapsed());
                    connected
                }
            };
            let error = match io {
                Err(error) => error,
                Ok(io) => {
                    attempt.connected = true;
                    let place =
                        Place { upstreams: Rc::clone(&self.upstreams), view: Rc::clone(view), pool, server };
                    let sent = std::mem::replace(&mut body, Body::empty());
                    let mut exchange = Exchange::new(io, place, head, sent, client_timeout);
                    match exchange.head().await {
                        Ok(response) => {
                            record.header = self.lines.is_on().then(|| begun.elapsed());
                            record.upstream_status = Some(response.status.as_u16());
                            return respond(exchange, response, upgrade, view.pool(pool).read_timeout);
                        }
                        Err(error) => {
                            attempt.answered = exchange.received();
                            error
                        }
                    }
                }
            };
            // A connection that went stale says nothing about its RS: that one may be asked again.
            let stale = attempt.reused && error == Error::UpstreamClosed;
            if !may_retry(&attempt, record.retries, &error) || !(stale || tried.insert(server)) {
                return Err(error);
            }
            record.retries += 1;
            failed = Some(error);
            begun = Instant::now();
        }
    }

    fn record(
        &self,
        view: &Rc<View>,
        connection: &Connection,
        client: IpAddr,
        started: Instant,
        received: Counter,
    ) -> Box<Record> {
        Box::new(Record {
            lines: Rc::clone(&self.lines),
            view: Rc::clone(view),
            started,
            listener: connection.listener,
            client,
            peer: connection.peer,
            https: connection.https,
            head: None,
            asked: None,
            sni: connection.sni.clone(),
            route: None,
            server: None,
            status: 0,
            upstream_status: None,
            connect: None,
            header: None,
            retries: 0,
            reason: None,
            received,
            sent: 0,
        })
    }
}

/// A request that is ready to be sent, or an answer that needs no RS.
struct Prepared {
    matched: Matched,
    /// The target as it came, where it was changed.
    asked: Option<String>,
    next: Next,
}

enum Next {
    Send,
    Redirect(String),
}

/// Finds the rule and makes the head the one for the RS.
fn prepare(
    view: &View,
    connection: &Connection,
    head: &mut RequestHead,
    upgrade: bool,
) -> Result<Prepared, Error> {
    let (matched, target, next) = route(view, connection, head)?;
    let asked = target.map(|target| std::mem::replace(&mut head.target, target));
    let from = Client {
        peer: connection.address,
        trusted: view.trusts(connection.peer.ip()),
        https: connection.https,
    };
    headers::request(head, &from, upgrade);
    Ok(Prepared { matched, asked, next })
}

/// The rule for a request, and the target where that is not to be sent on as it came.
fn route(
    view: &View,
    connection: &Connection,
    head: &RequestHead,
) -> Result<(Matched, Option<String>, Next), Error> {
    let host = normalise_host(&head.authority).ok_or(Error::Host)?;
    check_certificate(view, connection, &host)?;
    let end = head.target.bytes().position(|byte| byte == b'?').unwrap_or(head.target.len());
    let (path, query) = head.target.split_at(end);
    // `OPTIONS *` asks about the server as a whole (RFC 9110 9.3.7): the rule for `/` decides who that is.
    let normal = normalise_path(if path == "*" { "/" } else { path }).map_err(|_| Error::Path)?;
    let with_query = |path: &str| format!("{path}{query}");
    let matched = |target| Matched { rule: target, pool: view.rule(target).pool };
    match view.table(connection.listener).find(&host, normal.as_str()) {
        Outcome::Rule(found) => {
            let changed = path != "*" && normal.forwarded() != path;
            Ok((matched(found.target), changed.then(|| with_query(normal.forwarded())), Next::Send))
        }
        Outcome::RedirectToSlash(found) => {
            let scheme = if connection.https { "https" } else { "http" };
            let path = with_query(&format!("{}/", normal.as_str()));
            let location = format!("{scheme}://{}{path}", head.authority);
            Ok((matched(found.target), None, Next::Redirect(location)))
        }
        Outcome::NoRule { .. } | Outcome::NoDomain => Err(Error::NoRoute),
    }
}

/// A client that asked for one certificate may not use the connection for a host of another (RFC 9110 7.4).
/// Without SNI there was no choice, and nothing is refused.
fn check_certificate(view: &View, connection: &Connection, host: &str) -> Result<(), Error> {
    let (Some(sni), Some(tls)) = (&connection.sni, &view.listener(connection.listener).tls) else {
        return Ok(());
    };
    if **sni == *host || tls.certificates.select(sni) == tls.certificates.select(host) {
        Ok(())
    } else {
        Err(Error::Misdirected)
    }
}

fn redirect(location: &str) -> Response {
    let mut response = Response::text(StatusCode::MOVED_PERMANENTLY, "text/plain; charset=utf-8", "");
    response.head.headers.append("Location", location);
    response
}

fn respond(
    exchange: Box<Exchange>,
    mut head: Box<ResponseHead>,
    upgrade: bool,
    idle: Duration,
) -> Result<Response, Error> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let asked = upgrade && head.headers.contains("upgrade");
        let io = asked.then(|| exchange.into_upgraded()).flatten().ok_or(Error::UpstreamUpgrade)?;
        headers::response(&mut head);
        let switched = Some(Switched { io, idle });
        return Ok(Response { head, body: Body::empty(), switched, record: None });
    }
    headers::response(&mut head);
    Ok(Response::new(head, exchange.into_body()))
}

/// Methods that may be sent twice (RFC 9110 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
