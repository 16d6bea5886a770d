//! How much one client may have: requests in a time, requests at a time, and whether any at all.
//!
//! It decides and counts; who the client is, is said by the caller, and so is the time. Exact over all workers: the
//! counts lie in tables that exist only where a limit is configured, divided so that workers rarely meet. A table
//! has a bound: where more clients come than it holds, those seen longest ago are forgotten.

mod access;
mod key;
mod rate;
mod table;

use std::sync::Arc;
use std::time::Duration;

pub use self::access::{Access, AccessList};
pub use self::key::{Key, client_network};
pub use self::rate::Rate;
use self::table::{Table, hash};

/// One limit as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What stays the same over reloads: the counts of a limit with the same name and values are kept.
    pub name: String,
    /// What is counted together.
    pub per: Key,
    /// Most requests in a time.
    pub rate: Option<Rate>,
    /// Most requests at a time.
    pub in_flight: Option<u32>,
}

/// A limit and what it has counted.
#[derive(Debug)]
pub struct Limiter {
    limit: Limit,
    /// By key: when the next request would be due if they came evenly, see [`Rate`].
    due: Table<u64>,
    in_flight: Arc<Table<u32>>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many in a time; it may come again after this.
    Rate(Duration),
    /// Too many at a time.
    InFlight,
}

impl Limiter {
    /// A limit that has counted nothing.
    pub fn new(limit: Limit) -> Self {
        Self { limit, due: Table::default(), in_flight: Arc::default() }
    }

    /// The limit as configured.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Counts a request with this value of the key, `now` after some fixed moment. The permit counts as one request in
    /// flight for as long as it lives; there is none where these are not limited.
    ///
    /// # Errors
    /// Where the request is one too many; then it counts for nothing.
    pub fn admit(&self, value: &[u8], now: Duration) -> Result<Option<Permit>, Refusal> {
        let key = hash(value);
        let permit = match self.limit.in_flight {
            None => None,
            Some(most) => {
                let counted = self.in_flight.change(key, |count| match *count {
                    full if full >= most => (full, false),
                    count => (count + 1, true),
                });
                if !counted {
                    return Err(Refusal::InFlight);
                }
                Some(Permit { table: Arc::clone(&self.in_flight), key })
            }
        };
        if let Some(rate) = &self.limit.rate {
            self.due
                .change(key, |due| match rate.next(*due, now) {
                    Ok(next) => (next, Ok(())),
                    Err(wait) => (*due, Err(wait)),
                })
                .map_err(Refusal::Rate)?;
        }
        Ok(permit)
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct Permit {
    table: Arc<Table<u32>>,
    key: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.table.change(self.key, |count| (count.saturating_sub(1), ()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rate: Option<Rate>, in_flight: Option<u32>) -> Limiter {
        Limiter::new(Limit { name: "x".into(), per: Key::Client, rate, in_flight })
    }

    #[test]
    fn requests_in_flight_are_counted_by_key_until_they_end() {
        let limiter = limiter(None, Some(2));
        let now = Duration::ZERO;
        let first = limiter.admit(b"a", now).unwrap();
        let _second = limiter.admit(b"a", now).unwrap();
        assert_eq!(limiter.admit(b"a", now).unwrap_err(), Refusal::InFlight);
        assert!(limiter.admit(b"b", now).is_ok());
        drop(first);
        assert!(limiter.admit(b"a", now).is_ok());
        // Those of `b` and the last of `a` have ended at once.
        assert_eq!(limiter.in_flight.len(), 1);
    }

    #[test]
    fn who_is_refused_for_the_rate_is_not_in_flight() {
        let limiter = limiter(Some(Rate::new(1, Duration::from_secs(1), 1)), Some(1));
        let permit = limiter.admit(b"a", Duration::ZERO).unwrap();
        drop(permit);
        assert_eq!(limiter.admit(b"a", Duration::ZERO).unwrap_err(), Refusal::Rate(Duration::from_secs(1)));
        assert_eq!(limiter.in_flight.len(), 0);
        assert!(limiter.admit(b"a", Duration::from_secs(1)).is_ok());
    }
}
