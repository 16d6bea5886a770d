//! One order, or one question when the authority would have a certificate renewed: a task of its own.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::CertificateIdentifier;
use rustls::pki_types::CertificateDer;

use super::Settings;
use super::account::Accounts;
use super::error::AcmeError;
use super::order::{Wanted, issue};
use super::proof::Proofs;
use super::schedule::Window;
use super::showcase::Showcase;
use super::storage::{Storage, Stored};

/// What has come of something that was begun.
pub(super) struct Finished {
    /// Number of the office that has begun it.
    pub(super) office: u64,
    /// For which certificate.
    pub(super) names: Vec<String>,
    pub(super) what: Outcome,
}

pub(super) enum Outcome {
    /// A certificate, or why there is none; and why something could not be taken away again.
    Order(Result<Stored, AcmeError>, Option<AcmeError>),
    /// When the authority would have a certificate renewed, and when to ask again.
    Window(Result<(Window, Duration), instant_acme::Error>),
}

/// What one order or question needs.
pub(super) struct Task {
    pub(super) settings: Arc<Settings>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) storage: Storage,
    pub(super) showcase: Arc<Showcase>,
    pub(super) names: Vec<String>,
    pub(super) on_demand: bool,
    /// The certificate that it is about.
    pub(super) shown: Option<CertificateDer<'static>>,
}

impl Task {
    /// Gets a certificate and keeps it.
    pub(super) async fn order(self) -> Outcome {
        let mut left_over = None;
        // An account that the authority has forgotten is replaced, once.
        for _ in 0..2 {
            let (result, removed) = self.attempt().await;
            left_over = left_over.or(removed.err());
            let error = match result {
                Ok(stored) => return Outcome::Order(Ok(stored), left_over),
                Err(error) => error,
            };
            if let Err(error) = self.accounts.close(&error).await {
                return Outcome::Order(Err(error), left_over);
            }
            if !error.is("accountDoesNotExist") {
                return Outcome::Order(Err(error), left_over);
            }
        }
        Outcome::Order(
            Err(AcmeError::Unusable("it does not know the account that it has just made".into())),
            left_over,
        )
    }

    async fn attempt(&self) -> (Result<Stored, AcmeError>, Result<(), AcmeError>) {
        let config = &self.settings.config;
        let account = match self.accounts.open().await {
            Ok(account) => account,
            // That it is not reached says enough.
            Err(error @ AcmeError::Http(_)) => return (Err(error), Ok(())),
            Err(error) => return (Err(AcmeError::Account(Box::new(error))), Ok(())),
        };
        let mut proofs = Proofs::new(&config.challenge, &self.showcase, &self.storage);
        let wanted = Wanted {
            names: self.names.clone(),
            key_type: config.key_type,
            profile: config.profile.clone(),
            replaces: self.identifier(),
        };
        let issued = issue(&account, &wanted, &mut proofs).await;
        let removed = proofs.remove().await;
        let stored = issued
            .and_then(|issued| self.storage.save(&self.names, &issued.chain, &issued.key, self.on_demand));
        (stored, removed)
    }

    /// Asks when the authority would have the certificate renewed.
    pub(super) async fn question(self) -> Outcome {
        let Some(identifier) = self.identifier() else {
            return Outcome::Window(Err(instant_acme::Error::Unsupported(
                "certificates without an authority key",
            )));
        };
        let account = match self.accounts.open().await {
            Ok(account) => account,
            Err(error) => return Outcome::Window(Err(instant_acme::Error::Other(Box::new(error)))),
        };
        let asked = account.renewal_info(&identifier).await;
        Outcome::Window(asked.map(|(info, again)| {
            let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
            let window = &info.suggested_window;
            let (start, end) = (window.start.unix_timestamp(), window.end.unix_timestamp());
            (Window { start: seconds(start), end: seconds(end) }, again)
        }))
    }

    /// How the authority knows the certificate that is shown (RFC 9773 4.1).
    fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        CertificateIdentifier::try_from(self.shown.as_ref()?).ok()
    }
}
