//! Whether a request may pass at all: address, rate, number. What needs to wait for somebody is in
//! [`authorise`](super::authorise).

use std::net::IpAddr;

use super::noted::Noted;
use crate::config::More;
use crate::error::Error;
use crate::limit::{Permit, Refusal};
use crate::message::RequestHead;
use crate::net::clock;
use crate::state::View;

/// Lets a request pass, or not; it counts as in flight as long as the permits live.
pub(super) fn admit(
    view: &View,
    more: &More,
    head: &RequestHead,
    client: IpAddr,
    permits: &mut Vec<Permit>,
    noted: &mut Noted,
) -> Result<(), Error> {
    if !more.access.allows(client) {
        return Err(Error::AccessDenied);
    }
    for limiter in more.limits.iter().filter_map(|number| view.limiter(*number)) {
        let now = clock::shared();
        let admitted = limiter.limit().per.of(head, client, |value| limiter.admit(value, now));
        match admitted {
            Ok(permit) => permits.extend(permit),
            Err(Refusal::InFlight) => return Err(Error::TooManyInFlight),
            Err(Refusal::Rate(wait)) => {
                // In whole seconds (RFC 9110 10.2.3), and not before it is of use.
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                noted.on_failure.push(("Retry-After", seconds.to_string()));
                return Err(Error::RateLimited);
            }
        }
    }
    Ok(())
}
