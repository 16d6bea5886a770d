//! Why a handshake has failed, in one of a few words: a label of a metric.

use std::io;

use rustls::{CertificateError, Error};

/// Nobody has said anything in time.
pub(crate) const TIMEOUT: &str = "timeout";

/// The word for what went wrong on a connection.
pub(crate) fn failure(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => failure_of(error),
        // It has left, politely or not.
        None => "closed",
    }
}

/// The word for what the TLS library says.
pub(crate) fn failure_of(error: &Error) -> &'static str {
    match error {
        Error::NoCertificatesPresented => "client_certificate_missing",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "client_certificate_expired"
        }
        Error::InvalidCertificate(CertificateError::Revoked) => "client_certificate_revoked",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => "client_certificate_unknown_issuer",
        Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => "client_certificate_bad",
        // No version, cipher suite, group or scheme in common.
        Error::PeerIncompatible(_) => "incompatible",
        Error::NoApplicationProtocol => "no_protocol",
        Error::AlertReceived(_) => "alert",
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => "bad_message",
        _ => "other",
    }
}
