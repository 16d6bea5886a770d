//! The head of a response: bytes from an RS to a [`ResponseHead`] and how to go on (RFC 9112 4). An RS is as
//! little trusted as a client: a response that can be read in two ways is refused and becomes a 502.

use std::mem::MaybeUninit;

use http::{Method, StatusCode};
use httparse::Status;

use super::{Framing, HeadError, Limits, framing::Seen, request::version_refusal, syntax};
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

    let mut slots = [const { MaybeUninit::uninit() }; Limits::MAX_FIELDS];
    let slots = slots.get_mut(..limits.fields.min(Limits::MAX_FIELDS)).unwrap_or_default();
    let mut response = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, window, slots);
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if input.len() >= limits.head_bytes => return Err(HeadError::HeadTooLarge),
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal(error, window)),
    };
    syntax::check_line_ends(window.get(..length).unwrap_or_default(), response.headers)?;

    head.version = if response.version == Some(0) { Version::Http10 } else { Version::Http11 };
    head.status =
        StatusCode::from_u16(response.code.unwrap_or_default()).map_err(|_| HeadError::StatusLine)?;
    head.headers.clear();
    let mut seen = Seen::default();
    let section = syntax::section(window.get(..length).unwrap_or_default(), response.headers);
    let fields = response.headers.iter().map(|field| (field.name.as_bytes(), field.value));
    head.headers.append_section(section, fields.inspect(|(name, value)| _ = seen.note(name, value)));
    seen.check_options()?;
    let (framing, known_end) = seen.response_framing(head.version, request_method, head.status)?;
    let keep_alive = known_end && seen.keep_alive(head.version);
    Ok(Some(ResponseMeta { consumed: length, framing, keep_alive }))
}

fn refusal(error: httparse::Error, window: &[u8]) -> HeadError {
    match error {
        httparse::Error::Version => version_refusal(window),
        httparse::Error::HeaderName => HeadError::FieldName,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::NewLine => HeadError::LineEnd,
        httparse::Error::Status | httparse::Error::Token => HeadError::StatusLine,
    }
}
