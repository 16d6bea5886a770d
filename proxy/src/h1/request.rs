//! The head of a request: bytes from a client to a [`RequestHead`] and how to go on (RFC 9112 3). It decides
//! whether the request is well-formed and whose it is; it never decides where it goes.

use std::str;

use http::Method;

use super::{Framing, HeadError, Limits, framing::Seen, lines, scan, syntax};
use crate::message::{Known, RequestHead, Version};

/// No registered method comes near (RFC 9110 16.1.1).
pub(crate) const LONGEST_METHOD: usize = 32;

/// Empty lines that may precede a request (RFC 9112 2.2).
const MOST_EMPTY_LINES: usize = 4;

/// What the head says about everything behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMeta {
    /// Bytes of input the head took, with empty lines before it; the body begins there.
    pub consumed: usize,
    /// How the body is framed; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the client can send another request behind this one (RFC 9112 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for 100 before it sends the body (RFC 9110 10.1.1).
    pub expect_continue: bool,
    /// Whether the client offers another protocol: `Connection: upgrade` and Upgrade, in HTTP/1.1, and not to
    /// `h2c` (RFC 9110 7.8).
    pub upgrade: bool,
}

/// Reads a head from the beginning of `input` into `head`, whose memory is used again. `None`: not all of it
/// is there; come again with the same bytes and more. Only with `Some` the content of `head` means anything.
///
/// Host goes into [`RequestHead::authority`] and not into the fields; all other fields stay as they came.
///
/// # Errors
///
/// [`HeadError`] as soon as it is certain, also before the head is complete.
pub fn parse_request(
    input: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<RequestMeta>, HeadError> {
    let Some(skipped) = skip_empty_lines(input)? else { return Ok(None) };
    let input = input.get(skipped..).unwrap_or_default();
    let window = syntax::window(input, limits);

    head.clear();
    let mut seen = Seen::default();
    let line = request_line(window, limits)?;
    let section = match &line {
        // Host becomes the authority.
        Some(line) => {
            seen.read(window.get(line.length..).unwrap_or_default(), limits, &mut head.headers, |known| {
                known != Known::Host
            })?
        }
        None => None,
    };
    let (Some(line), Some(section)) = (line, section) else {
        let is_too_large = input.len() >= limits.head_bytes;
        return if is_too_large { Err(HeadError::HeadTooLarge) } else { Ok(None) };
    };
    head.version = line.version;
    head.method = method(line.method)?;
    seen.check_options()?;
    set_target(line.target, head)?;
    set_host(&seen, head)?;

    let framing = seen.request_framing(head.version)?;
    let has_body = !matches!(framing, Framing::None | Framing::Length(0));
    Ok(Some(RequestMeta {
        consumed: skipped + line.length + section.len(),
        framing,
        keep_alive: seen.keep_alive(head.version),
        expect_continue: seen.expect_continue(head.version)? && has_body,
        upgrade: seen.upgrade(head.version),
    }))
}

/// How many bytes of empty lines come first; `None` when nothing else has come yet.
fn skip_empty_lines(input: &[u8]) -> Result<Option<usize>, HeadError> {
    for line in 0..=MOST_EMPTY_LINES {
        match input.get(2 * line..).unwrap_or_default() {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => {}
            [b'\r' | b'\n', ..] => return Err(HeadError::LineEnd),
            _ => return Ok(Some(2 * line)),
        }
    }
    Err(HeadError::RequestLine)
}

/// The first line of a request.
struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: Version,
    /// Bytes of it, with its end.
    length: usize,
}

/// Method and target are bounded as soon as they are too long, complete or not.
fn request_line<'a>(text: &'a [u8], limits: &Limits) -> Result<Option<RequestLine<'a>>, HeadError> {
    let (method, rest) = text.split_at(scan::token(text));
    if method.len() > LONGEST_METHOD {
        return Err(HeadError::UnknownMethod);
    }
    let rest = match rest {
        [] => return Ok(None),
        [b' ', rest @ ..] if !method.is_empty() => rest,
        _ => return Err(HeadError::RequestLine),
    };
    let (target, rest) = rest.split_at(scan::graphic(rest));
    if target.len() > limits.target_bytes {
        return Err(HeadError::TargetTooLong);
    }
    let rest = match rest {
        [] => return Ok(None),
        [b' ', rest @ ..] if !target.is_empty() => rest,
        _ => return Err(HeadError::Target),
    };
    let Some((version, rest)) = lines::version(rest)? else { return Ok(None) };
    let end = lines::end(rest)?;
    Ok(end.map(|end| RequestLine { method, target, version, length: text.len() - rest.len() + end }))
}

fn method(name: &[u8]) -> Result<Method, HeadError> {
    let method = Method::from_bytes(name).map_err(|_| HeadError::RequestLine)?;
    if method == Method::CONNECT { Err(HeadError::Connect) } else { Ok(method) }
}

/// The four forms of a target (RFC 9112 3.2): origin, absolute, asterisk; the authority form is for CONNECT.
fn set_target(target: &[u8], head: &mut RequestHead) -> Result<(), HeadError> {
    let target = str::from_utf8(target).map_err(|_| HeadError::Target)?;
    if target.bytes().any(|byte| byte == b'#') {
        return Err(HeadError::Fragment);
    }
    if target.starts_with('/') {
        head.target.push_str(target);
        return Ok(());
    }
    if target == "*" && head.method == Method::OPTIONS {
        head.target.push('*');
        return Ok(());
    }
    let rest = without_scheme(target).ok_or(HeadError::Target)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    head.authority.push_str(syntax::authority(authority.as_bytes()).ok_or(HeadError::Target)?);
    match path {
        // RFC 9112 3.2.4: the last proxy turns this into the asterisk-form.
        "" if head.method == Method::OPTIONS => head.target.push('*'),
        _ if path.starts_with('/') => head.target.push_str(path),
        _ => {
            head.target.push('/');
            head.target.push_str(path);
        }
    }
    Ok(())
}

fn without_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Host must be there once and valid, and counts where the target names no authority (RFC 9112 3.2, 3.2.2).
fn set_host(seen: &Seen<'_>, head: &mut RequestHead) -> Result<(), HeadError> {
    if seen.host_repeated {
        return Err(HeadError::RepeatedHost);
    }
    match seen.host {
        None if head.version == Version::Http10 => {}
        None => return Err(HeadError::MissingHost),
        Some([]) if head.version == Version::Http10 || !head.authority.is_empty() => {}
        Some([]) => return Err(HeadError::MissingHost),
        Some(host) => {
            let host = syntax::authority(host).ok_or(HeadError::Host)?;
            if head.authority.is_empty() {
                head.authority.push_str(host);
            }
        }
    }
    Ok(())
}
