//! What a client has proven in its handshake, and how RS are told.

use std::sync::Arc;

use crate::config::{ClientFields, ClientPolicy};
use crate::message::{ClientCertificate, Headers};

/// What is known of a client that was asked for a certificate.
#[derive(Debug)]
pub(crate) struct Proof {
    /// What was asked of it.
    pub(super) policy: Arc<ClientPolicy>,
    /// What it has shown; nothing where it may do without.
    pub(crate) certificate: Option<ClientCertificate>,
}

impl Proof {
    /// Tells the RS. What the client itself has said is gone already.
    pub(crate) fn tell(&self, headers: &mut Headers) {
        match (self.policy.fields, &self.certificate) {
            (ClientFields::XSslClient, None) => headers.append("X-SSL-Client-Verify", "NONE"),
            (ClientFields::XSslClient, Some(certificate)) => {
                headers.append("X-SSL-Client-Verify", "SUCCESS");
                headers.append("X-SSL-Client-S-DN", &certificate.subject);
                headers.append("X-SSL-Client-I-DN", &certificate.issuer);
                headers.append("X-SSL-Client-Serial", &certificate.serial);
                headers.append("X-SSL-Client-Fingerprint", &certificate.fingerprint);
            }
            // A byte sequence (RFC 9440 2.1, RFC 9651 3.3.5).
            (ClientFields::ClientCert, Some(certificate)) => {
                headers.append("Client-Cert", format!(":{}:", certificate.base64));
            }
            (ClientFields::ClientCert, None) | (ClientFields::Off, _) => {}
        }
    }
}
