//! Why a handshake over QUIC has failed, in the words of one over TCP.

use quinn::ConnectionError;

/// Where the alerts of TLS begin among the codes of QUIC (RFC 9001 4.8).
const ALERTS: u64 = 0x100;

/// The word for what went wrong. The library says no more than the alert that the client was sent (RFC 8446 6).
pub(crate) fn failure(error: &ConnectionError) -> &'static str {
    match error {
        ConnectionError::TransportError(error) => match u64::from(error.code).checked_sub(ALERTS) {
            Some(116) => "client_certificate_missing",
            Some(45) => "client_certificate_expired",
            Some(44) => "client_certificate_revoked",
            Some(48) => "client_certificate_unknown_issuer",
            // Among them decrypt_error: a signature that somebody else has made.
            Some(42 | 43 | 46 | 51) => "client_certificate_bad",
            Some(40 | 70 | 71) => "incompatible",
            Some(120) => "no_protocol",
            Some(10 | 47 | 50) => "bad_message",
            _ => "other",
        },
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) >= ALERTS => "alert",
        _ => "closed",
    }
}
