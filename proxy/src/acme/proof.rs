//! Shows an authority that a name is ours, and takes everything away again.

use std::sync::Arc;

use instant_acme::{ChallengeType, KeyAuthorization};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use super::error::AcmeError;
use super::hook::{self, Action, Record};
use super::showcase::Showcase;
use super::storage::Storage;
use crate::config::Challenge;

/// What is shown for the names of one order.
pub(super) struct Proofs {
    challenge: Challenge,
    showcase: Arc<Showcase>,
    storage: Storage,
    tokens: Vec<String>,
    names: Vec<String>,
    records: Vec<Record>,
}

impl Proofs {
    /// Nothing so far.
    pub(super) fn new(challenge: &Challenge, showcase: &Arc<Showcase>, storage: &Storage) -> Self {
        Self {
            challenge: challenge.clone(),
            showcase: Arc::clone(showcase),
            storage: storage.clone(),
            tokens: Vec::new(),
            names: Vec::new(),
            records: Vec::new(),
        }
    }

    /// The kind of challenge, and its name.
    pub(super) fn kind(&self) -> (ChallengeType, &'static str) {
        match self.challenge {
            Challenge::Http01 => (ChallengeType::Http01, "http-01"),
            Challenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
            Challenge::Dns01(_) => (ChallengeType::Dns01, "dns-01"),
        }
    }

    /// Shows that a domain is ours.
    ///
    /// # Errors
    /// Where that cannot be shown.
    pub(super) async fn show(
        &mut self,
        domain: &str,
        token: &str,
        answer: &KeyAuthorization,
    ) -> Result<(), AcmeError> {
        match &self.challenge {
            Challenge::Http01 => {
                self.storage.put_token(token, answer.as_str())?;
                self.showcase.put_token(token, answer.as_str());
                self.tokens.push(token.to_owned());
            }
            Challenge::TlsAlpn01 => {
                let certificate = certificate(domain, answer.digest().as_ref())?;
                self.showcase.put_proof(domain, certificate);
                self.names.push(domain.to_owned());
            }
            Challenge::Dns01(program) => {
                let record = Record { domain: domain.to_owned(), value: answer.dns_value() };
                // Also where it fails: it may have set the record and then failed.
                self.records.push(record.clone());
                hook::run(program, Action::Present, &record).await?;
            }
        }
        Ok(())
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// The first failure of the program that removes records; it is called for all of them.
    pub(super) async fn remove(mut self) -> Result<(), AcmeError> {
        let Challenge::Dns01(program) = &self.challenge else { return Ok(()) };
        let mut result = Ok(());
        for record in std::mem::take(&mut self.records) {
            result = result.and(hook::run(program, Action::Cleanup, &record).await);
        }
        result
    }
}

impl Drop for Proofs {
    fn drop(&mut self) {
        for token in &self.tokens {
            self.showcase.remove_token(token);
            self.storage.remove_token(token);
        }
        for name in &self.names {
            self.showcase.remove_proof(name);
        }
    }
}

/// The certificate that shows the digest (RFC 8737 3).
fn certificate(domain: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, AcmeError> {
    let made = || -> Result<_, rcgen::Error> {
        let mut params = CertificateParams::new(vec![domain.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        Ok((params.self_signed(&key)?.der().clone(), key.serialize_der()))
    };
    let unusable = |why: String| AcmeError::Unusable(format!("the certificate for a proof: {why}"));
    let (certificate, key) = made().map_err(|error| unusable(error.to_string()))?;
    let key = any_supported_type(&PrivatePkcs8KeyDer::from(key).into())
        .map_err(|error| unusable(error.to_string()))?;
    // Not compared with each other: the library reads no certificate with such an extension.
    Ok(Arc::new(CertifiedKey::new(vec![certificate], key)))
}
