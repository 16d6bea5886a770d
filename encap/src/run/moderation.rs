//! When a thread lets packets gather before its next turn: what a network card does that moderates its interrupts
//! (`rx-usecs` of ethtool(8)).
//!
//! Packets of a stream arrive one by one while the thread is as quick as they are: it would write a device frame for a few of
//! them, wake their reader for each, and have each acknowledged. After a short wait a frame has dozens.

use std::time::Duration;

/// When so many bytes were joined to others in one turn, a stream is on.
const STREAM_BYTES: usize = 8 << 10;
/// As cards do; the kernel may add 50 µs (`PR_SET_TIMERSLACK` of prctl(2)).
const WAIT: Duration = Duration::from_micros(150);
/// After small packets that were sent as one, for more of their burst. Who sends them waits for no answer to each.
const BURST_WAIT: Duration = Duration::from_micros(50);

/// What a turn was like.
#[derive(Debug, Default)]
pub(super) struct Turn {
    joined_bytes: usize,
    has_burst: bool,
    has_left: bool,
}

impl Turn {
    /// So many bytes were joined to others.
    pub(super) fn joined(&mut self, bytes: usize) {
        self.joined_bytes += bytes;
    }

    /// A packet for the network was made of so many.
    pub(super) fn gathered(&mut self, packets: usize) {
        self.has_burst |= packets > 1;
    }

    /// An edge may have more than was taken.
    pub(super) fn left(&mut self) {
        self.has_left = true;
    }

    /// How long to wait before the next turn, if at all: only for what belongs to a stream or a burst, and never while there is
    /// enough to do.
    pub(super) fn wait(&self) -> Option<Duration> {
        match self {
            Self { has_left: true, .. } => None,
            Self { joined_bytes: STREAM_BYTES.., .. } => Some(WAIT),
            Self { has_burst, .. } => has_burst.then_some(BURST_WAIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_or_a_burst_that_leaves_nothing_undone_is_waited_for() {
        let turn = |bytes: &[usize], packets: &[usize], has_left| {
            let mut turn = Turn::default();
            bytes.iter().for_each(|bytes| turn.joined(*bytes));
            packets.iter().for_each(|packets| turn.gathered(*packets));
            if has_left {
                turn.left();
            }
            turn.wait()
        };
        assert_eq!(turn(&[], &[], false), None);
        assert_eq!(turn(&[1448; 5], &[], false), None);
        assert_eq!(turn(&[1448; 6], &[], false), Some(WAIT));
        assert_eq!(turn(&[1448; 6], &[2], true), None);
        assert_eq!(turn(&[], &[1, 1], false), None);
        assert_eq!(turn(&[], &[1, 2, 1], false), Some(BURST_WAIT));
        assert_eq!(turn(&[1448; 6], &[2], false), Some(WAIT));
    }
}
