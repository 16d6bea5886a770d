//! A server in front of an authority: passes everything on, but for what a case answers itself or changes on the way.
//! The authority believes that it has the relay's address, and so does whoever asks.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::client::{Client, Tls};
use super::http1::{Request, Response};
use super::origin::{Origin, Received, response};
use super::pebble::Pebble;

/// What a case answers itself, or makes of an answer of the authority.
pub(crate) enum Act {
    /// A response as it goes over the wire.
    Answer(Vec<u8>),
    /// The authority's answer, whose content is JSON, with another content.
    Change(Box<dyn FnOnce(&mut Value)>),
    /// Nothing.
    Pass,
}

type Script = dyn Fn(&Asked) -> Act + Send + Sync;

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The target.
    pub(crate) target: String,
    /// What the client has signed; null where that is nothing.
    pub(crate) payload: Value,
}

/// The server; gone when dropped.
pub(crate) struct Relay {
    origin: Origin,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Relay {
    /// In front of this authority.
    pub(crate) fn new(ca: &Pebble, script: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let own = ca.authority().issue(&["127.0.0.1"]);
        let tls = own.server(&["http/1.1"], &[&rustls::version::TLS13]);
        let (address, trust) = (ca.address(), Tls::trusting(ca.authority().roots()));
        let script: Arc<Script> = Arc::new(script);
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let theirs = Arc::clone(&asked);
        let origin = Origin::secure(tls, move |peer| {
            let request = peer.request()?;
            let asked = Asked { target: request.target().to_owned(), payload: payload(&request.body) };
            theirs.lock().unwrap().push(asked.clone());
            let act = script(&asked);
            if let Act::Answer(bytes) = act {
                return peer.send(bytes);
            }
            let answer = Client::try_tls(address, &trust)?.try_ask(&again(&request))?;
            peer.send(pass_on(&answer, act))
        });
        Self { origin, asked }
    }

    /// URL of the directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://{}/dir", self.origin.address())
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The orders so far.
    pub(crate) fn orders(&self) -> Vec<Value> {
        let is_order = |asked: &Asked| asked.payload["identifiers"].is_array();
        self.asked().into_iter().filter(is_order).map(|asked| asked.payload).collect()
    }
}

/// What is signed in a request of ACME (RFC 7515, flattened).
fn payload(body: &[u8]) -> Value {
    let signed: Value = serde_json::from_slice(body).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap_or_default());
    serde_json::from_slice(&payload.unwrap_or_default()).unwrap_or_default()
}

fn again(request: &Received) -> Request {
    let host = request.field("host").unwrap_or_default();
    let again = match request.method() {
        "POST" => Request::post(host, request.target(), request.body.clone()),
        method => Request::new(method, host, request.target()),
    };
    let fields = request.head.fields.iter();
    let mine = ["host", "content-length"];
    fields
        .filter(|(name, _)| !mine.contains(&name.to_ascii_lowercase().as_str()))
        .fold(again, |again, (name, value)| again.header(name, value))
}

fn pass_on(answer: &Response, act: Act) -> Vec<u8> {
    let mut body = answer.body.clone();
    if let Act::Change(change) = act {
        let mut content: Value = serde_json::from_slice(&body).unwrap();
        change(&mut content);
        body = content.to_string().into_bytes();
    }
    let mine = ["content-length", "transfer-encoding", "connection"];
    let fields: Vec<(&str, &str)> = answer
        .head
        .fields
        .iter()
        .filter(|(name, _)| !mine.contains(&name.to_ascii_lowercase().as_str()))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    response(answer.head.line.split_once(' ').unwrap().1, &fields, body)
}
