//! How TLS is spoken on a listener.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;

use super::shelf::Shelf;
use super::slot::Vault;
use crate::config;

/// TLS of a listener.
pub(crate) struct TlsState {
    /// Its certificates.
    pub(crate) shelf: Arc<Shelf>,
    config: Arc<ServerConfig>,
}

impl TlsState {
    /// TLS of a listener. Session tickets made before a reload stay good after it.
    ///
    /// # Errors
    /// Where the crypto provider refuses; does not happen with the one that is built in.
    pub(crate) fn new(
        tls: &config::Tls,
        vault: &Vault,
        before: Option<&Self>,
    ) -> Result<Self, rustls::Error> {
        let slots = tls.certificates.iter().map(|certificate| vault.slot(certificate)).collect();
        let shelf = Arc::new(Shelf::new(slots));
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&shelf) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = match tls.http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        config.ticketer = match before {
            Some(before) => Arc::clone(&before.config.ticketer),
            None => rustls::crypto::aws_lc_rs::Ticketer::new()?,
        };
        Ok(Self { shelf, config: Arc::new(config) })
    }

    /// How TLS is spoken with a client that asks for this name (SNI, in lower case), or for none.
    pub(crate) fn config_for(&self, _name: Option<&str>) -> &Arc<ServerConfig> {
        &self.config
    }
}
