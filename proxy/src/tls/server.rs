//! How TLS is spoken on a listener.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::{CertificateError, ServerConfig};
use tokio::net::TcpStream;

use super::describe::describe;
use super::proof::Proof;
use super::shelf::Shelf;
use super::slot::Vault;
use crate::config::{self, ClientPolicy};
use crate::net::TlsStream;
use crate::route::normalise_host;

/// TLS of a listener.
pub(crate) struct TlsState {
    /// Its certificates.
    pub(crate) shelf: Arc<Shelf>,
    /// For domains whose clients need no certificate.
    config: Arc<ServerConfig>,
    guarded: Option<Guarded>,
}

/// Domains whose clients are asked for a certificate.
struct Guarded {
    clients: config::ClientCertificates,
    /// Of each policy.
    configs: Vec<Arc<ServerConfig>>,
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
        let config = |policy: Option<&ClientPolicy>| {
            let mut config =
                ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                    .with_safe_default_protocol_versions()?
                    .with_client_cert_verifier(
                        policy.map_or_else(WebPkiClientVerifier::no_client_auth, |policy| {
                            Arc::clone(&policy.verifier)
                        }),
                    )
                    .with_cert_resolver(Arc::clone(&shelf) as Arc<dyn ResolvesServerCert>);
            config.alpn_protocols = match tls.http2 {
                true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
                false => vec![b"http/1.1".to_vec()],
            };
            // What was proven to one policy proves nothing to another: a ticket is good for one of them.
            config.ticketer = match before.and_then(|before| before.ticketer(policy)) {
                Some(known) => known,
                None => rustls::crypto::aws_lc_rs::Ticketer::new()?,
            };
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Ok::<_, rustls::Error>(Arc::new(config))
        };
        let guarded = match &tls.client_certificates {
            None => None,
            Some(clients) => {
                let configs = clients.policies.iter().map(|policy| config(Some(policy)));
                Some(Guarded { clients: clients.clone(), configs: configs.collect::<Result<_, _>>()? })
            }
        };
        Ok(Self { config: config(None)?, guarded, shelf })
    }

    /// What makes tickets for a policy that asks the same as this one.
    fn ticketer(&self, policy: Option<&ClientPolicy>) -> Option<Arc<dyn ProducesTickets>> {
        let config = match policy {
            None => &self.config,
            Some(policy) => {
                let guarded = self.guarded.as_ref()?;
                let index = guarded.clients.policies.iter().position(|known| known.id == policy.id)?;
                guarded.configs.get(index)?
            }
        };
        Some(Arc::clone(&config.ticketer))
    }

    /// How TLS is spoken with a client that asks for this name (SNI), or for none.
    pub(crate) fn config_for(&self, name: Option<&str>) -> &Arc<ServerConfig> {
        let guarded = self.guarded.as_ref().and_then(|guarded| guarded.find(name));
        guarded.map_or(&self.config, |(_, config)| config)
    }

    /// Makes a handshake with a client.
    ///
    /// # Errors
    /// Where the client leaves or the two cannot agree.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> io::Result<(TlsStream, Option<Rc<Proof>>)> {
        if self.guarded.is_none() {
            return Ok((TlsStream::accept(tcp, Arc::clone(&self.config)).await?, None));
        }
        let stream = TlsStream::accept_by(tcp, |name| Arc::clone(self.config_for(name))).await?;
        let proof = self.prove(stream.server_name(), stream.peer_certificates(), stream.is_resumed());
        Ok((stream, proof.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?))
    }

    /// What a client has proven in a handshake that it began with this name: nothing where nothing is asked of it. In a
    /// session that was taken up again (or where nobody knows whether it was) its certificate is verified once more: it
    /// may have ended since.
    ///
    /// # Errors
    /// Where the certificate is not good, or there has to be one and is not.
    pub(crate) fn prove(
        &self,
        name: Option<&str>,
        chain: Option<&[CertificateDer<'static>]>,
        resumed: bool,
    ) -> Result<Option<Rc<Proof>>, rustls::Error> {
        let found = self.guarded.as_ref().and_then(|guarded| guarded.find(name));
        let Some((policy, config)) = found else { return Ok(None) };
        let certificate = match chain.and_then(<[_]>::split_first) {
            None if policy.verifier.client_auth_mandatory() => {
                return Err(rustls::Error::NoCertificatesPresented);
            }
            None => None,
            Some((leaf, others)) => {
                if resumed {
                    let now = config.time_provider.current_time();
                    let now = now.ok_or(rustls::Error::FailedToGetCurrentTime)?;
                    policy.verifier.verify_client_cert(leaf, others, now)?;
                }
                let told = describe(leaf);
                Some(told.ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?)
            }
        };
        Ok(Some(Rc::new(Proof { policy: Arc::clone(policy), certificate })))
    }

    /// Whether a client that has proven this much may ask for a host in its normal form: exactly what the host asks for
    /// was asked of it.
    pub(crate) fn admits(&self, proof: Option<&Proof>, host: &str) -> bool {
        let asked = proof.map(|proof| proof.policy.id);
        asked == self.guarded.as_ref().and_then(|guarded| guarded.clients.of(host)).map(|policy| policy.id)
    }
}

impl Guarded {
    /// The policy for a name (SNI), and how TLS is spoken by it.
    fn find(&self, name: Option<&str>) -> Option<(&Arc<ClientPolicy>, &Arc<ServerConfig>)> {
        let host = name.and_then(normalise_host).unwrap_or_default();
        let index = self.clients.domains.find_domain(&host)?.domain;
        Some((self.clients.policies.get(index)?, self.configs.get(index)?))
    }
}
