//! What gRPC adds to HTTP/2: deadlines, statuses in trailers, and the health service. Pure; of messages it knows no more
//! than those of a health check.
//!
//! Sources: "gRPC over HTTP2" (PROTOCOL-HTTP2.md), "HTTP to gRPC Status Code Mapping", and `grpc.health.v1`.

use std::time::Duration;

use http::StatusCode;

use crate::error::Error;
use crate::message::{Headers, ResponseHead};

/// The content type of every request of gRPC, maybe with a suffix; not that of gRPC-Web.
const CONTENT_TYPE: &str = "application/grpc";
/// Path of the health check.
pub(crate) const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// Bytes before a message: whether it is compressed, and its length.
const MESSAGE_HEAD: usize = 5;

/// Statuses of gRPC.
pub(crate) mod status {
    pub(crate) const OK: u8 = 0;
    pub(crate) const UNKNOWN: u8 = 2;
    pub(crate) const DEADLINE_EXCEEDED: u8 = 4;
    pub(crate) const PERMISSION_DENIED: u8 = 7;
    pub(crate) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(crate) const UNIMPLEMENTED: u8 = 12;
    pub(crate) const INTERNAL: u8 = 13;
    pub(crate) const UNAVAILABLE: u8 = 14;
    pub(crate) const UNAUTHENTICATED: u8 = 16;
}

/// Whether a request with these fields is one of gRPC.
pub(crate) fn is_request(headers: &Headers) -> bool {
    let kind = headers.get("content-type").unwrap_or_default();
    let (Some(kind), rest) = (kind.get(..CONTENT_TYPE.len()), kind.get(CONTENT_TYPE.len())) else {
        return false;
    };
    kind.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes()) && matches!(rest, None | Some(b'+' | b';'))
}

/// The time that `grpc-timeout` gives the request; nothing where it gives none or is malformed.
pub(crate) fn timeout(headers: &Headers) -> Option<Duration> {
    let (unit, digits) = headers.get("grpc-timeout")?.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The head that tells a client of gRPC why there is no response: a status of HTTP other than 200 would hide it.
pub(crate) fn failed(error: &Error) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers.append("content-type", CONTENT_TYPE);
    append_status(&mut head.headers, error);
    head
}

/// The trailers that end a response which has begun.
pub(crate) fn trailers(error: &Error) -> Headers {
    let mut trailers = Headers::new();
    append_status(&mut trailers, error);
    trailers
}

fn append_status(headers: &mut Headers, error: &Error) {
    headers.append("grpc-status", status_of(error).to_string());
    // Nothing in these texts needs the percent-encoding of the field.
    headers.append("grpc-message", format!("{error} ({})", error.code()));
}

fn status_of(error: &Error) -> u8 {
    match error {
        // Nothing has reached the RS: trying again does no harm.
        Error::ConnectTimeout => status::UNAVAILABLE,
        _ => match error.status().as_u16() {
            400 => status::INTERNAL,
            401 => status::UNAUTHENTICATED,
            403 => status::PERMISSION_DENIED,
            404 => status::UNIMPLEMENTED,
            413 | 431 => status::RESOURCE_EXHAUSTED,
            429 | 502 | 503 => status::UNAVAILABLE,
            504 => status::DEADLINE_EXCEEDED,
            _ => status::UNKNOWN,
        },
    }
}

/// The request of a health check: a message with the name of the service, field 1.
pub(crate) fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(&message);
    out
}

/// Whether the response of a health check says SERVING: field 1 is 1.
pub(crate) fn is_serving(content: &[u8]) -> bool {
    const SERVING: &[u8] = &[0x08, 0x01];
    let compressed = content.first() != Some(&0);
    !compressed && content.get(MESSAGE_HEAD..) == Some(SERVING)
}

/// The status of a response: in its trailers, or in its head where there is nothing else.
pub(crate) fn status_in(headers: &Headers) -> Option<u8> {
    std::str::from_utf8(headers.get("grpc-status")?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TlsFault;

    fn headers(name: &str, value: &str) -> Headers {
        let mut headers = Headers::new();
        headers.append(name, value);
        headers
    }

    #[test]
    fn requests() {
        for (kind, is) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grp", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_request(&headers("Content-Type", kind)), is, "{kind}");
        }
        assert!(!is_request(&Headers::new()));
    }

    #[test]
    fn timeouts() {
        for (text, time) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("100m", Some(Duration::from_millis(100))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("+1S", None),
            ("1.5S", None),
            ("5", None),
            ("5s", None),
        ] {
            assert_eq!(timeout(&headers("grpc-timeout", text)), time, "{text}");
        }
    }

    #[test]
    fn every_failure_has_a_status() {
        for (error, status) in [
            (Error::NoServer, 14),
            (Error::NoRoute, 12),
            (Error::Connect, 14),
            (Error::ConnectTimeout, 14),
            (Error::UpstreamTls(TlsFault::Pin), 14),
            (Error::UpstreamTimeout, 4),
            (Error::Deadline, 4),
            (Error::BodyTooLarge, 8),
            (Error::Host, 13),
            (Error::Misdirected, 2),
            (Error::Internal, 2),
        ] {
            let head = failed(&error);
            assert_eq!((head.status, status_in(&head.headers)), (StatusCode::OK, Some(status)), "{error}");
            let message = head.headers.get("grpc-message").unwrap();
            assert!(message.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'%'), "{error}");
        }
    }

    #[test]
    fn health() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = health_request(&"x".repeat(300));
        assert_eq!((&long[..8], long.len()), (&b"\0\0\0\x01\x2f\x0a\xac\x02"[..], 5 + 3 + 300));
        for (content, serving) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], true),
            (b"\0\0\0\0\x02\x08\x02", false),
            (b"\0\0\0\0\0", false),
            (b"\x01\0\0\0\x02\x08\x01", false),
            (b"", false),
        ] {
            assert_eq!(is_serving(content), serving, "{content:?}");
        }
    }
}
