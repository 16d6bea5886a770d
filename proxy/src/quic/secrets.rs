//! What all workers of the process have to know alike.

use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac, rand};

/// Keys that are made at the start and never leave the process.
#[derive(Clone)]
pub(crate) struct Secrets {
    /// Signs stateless resets (RFC 9000 10.3).
    pub(crate) reset: Arc<hmac::Key>,
    /// Seals the tokens of address validation (RFC 9000 8.1): any worker may get one back.
    pub(crate) token: Arc<hkdf::Prk>,
    /// Stands in every connection ID.
    pub(crate) process: [u8; 2],
}

impl Secrets {
    /// Other ones each time. None where the system has no random numbers.
    pub(crate) fn random() -> Option<Self> {
        let (mut reset, mut token, mut process) = ([0; 32], [0; 32], [0; 2]);
        for secret in [&mut reset[..], &mut token, &mut process] {
            rand::fill(secret).ok()?;
        }
        Some(Self {
            reset: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)),
            token: Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&token)),
            process,
        })
    }
}
