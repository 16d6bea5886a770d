//! Whether a client has shown who it is: passwords, tokens, or somebody else's word for it.
//!
//! bcrypt is slow on purpose: it runs beside the worker, a few at a time, and what was right is remembered for a
//! minute. Where somebody who has to agree cannot be asked, the request fails.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::ask::ask;
use super::headers;
use super::noted::Noted;
use crate::access_log::Record;
use crate::auth::{Credentials, Jwt, Users};
use crate::body::Body;
use crate::config::{Auth, BasicAuth, ForwardAuth};
use crate::error::Error;
use crate::h1;
use crate::listener::{Connection, Response};
use crate::message::RequestHead;
use crate::net::clock;
use crate::state::View;
use crate::upstream::Upstreams;

/// Passwords checked at a time by one worker; further requests wait.
const CHECKS: usize = 2;
/// How long a right password is remembered, and how many of them.
const REMEMBERED: Duration = Duration::from_secs(60);
const MOST_REMEMBERED: usize = 1024;

/// Asks clients who they are; one per worker.
pub(crate) struct Authoriser {
    checks: Semaphore,
    right: RefCell<HashMap<u64, Instant>>,
    keyed: RandomState,
}

impl Default for Authoriser {
    fn default() -> Self {
        let keyed = RandomState::new();
        Self { checks: Semaphore::new(CHECKS), right: RefCell::default(), keyed }
    }
}

impl Authoriser {
    /// Lets the request in `record` pass, or says what to answer.
    pub(super) async fn authorise(
        &self,
        view: &Rc<View>,
        upstreams: &Rc<Upstreams>,
        connection: &Connection,
        auth: &Auth,
        record: &mut Record,
        noted: &mut Noted,
    ) -> Result<Option<Response>, Error> {
        if let Some(basic) = &auth.basic {
            record.user = Some(self.check_password(basic, record, noted).await?);
        }
        let Some(head) = record.head.as_deref() else { return Err(Error::Internal) };
        if let Some(jwt) = &auth.jwt {
            let user = check_token(jwt, head, noted)?;
            record.user = user.or(record.user.take());
        }
        match &auth.forward {
            Some(forward) => {
                ask_server(view, upstreams, connection, forward, head, record.client, noted).await
            }
            None => Ok(None),
        }
    }

    /// The name of the user.
    async fn check_password(
        &self,
        basic: &BasicAuth,
        record: &Record,
        noted: &mut Noted,
    ) -> Result<String, Error> {
        let value = record.head.as_ref().and_then(|head| head.headers.get("authorization"));
        if let Some(credentials) = value.and_then(Credentials::parse)
            && self.is_right(&basic.users, &credentials).await
        {
            return Ok(credentials.name);
        }
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", basic.realm);
        noted.on_failure.push(("WWW-Authenticate", challenge));
        Err(Error::Unauthorized)
    }

    async fn is_right(&self, users: &Arc<Users>, credentials: &Credentials) -> bool {
        // A reload makes other users, even where they have the same names.
        let key = self.keyed.hash_one((Arc::as_ptr(users) as usize, credentials));
        let now = clock::now();
        if self.right.borrow().get(&key).is_some_and(|until| now < *until) {
            return true;
        }
        let Ok(_permit) = self.checks.acquire().await else { return false };
        let (users, credentials) = (Arc::clone(users), credentials.clone());
        let check = tokio::task::spawn_blocking(move || users.verify(&credentials));
        let is_right = check.await.unwrap_or(false);
        if is_right {
            let mut right = self.right.borrow_mut();
            if right.len() >= MOST_REMEMBERED {
                right.retain(|_, until| now < *until);
            }
            if right.len() < MOST_REMEMBERED {
                right.insert(key, now + REMEMBERED);
            }
        }
        is_right
    }
}

/// The subject of the token, if it names one.
fn check_token(jwt: &Jwt, head: &RequestHead, noted: &mut Noted) -> Result<Option<String>, Error> {
    #[expect(clippy::disallowed_methods, reason = "tokens count until a time of day")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = match jwt.verify(head, now) {
        Ok(claims) => claims,
        Err(error) => {
            let why = match error {
                crate::auth::JwtError::Missing => String::new(),
                error => format!(" error=\"invalid_token\", error_description=\"{error}\""),
            };
            noted.on_failure.push(("WWW-Authenticate", format!("Bearer{why}")));
            return Err(Error::Unauthorized);
        }
    };
    for (name, claim) in &jwt.claims {
        let value = claims.get(claim).and_then(shown).filter(|value| h1::valid_value(value.as_bytes()));
        noted.identity.push((name.clone(), value.map(String::into_bytes)));
    }
    Ok(claims.get("sub").and_then(shown))
}

/// A claim as the value of a field; a list with commas. Maps have no such form.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(values) => {
            let values: Option<Vec<_>> = values.iter().filter(|value| !value.is_array()).map(shown).collect();
            values.map(|values| values.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

/// Asks another server. Its refusal is the answer to the client, body and all.
async fn ask_server(
    view: &Rc<View>,
    upstreams: &Rc<Upstreams>,
    connection: &Connection,
    forward: &ForwardAuth,
    head: &RequestHead,
    client: IpAddr,
    noted: &mut Noted,
) -> Result<Option<Response>, Error> {
    let mut question = RequestHead {
        target: forward.path.clone(),
        authority: head.authority.clone(),
        headers: head.headers.clone(),
        ..RequestHead::default()
    };
    headers::request(&mut question, &headers::client(view, connection), false);
    if let Some(proof) = &connection.proof {
        proof.tell(&mut question.headers);
    }
    question.headers.set("X-Forwarded-Method", head.method.as_str());
    question.headers.set("X-Forwarded-Host", &head.authority);
    question.headers.set("X-Forwarded-Uri", &head.target);
    let (exchange, mut answer) = ask(view, upstreams, forward.pool, &question, client, Body::empty()).await?;
    if !answer.status.is_success() {
        headers::response(&mut answer);
        return Ok(Some(Response::new(answer, exchange.into_body())));
    }
    for name in &forward.copy_headers {
        noted.identity.push((name.clone(), answer.headers.get(name).map(<[u8]>::to_vec)));
    }
    // What it says beyond that is read, so that its connection can be used again.
    tokio::task::spawn_local(async move { exchange.into_body().skip().await });
    Ok(None)
}
