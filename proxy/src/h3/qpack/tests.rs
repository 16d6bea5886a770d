//! Sections of the RFC, all forms of fields, and that any bytes are taken.

use proptest::prelude::*;

use super::table::{STATIC, find, of_name, static_field};
use super::*;
use crate::field::huffman;

type Fields = Vec<(String, String)>;

fn decoded(section: &[u8]) -> Result<Fields, QpackError> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    decode(section, |name, value| fields.push((text(name), text(value)))).map(|()| fields)
}

fn pairs(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|&(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn a_section_of_the_rfc() {
    // Appendix B.1: a literal with the name of an entry.
    let section = b"\x00\x00\x51\x0b/index.html";
    assert_eq!(decoded(section), Ok(pairs(&[(":path", "/index.html")])));
    let mut out = Vec::new();
    prefix(&mut out);
    encode(b":path", b"/index.html", &mut out);
    assert_eq!(out, section);
    // Appendix B.2 to B.4 need entries.
    for section in [&[0x03, 0x81, 0x10, 0x11][..], &[0x05, 0x00, 0x80, 0xc1, 0x81]] {
        assert_eq!(decoded(section), Err(QpackError::Dynamic));
    }
}

#[test]
fn forms_of_fields() {
    let code = huffman::encode(b"custom-value");
    let coded =
        [&[0, 0, 0x2d][..], &huffman::encode(b"x-key")[..], &[0x80 | code.len() as u8], &code].concat();
    let name_length = huffman::encode(b"x-key").len() as u8;
    let coded: Vec<u8> =
        coded.iter().enumerate().map(|(at, &byte)| if at == 2 { 0x28 | name_length } else { byte }).collect();
    for (section, fields) in [
        (&[0, 0, 0xd1][..], &[(":method", "GET")][..]),
        (&[0, 0, 0xff, 35], &[("x-frame-options", "sameorigin")]),
        // Never to be indexed, by the name of an entry and with a name of its own; an empty value.
        (&[0, 0, 0x75, 1, b'a'], &[("cookie", "a")]),
        (&[0, 0, 0x31, b'k', 0], &[("k", "")]),
        (&[0, 5, 0x21, b'k', 1, b'v'], &[("k", "v")]),
        (&coded, &[("x-key", "custom-value")]),
        (&[0, 0], &[]),
    ] {
        assert_eq!(decoded(section), Ok(pairs(fields)), "{section:x?}");
    }
    for (section, error) in [
        (&[][..], QpackError::Truncated),
        (&[0], QpackError::Truncated),
        (&[0, 0x80], QpackError::Dynamic),
        (&[1, 0, 0xd1], QpackError::Dynamic),
        (&[0, 0, 0x80], QpackError::Dynamic),
        (&[0, 0, 0x10], QpackError::Dynamic),
        (&[0, 0, 0x40, 0], QpackError::Dynamic),
        (&[0, 0, 0x60, 0], QpackError::Dynamic),
        (&[0, 0, 0x00, 0], QpackError::Dynamic),
        (&[0, 0, 0xff, 36], QpackError::Index),
        (&[0, 0, 0x5f, 0xff, 0xff, 0xff, 0xff, 0xff, 1], QpackError::Integer),
        (&[0, 0, 0x51], QpackError::Truncated),
        (&[0, 0, 0x51, 2, b'a'], QpackError::Truncated),
        (&[0, 0, 0x23, b'a'], QpackError::Truncated),
        (&[0, 0, 0x51, 0x81, 0], QpackError::Huffman),
    ] {
        assert_eq!(decoded(section), Err(error), "{section:x?}");
    }
}

#[test]
fn names_are_found_in_any_case() {
    for (index, (name, _)) in STATIC.iter().enumerate() {
        let first = STATIC.iter().position(|(other, _)| other == name);
        assert_eq!(find(name.as_bytes()), first);
        assert_eq!(find(name.to_uppercase().as_bytes()), first);
        assert!(of_name(first.unwrap()).any(|other| other == index));
    }
    for name in [&b""[..], b"x", b"cookies", b":statu", b"zzz", &[0xff; 80]] {
        assert_eq!(find(name), None, "{name:?}");
    }
    assert_eq!(static_field(STATIC.len()), None);
}

#[test]
fn every_status_comes_back() {
    for code in 100..1000 {
        let mut out = Vec::new();
        prefix(&mut out);
        status(code, &mut out);
        assert_eq!(decoded(&out), Ok(pairs(&[(":status", &code.to_string())])));
    }
}

#[test]
fn what_need_not_be_guessed_is_marked() {
    for (name, value, first) in [
        ("Set-Cookie", "a=1", 0x7e),
        ("Authorization", "Basic x", 0x7f),
        ("proxy-authenticate", "Basic", 0x37),
        ("Content-Type", "text/css", 0xf3),
        ("Content-Type", "text/other", 0x5f),
        ("X-Other", "1", 0x27),
    ] {
        let mut out = Vec::new();
        encode(name.as_bytes(), value.as_bytes(), &mut out);
        assert_eq!(out[0], first, "{name}");
        let section = [&[0, 0][..], &out].concat();
        assert_eq!(decoded(&section), Ok(pairs(&[(&name.to_lowercase(), value)])));
    }
}

#[test]
fn instructions_for_a_table_that_is_none() {
    let encoder = |bytes: &[u8]| EncoderStream::default().receive(bytes).map_err(|error| error.code as u32);
    let decoder = |bytes: &[u8]| DecoderStream::default().receive(bytes).map_err(|error| error.code as u32);
    for bytes in [&b""[..], &[0x20], &[0x20, 0x20, 0x20], &[0x3f]] {
        assert_eq!(encoder(bytes), Ok(()), "{bytes:x?}");
    }
    // A capacity, an entry by name, one with a name of its own, a copy.
    for bytes in [
        &[0x21][..],
        &[0x3f, 0x81, 0x01],
        &[0xc0, 1, b'a'],
        &[0x41, b'a', 1, b'b'],
        &[0x00],
        &[0x3f, 0x80, 0x80, 0x80, 0x80],
    ] {
        assert_eq!(encoder(bytes), Err(0x201), "{bytes:x?}");
    }
    for bytes in [&[0x40][..], &[0x44, 0x7f, 0x80, 0x01], &[0x7f]] {
        assert_eq!(decoder(bytes), Ok(()), "{bytes:x?}");
    }
    for bytes in [&[0x80][..], &[0x84], &[0x00], &[0x01], &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80]] {
        assert_eq!(decoder(bytes), Err(0x202), "{bytes:x?}");
    }
}

proptest! {
    #[test]
    fn any_fields_come_back(fields in proptest::collection::vec(("[a-z-]{1,40}", "[ -~]{0,200}"), 0..20)) {
        let mut out = Vec::new();
        prefix(&mut out);
        for (name, value) in &fields {
            encode(name.as_bytes(), value.as_bytes(), &mut out);
        }
        prop_assert_eq!(decoded(&out), Ok(fields));
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decoded(&bytes);
        let _ = decoded(&[&[0, 0][..], &bytes].concat());
        let whole = EncoderStream::default().receive(&bytes);
        let mut pieces = EncoderStream::default();
        let split = bytes.iter().try_for_each(|byte| pieces.receive(&[*byte]));
        prop_assert_eq!(whole, split);
    }
}
