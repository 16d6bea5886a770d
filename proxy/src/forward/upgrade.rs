//! Leaving HTTP (RFC 9110 7.8): only for a protocol that the client has asked for.

use crate::message::Headers;

/// Whether a 101 names a protocol, and none that was not asked for.
pub(super) fn agrees(asked: &Headers, answer: &Headers) -> bool {
    let mut protocols = answer.elements("upgrade").peekable();
    protocols.peek().is_some()
        && protocols
            .all(|protocol| asked.elements("upgrade").any(|offer| offer.eq_ignore_ascii_case(protocol)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_and_nothing_else() {
        for (asked, answer, agreed) in [
            ("websocket", "WebSocket", true),
            ("a/1, websocket", "websocket", true),
            ("a/1, websocket", "a/1", true),
            ("a/1", "a", false),
            ("a", "a, b", false),
            ("a", "", false),
            ("a", ",", false),
            ("", "a", false),
        ] {
            let of = |value: &str| {
                let mut headers = Headers::new();
                headers.append("Upgrade", value);
                headers
            };
            assert_eq!(agrees(&of(asked), &of(answer)), agreed, "{asked} {answer}");
        }
        assert!(!agrees(&Headers::new(), &Headers::new()));
    }
}
