//! The one spelling of a host on which routing decides.
//!
//! Takes what stood in `Host`, `:authority` or the authority of an absolute target and gives the name alone:
//! lower case, without port and without the trailing dot. Anything that is not a plain authority is refused,
//! so that proxy and RS cannot read two different hosts from one value. It never resolves a name and never
//! looks at a route. Stands between the parsed request head and [`RouteTable::find`](super::RouteTable::find).

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

/// The longest host in bytes: a DNS name (RFC 1035, section 2.3.4) is at most 253 without the trailing dot.
const MAX_HOST: usize = 253;

/// The normal form of a host as a client sent it; `None` if it is not a valid one (the answer is 400).
///
/// * Letters become lower case; one trailing dot and the port (`:`, then at most five digits up to 65535, or
///   none: RFC 3986, section 3.2.3) are dropped.
/// * Allowed in a name are the unreserved characters and sub-delimiters of RFC 3986, section 3.2.2;
///   percent-encoded bytes are refused although the RFC allows them, because a second spelling of a name
///   serves only an attacker. Empty labels and names over 253 bytes are refused.
/// * `[...]` must hold an IPv6 address, without a zone; its normal form is the one of RFC 5952, in brackets.
/// * User information (`user@host`) is refused (RFC 9110, section 4.2.4).
///
/// Allocates only if the spelling has to change. An empty host is `None`; a request that may come without one
/// is routed with the host `""`, which [`find`](super::RouteTable::find) sends to the default domain.
pub fn normalise_host(raw: &str) -> Option<Cow<'_, str>> {
    if let Some(rest) = raw.strip_prefix('[') {
        let (inner, port) = rest.split_once(']')?;
        if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
            return None;
        }
        let address: Ipv6Addr = inner.parse().ok()?;
        let given = raw.get(..inner.len() + 2)?;
        return Some(if is_text_of(inner, address) {
            Cow::Borrowed(given)
        } else {
            Cow::Owned(format!("[{address}]"))
        });
    }
    let name = match raw.bytes().position(|byte| byte == b':').map(|colon| raw.split_at(colon)) {
        Some((name, port)) if is_port(port.get(1..)?) => name,
        Some(_) => return None,
        None => raw,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > MAX_HOST {
        return None;
    }
    let mut seen = 0;
    let mut before = DOT;
    for byte in name.bytes() {
        let kind = KIND.get(usize::from(byte)).copied().unwrap_or(BAD);
        seen |= kind | (kind & before & DOT) << 1;
        before = kind;
    }
    if seen & (BAD | EMPTY_LABEL) != 0 || before & DOT != 0 {
        return None;
    }
    Some(if seen & UPPER != 0 { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// Whether `text` is exactly how `address` is written, found out without writing it anywhere.
fn is_text_of(text: &str, address: Ipv6Addr) -> bool {
    struct Rest<'a>(&'a str);
    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    fmt::write(&mut rest, format_args!("{address}")).is_ok() && rest.0.is_empty()
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || (text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

/// What a byte of a name is, as bits, so that one pass without branches finds everything.
const KIND: [u8; 256] = {
    let mut kinds = [BAD; 256];
    let mut byte = 0;
    while byte < kinds.len() {
        if is_name_byte(byte as u8) {
            kinds[byte] = match byte as u8 {
                b'.' => DOT,
                b'A'..=b'Z' => UPPER,
                _ => 0,
            };
        }
        byte += 1;
    }
    kinds
};
const DOT: u8 = 1;
/// Two dots in a row; the bit above [`DOT`].
const EMPTY_LABEL: u8 = DOT << 1;
const UPPER: u8 = 4;
const BAD: u8 = 8;

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')')
        || matches!(byte, b'*' | b'+' | b',' | b';' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(raw: &str) -> Option<String> {
        normalise_host(raw).map(Cow::into_owned)
    }

    #[test]
    fn one_name_for_every_spelling() {
        for (raw, wanted) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:443", "example.com"),
            ("example.com.:443", "example.com"),
            ("example.com:", "example.com"),
            ("localhost", "localhost"),
            ("a_b.example.com", "a_b.example.com"),
            ("192.0.2.1:8080", "192.0.2.1"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]"),
            ("[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"),
        ] {
            assert_eq!(normal(raw).as_deref(), Some(wanted), "{raw}");
        }
    }

    #[test]
    fn refuses_what_is_not_an_authority() {
        for raw in [
            "",
            ".",
            ":80",
            "example.com..",
            ".example.com",
            "a..b",
            "user@example.com",
            "a/b",
            "a?b",
            "a#b",
            "a b",
            "a\tb",
            "a\0b",
            "a\\b",
            "a%41",
            "exämple.com",
            "example.com:99999",
            "example.com:8a",
            "example.com:000080",
            "example.com:80:80",
            "example.com:+80",
            "[::1",
            "[::1]x",
            "[::1]80",
            "[fe80::1%eth0]",
            "[v1.x]",
            "[192.0.2.1]",
            "::1",
            "a,b@c",
            "[]",
        ] {
            assert_eq!(normal(raw), None, "{raw:?}");
        }
        assert_eq!(normalise_host("a\u{ff}b"), None);
    }

    #[test]
    fn length_is_bounded_without_port_and_dot() {
        let longest = format!("{}a", "a.".repeat(126));
        assert_eq!(longest.len(), MAX_HOST);
        assert_eq!(normal(&format!("{longest}.:443")), Some(longest.clone()));
        assert_eq!(normal(&format!("a{longest}")), None);
    }

    #[test]
    fn normal_input_is_borrowed() {
        for raw in ["www.example.com", "www.example.com.:443", "[2001:db8::1]:443"] {
            assert!(matches!(normalise_host(raw), Some(Cow::Borrowed(_))), "{raw}");
        }
    }
}
