//! How many names may be tried because somebody has asked for them. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::config::OnDemand;

const HOUR: Duration = Duration::from_secs(3600);

/// What was tried lately, by listener.
#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<String, VecDeque<Duration>>);

impl Tries {
    /// Whether another name of a listener may be tried, now by a clock that never goes back; counted where it may.
    /// `present` are the certificates that the listener has by demand.
    pub(super) fn admit(&mut self, listener: &str, limits: &OnDemand, present: usize, now: Duration) -> bool {
        let tries = self.0.entry(listener.to_owned()).or_default();
        while tries.pop_front_if(|then| now.saturating_sub(*then) >= HOUR).is_some() {}
        let most = usize::try_from(limits.max_per_hour).unwrap_or(usize::MAX);
        let may = present < limits.max_certificates && tries.len() < most;
        if may {
            tries.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_number_and_in_an_hour() {
        let limits = OnDemand { allow: Vec::new(), max_certificates: 3, max_per_hour: 2 };
        let mut tries = Tries::default();
        for (listener, present, second, expected) in [
            ("a", 0, 0, true),
            ("a", 3, 1, false),
            ("a", 1, 10, true),
            ("a", 1, 11, false),
            ("b", 1, 12, true),
            ("a", 1, 3599, false),
            ("a", 1, 3600, true),
            ("a", 1, 3601, false),
            ("a", 2, 3610, true),
        ] {
            let admitted = tries.admit(listener, &limits, present, Duration::from_secs(second));
            assert_eq!(admitted, expected, "{listener} {present} {second}");
        }
    }
}
