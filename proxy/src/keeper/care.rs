//! When a staple is asked for, how long it is shown, and what is said about it. Times are seconds since 1970.

use crate::ocsp::{Answer, Status};

/// Pause after the first failure, in seconds; each further one doubles it.
const SHORTEST_PAUSE: i64 = 2;
/// Longest pause after failures, and after the answer that the certificate was revoked.
const LONGEST_PAUSE: i64 = 3600;

/// The staple of one certificate.
#[derive(Debug, Default)]
pub(super) struct Care {
    /// Until when the staple that is shown is good.
    good_until: Option<i64>,
    /// When the responder was asked last, and when it is to be asked again.
    plan: Option<(i64, i64)>,
    failures: u32,
    /// What was said last.
    said: Option<String>,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// What becomes of the staple that is shown.
    pub(super) staple: Staple,
    /// What is said to the operator, where it was not said before.
    pub(super) say: Option<String>,
}

/// What becomes of a staple.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Staple {
    /// The new one is shown from now on.
    Show,
    /// It stays as it is.
    Keep,
    /// None is shown any more.
    Drop,
}

impl Care {
    /// Whether the responder is to be asked.
    pub(super) fn is_due(&self, now: i64) -> bool {
        // A clock that was turned back makes plans worthless.
        self.plan.is_none_or(|(asked, next)| now >= next || now < asked)
    }

    /// Whether the staple that is shown is too old; it is forgotten by that.
    pub(super) fn has_outlived(&mut self, now: i64) -> bool {
        let outdated = self.good_until.is_some_and(|until| until < now);
        if outdated {
            self.good_until = None;
        }
        outdated
    }

    /// Until when the staple that is shown is good.
    pub(super) fn good_until(&self) -> Option<i64> {
        self.good_until
    }

    /// The responder has answered at `now`, or why there is no answer that counts. `random` spreads what many certificates
    /// or nodes do over a tenth of the time.
    pub(super) fn answered(&mut self, answer: &Result<Answer, String>, now: i64, random: u8) -> Next {
        match answer {
            Ok(Answer { status: Status::Good, this_update, next_update }) => {
                self.good_until = Some(*next_update);
                self.failures = 0;
                let life = next_update.saturating_sub(*this_update);
                let left = next_update.saturating_sub(now);
                // Half of what is left, but no more and more often where a cache has nothing newer.
                let least = (life / 10).clamp(1, LONGEST_PAUSE);
                self.plan(now, (left / 2).max(least), random);
                let say = self.said.take().map(|_| "has a staple again".to_owned());
                Next { staple: Staple::Show, say }
            }
            Ok(Answer { status: Status::Revoked(since), .. }) => {
                self.good_until = None;
                self.failures = 0;
                self.plan(now, LONGEST_PAUSE, random);
                let since = crate::tls::date(*since);
                Next { staple: Staple::Drop, say: self.say(format!("was REVOKED on {since}: replace it")) }
            }
            Ok(Answer { status: Status::Unknown, .. }) => {
                self.failed("the responder does not know it", now, random)
            }
            Err(reason) => self.failed(reason, now, random),
        }
    }

    fn failed(&mut self, reason: &str, now: i64, random: u8) -> Next {
        let pause = SHORTEST_PAUSE.saturating_mul(1 << self.failures.min(11)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.plan(now, pause, random);
        let kept = match self.good_until {
            Some(until) => format!("the one it has is good until {}", crate::tls::date(until)),
            None => "it has none".to_owned(),
        };
        Next { staple: Staple::Keep, say: self.say(format!("gets no new staple ({kept}): {reason}")) }
    }

    fn plan(&mut self, now: i64, pause: i64, random: u8) {
        let pause = pause - pause / 10 * i64::from(random) / 255;
        self.plan = Some((now, now.saturating_add(pause.max(1))));
    }

    fn say(&mut self, text: String) -> Option<String> {
        let new = self.said.as_ref() != Some(&text);
        self.said = Some(text.clone());
        new.then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Status, this_update: i64, next_update: i64) -> Result<Answer, String> {
        Ok(Answer { status, this_update, next_update })
    }

    /// The pause until it is due again.
    fn pause(care: &Care, now: i64) -> i64 {
        (0..).find(|&pause| care.is_due(now + pause)).unwrap()
    }

    #[test]
    fn a_staple_is_renewed_half_way_through() {
        let day = 86_400;
        for (this, next, now, expected) in [
            (0, 7 * day, 0, 302_400),
            // A day old already: half of what is left.
            (0, 7 * day, day, 259_200),
            // The cache has nothing newer: an hour at least.
            (0, 7 * day, 7 * day - 600, 3600),
            (0, 100, 0, 50),
            (0, 100, 99, 10),
            (0, 0, 0, 1),
        ] {
            let mut care = Care::default();
            assert!(care.is_due(now));
            let next_step = care.answered(&answer(Status::Good, this, next), now, 0);
            assert_eq!(next_step, Next { staple: Staple::Show, say: None });
            assert_eq!(pause(&care, now), expected, "{this} {next} {now}");
            assert!(!care.has_outlived(next) && care.has_outlived(next + 1) && !care.has_outlived(next + 1));
        }
        let mut care = Care::default();
        care.answered(&answer(Status::Good, 0, 1000), 0, 255);
        assert_eq!(pause(&care, 0), 450);
        // The clock was turned back.
        assert!(care.is_due(-1));
    }

    #[test]
    fn failures_are_said_once_and_make_pauses_longer() {
        let mut care = Care::default();
        let silent = Err("silent".to_owned());
        let mut pauses = Vec::new();
        for count in 0..13 {
            let next = care.answered(&silent, 0, 0);
            assert_eq!((next.staple, next.say.is_some()), (Staple::Keep, count == 0));
            pauses.push(pause(&care, 0));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
        let next = care.answered(&answer(Status::Unknown, 0, 10), 0, 0);
        assert_eq!(next.say.unwrap(), "gets no new staple (it has none): the responder does not know it");
        let next = care.answered(&answer(Status::Good, 0, 100), 0, 0);
        assert_eq!(next.say.as_deref(), Some("has a staple again"));
        // A good one stays while the next one does not come.
        let next = care.answered(&silent, 60, 0);
        assert_eq!(next.staple, Staple::Keep);
        assert_eq!(
            next.say.unwrap(),
            "gets no new staple (the one it has is good until 1970-01-01T00:01:40Z): silent"
        );
        assert_eq!((care.good_until(), pause(&care, 60)), (Some(100), 2));
    }

    #[test]
    fn what_was_revoked_has_no_staple() {
        let mut care = Care::default();
        care.answered(&answer(Status::Good, 0, 100), 0, 0);
        let next = care.answered(&answer(Status::Revoked(7), 10, 100), 10, 0);
        let say = "was REVOKED on 1970-01-01T00:00:07Z: replace it".to_owned();
        assert_eq!(next, Next { staple: Staple::Drop, say: Some(say) });
        assert_eq!((care.good_until(), pause(&care, 10)), (None, 3600));
        assert_eq!(care.answered(&answer(Status::Revoked(7), 10, 100), 20, 0).say, None);
    }
}
