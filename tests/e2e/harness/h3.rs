//! Clients of HTTP/3, as another implementation speaks it (aioquic), and the bytes of frames that it would never send.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use serde_json::{Value, json};

use super::program::Program;
use super::python::interpreter;
use super::wait::within;

/// Longer than the client's own patience.
const PATIENCE: Duration = Duration::from_secs(40);

/// A client with one connection at a time.
pub(crate) struct H3 {
    script: Program,
    answers: usize,
}

impl H3 {
    /// Connects to the listener `https` of a program.
    pub(crate) fn connect(program: &Program) -> Self {
        Self::with(program, json!({}))
    }

    /// The same with these options of a connection.
    pub(crate) fn with(program: &Program, options: Value) -> Self {
        let ca = program.path().join("certs/dev-ca.pem");
        let mut client = Self::trusting(program.listener("https"), Some(&ca));
        let closed = client.open(options)["closed"].clone();
        assert!(closed.is_null(), "{closed}");
        client
    }

    /// A client that has not connected yet; it believes everybody without a CA.
    pub(crate) fn trusting(address: SocketAddr, ca: Option<&Path>) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/python/h3_client.py");
        let mut command = Command::new(interpreter().unwrap());
        command.arg(path).arg(address.ip().to_string()).arg(address.port().to_string()).stdin(Stdio::piped());
        if let Some(ca) = ca {
            command.arg("--ca").arg(ca);
        }
        Self { script: Program::spawn(command, None), answers: 0 }
    }

    /// Opens a connection; how it has ended, if it has, is in `closed`.
    pub(crate) fn open(&mut self, mut options: Value) -> Value {
        options["do"] = "connect".into();
        self.ask(options)
    }

    /// Does something and returns what has come of it.
    pub(crate) fn ask(&mut self, what: Value) -> Value {
        self.tell(&what);
        self.told()
    }

    /// Begins to do something.
    pub(crate) fn tell(&mut self, what: &Value) {
        self.script.tell(&what.to_string());
    }

    /// What has come of it.
    pub(crate) fn told(&mut self) -> Value {
        let answer = within(PATIENCE, || {
            let line = self.script.stdout_lines().get(self.answers).cloned();
            assert!(line.is_some() || !self.script.has_ended(), "{}", self.script.stderr());
            line
        });
        self.answers += 1;
        serde_json::from_str(&answer.expect("an answer of the client")).unwrap()
    }

    /// One request and its response.
    pub(crate) fn request(&mut self, request: Value) -> Value {
        self.requests(vec![request])[0].clone()
    }

    /// GET of a path: status and text.
    pub(crate) fn get(&mut self, path: &str) -> (u64, String) {
        let answer = self.request(json!({"path": path}));
        (answer["status"].as_u64().unwrap_or(0), answer["body"].as_str().unwrap().to_owned())
    }

    /// Several requests at once and their responses.
    pub(crate) fn requests(&mut self, requests: Vec<Value>) -> Vec<Value> {
        let answer = self.ask(json!({"do": "requests", "requests": requests}));
        assert!(answer["closed"].is_null(), "{}", answer["closed"]);
        answer["answers"].as_array().unwrap().clone()
    }
}

/// An integer of variable length.
pub(crate) fn varint(number: u64) -> Vec<u8> {
    match number {
        0..0x40 => vec![number as u8],
        0x40..0x4000 => (number as u16 | 0x4000).to_be_bytes().to_vec(),
        _ => (number as u32 | 0x8000_0000).to_be_bytes().to_vec(),
    }
}

/// A frame in hexadecimal digits.
pub(crate) fn frame(kind: u64, payload: &[u8]) -> String {
    hex(&[varint(kind), varint(payload.len() as u64), payload.to_vec()].concat())
}

/// HEADERS with literal fields, in hexadecimal digits.
pub(crate) fn headers(fields: &[(&str, &str)]) -> String {
    frame(1, &section(fields))
}

fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        literal(0x20, 3, name, &mut section);
        literal(0, 7, value, &mut section);
    }
    section
}

