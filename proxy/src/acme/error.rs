//! Why a certificate was not got.

use std::io;
use std::time::Duration;

use super::client::HttpError;
use super::schedule::Setback;

/// Why a certificate was not got.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcmeError {
    /// The authority was not reached, or does not speak as it should.
    #[error("{0}")]
    Http(HttpError),
    /// The authority has refused something.
    #[error("the authority says: {}", words(.0))]
    Refused(instant_acme::Problem),
    /// The authority does not accept the proof.
    #[error("the proof was not accepted: {0}")]
    Proof(String),
    /// The authority offers no challenge of the configured kind for a name.
    #[error("the authority offers no {challenge} for {name}")]
    NoChallenge {
        /// What was wanted.
        challenge: &'static str,
        /// For which name.
        name: String,
    },
    /// The program that sets records has failed.
    #[error("the DNS hook has failed: {0}")]
    Hook(String),
    /// There is no account.
    #[error("there is no account: {0}")]
    Account(Box<Self>),
    /// Files.
    #[error("{what}: {error}")]
    Storage {
        /// What was tried.
        what: String,
        /// Why it did not work.
        error: io::Error,
    },
    /// The authority takes longer than we wait.
    #[error("the authority is still at it after {}s", .0.as_secs())]
    Slow(Duration),
    /// Something that the authority has sent cannot be used.
    #[error("the authority has sent something that cannot be used: {0}")]
    Unusable(String),
}

impl AcmeError {
    /// One word for the metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Http(HttpError::Limited { .. }) => "rate_limited",
            Self::Http(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Proof(_) | Self::NoChallenge { .. } => "challenge",
            Self::Hook(_) => "dns_hook",
            Self::Account(error) => error.reason(),
            Self::Storage { .. } => "storage",
            Self::Slow(_) => "timeout",
            Self::Unusable(_) => "unusable",
        }
    }

    /// What the next attempt depends on.
    pub(super) fn setback(&self) -> Setback {
        match self {
            // A server that is overloaded has counted nothing, and is the same for every certificate.
            Self::Http(HttpError::Limited { retry_after, status, .. }) => {
                let unreachable = status.is_server_error();
                Setback { unreachable, common: unreachable, retry_after: *retry_after }
            }
            Self::Http(_) => Setback { unreachable: true, common: true, retry_after: None },
            Self::Account(error) => Setback { common: true, ..error.setback() },
            _ => Setback { unreachable: false, common: false, retry_after: None },
        }
    }

    /// Whether the authority has refused with this error of RFC 8555 6.7.
    pub(super) fn is(&self, kind: &str) -> bool {
        match self {
            Self::Refused(problem) => has_type(problem, kind),
            _ => false,
        }
    }
}

/// What a problem says to people.
fn words(problem: &instant_acme::Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("about:blank");
    let parts = problem.subproblems.iter().map(ToString::to_string);
    let whole = [format!("{} ({kind})", problem.detail.as_deref().unwrap_or("no reason given"))];
    whole.into_iter().chain(parts).collect::<Vec<_>>().join("; ")
}

/// Whether a problem is of this type of RFC 8555 6.7.
pub(super) fn has_type(problem: &instant_acme::Problem, kind: &str) -> bool {
    let name = problem.r#type.as_deref().and_then(|name| name.strip_prefix("urn:ietf:params:acme:error:"));
    name == Some(kind)
}

impl From<instant_acme::Error> for AcmeError {
    fn from(error: instant_acme::Error) -> Self {
        match error {
            instant_acme::Error::Api(problem) => Self::Refused(problem),
            instant_acme::Error::Timeout(_) => Self::Slow(super::order::PATIENCE),
            instant_acme::Error::Other(inner) => match inner.downcast::<HttpError>() {
                Ok(error) => Self::Http(*error),
                Err(other) => Self::Unusable(other.to_string()),
            },
            other => Self::Unusable(other.to_string()),
        }
    }
}
