//! Field sections into fields (RFC 9204 4.5).

use super::{QpackError, table::static_field};
use crate::field::{huffman, integer};

/// Calls `field` with the name and value of each field of a whole section. Both slices live only during the call.
///
/// One octet can stand for a field of some length, so the caller counts what it keeps.
///
/// # Errors
/// Where the section is malformed, or needs a dynamic table; the connection ends then (RFC 9204 2.2).
pub fn decode(section: &[u8], mut field: impl FnMut(&[u8], &[u8])) -> Result<(), QpackError> {
    let mut rest = section;
    prefix(&mut rest)?;
    let (mut name_scratch, mut value_scratch) = (Vec::new(), Vec::new());
    while let Some(&first) = rest.first() {
        let name = match first {
            // An indexed field, of the static table or not (RFC 9204 4.5.2).
            0xc0.. => {
                let (name, value) = known(integer::take(&mut rest, 6)?)?;
                field(name, value);
                continue;
            }
            // A literal with the name of an entry (RFC 9204 4.5.4).
            0x50..0x60 | 0x70..0x80 => known(integer::take(&mut rest, 4)?)?.0,
            // A literal name (RFC 9204 4.5.6).
            0x20..0x40 => string(&mut rest, 3, &mut name_scratch)?,
            _ => return Err(QpackError::Dynamic),
        };
        let value = string(&mut rest, 7, &mut value_scratch)?;
        field(name, value);
    }
    Ok(())
}

/// What a section begins with (RFC 9204 4.5.1): it needs no entry, and its base is not before the first one.
fn prefix(rest: &mut &[u8]) -> Result<(), QpackError> {
    if integer::take(rest, 8)? != 0 {
        return Err(QpackError::Dynamic);
    }
    let is_negative = rest.first().is_some_and(|&first| first & 0x80 != 0);
    integer::take(rest, 7)?;
    if is_negative { Err(QpackError::Dynamic) } else { Ok(()) }
}

fn known(index: usize) -> Result<(&'static [u8], &'static [u8]), QpackError> {
    static_field(index).ok_or(QpackError::Index)
}

/// Takes a string off the front of the input, whose length has so many bits and the bit for Huffman before them
/// (RFC 9204 4.1.2); decoded to `scratch` if it has to be.
pub(super) fn string<'a, 'section: 'a>(
    input: &mut &'section [u8],
    prefix: u32,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], QpackError> {
    let is_huffman = input.first().is_some_and(|&first| first & (1 << prefix) != 0);
    let length = integer::take(input, prefix)?;
    let (text, rest) = input.split_at_checked(length).ok_or(QpackError::Truncated)?;
    *input = rest;
    if !is_huffman {
        return Ok(text);
    }
    huffman::decode(text, scratch)?;
    Ok(scratch)
}
