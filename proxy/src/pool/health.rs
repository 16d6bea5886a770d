//! The health of one RS: from the outcomes of probes to a verdict.
//!
//! It decides when the next probe starts and when the verdict changes. It never sends a probe, reads no clock
//! and does not know the pool; whether a request may go to an RS without a good verdict is decided by
//! [`Pool`](super::Pool). One prober owns each [`Health`] and publishes its state in a
//! [`HealthCell`](super::HealthCell).
//!
//! *The first probe decides at once*, as in HAProxy, whose servers start one failure away from down: a
//! success makes the RS up without waiting for `rise`, a failure makes it down without waiting for `fall`.
//! Afterwards `fall` failures in a row make it down and `rise` successes in a row make it up.

use std::time::{Duration, Instant};

/// How an RS is probed. The defaults are those of Tencent CLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePolicy {
    /// From the start of one probe to the start of the next; 5 s.
    pub interval: Duration,
    /// After this long without an answer a probe has failed; 2 s. Shorter than `interval`.
    pub timeout: Duration,
    /// Successes in a row that make a down RS up; 3. 0 counts as 1.
    pub rise: u32,
    /// Failures in a row that make an up RS down; 3. 0 counts as 1.
    pub fall: u32,
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(2), rise: 3, fall: 3 }
    }
}

impl ProbePolicy {
    /// How long CLB lets an RS that stopped answering pass for healthy, counted from the first probe that
    /// fails: `timeout * fall + interval * (fall - 1)`, 16 s with the defaults. It waits `interval` after the
    /// end of a probe. Here the interval counts from start to start, so the verdict never comes later than
    /// `timeout + interval * (fall - 1)`: 12 s.
    pub fn clb_fail_window(&self) -> Duration {
        self.clb_window(self.fall, self.timeout)
    }

    /// The same for an RS that answers again, each probe after `answer`: `answer * rise + interval * (rise - 1)`, 13 s
    /// where it takes a second. Here the verdict comes after `answer + interval * (rise - 1)`: 11 s.
    pub fn clb_rise_window(&self, answer: Duration) -> Duration {
        self.clb_window(self.rise, answer)
    }

    fn clb_window(&self, probes: u32, each: Duration) -> Duration {
        let probes = probes.max(1);
        each.saturating_mul(probes).saturating_add(self.interval.saturating_mul(probes - 1))
    }
}

/// What is known about an RS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HealthState {
    /// Its pool has no health check.
    Unchecked = 0,
    /// No probe has ended yet.
    Probing = 1,
    /// Probes succeed.
    Up = 2,
    /// Probes fail.
    Down = 3,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// In time and with an accepted answer.
    Success,
    /// Refused, timed out, or a wrong answer.
    Failure,
}

/// A change of the verdict, for the log and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state until now.
    pub from: HealthState,
    /// The state from now on.
    pub to: HealthState,
    /// How long `from` lasted.
    pub lasted: Duration,
}

/// The state of one probed RS.
#[derive(Clone, Debug)]
pub struct Health {
    policy: ProbePolicy,
    state: HealthState,
    since: Instant,
    next_probe: Instant,
    /// Outcomes in a row that speak against `state`.
    against: u32,
}

impl Health {
    /// An RS nothing is known about; its first probe is due at once.
    pub fn new(policy: ProbePolicy, now: Instant) -> Self {
        Self { policy, state: HealthState::Probing, since: now, next_probe: now, against: 0 }
    }

    /// The present state; never [`HealthState::Unchecked`].
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Since when the state holds.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// How long to wait before the next probe may start; zero if it is due.
    pub fn next_probe(&self, now: Instant) -> Duration {
        self.next_probe.saturating_duration_since(now)
    }

    /// A probe starts now; the next one is due an interval later.
    ///
    /// `jitter` is subtracted from that interval, at most a tenth of it, and keeps probes that began together
    /// from staying together. After a pause of the whole process one probe is due, not one for each interval
    /// missed.
    pub fn probe_started(&mut self, now: Instant, jitter: Duration) {
        self.next_probe = now + (self.policy.interval - jitter.min(self.policy.interval / 10));
    }

