//! The smallest HTTPS client that shows a request: one GET per connection, the lab's own certificate authority.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use encap::linux::namespace::Namespace;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// For a whole request.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a page of the admin listener, which answers at once if at all.
const PAGE_PATIENCE: Duration = Duration::from_secs(1);
/// Of a response; more is not needed to show it.
const MOST_BYTES: u64 = 1 << 20;

/// A client that trusts one certificate authority.
#[derive(Clone)]
pub(super) struct Client(Arc<ClientConfig>);

impl Client {
    /// Trusts the certificate authority in this PEM file.
    pub(super) fn new(authority: &Path) -> anyhow::Result<Self> {
        let what = || format!("cannot read the certificate authority {}", authority.display());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).with_context(what)?)?;
        Ok(Self(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())))
    }

    /// The status of a GET over a connection from `socket` to `address`.
    pub(super) async fn get(
        &self,
        socket: TcpSocket,
        address: SocketAddr,
        host: &str,
        path: &str,
    ) -> anyhow::Result<u16> {
        let exchange = async {
            let stream =
                socket.connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
            let name = ServerName::try_from(host.to_owned())?;
            let stream =
                TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await.context("TLS")?;
            let answer = exchange(stream, host, path).await?;
            status(&answer).context("the answer is no HTTP")
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| bail!("no answer after {PATIENCE:?}"))
    }
}

/// A socket that connects from inside a namespace.
pub(super) fn socket_in(namespace: &Namespace) -> anyhow::Result<TcpSocket> {
    Ok(namespace.run_in(TcpSocket::new_v4)??)
}

/// The body of a page of the admin listener.
pub(super) async fn page(admin: SocketAddrV4, path: &str) -> anyhow::Result<Vec<u8>> {
    let exchange = async {
        let mut answer = exchange(TcpStream::connect(admin).await?, "localhost", path).await?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no end of the head")?;
        answer.drain(..end + 4);
        Ok(answer)
    };
    tokio::time::timeout(PAGE_PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| bail!("no answer after {PAGE_PATIENCE:?}"))
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> anyhow::Result<Vec<u8>> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ingre-lab\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        assert_eq!(status(b"HTTP/1.1 404 Not Found\r\n\r\n"), Some(404));
        for wrong in [&b""[..], b"HTTP/1.1 ", b"HTTP/1.0 200 OK\r\n", b"\xff\xfe"] {
            assert_eq!(status(wrong), None);
        }
    }
}
