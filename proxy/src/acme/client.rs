//! HTTPS toward the authority: one connection for each request, verified, bounded in size and time.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, Uri};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::dns::addresses;
use crate::h1::{self, Decoded, Decoder, Framing};
use crate::message::{RequestHead, ResponseHead};
use crate::net::{TlsStream, clock};

/// Longest time for one request, everything included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time for a connection to one address.
const DIAL: Duration = Duration::from_secs(5);
/// Largest body; a chain has some ten thousand bytes.
const BODY: usize = 512 << 10;
/// Most interim responses before the final one.
const INTERIM: usize = 8;

/// Why a request to the authority came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// Its address is none of ours.
    #[error("`{0}` is no address that begins with https://")]
    NotHttps(String),
    /// Its name stands for nothing.
    #[error("the name {name} is not resolved: {why}")]
    Name {
        /// The name.
        name: String,
        /// What was said about it.
        why: String,
    },
    /// No connection.
    #[error("no connection to {server}: {why}")]
    Connect {
        /// Host and port.
        server: String,
        /// Why.
        why: String,
    },
    /// TLS, or the certificate of the server.
    #[error("TLS with {server}: {why}")]
    Tls {
        /// Host and port.
        server: String,
        /// Why.
        why: String,
    },
    /// The connection broke.
    #[error("{server} has broken off: {why}")]
    Broken {
        /// Host and port.
        server: String,
        /// Why.
        why: String,
    },
    /// No response in time.
    #[error("{0} has not answered within {time}s", time = PATIENCE.as_secs())]
    Slow(String),
    /// What it says is no response, or too long.
    #[error("{server} answers with what is no HTTP: {why}")]
    Malformed {
        /// Host and port.
        server: String,
        /// What is wrong.
        why: String,
    },
    /// An error without the explanation that ACME asks for.
    #[error("{server} answers with {status}")]
    Status {
        /// Host and port.
        server: String,
        /// The status.
        status: http::StatusCode,
    },
    /// It wants to be left alone.
    #[error("{server} asks for patience ({status}{}){}", waiting(.retry_after), .detail.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Limited {
        /// Host and port.
        server: String,
        /// The status.
        status: http::StatusCode,
        /// For how long.
        retry_after: Option<Duration>,
        /// Its explanation.
        detail: Option<String>,
    },
}

fn waiting(time: &Option<Duration>) -> String {
    time.map(|time| format!(", {}s", time.as_secs())).unwrap_or_default()
}

/// What requests need.
#[derive(Clone)]
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    /// Who knows names; whoever the system asks where there are none.
    resolver: Arc<[SocketAddr]>,
}

impl Client {
    /// A client that trusts these authorities.
    ///
    /// # Errors
    /// Where one of them cannot be used.
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        resolver: &[SocketAddr],
    ) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone())?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        tls.enable_secret_extraction = true;
        Ok(Self { tls: Arc::new(tls), resolver: resolver.into() })
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, HttpError> {
        let (parts, body) = request.into_parts();
        // The body is in memory, and a response is the only way to it; there is nothing that could fail.
        let mut body = BytesResponse::from(Response::new(body)).body;
        let body = body.into_bytes().await.unwrap_or_default();
        let server = server(&parts.uri)?;
        let shown = format!("{}:{}", server.0, server.1);
        let whole = async {
            let mut stream = self.connect(&server.0, server.1).await?;
            let broken =
                |why: std::io::Error| HttpError::Broken { server: shown.clone(), why: why.to_string() };
            let head = head(&parts, &shown);
            let mut out = Vec::with_capacity(1024 + body.len());
            let framing =
                if parts.method == Method::POST { Framing::Length(body.len() as u64) } else { Framing::None };
            h1::write_request(&head, framing, &mut out);
            out.extend_from_slice(&body);
            stream.write_all(&out).await.map_err(broken)?;
            stream.flush().await.map_err(broken)?;
            read_response(&mut stream, &parts.method, &shown).await
        };
        let response = tokio::time::timeout(PATIENCE, whole).await;
        judge(response.unwrap_or_else(|_| Err(HttpError::Slow(shown.clone())))?, &shown)
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TlsStream, HttpError> {
        let server = format!("{host}:{port}");
        let bare = host.trim_matches(['[', ']']);
        let tls = |why: String| HttpError::Tls { server: server.clone(), why };
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| tls(error.to_string()))?;
        let all = match bare.parse() {
            Ok(ip) => vec![ip],
            Err(_) => {
                let found = addresses(&self.resolver, bare).await;
                found.map_err(|why| HttpError::Name { name: bare.to_owned(), why })?
            }
        };
        let mut last = "the name has no address".to_owned();
        for ip in all {
            let dialled = tokio::time::timeout(DIAL, TcpStream::connect(SocketAddr::new(ip, port))).await;
            let tcp = match dialled {
                Ok(Ok(tcp)) => tcp,
                Ok(Err(error)) => {
                    last = error.to_string();
                    continue;
                }
                Err(_) => {
                    last = "no answer".into();
                    continue;
                }
            };
            let stream = TlsStream::connect(tcp, Arc::clone(&self.tls), name).await;
            return stream.map_err(|error| tls(error.to_string()));
        }
        Err(HttpError::Connect { server, why: last })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            client.exchange(request).await.map_err(|error| instant_acme::Error::Other(Box::new(error)))
        })
    }
}

/// Host and port; the authority names further addresses itself, and they are held to the same.
fn server(uri: &Uri) -> Result<(String, u16), HttpError> {
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) => Ok((host.to_owned(), uri.port_u16().unwrap_or(443))),
        _ => Err(HttpError::NotHttps(uri.to_string())),
    }
}

