//! The head of a request: bytes from a client to a [`RequestHead`] and how to go on (RFC 9112 3). It decides
//! whether the request is well-formed and whose it is; it never decides where it goes.

use std::mem::MaybeUninit;

use http::Method;
use httparse::Status;

use super::{Framing, HeadError, Limits, framing::Seen, syntax};
use crate::message::{RequestHead, Version};

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

    let mut slots = [const { MaybeUninit::uninit() }; Limits::MAX_FIELDS];
    let slots = slots.get_mut(..limits.fields.min(Limits::MAX_FIELDS)).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(window, slots);
    check_lengths(&request, window, limits)?;
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if input.len() >= limits.head_bytes => return Err(HeadError::HeadTooLarge),
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal(error, &request, window)),
    };
    syntax::check_line_ends(window.get(..length).unwrap_or_default(), request.headers)?;

    head.clear();
    head.version = if request.version == Some(0) { Version::Http10 } else { Version::Http11 };
    head.method = method(request.method.unwrap_or_default())?;
    let mut seen = Seen::default();
    let section = syntax::section(window.get(..length).unwrap_or_default(), request.headers);
    let fields = request.headers.iter().map(|field| (field.name.as_bytes(), field.value));
    head.headers.append_section(section, fields.filter(|(name, value)| seen.note(name, value)));
    seen.check_options()?;
    set_target(request.path.unwrap_or_default(), head)?;
    set_host(&seen, head)?;

    let framing = seen.request_framing(head.version)?;
    let has_body = !matches!(framing, Framing::None | Framing::Length(0));
    Ok(Some(RequestMeta {
        consumed: skipped + length,
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

/// Method and target are bounded as soon as they are too long, complete or not; a malformed one is refused
/// as such by whoever finds it.
fn check_lengths(
    request: &httparse::Request<'_, '_>,
    window: &[u8],
    limits: &Limits,
) -> Result<(), HeadError> {
    let method = window.get(..=LONGEST_METHOD);
    if method.is_some_and(|bytes| bytes.iter().all(|&byte| syntax::is_token(byte))) {
        return Err(HeadError::UnknownMethod);
    }
    let target = request.method.and_then(|method| window.get(method.len() + " ".len()..));
    let target = target.and_then(|bytes| bytes.get(..=limits.target_bytes));
    if target.is_some_and(|bytes| bytes.iter().all(u8::is_ascii_graphic)) {
        return Err(HeadError::TargetTooLong);
    }
    Ok(())
}

fn refusal(error: httparse::Error, request: &httparse::Request<'_, '_>, window: &[u8]) -> HeadError {
    match error {
        httparse::Error::Version => {
            let line = request.method.map_or(0, str::len) + request.path.map_or(0, str::len) + "  ".len();
            version_refusal(window.get(line..).unwrap_or_default())
        }
        httparse::Error::HeaderName => HeadError::FieldName,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Token if request.method.is_some() => HeadError::Target,
        httparse::Error::Token | httparse::Error::Status => HeadError::RequestLine,
        httparse::Error::NewLine => HeadError::LineEnd,
    }
}

/// A version that exists and is not ours, or no version at all.
pub(super) fn version_refusal(text: &[u8]) -> HeadError {
    match text.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor, ..]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            HeadError::UnsupportedVersion
        }
        Some([major] | [major, b'.']) if major.is_ascii_digit() => HeadError::UnsupportedVersion,
        _ => HeadError::Version,
    }
}

fn method(name: &str) -> Result<Method, HeadError> {
    let method = Method::from_bytes(name.as_bytes()).map_err(|_| HeadError::RequestLine)?;
    if method == Method::CONNECT { Err(HeadError::Connect) } else { Ok(method) }
}

/// The four forms of a target (RFC 9112 3.2): origin, absolute, asterisk; the authority form is for CONNECT.
fn set_target(target: &str, head: &mut RequestHead) -> Result<(), HeadError> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HeadError::Target);
    }
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
