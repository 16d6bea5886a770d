//! How TLS is spoken on a listener.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::{CertificateError, CipherSuite, ServerConfig};
use tokio::net::TcpStream;

use super::describe::describe;
use super::early::EarlySessions;
use super::proof::Proof;
use super::shelf::Shelf;
use super::slot::Vault;
use super::tickets::{Secret, Tickets};
use crate::acme::{self, Showcase};
use crate::config::{self, ClientPolicy, SessionTickets, TlsVersion};
use crate::net::TlsStream;
use crate::route::normalise_host;

/// TLS of a listener.
pub(crate) struct TlsState {
    /// Its certificates.
    pub(crate) shelf: Arc<Shelf>,
    /// For domains whose clients need no certificate.
    config: Arc<ServerConfig>,
    /// The same for clients that may send requests early.
    early: Option<Arc<ServerConfig>>,
    guarded: Option<Guarded>,
}

/// Domains whose clients are asked for a certificate.
struct Guarded {
    clients: config::ClientCertificates,
    /// Of each policy.
    configs: Vec<Arc<ServerConfig>>,
}

impl TlsState {
    /// TLS of the listener with this name, which proves names by tls-alpn-01 where the flag beside `showcase` says so. Where
    /// nothing else is configured `random`, which is the same as long as the process lives, seals session tickets.
    ///
    /// # Errors
    /// Where the crypto provider refuses; does not happen with the one that is built in.
    pub(crate) fn new(
        name: &str,
        tls: &config::Tls,
        vault: &Vault,
        (showcase, proves): (&Arc<Showcase>, bool),
        (random, early): (&[u8], &EarlySessions),
    ) -> Result<Self, rustls::Error> {
        let slots = tls.certificates.iter().map(|certificate| vault.slot(certificate));
        let issued = tls.managed.certificates.iter().map(|names| vault.issued_slot(names));
        let slots = slots.chain(issued).collect();
        let on_demand = tls.managed.on_demand.clone();
        let shelf = Arc::new(Shelf::new(slots, tls.ocsp_stapling, Arc::clone(showcase), on_demand));
        let versions: &[_] = match tls.min_version {
            TlsVersion::Tls12 => rustls::DEFAULT_VERSIONS,
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let provider = Arc::new(provider());
        let config = |policy: Option<&ClientPolicy>| {
            let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)?
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
            if proves {
                config.alpn_protocols.push(acme::ALPN.to_vec());
            }
            config.ignore_client_order = true;
            // Records are ours.
            config.enable_secret_extraction = true;
            // Tickets are all there is: what is kept here would be good on this node alone.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            if let Some(settings) = &tls.session_tickets {
                config.ticketer = Arc::new(tickets(name, settings, policy, random));
            }
            Ok::<_, rustls::Error>(Arc::new(config))
        };
        let guarded = match &tls.client_certificates {
            None => None,
            Some(clients) => {
                let configs = clients.policies.iter().map(|policy| config(Some(policy)));
                Some(Guarded { clients: clients.clone(), configs: configs.collect::<Result<_, _>>()? })
            }
        };
        let config = config(None)?;
        let early = tls.early_data.then(|| early.admit(name, &config));
        Ok(Self { config, early, guarded, shelf })
    }

    /// How TLS is spoken with a client that asks for this name (SNI), or for none.
    pub(crate) fn config_for(&self, name: Option<&str>) -> &Arc<ServerConfig> {
        let guarded = self.guarded.as_ref().and_then(|guarded| guarded.find(name));
        guarded.map_or(&self.config, |(_, config)| config)
    }

    /// The same where it is spoken on QUIC.
    pub(crate) fn quic_config_for(&self, name: Option<&str>) -> &Arc<ServerConfig> {
        self.early.as_ref().filter(|_| self.takes_early_data(name)).unwrap_or_else(|| self.config_for(name))
    }

    /// Whether a client that asks for this name may send requests before the handshake is complete. One that has to prove
    /// something first may not.
    pub(crate) fn takes_early_data(&self, name: Option<&str>) -> bool {
        self.early.is_some() && self.guarded.as_ref().is_none_or(|guarded| guarded.find(name).is_none())
    }

    /// Makes a handshake with a client.
    ///
    /// # Errors
    /// Where the client leaves or the two cannot agree.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> io::Result<(Box<TlsStream>, Option<Rc<Proof>>)> {
        let stream = Box::new(TlsStream::accept(tcp, |name| Arc::clone(self.config_for(name))).await?);
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

/// Cipher suites in the order in which they are chosen: AES-128 first, as browsers would, since it costs least. Scanners call
/// it a fault to leave the order to the client.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

/// What makes the tickets of a listener for one policy: what was proven to one of them proves nothing to another, and what
/// one listener has agreed on is nothing to another.
fn tickets(name: &str, settings: &SessionTickets, policy: Option<&ClientPolicy>, random: &[u8]) -> Tickets {
    let secrets = match settings.secrets.is_empty() {
        true => vec![Secret::new(random)],
        false => settings.secrets.iter().map(|secret| Secret::new(secret.as_bytes())).collect(),
    };
    let mut context = policy.map_or_else(Vec::new, |policy| policy.id.0.to_vec());
    context.extend_from_slice(name.as_bytes());
    Tickets::new(secrets, settings.rotate.as_secs(), context.into())
}

impl Guarded {
    /// The policy for a name (SNI), and how TLS is spoken by it.
    fn find(&self, name: Option<&str>) -> Option<(&Arc<ClientPolicy>, &Arc<ServerConfig>)> {
        let host = name.and_then(normalise_host).unwrap_or_default();
        let index = self.clients.domains.find_domain(&host)?.domain;
        Some((self.clients.policies.get(index)?, self.configs.get(index)?))
    }
}