fn head(parts: &http::request::Parts, server: &str) -> RequestHead {
    let mut head = RequestHead {
        method: parts.method.clone(),
        target: parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        // Without a port where it is the usual one (RFC 9110 7.2).
        authority: server.strip_suffix(":443").unwrap_or(server).to_owned(),
        ..RequestHead::default()
    };
    for (name, value) in &parts.headers {
        head.headers.append(name.as_str(), value.as_bytes());
    }
    head.headers.append("Connection", "close");
    head
}

async fn read_response(
    stream: &mut TlsStream,
    method: &Method,
    server: &str,
) -> Result<Response<Bytes>, HttpError> {
    let malformed = |why: String| HttpError::Malformed { server: server.to_owned(), why };
    let mut input = BytesMut::new();
    let limits = h1::Limits::default();
    let mut head = ResponseHead::default();
    let mut interim = 0;
    let meta = loop {
        let parsed = match input.is_empty() {
            true => None,
            false => h1::parse_response(&input, &limits, method, &mut head)
                .map_err(|error| malformed(error.to_string()))?,
        };
        match parsed {
            Some(meta) if head.status.is_informational() && interim < INTERIM => {
                interim += 1;
                let _ = input.split_to(meta.consumed);
            }
            Some(meta) if head.status.is_informational() => {
                return Err(malformed(format!("{} interim responses", meta.consumed.min(INTERIM))));
            }
            Some(meta) => break meta,
            None => more(stream, &mut input, server).await?,
        }
    };
    let _ = input.split_to(meta.consumed);
    let mut decoder = Decoder::new(meta.framing, &limits);
    let mut body = BytesMut::new();
    while !decoder.is_done() {
        match decoder.decode(&mut input).map_err(|error| malformed(error.to_string()))? {
            Decoded::Data(data) if body.len() + data.len() > BODY => {
                return Err(malformed(format!("a body of more than {BODY} bytes")));
            }
            Decoded::Data(data) => body.extend_from_slice(&data),
            Decoded::Trailers(_) | Decoded::End => {}
            Decoded::NeedMore => match more(stream, &mut input, server).await {
                Ok(()) => {}
                // Some bodies last until the close.
                Err(error) => decoder.finish().map_err(|_| error)?,
            },
        }
    }
    let mut response = Response::builder().status(head.status);
    for (name, value) in head.headers.iter() {
        response = response.header(name, value);
    }
    response.body(body.freeze()).map_err(|error| malformed(error.to_string()))
}

/// Reads what is there.
async fn more(stream: &mut TlsStream, input: &mut BytesMut, server: &str) -> Result<(), HttpError> {
    let broken = |why: String| HttpError::Broken { server: server.to_owned(), why };
    match stream.read_buf(input).await {
        Ok(0) => Err(broken("the connection has ended".into())),
        Ok(_) => Ok(()),
        Err(error) => Err(broken(error.to_string())),
    }
}

/// An error that is no problem document (RFC 7807) is told apart here, and so is one that asks for patience.
fn judge(response: Response<Bytes>, server: &str) -> Result<BytesResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let status = parts.status;
    let server = || server.to_owned();
    let problem: Option<instant_acme::Problem> = serde_json::from_slice(&body).ok();
    let is_problem = problem.as_ref().is_some_and(|problem| problem.r#type.is_some());
    let asks = parts.headers.get(http::header::RETRY_AFTER);
    let retry_after = asks.and_then(|value| retry_after(value.to_str().ok()?.trim(), clock::calendar()));
    let is_limit = problem.as_ref().is_some_and(|problem| super::error::has_type(problem, "rateLimited"));
    if is_limit || matches!(status.as_u16(), 429 | 503) {
        let detail = problem.and_then(|problem| problem.detail);
        return Err(HttpError::Limited { server: server(), status, retry_after, detail });
    }
    if (status.is_client_error() || status.is_server_error()) && !is_problem {
        return Err(HttpError::Status { server: server(), status });
    }
    Ok(BytesResponse { parts, body: Box::new(body) })
}

/// The value of Retry-After (RFC 9110 10.2.3); `now` in seconds since 1970.
fn retry_after(value: &str, now: u64) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let at = date.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(at.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_that_is_asked_for() {
        let seconds = |value| retry_after(value, 784_111_700).map(|time| time.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(77));
        assert_eq!(seconds("Tue, 06 Nov 1984 08:49:37 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-1"), None);
    }

    #[test]
    fn what_an_answer_means() {
        let judged = |status: u16, retry: Option<&str>, body: &'static str| {
            let mut response = Response::builder().status(status);
            if let Some(retry) = retry {
                response = response.header("Retry-After", retry);
            }
            match judge(response.body(Bytes::from_static(body.as_bytes())).unwrap(), "ca:443") {
                Ok(_) => "passed on".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        let limited = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#;
        let refused = r#"{"type":"urn:ietf:params:acme:error:malformed","detail":"no"}"#;
        for (status, retry, body, expected) in [
            (200, None, "{}", "passed on"),
            (200, Some("5"), "{}", "passed on"),
            (400, None, refused, "passed on"),
            (429, Some("7"), limited, "ca:443 asks for patience (429 Too Many Requests, 7s): too many"),
            (403, None, limited, "ca:443 asks for patience (403 Forbidden): too many"),
            (503, Some("7"), "<html>", "ca:443 asks for patience (503 Service Unavailable, 7s)"),
            (502, None, "<html>", "ca:443 answers with 502 Bad Gateway"),
            (404, None, "", "ca:443 answers with 404 Not Found"),
        ] {
            assert_eq!(judged(status, retry, body), expected);
        }
    }
}
