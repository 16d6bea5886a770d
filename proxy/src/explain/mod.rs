//! What would become of a request, in words: which rule it meets, which rules it passes on the way and why, and what
//! its RS would be asked. Nothing is sent; the health of the RS is not known here.
//!
//! Every decision is made by the code that makes it for real requests: the codec, [`route`](crate::route),
//! [`rule`](crate::rule) and the header rules of `forward`.

mod admission;
mod rules;
mod servers;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Method, StatusCode};

use crate::config::{Action, Config, Listener, More, Rule};
use crate::error::Error;
use crate::forward::{headers, recipient};
use crate::h1::{self, Framing};
use crate::message::{ClientFields, RequestHead};
use crate::route::{normalise_host, normalise_path};
use crate::rule::{Algorithm, Cors, Edits, Escape, Facts};
use crate::state::Limits;
use crate::tls::Index;

/// A request that somebody asks about.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Method, as it is sent.
    pub method: &'a str,
    /// Host and port, as they are sent.
    pub authority: &'a str,
    /// Path and query, as they are sent.
    pub target: &'a str,
    /// Further header fields, name and value.
    pub fields: &'a [(String, String)],
    /// Name that the client asks for in the TLS handshake.
    pub sni: Option<&'a str>,
    /// The other end of the connection.
    pub from: IpAddr,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Some lines of text.
    pub text: String,
    /// Whether an RS or a rule would answer, and not the proxy with an error.
    pub answered: bool,
}

/// Explains what the listener with this index would do.
pub fn explain(config: &Config, listener: usize, question: &Question<'_>) -> Explanation {
    let mut page = Page(String::new());
    let answered = match config.listeners.get(listener) {
        None => Err(Error::Internal),
        Some(here) => Explained { config, index: listener, listener: here, question }.tell(&mut page),
    };
    if let Err(error) = &answered {
        page.line("answer", format!("{} ({}): {error}", error.status(), error.code()));
    }
    Explanation { text: page.0, answered: answered == Ok(true) }
}

/// Lines with a word in front.
struct Page(String);

impl Page {
    fn line(&mut self, word: &str, text: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{word:<11}{text}");
    }

    fn below(&mut self, text: impl std::fmt::Display) {
        self.line("", format!("  {text}"));
    }
}

struct Explained<'a> {
    config: &'a Config,
    index: usize,
    listener: &'a Listener,
    question: &'a Question<'a>,
}

