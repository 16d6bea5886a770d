//! The request path, the steps in order: plan (the rule and what it does to the request) -> pick -> send -> respond ->
//! finish (what the rule does to the response).

mod admit;
mod ask;
mod authorise;
mod bounded;
mod compress;
mod finish;
pub(crate) mod headers;
mod mirror;
mod noted;
mod pick;
mod plan;
pub(crate) mod recipient;
mod retry;
mod under_way;
mod upgrade;

use std::net::IpAddr;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

pub(crate) use self::authorise::Authoriser;
use self::bounded::bounded;
pub(crate) use self::compress::Compressors;
use self::finish::finish;
pub(crate) use self::mirror::Mirrors;
use self::noted::Noted;
use self::plan::{Plan, Stage, plan};
use self::retry::{Attempt, Policy, in_time, may_retry};
use crate::access_log::{Lines, Record};
use crate::apart::apart;
use crate::body::{Body, Counter};
use crate::error::Error;
use crate::grpc;
use crate::listener::{Connection, Handler, Interim, Refused, Request, Response, Switched};
use crate::message::{Headers, ResponseHead};
use crate::pool::Excluded;
use crate::state::{Current, Grant, View};
use crate::upstream::{Exchange, Place, Upstreams};

/// Forwards requests; one per worker.
pub(crate) struct Forwarder {
    pub(crate) current: Rc<Current>,
    pub(crate) upstreams: Rc<Upstreams>,
    pub(crate) lines: Rc<Lines>,
    pub(crate) mirrors: Mirrors,
    pub(crate) compressors: Compressors,
    pub(crate) authoriser: Authoriser,
}

impl Handler for Forwarder {
    type Connection = Connection;

    async fn handle(&self, connection: &Connection, request: Request) -> Response {
        let view = self.current.view();
        let Request { head, body, upgrade, interim, arrived, received } = request;
        let trusted = |address: IpAddr| view.trusts(address);
        let client = headers::client_address(&head.headers, connection.peer.ip(), &trusted);
        // Exact only where somebody reads it.
        let started = if self.lines.is_on() { Instant::now() } else { arrived };
        let mut record = self.record(&view, connection, client, started, received);
        record.head = Some(head);
        let mut noted = Noted::default();
        let mut waiting = Waiting { body, upgrade, interim };
        let answered = self.answer(&view, connection, &mut waiting, &mut record, &mut noted).await;
        let mut response = answered.unwrap_or_else(|error| {
            let mut response = failed(error, &mut record);
            for (name, value) in &noted.on_failure {
                response.head.headers.append(name, value);
            }
            response
        });
        let rule = record.route.map(|matched| view.rule(matched.rule));
        if let Some(more) = rule.and_then(|rule| rule.more.as_deref()) {
            response = finish(response, more, &noted, &record, &self.compressors);
        }
        recorded(response, record)
    }

    fn refuse(&self, connection: &Connection, refused: Refused) -> Response {
        let view = self.current.view();
        let mut record =
            self.record(&view, connection, connection.peer.ip(), Instant::now(), Counter::default());
        record.head = refused.head;
        recorded(failed(refused.error, &mut record), record)
    }
}

/// What says why there is no other answer, in the words of whoever asked.
fn failed(error: Error, record: &mut Record) -> Response {
    record.reason = Some(error);
    match &record.head {
        Some(head) if grpc::is_request(&head.headers) => {
            Response::new(Box::new(grpc::failed(&error)), Body::empty())
        }
        _ => Response::failed(&error),
    }
}

/// The answer with its log record.
fn recorded(mut response: Response, mut record: Box<Record>) -> Response {
    record.status = response.head.status.as_u16();
    response.record = Some(record);
    response
}

/// What a client that waits for its answer has left to send and to hear.
struct Waiting {
    body: Body,
    /// It would leave HTTP on this connection.
    upgrade: bool,
    interim: Interim,
}

impl Forwarder {
    async fn answer(
        &self,
        view: &Rc<View>,
        connection: &Connection,
        client: &mut Waiting,
        record: &mut Record,
        noted: &mut Noted,
    ) -> Result<Response, Error> {
        if let Some(answer) = prove(view, connection, record).await {
            return Ok(answer);
        }
        let mut planned = plan(view, connection, client, Stage::Arrived, record, noted)?;
        if let Plan::Authorise { rule } = planned {
            let auth = view.rule(rule).more.as_ref().and_then(|more| more.auth.as_deref());
            let auth = auth.ok_or(Error::Internal)?;
            let (authoriser, upstreams) = (&self.authoriser, &self.upstreams);
            let refusal =
                apart(|| authoriser.authorise(view, upstreams, connection, auth, record, noted)).await?;
            planned = match refusal {
                Some(response) => Plan::answer(response),
                None => plan(view, connection, client, Stage::Authorised, record, noted)?,
            };
        }
        match planned {
            Plan::Answer(response) => Ok(*response),
            Plan::Authorise { .. } => Err(Error::Internal),
            Plan::Send { pool, body_size, mirror } => {
                if let Some(most) = body_size {
                    client.body = bounded(client.body.take(), most)?;
                }
                if let Some(mirror) = mirror {
                    let body = client.body.take();
                    client.body = self.mirrors.copy(view, &self.upstreams, mirror.pool, record, body);
                }
                self.send(view, connection, client, pool, record).await
            }
        }
    }

