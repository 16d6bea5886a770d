//! The Date of responses that come without one (RFC 9110 6.6.1), formatted once a second.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Length of an IMF-fixdate (RFC 9110 5.6.7).
const LEN: usize = 29;

thread_local! {
    static CACHED: Cell<(u64, [u8; LEN])> = const { Cell::new((u64::MAX, [0; LEN])) };
}

/// Now, as an IMF-fixdate.
pub(super) fn now() -> [u8; LEN] {
    #[expect(clippy::disallowed_methods, reason = "a response says when it was made")]
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let (second, text) = CACHED.get();
    if second == seconds {
        return text;
    }
    let formatted = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    let mut text = [b' '; LEN];
    for (place, byte) in text.iter_mut().zip(formatted.bytes()) {
        *place = byte;
    }
    CACHED.set((seconds, text));
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_a_date_of_http() {
        let text = String::from_utf8(super::now().to_vec()).expect("ASCII");
        assert!(httpdate::parse_http_date(&text).is_ok(), "{text}");
    }
}
