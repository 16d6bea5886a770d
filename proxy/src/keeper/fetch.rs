//! One question to an OCSP responder: HTTP in clear, as RFC 6960 A.1 has it (the answer is signed), within bounds of size
//! and time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{Method, Uri};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::dns;
use crate::h1::{self, Decoded, Decoder, Framing};
use crate::message::{RequestHead, ResponseHead};
use crate::net::{Io, Stream};

/// Longest wait for an answer, from the name to its last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for a connection to one address.
const CONNECT: Duration = Duration::from_secs(3);
/// Most addresses that are tried.
const MOST_ADDRESSES: usize = 4;
/// Largest answer, in bytes: with several certificates of a responder it has a tenth of that.
const MOST_BYTES: usize = 64 << 10;
/// What it says of itself.
const USER_AGENT: &str = concat!("ingre/", env!("CARGO_PKG_VERSION"));

/// Posts a request to a responder; `servers` know its name, or those of the system where there are none.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn post(url: &str, request: &[u8], servers: &[SocketAddr]) -> Result<Vec<u8>, String> {
    let target = Target::of(url)?;
    let answer = async {
        let mut failure = "its name has no address".to_owned();
        for address in target.addresses(servers).await?.into_iter().take(MOST_ADDRESSES) {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return exchange(stream, &target, request).await,
                Ok(Err(error)) => failure = format!("{address}: {error}"),
                Err(_) => failure = format!("{address} does not accept"),
            }
        }
        Err(failure)
    };
    let late = || Err(format!("no answer within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| late())
}

/// Where a responder is.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// Without brackets.
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    fn of(url: &str) -> Result<Self, String> {
        let wrong = || format!("`{url}` is no address of a responder");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        // A name and a password have no business here.
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port: authority.port_u16().unwrap_or(80), authority: authority.to_string(), path })
    }

    async fn addresses(&self, servers: &[SocketAddr]) -> Result<Vec<SocketAddr>, String> {
        let all = match self.host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => dns::addresses(servers, &self.host).await?,
        };
        Ok(all.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect())
    }
}

async fn exchange(stream: TcpStream, target: &Target, request: &[u8]) -> Result<Vec<u8>, String> {
    let mut io = Io::new(Stream::Plain(stream));
    let mut head = RequestHead {
        method: Method::POST,
        target: target.path.clone(),
        authority: target.authority.clone(),
        ..RequestHead::default()
    };
    head.headers.append("User-Agent", USER_AGENT);
    head.headers.append("Content-Type", "application/ocsp-request");
    head.headers.append("Accept", "application/ocsp-response");
    head.headers.append("Connection", "close");
    h1::write_request(&head, Framing::Length(request.len() as u64), io.output.tail());
    io.output.tail().extend_from_slice(request);
    let broken = |error: std::io::Error| format!("the connection broke: {error}");
    std::future::poll_fn(|cx| io.poll_write(cx, &mut false)).await.map_err(broken)?;
    let limits = h1::Limits { head_bytes: 16 << 10, ..h1::Limits::default() };
    let malformed = || "the answer is no HTTP".to_owned();
    let framing = loop {
        let read = std::future::poll_fn(|cx| io.poll_read_head(cx)).await.map_err(broken)?;
        let mut response = ResponseHead::default();
        let parsed = h1::parse_response(&io.input, &limits, &head.method, &mut response);
        match parsed.map_err(|_| malformed())? {
            Some(meta) if response.status.is_informational() => {
                bytes::Buf::advance(&mut io.input, meta.consumed);
            }
            Some(meta) if response.status == http::StatusCode::OK => {
                bytes::Buf::advance(&mut io.input, meta.consumed);
                break meta.framing;
            }
            Some(_) => return Err(format!("the answer is {}", response.status.as_u16())),
            None if read == 0 => return Err("the connection was closed without an answer".to_owned()),
            None => {}
        }
    };
    let mut decoder = Decoder::new(framing, &limits);
    let mut content = Vec::new();
    loop {
        match decoder.decode(&mut io.input).map_err(|_| malformed())? {
            Decoded::Data(bytes) if content.len() + bytes.len() <= MOST_BYTES => {
                content.extend_from_slice(&bytes);
            }
            Decoded::Data(_) => return Err(format!("the answer has more than {} KiB", MOST_BYTES >> 10)),
            Decoded::Trailers(_) => {}
            Decoded::End => return Ok(content),
            Decoded::NeedMore => {
                if std::future::poll_fn(|cx| io.poll_read_body(cx)).await.map_err(broken)? == 0 {
                    decoder.finish().map_err(|_| "the answer ends in the middle".to_owned())?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_responders() {
        let target = |host: &str, port, authority: &str, path: &str| Target {
            host: host.into(),
            port,
            authority: authority.into(),
            path: path.into(),
        };
        for (url, expected) in [
            ("http://o.test", target("o.test", 80, "o.test", "/")),
            ("http://o.test:8080/a?b", target("o.test", 8080, "o.test:8080", "/a?b")),
            ("http://[::1]:81/", target("::1", 81, "[::1]:81", "/")),
        ] {
            assert_eq!(Target::of(url), Ok(expected));
        }
        for url in [
            "https://o.test/",
            "ldap://o.test/",
            "o.test",
            "/a",
            "http://",
            "http://u:p@o.test/",
            "http://a b/",
        ] {
            assert!(Target::of(url).is_err(), "{url}");
        }
    }
}
