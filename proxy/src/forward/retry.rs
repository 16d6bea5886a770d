//! May a request be sent once more? Only where it is certain that the RS has not acted on it, or that
//! acting twice does no harm.

use http::{Method, StatusCode};

use super::is_idempotent;
use crate::config::Retries;
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
    /// The body is as it was before.
    pub(super) intact: bool,
}

/// What the pool says about retries.
#[derive(Clone, Copy)]
pub(super) struct Policy<'a>(pub(super) Option<&'a Retries>);

impl Policy<'_> {
    fn most(self) -> u8 {
        self.0.map_or(RETRIES, |retries| retries.attempts)
    }

    /// Whether a response with this status is no answer yet.
    pub(super) fn wants_another(self, attempt: &Attempt, retries: u8, status: StatusCode) -> bool {
        let Some(policy) = self.0 else { return false };
        retries < policy.attempts && attempt.is_repeatable() && policy.statuses.contains(status.as_u16())
    }

    /// Whether this failure is one that the pool names.
    fn names(self, attempt: &Attempt, error: &Error) -> bool {
        let Some(policy) = self.0.filter(|_| attempt.is_repeatable() && !attempt.answered) else {
            return false;
        };
        match error {
            Error::UpstreamTimeout => policy.on_timeout,
            Error::UpstreamClosed | Error::UpstreamReset => policy.on_closed,
            _ => false,
        }
    }
}

/// The head of a response, within the time that the pool has for each attempt.
pub(super) async fn in_time<T>(
    policy: Policy<'_>,
    head: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match policy.0.and_then(|retries| retries.per_try_timeout) {
        None => head.await,
        Some(patience) => tokio::time::timeout(patience, head).await.unwrap_or(Err(Error::UpstreamTimeout)),
    }
}

impl Attempt {
    /// Whether acting on it twice does no harm.
    fn is_repeatable(&self) -> bool {
        self.idempotent && self.bodiless
    }

    pub(super) fn new(method: &Method, bodiless: bool) -> Self {
        let idempotent = is_idempotent(method);
        Self { idempotent, bodiless, reused: false, connected: false, answered: false, intact: false }
    }
}

/// Whether to try again after `error`, with `retries` behind it.
pub(super) fn may_retry(attempt: &Attempt, retries: u8, error: &Error, policy: Policy<'_>) -> bool {
    if !attempt.connected {
        // Nothing was sent, and the body is untouched.
        return retries < policy.most()
            && matches!(error, Error::Connect | Error::ConnectTimeout | Error::UpstreamTls(_));
    }
    if *error == Error::UpstreamRefused {
        // It is certain that nothing was done for it, whatever it asks for (RFC 9113 8.7).
        return (attempt.bodiless || attempt.intact) && retries < STALE_RETRIES;
    }
    if retries < policy.most() && policy.names(attempt, error) {
        return true;
    }
    // The RS closed a kept connection just as the request left (RFC 9112 9.3.1).
    attempt.reused
        && !attempt.answered
        && attempt.is_repeatable()
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
        assert!(may_retry(&attempt, 0, &Error::Connect, Policy(None)));
        assert!(may_retry(&attempt, 0, &Error::ConnectTimeout, Policy(None)));
        assert!(!may_retry(&attempt, 1, &Error::Connect, Policy(None)));
        assert!(!may_retry(&attempt, 0, &Error::Tunnel, Policy(None)));
    }

    #[test]
    fn what_was_refused_is_sent_again_where_its_body_is_there() {
        let refused = Error::UpstreamRefused;
        let attempt = sent(&Method::POST, false);
        assert!(!may_retry(&attempt, 0, &refused, Policy(None)));
        assert!(may_retry(&Attempt { intact: true, reused: false, ..attempt }, 2, &refused, Policy(None)));
        assert!(!may_retry(&Attempt { intact: true, ..attempt }, 3, &refused, Policy(None)));
        assert!(may_retry(&sent(&Method::POST, true), 0, &refused, Policy(None)));
    }

    #[test]
    fn what_was_sent_is_repeated_only_on_a_stale_connection_and_without_harm() {
        let closed = Error::UpstreamClosed;
        assert!(may_retry(&sent(&Method::GET, true), 0, &closed, Policy(None)));
        assert!(!may_retry(&sent(&Method::POST, true), 0, &closed, Policy(None)));
        assert!(!may_retry(&sent(&Method::PUT, false), 0, &closed, Policy(None)));
        assert!(!may_retry(&sent(&Method::GET, true), 3, &closed, Policy(None)));
        assert!(!may_retry(
            &Attempt { answered: true, ..sent(&Method::GET, true) },
            0,
            &closed,
            Policy(None)
        ));
        assert!(!may_retry(&Attempt { reused: false, ..sent(&Method::GET, true) }, 0, &closed, Policy(None)));
        assert!(!may_retry(&sent(&Method::GET, true), 0, &Error::UpstreamTimeout, Policy(None)));
    }

    #[test]
    fn what_the_pool_names_is_repeated_where_it_does_no_harm() {
        let mut statuses = crate::rule::Statuses::default();
        assert!(statuses.add("503"));
        let retries = Retries { attempts: 2, on_timeout: true, statuses, ..Retries::default() };
        let policy = Policy(Some(&retries));
        let get = Attempt { reused: false, ..sent(&Method::GET, true) };
        assert!(may_retry(&get, 1, &Error::UpstreamTimeout, policy));
        assert!(!may_retry(&get, 2, &Error::UpstreamTimeout, policy));
        assert!(!may_retry(&get, 0, &Error::UpstreamClosed, policy));
        assert!(!may_retry(&Attempt { answered: true, ..get }, 0, &Error::UpstreamTimeout, policy));
        assert!(!may_retry(&sent(&Method::POST, true), 0, &Error::UpstreamTimeout, policy));
        assert!(policy.wants_another(&get, 1, StatusCode::SERVICE_UNAVAILABLE));
        assert!(!policy.wants_another(&get, 2, StatusCode::SERVICE_UNAVAILABLE));
        assert!(!policy.wants_another(&get, 0, StatusCode::BAD_GATEWAY));
        assert!(!policy.wants_another(&sent(&Method::PUT, false), 0, StatusCode::SERVICE_UNAVAILABLE));
    }
}