fn literal(flags: u8, bits: u32, text: &str, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    match text.len() {
        length if length < most => out.push(flags | length as u8),
        length => {
            out.push(flags | most as u8);
            let mut rest = length - most;
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The statuses of GET for these hosts on one connection, which begins with a name and speaks TLS like this.
pub(crate) async fn statuses(
    address: SocketAddr,
    tls: &rustls::ClientConfig,
    name: &str,
    hosts: &[&str],
) -> Result<Vec<u16>, String> {
    let client = Quic::connect(address, tls, name).await.map_err(|error| error.to_string())?;
    let mut statuses = Vec::new();
    for host in hosts {
        let response = client.begin(host, "/").await.map_err(|error| format!("{error:?}"))?;
        statuses.push(client.finish(response).await.map_err(|error| format!("{error:?}"))?.0);
    }
    client.close().await;
    Ok(statuses)
}

/// One connection of the library that the program speaks QUIC with, too; it knows no more of HTTP/3 than GET.
pub(crate) struct Quic {
    /// Its socket.
    pub(crate) endpoint: quinn::Endpoint,
    /// Itself.
    pub(crate) connection: quinn::Connection,
    /// Open for as long as the connection.
    _control: quinn::SendStream,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The server has not looked at the request, and it may be sent again (RFC 9114 5.2).
    Rejected,
    /// Anything else.
    Failed(String),
}

impl Quic {
    /// Connects.
    pub(crate) async fn connect(
        address: SocketAddr,
        tls: &rustls::ClientConfig,
        name: &str,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let tls = Arc::new(QuicClientConfig::try_from(tls.clone())?);
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let connection = endpoint.connect_with(quinn::ClientConfig::new(tls), address, name)?.await?;
        let mut control = connection.open_uni().await?;
        control.write_all(&[0, 4, 0]).await?;
        Ok(Self { endpoint, connection, _control: control })
    }

    /// Sends a request; the response comes as far as there is room for it.
    pub(crate) async fn begin(&self, host: &str, path: &str) -> Result<quinn::RecvStream, Unanswered> {
        let fields = [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", path)];
        let section = section(&fields);
        let request = [varint(1), varint(section.len() as u64), section].concat();
        let (mut send, receive) = self.connection.open_bi().await.map_err(|error| unanswered(&error))?;
        match send.write_all(&request).await {
            // Whether it is served is seen by the response.
            Ok(()) | Err(quinn::WriteError::Stopped(_)) => {}
            Err(quinn::WriteError::ConnectionLost(error)) => return Err(unanswered(&error)),
            Err(error) => return Err(Unanswered::Failed(error.to_string())),
        }
        let _ = send.finish();
        Ok(receive)
    }

    /// The whole response: status and content.
    pub(crate) async fn finish(&self, mut response: quinn::RecvStream) -> Result<(u16, Vec<u8>), Unanswered> {
        use quinn::{ReadError, ReadToEndError};
        match response.read_to_end(64 << 20).await {
            Ok(bytes) => Ok((status(&bytes), content(&bytes))),
            // H3_REQUEST_REJECTED.
            Err(ReadToEndError::Read(ReadError::Reset(code))) if code == 0x10bu32.into() => {
                Err(Unanswered::Rejected)
            }
            Err(ReadToEndError::Read(ReadError::ConnectionLost(error))) => Err(unanswered(&error)),
            Err(error) => Err(Unanswered::Failed(format!("{error:?}"))),
        }
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, Vec<u8>), Unanswered> {
        self.finish(self.begin("localhost", path).await?).await
    }

    /// Goes on from another port.
    pub(crate) fn rebind(&self) {
        self.endpoint.rebind(std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
    }

    /// Ends it.
    pub(crate) async fn close(self) {
        self.connection.close(0x100u32.into(), b"");
        self.endpoint.wait_idle().await;
    }
}

fn unanswered(error: &quinn::ConnectionError) -> Unanswered {
    match error {
        // H3_NO_ERROR, behind GOAWAY.
        quinn::ConnectionError::ApplicationClosed(close) if close.error_code == 0x100u32.into() => {
            Unanswered::Rejected
        }
        _ => Unanswered::Failed(error.to_string()),
    }
}

/// The content of all DATA frames.
fn content(mut response: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while !response.is_empty() {
        let (kind, length) = (integer(&mut response), integer(&mut response) as usize);
        let (payload, rest) = response.split_at(length);
        if kind == 0 {
            content.extend_from_slice(payload);
        }
        response = rest;
    }
    content
}

/// Takes an integer of variable length.
fn integer(bytes: &mut &[u8]) -> u64 {
    let length = 1 << (bytes[0] >> 6);
    let (integer, rest) = bytes.split_at(length);
    *bytes = rest;
    let first = u64::from(integer[0] & 0x3f);
    integer[1..].iter().fold(first, |number, &byte| number << 8 | u64::from(byte))
}

/// The status of a response whose first frame is HEADERS and begins with it: an entry of the static table, or the name of
/// one with a value.
fn status(response: &[u8]) -> u16 {
    let length = 1 << (response[1] >> 6);
    match &response[1 + length + 2..] {
        [0xd9, ..] => 200,
        [0xff, 0x06, ..] => 421,
        [0x5f, 0x09, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        other => panic!("no status: {other:x?}"),
    }
}
