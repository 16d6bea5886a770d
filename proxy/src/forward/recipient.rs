//! Requests that end here although a rule matches them: Max-Forwards of OPTIONS (RFC 9110 7.6.2). TRACE, which knows it
//! too, is refused before.

use http::StatusCode;

use crate::error::METHODS;
use crate::listener::Response;
use crate::message::Headers;

/// Whether a request may not be forwarded any more; counts down where it may. What is no number counts for nothing.
pub(crate) fn is_last(headers: &mut Headers) -> bool {
    let number =
        headers.get("max-forwards").and_then(|value| std::str::from_utf8(value).ok()?.parse::<u32>().ok());
    match number.map(|number| number.checked_sub(1)) {
        None => false,
        Some(None) => true,
        Some(Some(left)) => {
            headers.set("Max-Forwards", left.to_string());
            false
        }
    }
}

/// The answer of this program to OPTIONS (RFC 9110 9.3.7).
pub(super) fn options() -> Response {
    let mut response = Response::text(StatusCode::OK, "text/plain; charset=utf-8", "");
    response.head.headers.append("Allow", METHODS);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hop_counts_down() {
        for (value, last, left) in [
            ("0", true, "0"),
            ("1", false, "0"),
            ("10", false, "9"),
            ("-1", false, "-1"),
            ("x", false, "x"),
            ("99999999999", false, "99999999999"),
        ] {
            let mut headers = Headers::new();
            headers.append("Max-Forwards", value);
            assert_eq!(is_last(&mut headers), last, "{value}");
            assert_eq!(headers.get("max-forwards"), Some(left.as_bytes()), "{value}");
        }
        assert!(!is_last(&mut Headers::new()));
    }
}
