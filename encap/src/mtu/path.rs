//! What is believed about the path to one peer.
//!
//! Reports of routers only ever lower the estimate, within bounds: whoever forges them makes packets smaller, never
//! smaller than the floor, and not often (RFC 8201 section 6). Time raises it again.

use std::time::{Duration, Instant};

/// How long a lowered estimate is kept: ten minutes are recommended (RFC 1191 section 6.3, RFC 8201 section 5.3), and
/// five the least (RFC 8201 section 4).
const KEPT: Duration = Duration::from_secs(600);
/// Least time between two reports that are believed.
const APART: Duration = Duration::from_secs(1);
/// Most reports that are believed in [`KEPT`].
const BELIEVED: usize = 8;

/// Path MTU to one peer: how long an outer packet may be, in bytes.
#[derive(Debug, Clone)]
pub struct PathMtu {
    floor: u16,
    ceiling: u16,
    current: u16,
    /// When it was lowered last, if it is below the ceiling.
    lowered: Option<Instant>,
    /// When reports were believed, the oldest one at `oldest`.
    believed: [Option<Instant>; BELIEVED],
    oldest: usize,
}

impl PathMtu {
    /// A path as wide as the underlay: `ceiling` is its MTU, and `floor` is what reports cannot go below, both in
    /// bytes. A ceiling below the floor is the floor.
    pub fn new(floor: u16, ceiling: u16) -> Self {
        let believed = [None; BELIEVED];
        Self { floor, ceiling, current: ceiling, lowered: None, believed, oldest: 0 }
    }

    /// The longest outer packet, in bytes.
    pub fn current(&self) -> u16 {
        self.current
    }

    /// A router reports that the next hop takes `mtu` bytes. Whether the estimate is lower now: never raised, not
    /// below the floor, at most once a second and eight times in ten minutes. What lies below the minimum of the IP
    /// version never comes here ([`parse_too_big`](super::parse_too_big)).
    pub fn lower(&mut self, now: Instant, mtu: u16) -> bool {
        let believed = |index: usize| self.believed.get(index % BELIEVED).copied().flatten();
        let since = |then: Instant| now.saturating_duration_since(then);
        let newest = believed(self.oldest + BELIEVED - 1);
        let often = newest.is_some_and(|then| since(then) < APART)
            || believed(self.oldest).is_some_and(|then| since(then) < KEPT);
        let mtu = mtu.max(self.floor);
        if often || mtu >= self.current {
            return false;
        }
        self.current = mtu;
        self.lowered = Some(now);
        if let Some(slot) = self.believed.get_mut(self.oldest) {
            *slot = Some(now);
        }
        self.oldest = (self.oldest + 1) % BELIEVED;
        true
    }

    /// When `expire` raises the estimate, if nothing happens before.
    pub fn expires(&self) -> Option<Instant> {
        self.lowered.map(|then| then + KEPT)
    }

    /// Back to the ceiling, ten minutes after the estimate was lowered last. Whether it was raised.
    pub fn expire(&mut self, now: Instant) -> bool {
        if self.expires().is_none_or(|then| now < then) {
            return false;
        }
        self.current = self.ceiling;
        self.lowered = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn reports_lower_and_never_raise() {
        let start = start();
        let mut path = PathMtu::new(576, 1500);
        assert_eq!((path.current(), path.expires()), (1500, None));
        assert!(!path.lower(start, 1500) && !path.lower(start, 9000));
        assert!(path.lower(start, 1400), "what changed nothing does not count as often");
        assert!(!path.lower(start + secs(5), 1450));
        assert_eq!((path.current(), path.expires()), (1400, Some(start + KEPT)));
    }

    #[test]
    fn nobody_lowers_it_below_the_floor() {
        let start = start();
        let mut path = PathMtu::new(576, 1500);
        assert!(path.lower(start, 68));
        assert_eq!(path.current(), 576);
        assert!(!path.lower(start + secs(2), 68));
        let mut path = PathMtu::new(1280, 1000);
        assert!(!path.lower(start, 576));
        assert_eq!(path.current(), 1000, "the underlay itself may be smaller");
    }

    #[test]
    fn at_most_one_report_a_second_is_believed() {
        let start = start();
        let mut path = PathMtu::new(576, 1500);
        assert!(path.lower(start, 1400));
        assert!(!path.lower(start + Duration::from_millis(999), 1300));
        assert!(path.lower(start + secs(1), 1300));
    }

    #[test]
    fn at_most_eight_reports_in_any_ten_minutes_are_believed() {
        let start = start();
        let mut path = PathMtu::new(576, 1500);
        let lowered: Vec<_> =
            (0..30).map(|step| path.lower(start + secs(step * 10), 1400 - step as u16)).collect();
        assert_eq!(lowered.iter().filter(|lowered| **lowered).count(), 8);
        assert_eq!(path.current(), 1393);
        assert!(!path.lower(start + secs(599), 1199));
        assert!(path.lower(start + secs(600), 1199));
        assert!(!path.lower(start + secs(609), 1198), "the second one is not ten minutes old yet");
        assert!(path.lower(start + secs(610), 1198));
    }

    #[test]
    fn it_is_raised_ten_minutes_after_it_was_lowered_last() {
        let start = start();
        let mut path = PathMtu::new(576, 1500);
        assert!(!path.expire(start + secs(10_000)));
        path.lower(start, 1400);
        path.lower(start + secs(60), 1300);
        assert!(!path.expire(start + secs(659)));
        assert_eq!(path.current(), 1300);
        assert!(path.expire(start + secs(660)));
        assert_eq!((path.current(), path.expires()), (1500, None));
        assert!(!path.expire(start + secs(661)));
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            floor in 68u16..1500, ceiling in 68u16..9001,
            steps in prop::collection::vec((0u64..700, any::<u16>(), 0u8..2), 0..60),
        ) {
            let mut path = PathMtu::new(floor, ceiling);
            let mut now = start();
            let mut believed = Vec::new();
            for (after, mtu, what) in steps {
                now += secs(after) / 10;
                let before = path.current();
                match what {
                    0 if path.lower(now, mtu) => believed.push(now),
                    1 => { path.expire(now); }
                    _ => {}
                }
                prop_assert!(path.current() <= ceiling);
                prop_assert!(path.current() >= floor.min(ceiling));
                prop_assert!(path.current() <= before || what == 1);
                prop_assert_eq!(path.expires().is_some(), path.current() < ceiling);
            }
            prop_assert!(believed.windows(2).all(|pair| pair[1] - pair[0] >= APART));
            prop_assert!(believed.windows(9).all(|nine| nine[8] - nine[0] >= KEPT));
        }
    }
}
