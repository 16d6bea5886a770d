//! The head of a response: bytes from an RS to a [`ResponseHead`] and how to go on (RFC 9112 4). An RS is as
//! little trusted as a client: a response that can be read in two ways is refused and becomes a 502.

use http::{Method, StatusCode};

use super::{Framing, HeadError, Limits, framing::Seen, lines, scan, syntax};
use crate::message::{ResponseHead, Version};

/// What the head says about everything behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseMeta {
    /// Bytes of input the head took; the body, or after 1xx the next head, begins there.
    pub consumed: usize,
    /// How the body is framed; [`Framing::None`] for 1xx, 204, 304 and answers to HEAD.
    pub framing: Framing,
    /// Whether another request can follow on the connection, once the body has been read to its end.
    pub keep_alive: bool,
}

/// Reads a head from the beginning of `input` into `head`, whose memory is used again. `None`: not all of it
/// is there; come again with the same bytes and more. Only with `Some` the content of `head` means anything.
/// Interim responses, 101 included, are heads like others (RFC 9110 15.2).
///
/// # Errors
///
/// [`HeadError`] as soon as it is certain. The answer to the client is 502 in every case.
pub fn parse_response(
    input: &[u8],
    limits: &Limits,
    request_method: &Method,
    head: &mut ResponseHead,
) -> Result<Option<ResponseMeta>, HeadError> {
    if matches!(input, [b'\r' | b'\n', ..]) {
        return Err(HeadError::StatusLine);
    }
    let window = syntax::window(input, limits);

    head.headers.clear();
    let mut seen = Seen::default();
    let line = status_line(window)?;
    let section = match &line {
        Some(line) => {
            seen.read(window.get(line.length..).unwrap_or_default(), limits, &mut head.headers, |_| true)?
        }
        None => None,
    };
    let (Some(line), Some(section)) = (line, section) else {
        let is_too_large = input.len() >= limits.head_bytes;
        return if is_too_large { Err(HeadError::HeadTooLarge) } else { Ok(None) };
    };
    head.version = line.version;
    head.status = line.status;
    seen.check_options()?;
    let (framing, known_end) = seen.response_framing(head.version, request_method, head.status)?;
    let keep_alive = known_end && seen.keep_alive(head.version);
    Ok(Some(ResponseMeta { consumed: line.length + section.len(), framing, keep_alive }))
}

/// The first line of a response. Nobody needs the reason phrase (RFC 9112 4).
struct StatusLine {
    version: Version,
    status: StatusCode,
    /// Bytes of it, with its end.
    length: usize,
}

fn status_line(text: &[u8]) -> Result<Option<StatusLine>, HeadError> {
    let Some((version, rest)) = lines::version(text)? else { return Ok(None) };
    let (code, rest) = match rest {
        [b' ', code @ ..] => code.split_at(code.len().min(3)),
        [] => return Ok(None),
        _ => return Err(HeadError::StatusLine),
    };
    if !code.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::StatusLine);
    }
    let rest = match rest {
        [] => return Ok(None),
        [b' ', reason @ ..] => reason.get(scan::value(reason)..).unwrap_or_default(),
        [b'\r' | b'\n', ..] => rest,
        _ => return Err(HeadError::StatusLine),
    };
    let status = StatusCode::from_bytes(code).map_err(|_| HeadError::StatusLine)?;
    match rest {
        [] | [b'\r'] | [b'\n', ..] | [b'\r', b'\n', ..] => {}
        _ => return Err(HeadError::StatusLine),
    }
    let end = lines::end(rest)?;
    Ok(end.map(|end| StatusLine { version, status, length: text.len() - rest.len() + end }))
}
