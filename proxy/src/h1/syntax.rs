//! The small grammar both heads share: bytes, names, values, numbers, authorities. Pure checks on
//! slices; what a field means is decided elsewhere.

use std::{io::BufRead as _, net::Ipv6Addr, str};

use super::{Limits, scan};

/// Whether these bytes can be a field name: a token, not empty (RFC 9110 5.1, 5.6.2).
pub fn valid_name(name: &[u8]) -> bool {
    !name.is_empty() && scan::token(name) == name.len()
}

/// Whether these bytes can be a field value: no control byte but HTAB, no white space around (RFC 9110 5.5).
/// Fields of HTTP/2 go through here and [`valid_name`] before they become text (RFC 9113 8.2.1, 10.3).
pub fn valid_value(value: &[u8]) -> bool {
    let edge = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    scan::value(value) == value.len() && !edge(value.first()) && !edge(value.last())
}

/// A number of decimal digits alone, below 2^64 (RFC 9110 8.6).
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Unreserved characters (RFC 3986 2.3).
const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        let it = byte as u8;
        table[byte] = it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    table
};

/// The authority, when it is `host [":" port]`, without user information (RFC 9110 4.2.4, 7.2). A host is an IPv6 address
/// in brackets or a name of unreserved characters: the percent-encoding and sub-delimiters that RFC 3986
/// 3.2.2 also has occur in no DNS name, and only help to write one host in two ways.
pub(crate) fn authority(text: &[u8]) -> Option<&str> {
    const LONGEST: usize = 255 + ":65535".len();
    if text.len() > LONGEST {
        return None;
    }
    let port = match text {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|&byte| byte == b']')?;
            let (address, port) = rest.split_at(end);
            str::from_utf8(address).ok()?.parse::<Ipv6Addr>().ok()?;
            port.get(1..)?
        }
        _ => {
            let name = text.iter().position(|&byte| !is_unreserved(byte)).unwrap_or(text.len());
            if name == 0 {
                return None;
            }
            text.get(name..)?
        }
    };
    let fits = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => decimal(digits).is_some_and(|port| port <= 0xffff),
        _ => false,
    };
    str::from_utf8(text).ok().filter(|_| fits)
}

fn is_unreserved(byte: u8) -> bool {
    UNRESERVED.get(usize::from(byte)).copied().unwrap_or(false)
}

/// The part of `input` that is worth parsing now. A peer may send a large head byte by byte and the parser
/// starts from the first byte each time: once the head is longer than a target can be, it is parsed
/// only when its end has come, and until then just so far that an error in its beginning shows.
pub(super) fn window<'a>(input: &'a [u8], limits: &Limits) -> &'a [u8] {
    const LINE_WITHOUT_TARGET: usize = 512;
    let beginning = limits.target_bytes.saturating_add(LINE_WITHOUT_TARGET);
    let input = input.get(..limits.head_bytes).unwrap_or(input);
    match input.get(..beginning) {
        Some(beginning) if !has_empty_line(input) => beginning,
        _ => input,
    }
}

/// Whether a line end directly follows another one; a bare LF counts, to be refused where it is read.
pub(super) fn has_empty_line(mut input: &[u8]) -> bool {
    while let Ok(1..) = input.skip_until(b'\n') {
        if input.starts_with(b"\n") || input.starts_with(b"\r\n") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        assert!(
            valid_name(b"X-a_1") && valid_value(b"") && valid_value(b"a\tb \xff") && valid_value(b"a: b")
        );
        for name in
            [&b""[..], b"a b", b"a:", b":path", b"a\r", b"a\n", b"\x80", b"a\0", b"(a)", b"a\"", b"a/"]
        {
            assert!(!valid_name(name), "{name:?}");
        }
        for value in [&b" a"[..], b"a\t", b"a\r\nb", b"a\nb", b"\0", b"\x7f", b"\x1b"] {
            assert!(!valid_value(value), "{value:?}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0018446744073709551615"), Some(u64::MAX));
        for digits in [&b""[..], b"18446744073709551616", b"+1", b"-1", b"1 ", b"0x1", b"1,1", b"\xb2"] {
            assert_eq!(decimal(digits), None, "{digits:?}");
        }
    }

    #[test]
    fn authorities() {
        for text in ["a", "A.example", "a.b:80", "a:", "127.0.0.1:65535", "[::1]", "[2001:db8::1]:443", "a_b"]
        {
            assert_eq!(authority(text.as_bytes()), Some(text));
        }
        let long = "a".repeat(300);
        for text in [
            "",
            ":80",
            "a:b",
            "a:65536",
            "a:-1",
            "u@a",
            "a b",
            "a/b",
            "a?b",
            "a#",
            "a,b",
            "a%2e",
            "[::1",
            "[::1]x",
            "::1",
            "[]",
            "[fe80::1%25e]",
            "a:80:80",
            "a\\b",
            "é",
            &long,
        ] {
            assert_eq!(authority(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_long_head_is_parsed_once_it_is_complete() {
        let limits = Limits { target_bytes: 8, head_bytes: 4096, ..Limits::default() };
        let mut head = vec![b'a'; 1000];
        assert_eq!(window(&head, &limits).len(), 520);
        head.extend_from_slice(b"\r\n\r\nbody");
        assert_eq!(window(&head, &limits), head);
        head.resize(5000, b'x');
        assert_eq!(window(&head, &limits).len(), 4096);
        assert!(has_empty_line(b"a\n\n") && has_empty_line(b"a\n\r\n") && !has_empty_line(b"a\r\nb\r\n\r"));
    }
}
