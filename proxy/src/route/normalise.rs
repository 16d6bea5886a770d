//! The one spelling of a path on which routing decides.
//!
//! Routing on one spelling while the RS acts on another is how access rules are walked around, so every request is
//! matched on the normal form and refused where none exists. It never touches the query, never decodes twice and
//! never makes a separator out of an encoded byte. Stands between the parsed request head and
//! [`RouteTable::find`](super::RouteTable::find).

use std::borrow::Cow;

/// Why a path has no normal form; the answer to each is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not start with `/`. Targets like `*` and the authority of `CONNECT` are not paths.
    #[error("the path does not start with `/`")]
    NotAbsolute,
    /// A control byte, a space, or `?` or `#`, which end a path.
    #[error("the path holds a byte that no path may hold")]
    BadByte,
    /// `%` without two hexadecimal digits (RFC 3986, section 2.1).
    #[error("the path holds `%` without two hexadecimal digits behind it")]
    BadPercent,
    /// `%00`: programs that end a string there see another path.
    #[error("the path holds an encoded NUL")]
    Nul,
    /// More `..` than there are segments to leave.
    #[error("the path climbs above the root with `..`")]
    AboveRoot,
}

/// A path in its normal form, and what to send on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a> {
    normal: Cow<'a, str>,
    /// The path as it came, if an RS cannot take it for another one than `normal`.
    equivalent: Option<&'a str>,
}

impl NormalPath<'_> {
    /// What rules are matched against: visible ASCII, begins with `/`.
    pub fn as_str(&self) -> &str {
        &self.normal
    }

    /// What goes to the RS.
    ///
    /// As it came, if it was normal or differs only in a spelling that RFC 3986, section 6.2.2, calls
    /// equivalent (encoded unreserved characters, the case of hexadecimal digits): signatures over the path
    /// stay valid. The normal form, if segments were resolved, an encoded dot was decoded or raw bytes had to
    /// be encoded: there an RS might disagree about what the path names, and it must act on what was matched.
    pub fn forwarded(&self) -> &str {
        self.equivalent.unwrap_or(&self.normal)
    }
}

/// Brings the path of a request (without the query) into its normal form, RFC 3986, section 6.2.2:
///
/// * percent-encoded unreserved characters are decoded, once; other encodings stay, with upper-case digits.
///   So `%2F` and `%5C` never separate segments;
/// * `.` and `..` segments, also those written with `%2E`, are resolved (section 5.2.4); above the root is an
///   error;
/// * `//` stays as it is;
/// * a raw `\` becomes `%5C` and raw bytes from 0x80 are encoded, so that both spellings match the same
///   rules.
///
/// Allocates only if the path has to change.
pub fn normalise_path(text: &str) -> Result<NormalPath<'_>, PathError> {
    let raw = text.as_bytes();
    let Some((b'/', _)) = raw.split_first() else { return Err(PathError::NotAbsolute) };
    let mut change = Change::None;
    let mut rest = raw;
    let mut before = 0;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (value, digits, after) = decode(after)?;
                rest = after;
                if is_unreserved(value) || digits.iter().any(u8::is_ascii_lowercase) {
                    change = change.max(Change::Spelling);
                }
                // Whether `%2E` stands for a dot segment is seen when the segment is put together.
                if value == b'.' {
                    change = Change::Structure;
                }
            }
            b'.' if before == b'/' && is_dots(after) => change = Change::Structure,
            b'\\' | 0x80.. => change = Change::Structure,
            0..=b' ' | 0x7f | b'?' | b'#' => return Err(PathError::BadByte),
            _ => {}
        }
        before = byte;
    }
    let as_it_came = match change {
        Change::Structure => None,
        Change::None | Change::Spelling => Some(text),
    };
    match as_it_came {
        Some(text) if change == Change::None => {
            Ok(NormalPath { normal: Cow::Borrowed(text), equivalent: Some(text) })
        }
        _ => rebuild(raw).map(|normal| NormalPath { normal: Cow::Owned(normal), equivalent: as_it_came }),
    }
}

/// How far the normal form is from the path as it came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    None,
    Spelling,
    Structure,
}

/// Whether a segment that begins with a dot is `.` or `..`; `after` is what follows the dot.
fn is_dots(after: &[u8]) -> bool {
    match after {
        [] | [b'/', ..] => true,
        [b'.', rest @ ..] => matches!(rest, [] | [b'/', ..]),
        _ => false,
    }
}

