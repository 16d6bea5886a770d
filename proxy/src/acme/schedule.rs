//! When a certificate is to be got or renewed. Pure: the time and chance are given.
//!
//! Renewal goes by the calendar and is looked at again and again, so that a clock that is set forward or back is followed.
//! Pauses after failures go by a clock that nobody sets.

use std::time::Duration;

/// First pause after a failure that has cost the authority nothing, and after any other.
const UNREACHABLE: Duration = Duration::from_secs(5);
const REFUSED: Duration = Duration::from_secs(60);
/// Longest pause of our own making.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longest pause that an authority may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often the calendar is looked at, at least.
const LOOK: Duration = Duration::from_secs(3600);

/// From when to when a certificate is good; seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Validity {
    fn lifetime(self) -> u64 {
        self.until.saturating_sub(self.from)
    }
}

/// When the authority would have a certificate renewed (RFC 9773 4.2); seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// The two clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Seconds since 1970, as somebody has set them.
    pub(super) calendar: u64,
    /// Since some moment in the past; never goes back.
    pub(super) steady: Duration,
}

/// Why an attempt has failed, as far as the next one depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setback {
    /// Nobody was reached who could count the attempt.
    pub(super) unreachable: bool,
    /// It would be the same for every certificate.
    pub(super) common: bool,
    /// How long the authority asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// The attempts for one certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts {
    /// Failures in a row.
    pub(super) failures: u32,
    /// No attempt before, by the steady clock.
    not_before: Option<Duration>,
    /// Where in the window the renewal falls, in 256ths.
    place: u8,
}

impl Attempts {
    /// None so far.
    pub(super) fn new(random: u8) -> Self {
        Self { place: random, ..Self::default() }
    }

    /// An attempt has failed.
    pub(super) fn failed(
        &mut self,
        setback: Setback,
        validity: Option<Validity>,
        steady: Duration,
        random: u8,
    ) {
        self.failures = self.failures.saturating_add(1);
        let first = if setback.unreachable { UNREACHABLE } else { REFUSED };
        let longest = validity.map_or(DAY, |validity| longest_pause(validity.lifetime()));
        let own = first.saturating_mul(1 << (self.failures - 1).min(16)).min(longest);
        // Up to a quarter more, so that many certificates or nodes do not come back together.
        let own = own + own / 4 * u32::from(random) / 256;
        let pause = own.max(setback.retry_after.unwrap_or_default().min(LONGEST_ASKED));
        self.not_before = Some(steady + pause);
    }

    /// There is another certificate.
    pub(super) fn succeeded(&mut self, random: u8) {
        *self = Self::new(random);
    }

    /// How long to wait until the next attempt; zero: now.
    pub(super) fn wait(&self, now: Now, validity: Option<Validity>, window: Option<Window>) -> Duration {
        let pause = self.not_before.unwrap_or_default().saturating_sub(now.steady);
        let due = validity.map_or(0, |validity| self.renewal(validity, window));
        pause.max(Duration::from_secs(due.saturating_sub(now.calendar)))
    }

    /// How long until [`Attempts::wait`] is to be asked again.
    pub(super) fn look(wait: Duration) -> Duration {
        wait.min(LOOK)
    }

    /// When the certificate is renewed, seconds since 1970: in the window of the authority, or when two thirds of its life
    /// are over and a little later.
    pub(super) fn renewal(&self, validity: Validity, window: Option<Window>) -> u64 {
        let lifetime = validity.lifetime();
        let own = Window {
            start: validity.until.saturating_sub(lifetime / 3),
            end: validity.until.saturating_sub(lifetime / 3 - lifetime / 30),
        };
        // A window behind the end helps nobody.
        let Window { start, end } = window.filter(|window| window.start < validity.until).unwrap_or(own);
        let length = u128::from(end.saturating_sub(start)) * u128::from(self.place) / 256;
        start.saturating_add(u64::try_from(length).unwrap_or(u64::MAX)).min(validity.until)
    }
}