impl Explained<'_> {
    /// Whether somebody would answer.
    fn tell(&self, page: &mut Page) -> Result<bool, Error> {
        let https = self.listener.tls.is_some();
        let scheme = if https { "https" } else { "http" };
        let tunnel =
            self.listener.tunnel.as_ref().map_or(String::new(), |tunnel| format!(", in the tunnel {tunnel}"));
        page.line(
            "listener",
            format!("{} on {scheme}://{}{tunnel}", self.listener.name, self.listener.address),
        );
        if !self.listener.access.allows(self.question.from) {
            page.line("answer", "none: `access` of the listener closes the connection");
            return Ok(false);
        }
        let (head, upgrade) = self.head()?;
        let trusted = |address| self.config.trusted_proxies.iter().any(|network| network.contains(&address));
        let client = headers::client_address(&head.headers, self.question.from, &trusted);
        page.line("client", client);
        if head.method == Method::TRACE {
            return Err(Error::Trace);
        }

        let host = normalise_host(&head.authority).ok_or(Error::Host)?;
        self.check_certificate(&host)?;
        let clients = self.listener.tls.as_ref().and_then(|tls| tls.client_certificates.as_ref());
        if let Some(policy) = clients.and_then(|clients| clients.of(&host)) {
            let required = policy.verifier.client_auth_mandatory();
            page.line(
                "TLS",
                if required { "with a client certificate" } else { "with a client certificate, or without" },
            );
        }
        let (path, query) = head.target.split_at(head.target.find('?').unwrap_or(head.target.len()));
        let normal = normalise_path(if path == "*" { "/" } else { path }).map_err(|_| Error::Path)?;
        let facts = Facts {
            head: &head,
            asked: &head.target,
            host: &host,
            path: normal.as_str(),
            client,
            peer: SocketAddr::new(self.question.from, 0),
            https,
            sni: self.question.sni,
            certificate: None,
            user: None,
            answered: None,
        };
        if let Some(to) = &self.listener.https_redirect {
            page.line("answer", redirected(to.status, &to.location(&facts)));
            return Ok(true);
        }
        let (rule, adds_slash) = self.find(page, &facts)?;
        if let Some(more) = rule.more.as_deref() {
            self.tell_admission(page, more, client)?;
            if more.cors.is_some() && Cors::is_preflight(&head) {
                page.line("answer", "204, to the preflight request of a page of another origin (`cors`)");
                return Ok(true);
            }
        }
        if adds_slash {
            let location = format!("{scheme}://{}{}/{query}", head.authority, normal.as_str());
            let answer = redirected(StatusCode::MOVED_PERMANENTLY, location.as_bytes());
            page.line("answer", format!("{answer}, since only the slash is missing"));
            return Ok(true);
        }
        match &rule.action {
            Action::Redirect(to) => page.line("answer", redirected(to.status, &to.location(&facts))),
            Action::Respond(fixed) => page.line("answer", format!("{}, a text of the rule", fixed.status)),
            Action::Pool(_) | Action::Split(_)
                if head.method == Method::OPTIONS && recipient::is_last(&mut head.headers.clone()) =>
            {
                page.line("answer", "200, since OPTIONS may go no further (Max-Forwards)");
                return Ok(true);
            }
            Action::Pool(_) | Action::Split(_) => {
                let target = (path != "*").then(|| format!("{}{query}", normal.forwarded()));
                let from = headers::Client {
                    told: &ClientFields::of(self.question.from, https),
                    trusted: trusted(self.question.from),
                    proves: false,
                };
                let lines = sent(rule, &facts, target, &from, upgrade)?;
                for (number, line) in lines.lines().enumerate() {
                    page.line(if number == 0 { "RS is sent" } else { "" }, line);
                }
            }
        }
        if let Some(more) = rule.more.as_deref() {
            self.tell_response(page, more, &head);
        }
        self.tell_servers(page, rule)?;
        Ok(true)
    }

    /// The head as the listener's codec reads it, and whether it asks to leave HTTP.
    fn head(&self) -> Result<(RequestHead, bool), Error> {
        let Question { method, authority, target, fields, .. } = self.question;
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n");
        for (name, value) in *fields {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let limits = Limits::from(self.listener);
        let mut head = RequestHead::default();
        let meta = h1::parse_request(text.as_bytes(), &limits.codec, &mut head).map_err(Error::Head)?;
        let meta = meta.ok_or(Error::Internal)?;
        match meta.framing {
            Framing::Length(length) if length > limits.body_size => Err(Error::BodyTooLarge),
            _ => Ok((head, meta.upgrade)),
        }
    }

    fn check_certificate(&self, host: &str) -> Result<(), Error> {
        let (Some(sni), Some(tls)) = (self.question.sni, &self.listener.tls) else { return Ok(()) };
        if let Some(clients) = &tls.client_certificates {
            let name = normalise_host(sni).unwrap_or_default();
            if clients.of(&name).map(|policy| policy.id) != clients.of(host).map(|policy| policy.id) {
                return Err(Error::Misdirected);
            }
        }
        let keys = tls.certificates.iter().map(|certificate| Arc::clone(&certificate.key)).collect();
        if Index::new(keys).is_same(&sni.to_ascii_lowercase(), host) {
            return Ok(());
        }
        Err(Error::Misdirected)
    }

    fn tell_response(&self, page: &mut Page, more: &More, head: &RequestHead) {
        if let Some(mirror) = more.mirror {
            let percent = self.config.routes.splits.get(mirror.turns).and_then(|shares| shares.first());
            let pool = self.config.pools.get(mirror.pool).map_or("", |pool| &pool.name);
            page.line("copies", format!("{} % go to {pool}", percent.unwrap_or(&100)));
        }
        if !more.response_headers.is_empty() {
            page.line("response", edits(&more.response_headers));
        }
        if more.cors.is_some() {
            page.line("response", "Access-Control fields (`cors`)");
        }
        if !more.error_pages.pages.is_empty() {
            let whose = if more.error_pages.intercept { "of the RS as well" } else { "of ingre" };
            page.line(
                "response",
                format!("{} error pages, for errors {whose}", more.error_pages.pages.len()),
            );
        }
        if let Some(compress) = &more.compress {
            let coding =
                compress.choose(head).map_or("as it is, as the client likes it best", Algorithm::name);
            page.line("response", format!("compressed: {coding}, if it is of a type for that"));
        }
    }
}

/// The head that an RS gets; `target` is what it would be asked for without a rewrite, where that is a path.
fn sent(
    rule: &Rule,
    facts: &Facts<'_>,
    target: Option<String>,
    from: &headers::Client<'_>,
    upgrade: bool,
) -> Result<String, Error> {
    let mut head = facts.head.clone();
    head.target = target.unwrap_or(head.target);
    let more = rule.more.as_deref();
    if let Some(rewrite) = more.and_then(|more| more.rewrite.as_ref()) {
        head.target = rewrite.target(facts).map_err(|_| Error::Path)?.unwrap_or(head.target);
    }
    if let Some(host) = more.and_then(|more| more.host.as_ref()) {
        let host = String::from_utf8(host.render(facts, None, Escape::Controls)).ok();
        head.authority = host.filter(|host| normalise_host(host).is_some()).ok_or(Error::Host)?;
    }
    headers::request(&mut head, from, upgrade);
    if let Some(edits) = more.map(|more| &more.request_headers) {
        edits.apply(&mut head.headers, &edits.values(facts));
    }
    let mut lines = Vec::new();
    h1::write_request(&head, Framing::None, &mut lines);
    Ok(String::from_utf8_lossy(&lines).trim_end().to_owned())
}

fn redirected(status: StatusCode, location: &[u8]) -> String {
    format!("{} to {}", status.as_u16(), String::from_utf8_lossy(location))
}

fn edits(edits: &Edits) -> String {
    let set = edits.set.iter().map(|(name, _)| format!("sets {name}"));
    let add = edits.add.iter().map(|(name, _)| format!("adds {name}"));
    edits
        .remove
        .iter()
        .map(|name| format!("removes {name}"))
        .chain(set)
        .chain(add)
        .collect::<Vec<_>>()
        .join(", ")
}