/// The slow path: every segment decoded, then resolved. `raw` begins with `/` and its encodings are valid.
fn rebuild(raw: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(raw.len());
    let mut segments = raw.split(|b| *b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        out.push('/');
        write_segment(&mut out, segment)?;
        let dots = match out.get(start..) {
            Some("/.") => start,
            Some("/..") => out.get(..start).and_then(|s| s.rfind('/')).ok_or(PathError::AboveRoot)?,
            _ => continue,
        };
        out.truncate(dots);
        if segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(out)
}

fn write_segment(out: &mut String, mut rest: &[u8]) -> Result<(), PathError> {
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (value, _, after) = decode(after)?;
                rest = after;
                if is_unreserved(value) {
                    out.push(value.into());
                } else {
                    encode(out, value);
                }
            }
            b'\\' | 0x80.. => encode(out, byte),
            _ => out.push(byte.into()),
        }
    }
    Ok(())
}

/// The byte that two digits after a `%` stand for, the digits, and what follows them.
fn decode(after: &[u8]) -> Result<(u8, [u8; 2], &[u8]), PathError> {
    let [high, low, rest @ ..] = after else { return Err(PathError::BadPercent) };
    let value = hex(*high).zip(hex(*low)).map(|(h, l)| h << 4 | l).ok_or(PathError::BadPercent)?;
    if value == 0 { Err(PathError::Nul) } else { Ok((value, [*high, *low], rest)) }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

fn encode(out: &mut String, byte: u8) {
    out.push('%');
    for nibble in [byte >> 4, byte & 15] {
        out.push(char::from_digit(nibble.into(), 16).unwrap_or('0').to_ascii_uppercase());
    }
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> Result<String, PathError> {
        normalise_path(raw).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn one_path_for_every_spelling() {
        for (raw, wanted) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/a/..;/b", "/a/..;/b"),
            ("/%61%2Db", "/a-b"),
            ("/%7euser", "/~user"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%5cb", "/a%5Cb"),
            ("/a\\b", "/a%5Cb"),
            ("/a%20b", "/a%20b"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/.", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e./b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a%2eb", "/a.b"),
            ("/a/..%2fb", "/a/..%2Fb"),
            ("/a/b/c/./../../g", "/a/g"),
            ("//a", "//a"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/a//..", "/a/"),
            ("/é", "/%C3%A9"),
        ] {
            assert_eq!(normal(raw).as_deref(), Ok(wanted), "{raw}");
        }
    }

    #[test]
    fn refuses_what_has_no_normal_form() {
        for (raw, why) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("/..", PathError::AboveRoot),
            ("/../a", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%2e%2e/a", PathError::AboveRoot),
            ("/a%00", PathError::Nul),
            ("/a%", PathError::BadPercent),
            ("/a%2", PathError::BadPercent),
            ("/a%2/", PathError::BadPercent),
            ("/%zz", PathError::BadPercent),
            ("/%+1", PathError::BadPercent),
            ("/a b", PathError::BadByte),
            ("/a\0", PathError::BadByte),
            ("/a\r\n", PathError::BadByte),
            ("/a\x7f", PathError::BadByte),
            ("/a?b", PathError::BadByte),
            ("/a#b", PathError::BadByte),
        ] {
            assert_eq!(normal(raw), Err(why), "{raw:?}");
        }
    }

    #[test]
    fn normal_input_is_borrowed() {
        for raw in ["/", "/a/b.html", "/a%20b/%2F", "/.well-known/", "/a//b/..."] {
            let path = normalise_path(raw).unwrap();
            assert!(matches!(path.normal, Cow::Borrowed(_)), "{raw}");
            assert_eq!(path.forwarded(), raw);
        }
    }

    #[test]
    fn forwards_equivalent_spellings_as_they_came() {
        for (raw, forwarded) in [
            ("/%7Euser/%2fx", "/%7Euser/%2fx"),
            ("/a/../%7Eb", "/~b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a\\b", "/a%5Cb"),
            ("/\u{e9}", "/%C3%A9"),
        ] {
            assert_eq!(normalise_path(raw).unwrap().forwarded(), forwarded, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_stable_and_safe(raw in "/(a|\\.|/|%2e|%2F|%5c|%20|%41|\\\\|~){0,12}") {
            let Ok(path) = normalise_path(&raw) else { return Ok(()) };
            prop_assert!(path.as_str().starts_with('/'));
            prop_assert!(!path.as_str().split('/').any(|s| s == "." || s == ".."));
            prop_assert!(!path.as_str().contains('\\'));
            let again = normalise_path(path.as_str()).unwrap();
            prop_assert_eq!(again.as_str(), path.as_str());
            // What the RS gets means the same when the RS normalises it.
            let at_the_rs = normalise_path(path.forwarded()).unwrap();
            prop_assert_eq!(at_the_rs.as_str(), path.as_str());
        }

        #[test]
        fn no_text_panics(raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let raw = String::from_utf8_lossy(&raw);
            let _ = normalise_path(&raw);
            let _ = super::super::normalise_host(&raw);
        }
    }
}
