//! Signatures over DER, with the algorithms that TLS has as well.

use super::der::{self, BIT_STRING, Reader, SEQUENCE};

/// Whether a certificate, DER, is signed with the key in this SubjectPublicKeyInfo.
pub(super) fn is_signed(certificate: &[u8], key: &[u8]) -> bool {
    let signed = || {
        let mut parts = Reader::new(certificate).enter(SEQUENCE)?;
        let data = parts.take(SEQUENCE)?.whole;
        let algorithm = parts.take(SEQUENCE)?.content;
        let signature = der::bits(parts.take(BIT_STRING)?)?;
        Some(verifies(key, algorithm, data, signature))
    };
    signed().unwrap_or(false)
}

/// Whether this is a signature over `data`, made with the key in this SubjectPublicKeyInfo by an algorithm, the inside of an
/// AlgorithmIdentifier. SHA-1 signs nothing.
pub(super) fn verifies(key: &[u8], algorithm: &[u8], data: &[u8], signature: &[u8]) -> bool {
    let verified = || {
        let mut info = Reader::new(key).enter(SEQUENCE)?;
        let kind = info.take(SEQUENCE)?.content;
        let bits = der::bits(info.take(BIT_STRING)?)?;
        let known = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let mut fitting = known.iter().filter(|known| {
            known.public_key_alg_id().as_ref() == kind && known.signature_alg_id().as_ref() == algorithm
        });
        Some(fitting.any(|known| known.verify_signature(bits, data, signature).is_ok()))
    };
    verified().unwrap_or(false)
}
