//! The handshake with an RS, and why it failed.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::CertificateError;
use tokio::net::TcpStream;

use crate::error::{Error, TlsFault};
use crate::net::{Stream, TlsStream};
use crate::state::UpstreamTls;

/// TLS on a connection to the RS with this address.
pub(super) async fn secure(tcp: TcpStream, tls: &UpstreamTls, address: SocketAddr) -> Result<Stream, Error> {
    let stream = TlsStream::connect(tcp, Arc::clone(&tls.config), tls.name(address))
        .await
        .map_err(|error| Error::UpstreamTls(fault(&error)))?;
    // Only HTTP/2 has to be agreed on: a server that knows no ALPN speaks HTTP/1.1 (RFC 9113 3.2).
    let wants_h2 = tls.config.alpn_protocols.iter().any(|protocol| protocol == b"h2");
    if wants_h2 && stream.protocol() != Some(b"h2") {
        return Err(Error::UpstreamTls(TlsFault::Protocol));
    }
    Ok(Stream::Tls(Box::new(stream)))
}

fn fault(error: &std::io::Error) -> TlsFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsFault::Time,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsFault::Name
            }
            CertificateError::ApplicationVerificationFailure => TlsFault::Pin,
            _ => TlsFault::Authority,
        },
        Some(
            rustls::Error::NoApplicationProtocol
            | rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol),
        ) => TlsFault::Protocol,
        _ => TlsFault::Handshake,
    }
}
