//! The lines of heads and trailer sections (RFC 9112 2.2, 2.3, 5). Every line ends with CRLF, and a byte that does not
//! belong where it stands is an error as soon as it is seen. `None` always means: not all of it is there.

use super::{HeadError, scan};
use crate::message::Version;

/// A field line: where its name and its value lie in the section, and both.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) name_at: usize,
    pub(super) name: &'a [u8],
    pub(super) value_at: usize,
    /// Without white space around.
    pub(super) value: &'a [u8],
}

/// Takes the field lines of a section, at most so many, one after the other; its length with the empty line.
#[inline(always)]
pub(super) fn fields<'a>(
    text: &'a [u8],
    most: usize,
    mut take: impl FnMut(Line<'a>),
) -> Result<Option<usize>, HeadError> {
    let (mut rest, mut left) = (text, most);
    loop {
        let (name, behind) = rest.split_at(scan::token(rest));
        if name.is_empty() && matches!(behind, [] | [b'\r' | b'\n', ..]) {
            let end = end(behind)?;
            return Ok(end.map(|end| text.len() - behind.len() + end));
        }
        left = left.checked_sub(1).ok_or(HeadError::TooManyFields)?;
        let mut behind = match behind {
            [] => return Ok(None),
            [b':', behind @ ..] if !name.is_empty() => behind,
            _ => return Err(HeadError::FieldName),
        };
        while let [b' ' | b'\t', more @ ..] = behind {
            behind = more;
        }
        let (mut value, next) = behind.split_at(scan::value(behind));
        let next = match next {
            [b'\r', b'\n', next @ ..] => next,
            [] | [b'\r'] => return Ok(None),
            [b'\n', ..] => return Err(HeadError::LineEnd),
            _ => return Err(HeadError::FieldValue),
        };
        while let [less @ .., b' ' | b'\t'] = value {
            value = less;
        }
        let (name_at, value_at) = (text.len() - rest.len(), text.len() - behind.len());
        take(Line { name_at, name, value_at, value });
        rest = next;
    }
}

/// Bytes of the line end at the front, where nothing else may stand.
pub(super) fn end(text: &[u8]) -> Result<Option<usize>, HeadError> {
    match text {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(2)),
        _ => Err(HeadError::LineEnd),
    }
}

/// The version at the front, and what follows it.
pub(super) fn version(text: &[u8]) -> Result<Option<(Version, &[u8])>, HeadError> {
    const PROTOCOL: &[u8] = b"HTTP/";
    match text {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', rest @ ..] => Ok(Some((Version::Http11, rest))),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', rest @ ..] => Ok(Some((Version::Http10, rest))),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, ..]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(HeadError::UnsupportedVersion)
        }
        [_, _, _, _, _, _, _, _, ..] => Err(HeadError::Version),
        _ if PROTOCOL.starts_with(text) || text.starts_with(PROTOCOL) => Ok(None),
        _ => Err(HeadError::Version),
    }
}
