//! TLS toward clients: a certificate by the name the client asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config;

/// The certificates of one listener, found by name. The first one is for clients that ask for no name or
/// for one that no certificate has.
#[derive(Debug)]
pub(crate) struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, usize>,
    /// Keyed by what stands behind `*.`.
    wildcard: HashMap<String, usize>,
}

impl Certificates {
    /// The certificates in the order of the file.
    pub(crate) fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        for (index, key) in keys.iter().enumerate() {
            for name in dns_names(key) {
                match name.strip_prefix("*.") {
                    Some(rest) => wildcard.entry(rest.to_owned()).or_insert(index),
                    None => exact.entry(name).or_insert(index),
                };
            }
        }
        Self { keys, exact, wildcard }
    }

    /// Index of the certificate for a name in lower case: the exact one, then the wildcard one label up
    /// (RFC 9525 6.3), then the first.
    pub(crate) fn select(&self, name: &str) -> usize {
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).copied().unwrap_or(0)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let index = hello.server_name().map_or(0, |name| self.select(&name.to_ascii_lowercase()));
        self.keys.get(index).cloned()
    }
}

/// Names a certificate is for, in lower case.
fn dns_names(key: &CertifiedKey) -> Vec<String> {
    let Some(certificate) = key.cert.first() else { return Vec::new() };
    match webpki::EndEntityCert::try_from(certificate) {
        Ok(parsed) => parsed.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        Err(_) => Vec::new(),
    }
}

/// TLS of a listener.
pub(crate) struct TlsState {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) certificates: Arc<Certificates>,
}

/// TLS of a listener. Session tickets made before a reload stay good after it.
///
/// # Errors
/// Where the crypto provider refuses; does not happen with the one that is built in.
pub(super) fn tls_state(tls: &config::Tls, before: Option<&TlsState>) -> Result<TlsState, rustls::Error> {
    let certificates = Arc::new(Certificates::new(tls.certificates.clone()));
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = match tls.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    config.ticketer = match before {
        Some(before) => Arc::clone(&before.config.ticketer),
        None => rustls::crypto::aws_lc_rs::Ticketer::new()?,
    };
    Ok(TlsState { config: Arc::new(config), certificates })
}