    /// A probe ended now. Returns what it changed, if it changed the state.
    pub fn on_probe(&mut self, outcome: ProbeOutcome, now: Instant) -> Option<Transition> {
        let to = match outcome {
            ProbeOutcome::Success => HealthState::Up,
            ProbeOutcome::Failure => HealthState::Down,
        };
        if to == self.state {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = match self.state {
            HealthState::Unchecked | HealthState::Probing => 1,
            HealthState::Up => self.policy.fall,
            HealthState::Down => self.policy.rise,
        };
        if self.against < needed {
            return None;
        }
        let lasted = now.saturating_duration_since(self.since);
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        self.against = 0;
        Some(Transition { from, to, lasted })
    }

    /// Probes by another policy from now on, keeping the verdict: a reload is no reason to forget it. The
    /// next probe comes no later than the new interval demands.
    pub fn set_policy(&mut self, policy: ProbePolicy, now: Instant) {
        self.policy = policy;
        self.next_probe = self.next_probe.min(now + policy.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::HealthState::{Down, Probing, Up};
    use super::ProbeOutcome::{Failure, Success};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin; the tests count from it")]
    fn start() -> Instant {
        Instant::now()
    }

    /// The states after each outcome: `+` success, `-` failure.
    fn states(outcomes: &str) -> Vec<HealthState> {
        let now = start();
        let mut health = Health::new(ProbePolicy::default(), now);
        outcomes
            .chars()
            .map(|outcome| {
                let before = health.state();
                let change = health.on_probe(if outcome == '+' { Success } else { Failure }, now);
                assert_eq!(change.is_some(), before != health.state());
                health.state()
            })
            .collect()
    }

    #[test]
    fn the_first_probe_decides() {
        assert_eq!(Health::new(ProbePolicy::default(), start()).state(), Probing);
        assert_eq!(states("+"), [Up]);
        assert_eq!(states("-"), [Down]);
    }

    #[test]
    fn three_failures_in_a_row_make_it_down_and_three_successes_up() {
        assert_eq!(states("+--+--+---"), [Up, Up, Up, Up, Up, Up, Up, Up, Up, Down]);
        assert_eq!(states("-++-++-+++"), [Down, Down, Down, Down, Down, Down, Down, Down, Down, Up]);
        // After a change the count begins anew.
        assert_eq!(states("+---++-"), [Up, Up, Up, Down, Down, Down, Down]);
    }

    #[test]
    fn thresholds_of_one_and_zero_act_at_once() {
        for threshold in [0, 1] {
            let policy = ProbePolicy { rise: threshold, fall: threshold, ..ProbePolicy::default() };
            let now = start();
            let mut health = Health::new(policy, now);
            for (outcome, to) in [(Success, Up), (Failure, Down), (Success, Up)] {
                assert_eq!(health.on_probe(outcome, now).map(|change| change.to), Some(to));
            }
        }
    }

    #[test]
    fn a_transition_says_what_and_how_long() {
        let t0 = start();
        let mut health = Health::new(ProbePolicy::default(), t0);
        let first = health.on_probe(Success, t0 + SECOND);
        assert_eq!(first, Some(Transition { from: Probing, to: Up, lasted: SECOND }));
        assert_eq!(health.since(), t0 + SECOND);
        assert_eq!(health.on_probe(Failure, t0 + 6 * SECOND), None);
        assert_eq!(health.on_probe(Failure, t0 + 11 * SECOND), None);
        let down = health.on_probe(Failure, t0 + 16 * SECOND);
        assert_eq!(down, Some(Transition { from: Up, to: Down, lasted: 15 * SECOND }));
    }

    #[test]
    fn probes_start_at_once_and_then_every_interval_from_start_to_start() {
        let t0 = start();
        let mut health = Health::new(ProbePolicy::default(), t0);
        assert_eq!(health.next_probe(t0), Duration::ZERO);
        health.probe_started(t0, Duration::ZERO);
        health.on_probe(Success, t0 + 2 * SECOND);
        assert_eq!(health.next_probe(t0 + 2 * SECOND), 3 * SECOND);
        assert_eq!(health.next_probe(t0 + 5 * SECOND), Duration::ZERO);
        // A pause of an hour makes one probe due.
        let late = t0 + 3600 * SECOND;
        assert_eq!(health.next_probe(late), Duration::ZERO);
        health.probe_started(late, Duration::ZERO);
        assert_eq!(health.next_probe(late), 5 * SECOND);
    }

    #[test]
    fn jitter_only_shortens_and_at_most_by_a_tenth() {
        let t0 = start();
        let mut health = Health::new(ProbePolicy::default(), t0);
        health.probe_started(t0, Duration::from_millis(200));
        assert_eq!(health.next_probe(t0), Duration::from_millis(4800));
        health.probe_started(t0, 60 * SECOND);
        assert_eq!(health.next_probe(t0), Duration::from_millis(4500));
    }

    /// Probes an RS whose outcomes change for good, as a prober would; how long the verdict took from the first
    /// probe on that had the new outcome, when each of those takes so long.
    fn time_until(to: HealthState, policy: ProbePolicy, each: Duration, jitter: Duration) -> Duration {
        let (before, outcome) = if to == Down { (Success, Failure) } else { (Failure, Success) };
        let mut now = start();
        let mut health = Health::new(policy, now);
        health.probe_started(now, jitter);
        health.on_probe(before, now);
        let mut first = None;
        loop {
            now += health.next_probe(now);
            first.get_or_insert(now);
            health.probe_started(now, jitter);
            now += each;
            if health.on_probe(outcome, now).is_some() {
                assert_eq!(health.state(), to);
                return now - first.unwrap();
            }
        }
    }

    #[test]
    fn the_verdict_comes_within_the_windows_of_clb() {
        let policy = ProbePolicy::default();
        let timeout = policy.timeout;
        assert_eq!(policy.clb_fail_window(), 16 * SECOND);
        assert_eq!(time_until(Down, policy, timeout, Duration::ZERO), 12 * SECOND);
        assert_eq!(policy.clb_rise_window(SECOND), 13 * SECOND);
        assert_eq!(time_until(Up, policy, SECOND, Duration::ZERO), 11 * SECOND);
        // Jitter only makes it sooner.
        assert!(time_until(Down, policy, timeout, SECOND) < 12 * SECOND);
        for count in [1, 2, 10] {
            let policy = ProbePolicy { fall: count, rise: count, ..policy };
            assert!(time_until(Down, policy, timeout, Duration::ZERO) <= policy.clb_fail_window());
            assert!(time_until(Up, policy, SECOND, Duration::ZERO) <= policy.clb_rise_window(SECOND));
        }
    }

    #[test]
    fn another_policy_keeps_the_verdict() {
        let t0 = start();
        let mut health = Health::new(ProbePolicy { interval: 300 * SECOND, ..ProbePolicy::default() }, t0);
        health.probe_started(t0, Duration::ZERO);
        health.on_probe(Success, t0);
        health.set_policy(ProbePolicy { fall: 1, ..ProbePolicy::default() }, t0);
        assert_eq!(health.state(), Up);
        assert_eq!(health.next_probe(t0), 5 * SECOND);
        assert!(health.on_probe(Failure, t0).is_some());
    }
}
