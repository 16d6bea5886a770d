//! May a request be sent once more? Only where it is certain that the RS has not acted on it, or that
//! acting twice does no harm.

use http::Method;

use super::is_idempotent;
use crate::error::Error;

/// Most attempts after the first.
const RETRIES: u8 = 1;
/// A stale connection is no attempt in the RS's eyes; a few may stand in the queue.
const STALE_RETRIES: u8 = 3;

/// How far an attempt came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    idempotent: bool,
    bodiless: bool,
    pub(super) reused: bool,
    pub(super) connected: bool,
    pub(super) answered: bool,
}

impl Attempt {
    pub(super) fn new(method: &Method, bodiless: bool) -> Self {
        let idempotent = is_idempotent(method);
        Self { idempotent, bodiless, reused: false, connected: false, answered: false }
    }
}

/// Whether to try again after `error`, with `retries` behind it.
pub(super) fn may_retry(attempt: &Attempt, retries: u8, error: &Error) -> bool {
    if !attempt.connected {
        // Nothing was sent, and the body is untouched.
        return retries < RETRIES && matches!(error, Error::Connect | Error::ConnectTimeout);
    }
    // The RS closed a kept connection just as the request left (RFC 9112 9.3.1).
    attempt.reused
        && !attempt.answered
        && attempt.idempotent
        && attempt.bodiless
        && retries < STALE_RETRIES
        && *error == Error::UpstreamClosed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(method: &Method, bodiless: bool) -> Attempt {
        Attempt { connected: true, reused: true, ..Attempt::new(method, bodiless) }
    }

    #[test]
    fn what_was_never_sent_goes_to_another_rs_once() {
        let attempt = Attempt::new(&Method::POST, false);
        assert!(may_retry(&attempt, 0, &Error::Connect));
        assert!(may_retry(&attempt, 0, &Error::ConnectTimeout));
        assert!(!may_retry(&attempt, 1, &Error::Connect));
        assert!(!may_retry(&attempt, 0, &Error::Tunnel));
    }

    #[test]
    fn what_was_sent_is_repeated_only_on_a_stale_connection_and_without_harm() {
        let closed = Error::UpstreamClosed;
        assert!(may_retry(&sent(&Method::GET, true), 0, &closed));
        assert!(!may_retry(&sent(&Method::POST, true), 0, &closed));
        assert!(!may_retry(&sent(&Method::PUT, false), 0, &closed));
        assert!(!may_retry(&sent(&Method::GET, true), 3, &closed));
        assert!(!may_retry(&Attempt { answered: true, ..sent(&Method::GET, true) }, 0, &closed));
        assert!(!may_retry(&Attempt { reused: false, ..sent(&Method::GET, true) }, 0, &closed));
        assert!(!may_retry(&sent(&Method::GET, true), 0, &Error::UpstreamTimeout));
    }
}
