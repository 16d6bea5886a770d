//! Slow start: an RS that has come back gets its share little by little.

/// The share of an RS that serves since `since`, `now`, when it is given all of it after `duration`; all three in
/// milliseconds, `since` 0 for always. It begins with a hundredth and grows in a straight line.
pub fn ramped(share: u32, since: u64, now: u64, duration: u64) -> u32 {
    let served = now.saturating_sub(since);
    if since == 0 || served >= duration || share == 0 {
        return share;
    }
    // It is less than `share`.
    let part = (u64::from(share) * served / duration) as u32;
    part.max(share / 100).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_in_a_straight_line_from_a_hundredth() {
        let at = |now| ramped(10_000, 5_000, now, 60_000);
        assert_eq!([at(5_000), at(5_100), at(11_000), at(35_000), at(64_999)], [100, 100, 1000, 5000, 9999]);
        assert_eq!([at(65_000), at(u64::MAX)], [10_000; 2]);
        // A clock that is a few milliseconds behind.
        assert_eq!(at(4_990), 100);
    }

    #[test]
    fn who_always_served_or_has_no_share_is_not_concerned() {
        assert_eq!(ramped(10_000, 0, 7, 60_000), 10_000);
        assert_eq!(ramped(0, 5, 7, 60_000), 0);
        assert_eq!(ramped(10_000, 5, 5, 0), 10_000);
        assert_eq!(ramped(50, 5, 6, 60_000), 1);
    }
}