    /// Sends the request to an RS, and once more to another where that is safe.
    async fn send(
        &self,
        view: &Rc<View>,
        connection: &Connection,
        client: &mut Waiting,
        pool: usize,
        record: &mut Record,
    ) -> Result<Response, Error> {
        let Some(head) = &record.head else { return Err(Error::Internal) };
        let Waiting { body, upgrade, interim } = client;
        let mut pass_on = |cx: &mut Context<'_>, head: &mut ResponseHead| {
            headers::interim(head);
            interim.pass_on(cx, head);
        };
        let client_timeout = view.listener(connection.listener).limits.body_timeout;
        let policy = Policy(view.pool(pool).retries.as_deref());
        view.save_for_retries(pool);
        let mut tried = Excluded::default();
        let mut failed = None;
        // A response that was to be replaced by a better one.
        let mut held = None;
        let mut begun = record.started;
        loop {
            // Where no other RS is left, the failure of the last one is the answer.
            let chosen = pick::pick(view, pool, &tried, head, record.client).await;
            let (server, grant) = match (chosen, held.take()) {
                (Ok(chosen), _) => chosen,
                (Err(_), Some((exchange, response))) => {
                    let asked = upgrade.then_some(&head.headers);
                    return respond(exchange, response, asked, view.pool(pool).read_timeout);
                }
                (Err(error), None) => return Err(failed.unwrap_or(error)),
            };
            let since = grant.as_ref().and_then(Grant::since);
            let took = || since.map(|since| since.elapsed());
            record.server = Some(server);
            let mut attempt = Attempt::new(&head.method, body.is_empty());
            let link = match self.upstreams.take(view, pool, server, begun) {
                Some(link) => {
                    attempt.reused = true;
                    Ok(link)
                }
                None => {
                    let connected = apart(|| self.upstreams.connect(view, pool, server)).await;
                    record.connect = self.lines.is_on().then(|| begun.elapsed());
                    connected
                }
            };
            let error = match link {
                Err(error) => error,
                Ok(link) => {
                    attempt.connected = true;
                    let place = Place {
                        upstreams: Rc::clone(&self.upstreams),
                        view: Rc::clone(view),
                        pool,
                        server,
                        grant,
                    };
                    let mut exchange = Exchange::new(link, place, head, body.take(), client_timeout);
                    match in_time(policy, exchange.head(&mut pass_on)).await {
                        Ok(mut response) => {
                            pick::answered(view, pool, server, took(), &mut response, connection.https);
                            record.header = self.lines.is_on().then(|| begun.elapsed());
                            record.upstream_status = Some(response.status.as_u16());
                            if policy.wants_another(&attempt, record.retries, response.status)
                                && tried.insert(server)
                                && view.spend_on_retry(pool)
                            {
                                record.retries += 1;
                                held = Some((exchange, response));
                                begun = Instant::now();
                                continue;
                            }
                            let asked = upgrade.then_some(&head.headers);
                            return respond(exchange, response, asked, view.pool(pool).read_timeout);
                        }
                        Err(error) => {
                            attempt.answered = exchange.received();
                            if error == Error::UpstreamRefused
                                && let Some(again) = exchange.reclaim()
                            {
                                attempt.intact = true;
                                *body = again;
                            }
                            error
                        }
                    }
                }
            };
            // A connection that went stale, or is about to be left, says nothing about its RS: that one may be asked again.
            let stale = attempt.reused && error == Error::UpstreamClosed || error == Error::UpstreamRefused;
            if !stale {
                pick::failed(view, pool, server, took(), &error);
            }
            let may = may_retry(&attempt, record.retries, &error, policy);
            if !may || !(stale || tried.insert(server) && view.spend_on_retry(pool)) {
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
            asked_host: None,
            sni: connection.sni.clone(),
            proof: connection.proof.clone(),
            user: None,
            permits: Vec::new(),
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

/// The answer to an authority that has a name proven (RFC 8555 8.3); it stands before every rule.
async fn prove(view: &Rc<View>, connection: &Connection, record: &Record) -> Option<Response> {
    let head =
        record.head.as_ref().filter(|head| !connection.https && view.showcase().may_answer(&head.target))?;
    let answer = apart(|| view.showcase().answer(&head.target)).await?;
    Some(Response::text(StatusCode::OK, "application/octet-stream", answer))
}

fn respond(
    exchange: Exchange,
    mut head: Box<ResponseHead>,
    asked: Option<&Headers>,
    idle: Duration,
) -> Result<Response, Error> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let agreed = asked.is_some_and(|asked| upgrade::agrees(asked, &head.headers));
        let upgraded = agreed.then(|| exchange.into_upgraded()).flatten();
        let (io, grant) = upgraded.ok_or(Error::UpstreamUpgrade)?;
        headers::response(&mut head);
        let switched = Some(Switched { io, idle, grant });
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
