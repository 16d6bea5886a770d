//! Certificate and key from PEM to what rustls signs with, checked against each other.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate file holds no certificate.
    #[error("holds no PEM certificate (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// The key file holds no private key.
    #[error("holds no PEM private key (`-----BEGIN PRIVATE KEY-----`)")]
    NoKey,
    /// The PEM text is damaged.
    #[error("is damaged PEM: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// The key is of a kind that cannot sign, or does not belong to the certificate.
    #[error("do not go together: {0}")]
    Mismatch(rustls::Error),
}

/// The certificate chain and its key, both PEM, ready to sign.
///
/// # Errors
/// Where there is no certificate, no key, or the key is not the certificate's.
pub fn certified_key(chain_pem: &str, key_pem: &str) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(CertificateError::Pem)?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => CertificateError::NoKey,
        other => CertificateError::Pem(other),
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(CertificateError::Mismatch)?;
    Ok(Arc::new(key))
}
