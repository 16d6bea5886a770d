//! Fields of responses into field sections (RFC 9204 4.5), by the static table alone. Strings are written without Huffman
//! code, as in HTTP/2: what is short costs little, and what is long is mostly code of its own.

use super::table::{self, static_field};
use crate::field::integer;
use crate::h2::hpack::known;

/// First octets of the forms, and the bits that are left for a number (RFC 9204 4.5.2, 4.5.4, 4.5.6).
const INDEXED: (u8, u32) = (0xc0, 6);
const NAMED: (u8, u32) = (0x50, 4);
const NAMED_NEVER_INDEXED: (u8, u32) = (0x70, 4);
const LITERAL: (u8, u32) = (0x20, 3);
const LITERAL_NEVER_INDEXED: (u8, u32) = (0x30, 3);

/// Begins a section, which needs nothing of a dynamic table.
pub fn prefix(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0]);
}

/// Appends `:status`, which is the first field of a response. `status` has three digits.
pub fn status(status: u16, out: &mut Vec<u8>) {
    match table::status(status) {
        Some(index) => put(INDEXED, index, out),
        None => {
            put(NAMED, table::STATUS, out);
            let digit = |number: u16| b'0' + (number % 10) as u8;
            string(&[digit(status / 100), digit(status / 10), digit(status)], out);
        }
    }
}

/// Appends a field. The name is written in lower case, whatever it has. Values that must not be guessed are marked so
/// that nobody puts them into a table (RFC 9204 7.1.3).
pub fn encode(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 16);
    let secret = known::find(name).is_some_and(|known| known.values == known::Values::Secret);
    match table::find(name) {
        Some(first) => {
            let same = |&index: &usize| static_field(index).is_some_and(|(_, known)| known == value);
            if let Some(index) = table::of_name(first).find(same) {
                return put(INDEXED, index, out);
            }
            put(if secret { NAMED_NEVER_INDEXED } else { NAMED }, first, out);
        }
        None => {
            put(if secret { LITERAL_NEVER_INDEXED } else { LITERAL }, name.len(), out);
            out.extend(name.iter().map(u8::to_ascii_lowercase));
        }
    }
    string(value, out);
}

fn put((flags, bits): (u8, u32), number: usize, out: &mut Vec<u8>) {
    integer::put(number, bits, flags, out);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    put((0, 7), text.len(), out);
    out.extend_from_slice(text);
}