/// A certificate that lives for days only is not left alone for one of them.
fn longest_pause(lifetime: u64) -> Duration {
    Duration::from_secs(lifetime / 20).clamp(REFUSED, DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAYS: u64 = 24 * HOUR;
    const NINETY: Validity = Validity { from: 1_000 * DAYS, until: 1_090 * DAYS };
    const OTHER: Setback = Setback { unreachable: false, common: false, retry_after: None };
    const DOWN: Setback = Setback { unreachable: true, common: true, retry_after: None };

    fn at(calendar: u64, steady: u64) -> Now {
        Now { calendar, steady: Duration::from_secs(steady) }
    }

    #[test]
    fn renewal_by_lifetime_and_by_the_window() {
        let window = |start, end| Some(Window { start, end });
        for (place, validity, given, expected) in [
            (0, NINETY, None, 1_060 * DAYS),
            (128, NINETY, None, 1_061 * DAYS + 12 * HOUR),
            (0, NINETY, window(1_010 * DAYS, 1_012 * DAYS), 1_010 * DAYS),
            (128, NINETY, window(1_010 * DAYS, 1_012 * DAYS), 1_011 * DAYS),
            // Revoked: the window is over already.
            (255, NINETY, window(10, 20), 19),
            // Nonsense of an authority.
            (128, NINETY, window(1_012 * DAYS, 1_010 * DAYS), 1_012 * DAYS),
            (0, NINETY, window(1_091 * DAYS, 1_092 * DAYS), 1_060 * DAYS),
            (255, NINETY, window(1_089 * DAYS, u64::MAX), 1_090 * DAYS),
            (0, Validity { from: 100, until: 160 }, None, 140),
            (0, Validity { from: 100, until: 50 }, None, 50),
        ] {
            let attempts = Attempts::new(place);
            assert_eq!(attempts.renewal(validity, given), expected, "{place} {validity:?} {given:?}");
        }
    }

    #[test]
    fn the_calendar_may_jump() {
        let attempts = Attempts::new(0);
        let wait = |calendar| attempts.wait(at(calendar, 7), Some(NINETY), None).as_secs();
        assert_eq!(wait(1_000 * DAYS), 60 * DAYS);
        assert_eq!(wait(1_059 * DAYS), DAYS);
        assert_eq!(wait(1_060 * DAYS), 0);
        // Set forward by years, and back again.
        assert_eq!(wait(9_000 * DAYS), 0);
        assert_eq!(wait(1_001 * DAYS), 59 * DAYS);
        assert_eq!(wait(0), 1_060 * DAYS);
        assert_eq!(attempts.wait(at(0, 0), None, None), Duration::ZERO);
        assert_eq!(Attempts::look(Duration::from_secs(60 * DAYS)), LOOK);
    }

    #[test]
    fn pauses_grow_and_go_by_the_steady_clock() {
        let mut attempts = Attempts::new(0);
        let mut pauses = Vec::new();
        for _ in 0..14 {
            attempts.failed(OTHER, None, Duration::from_secs(100), 0);
            pauses.push(attempts.wait(at(0, 100), None, None).as_secs());
        }
        assert_eq!(pauses[..5], [60, 120, 240, 480, 960]);
        assert_eq!(pauses[11..], [DAYS, DAYS, DAYS]);
        // The calendar makes no difference, the steady clock does.
        assert_eq!(attempts.wait(at(9_000 * DAYS, 100), None, None).as_secs(), DAYS);
        assert_eq!(attempts.wait(at(0, 100 + DAYS), None, None), Duration::ZERO);
        attempts.succeeded(0);
        assert_eq!(attempts.wait(at(1_060 * DAYS, 100), Some(NINETY), None), Duration::ZERO);
    }

    #[test]
    fn a_week_without_the_authority() {
        // Due at day 60; the authority is away from then on for seven days.
        let mut attempts = Attempts::new(0);
        let (mut calendar, mut steady, mut tries) = (1_060 * DAYS, 0, 0);
        while calendar < 1_067 * DAYS {
            assert_eq!(attempts.wait(at(calendar, steady), Some(NINETY), None), Duration::ZERO);
            attempts.failed(DOWN, Some(NINETY), Duration::from_secs(steady), 255);
            tries += 1;
            // Whole seconds, rounded up.
            let wait = attempts.wait(at(calendar, steady), Some(NINETY), None).as_secs() + 1;
            assert!((5..=DAYS * 5 / 4 + 1).contains(&wait), "{wait}");
            (calendar, steady) = (calendar + wait, steady + wait);
        }
        assert!((15..30).contains(&tries), "{tries}");
        // It is renewed within a day and a quarter of the return, three weeks before it ends.
        assert!(calendar < 1_069 * DAYS);
    }

    #[test]
    fn what_the_authority_asks_for_is_a_least() {
        for (asked, lifetime, expected) in [
            (Some(10), None, 60),
            (Some(7200), None, 7200),
            (Some(365 * DAYS), None, 7 * DAYS),
            (None, None, 60),
            (None, Some(6 * DAYS), 60),
        ] {
            let mut attempts = Attempts::new(0);
            let setback = Setback { retry_after: asked.map(Duration::from_secs), ..OTHER };
            let validity = lifetime.map(|lifetime| Validity { from: 0, until: lifetime });
            attempts.failed(setback, validity, Duration::ZERO, 0);
            assert_eq!(attempts.wait(at(9 * DAYS, 0), validity, None).as_secs(), expected, "{asked:?}");
        }
        // Six days are not spent waiting for one.
        let mut attempts = Attempts::new(0);
        let short = Some(Validity { from: 0, until: 6 * DAYS });
        for _ in 0..30 {
            attempts.failed(OTHER, short, Duration::ZERO, 255);
        }
        assert!(attempts.wait(at(9 * DAYS, 0), short, None).as_secs() < 10 * HOUR);
        let jittered = |random| {
            let mut attempts = Attempts::new(0);
            attempts.failed(OTHER, None, Duration::ZERO, random);
            attempts.wait(at(0, 0), None, None).as_millis()
        };
        assert_eq!(jittered(0), 60_000);
        assert!((74_000..75_000).contains(&jittered(255)));
    }
}
