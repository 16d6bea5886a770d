//! Warns before certificates end.

use std::collections::HashMap;
use std::time::Duration;

use super::{Desk, forget, name, seconds_now};
use crate::config::Source;
use crate::tls::date;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
const DAY: i64 = 86_400;
/// How long before the end it is said, in seconds, and the share of its life that a short one has left at most then: one
/// that lives for days is not said to end soon for all of its life, and one that lives for three months not before it is
/// usually renewed.
const STEPS: [(i64, i64); 3] = [(30 * DAY, 4), (7 * DAY, 8), (DAY, 16)];

/// Says once for each step that an end has come near.
pub(super) async fn keep(desk: Desk) {
    let mut reminders: HashMap<Source, Reminder> = HashMap::new();
    loop {
        let now = seconds_now();
        let slots = desk.slots();
        forget(&mut reminders, &slots);
        for slot in slots {
            let Some(facts) = slot.facts() else { continue };
            let reminder = reminders.entry(slot.source.clone()).or_default();
            if let Some(text) = reminder.look(facts.not_before, facts.not_after, now) {
                desk.say(&format!("the certificate {} {text}", name(&slot)));
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// What was said about one certificate.
#[derive(Debug, Default)]
struct Reminder {
    /// Whose life this is about.
    life: (i64, i64),
    /// Steps that are behind; beyond the last one it has expired.
    said: usize,
    said_early: bool,
}

impl Reminder {
    /// What is to be said at `now`; all are seconds since 1970.
    fn look(&mut self, not_before: i64, not_after: i64, now: i64) -> Option<String> {
        if self.life != (not_before, not_after) {
            *self = Self { life: (not_before, not_after), ..Self::default() };
        }
        if now < not_before {
            let first = !std::mem::replace(&mut self.said_early, true);
            return first.then(|| format!("does not hold before {}: clients refuse it", date(not_before)));
        }
        let (left, life) = (not_after.saturating_sub(now), not_after.saturating_sub(not_before));
        let passed = match left {
            ..0 => STEPS.len() + 1,
            left => STEPS.iter().filter(|&&(before, share)| left <= before.min(life / share)).count(),
        };
        if passed <= self.said {
            return None;
        }
        self.said = passed;
        Some(match passed > STEPS.len() {
            true => format!("has EXPIRED on {}: clients refuse it", date(not_after)),
            false => format!("ends in {}, on {}", span(left), date(not_after)),
        })
    }
}

/// A span of time in the largest unit of which it has two.
fn span(seconds: i64) -> String {
    match seconds {
        seconds if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        seconds if seconds >= 2 * 3600 => format!("{} hours", seconds / 3600),
        seconds if seconds >= 120 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When something is said in a life of so many seconds that is looked at every minute, in seconds before its end.
    fn said(life: i64) -> Vec<i64> {
        let mut reminder = Reminder::default();
        let moments = (0..=life + 120).step_by(60);
        moments.filter(|&now| reminder.look(0, life, now).is_some()).map(|now| life - now).collect()
    }

    #[test]
    fn each_step_is_said_once() {
        let hour = 3600;
        assert_eq!(said(398 * DAY), [30 * DAY, 7 * DAY, DAY, -60]);
        assert_eq!(said(90 * DAY), [22 * DAY + 12 * hour, 7 * DAY, DAY, -60]);
        assert_eq!(said(6 * DAY), [36 * hour, 18 * hour, 9 * hour, -60]);
    }

    #[test]
    fn at_the_start_only_the_last_step_is_said() {
        let mut reminder = Reminder::default();
        let text = reminder.look(0, 100 * DAY, 97 * DAY).unwrap();
        assert_eq!(text, "ends in 3 days, on 1970-04-11T00:00:00Z");
        assert_eq!(reminder.look(0, 100 * DAY, 97 * DAY), None);
        let text = reminder.look(0, 100 * DAY, 100 * DAY + 1).unwrap();
        assert_eq!(text, "has EXPIRED on 1970-04-11T00:00:00Z: clients refuse it");
        // Another certificate stands there.
        assert_eq!(reminder.look(0, 200 * DAY, 100 * DAY), None);
        let early = reminder.look(300 * DAY, 400 * DAY, 100 * DAY).unwrap();
        assert_eq!(early, "does not hold before 1970-10-28T00:00:00Z: clients refuse it");
        assert_eq!(reminder.look(300 * DAY, 400 * DAY, 101 * DAY), None);
    }

    #[test]
    fn spans() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7200, "2 hours"),
            (259_199, "2 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
