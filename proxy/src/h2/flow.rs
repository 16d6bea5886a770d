//! Flow control (RFC 9113 5.2, 6.9): what the peer still lets us send, and what we still let it send.

/// The largest window (RFC 9113 6.9.1).
const LARGEST: i64 = 0x7fff_ffff;

/// What the peer still takes, of a stream or of the connection. Negative after it has made its windows smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    pub(super) const fn new(size: u32) -> Self {
        Self(size as i64)
    }

    /// Bytes that may be sent now.
    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(super) fn take(&mut self, sent: usize) {
        self.0 -= sent as i64;
    }

    /// Moves it; whether it is still one that may be.
    pub(super) fn add(&mut self, change: i64) -> bool {
        self.0 += change;
        self.0 <= LARGEST
    }
}

/// What we let the peer send. It grows while its content is passed on as quickly as it comes: then the window and
/// not the reader is what makes the peer wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiveWindow {
    /// Bytes that the peer may still send.
    left: i64,
    /// Bytes that it may send after an update.
    size: u32,
    /// Bytes that were passed on and not granted again yet.
    passed_on: u32,
    largest: u32,
}

impl ReceiveWindow {
    /// A window of this size that may grow.
    pub(super) const fn new(size: u32, largest: u32) -> Self {
        Self { left: size as i64, size, passed_on: 0, largest }
    }

    /// Content has come; whether the peer was allowed to send it.
    pub(super) fn take(&mut self, received: usize) -> bool {
        self.left -= received as i64;
        self.left >= 0
    }

    /// Content was passed on, and `waiting` bytes were not yet; the update to send, if it is time for one.
    pub(super) fn pass_on(&mut self, bytes: usize, waiting: usize) -> Option<u32> {
        // No more than `largest` is ever granted, so this cannot overflow.
        self.passed_on += bytes as u32;
        if self.passed_on < self.size / 2 {
            return None;
        }
        let mut grant = std::mem::take(&mut self.passed_on);
        if waiting < self.size as usize / 8 && self.size < self.largest {
            let growth = self.size.min(self.largest - self.size);
            self.size += growth;
            grant += growth;
        }
        self.left += i64::from(grant);
        Some(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_send_window_may_become_negative_and_never_too_large() {
        let mut window = SendWindow::new(10);
        window.take(4);
        assert!(window.add(-10));
        assert_eq!(window.room(), 0);
        assert!(window.add(14));
        assert_eq!(window.room(), 10);
        assert!(window.add(LARGEST - 10));
        assert!(!window.add(1));
    }

    #[test]
    fn a_link_of_a_gigabit_at_100_milliseconds_is_filled() {
        const IN_FLIGHT: i64 = 125_000_000 / 10;
        let mut window = ReceiveWindow::new(1 << 20, 16 << 20);
        // The client always sends all it may, and the reader keeps up: few round trips are enough.
        for _ in 0..5 {
            let sent = window.left as usize;
            assert!(window.take(sent));
            for piece in 0..sent / 16_384 {
                window.pass_on(16_384, 0).unwrap_or_default();
                assert!(window.left <= 16 << 20, "{piece}");
            }
        }
        assert!(window.left > IN_FLIGHT);
    }

    #[test]
    fn the_receive_window_grows_for_a_reader_that_keeps_up() {
        let mut window = ReceiveWindow::new(100, 350);
        assert!(window.take(100));
        assert!(!ReceiveWindow::take(&mut window.clone(), 1));
        assert_eq!(window.pass_on(49, 51), None);
        // The reader is behind: no growth.
        assert_eq!(window.pass_on(1, 50), Some(50));
        assert_eq!(window.pass_on(50, 0), Some(150));
        assert!(window.take(200));
        assert_eq!(window.pass_on(100, 0), Some(250));
        assert_eq!(window.pass_on(175, 0), Some(175));
    }
}
