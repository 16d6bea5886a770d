//! The question: a certificate, named by its number and the hashes of who issued it (RFC 6960 4.1.1).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::der::{self, BIT_STRING, INTEGER, NULL, OCTET_STRING, OID, Reader, SEQUENCE};
use super::signature::is_signed;

/// 1.3.14.3.2.26, SHA-1: what every responder knows. It names here, it does not protect.
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];

/// Why nobody can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuestionError {
    /// One of the certificates is damaged.
    #[error("the certificate cannot be read")]
    Certificate,
    /// Who issued the certificate does not stand behind it.
    #[error("the certificate of its issuer is not in the file: put it behind the certificate")]
    NoIssuer,
}

/// A certificate to ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(super) serial: Vec<u8>,
    pub(super) name_hash: Vec<u8>,
    pub(super) issuer: Party,
}

/// Somebody who signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Party {
    /// Its name, DER.
    pub(super) name: Vec<u8>,
    /// SubjectPublicKeyInfo, DER.
    pub(super) key: Vec<u8>,
    /// SHA-1 of the key's bits.
    pub(super) key_hash: Vec<u8>,
}

impl Party {
    /// Whoever has this certificate.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let key = certificate.public_key().raw;
        let mut info = Reader::new(key).enter(SEQUENCE)?;
        info.take(SEQUENCE)?;
        let bits = der::bits(info.take(BIT_STRING)?)?;
        Some(Self { name: certificate.subject().as_raw().to_vec(), key: key.to_vec(), key_hash: sha1(bits) })
    }
}

impl Question {
    /// About the first certificate of a chain; who issued it has to be in the chain as well.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub(crate) fn about(chain: &[CertificateDer<'_>]) -> Result<Self, QuestionError> {
        let (first, others) = chain.split_first().ok_or(QuestionError::Certificate)?;
        let (_, leaf) = X509Certificate::from_der(first).map_err(|_| QuestionError::Certificate)?;
        let issuer = others.iter().find_map(|certificate| {
            let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
            let party = Party::of(&parsed).filter(|party| party.name == leaf.issuer().as_raw())?;
            is_signed(first, &party.key).then_some(party)
        });
        let issuer = issuer.ok_or(QuestionError::NoIssuer)?;
        Ok(Self { serial: leaf.raw_serial().to_vec(), name_hash: sha1(&issuer.name), issuer })
    }

    /// The request, DER.
    pub(crate) fn request(&self) -> Vec<u8> {
        let id = self.id();
        let request = der::write(SEQUENCE, &[&id]);
        let list = der::write(SEQUENCE, &[&request]);
        der::write(SEQUENCE, &[&der::write(SEQUENCE, &[&list])])
    }

    fn id(&self) -> Vec<u8> {
        let algorithm = der::write(SEQUENCE, &[&der::write(OID, &[SHA1]), &der::write(NULL, &[])]);
        let parts = [
            der::write(OCTET_STRING, &[&self.name_hash]),
            der::write(OCTET_STRING, &[&self.issuer.key_hash]),
            der::write(INTEGER, &[&self.serial]),
        ];
        let [name, key, serial] = &parts;
        der::write(SEQUENCE, &[&algorithm, name, key, serial])
    }

    /// Whether a CertID, of which this reads the inside, names this certificate.
    pub(super) fn is_named_by(&self, mut id: Reader<'_>) -> bool {
        let mut is = || {
            let algorithm = id.enter(SEQUENCE)?.take(OID)?.content;
            let (name, key) = (id.take(OCTET_STRING)?.content, id.take(OCTET_STRING)?.content);
            let serial = id.take(INTEGER)?.content;
            let same = name == self.name_hash && key == self.issuer.key_hash && serial == self.serial;
            Some(algorithm == SHA1 && same && id.is_empty())
        };
        is().unwrap_or(false)
    }
}

pub(super) fn sha1(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()
}
