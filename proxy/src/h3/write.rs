//! What this side sends: its control stream, and the frames of responses.

use super::frame::{kind, put_head};
use super::{qpack, varint};
use crate::field::is_connection_specific;
use crate::message::{Headers, ResponseHead};

/// Identifiers of settings (RFC 9114 7.2.4.1, RFC 9220 3).
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
/// Type of a control stream.
const CONTROL: u64 = 0x0;

/// What a control stream begins with. QPACK's table has no room and no stream may be blocked, which need no setting.
pub fn opening(field_section_size: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in [(MAX_FIELD_SECTION_SIZE, field_section_size as u64), (ENABLE_CONNECT_PROTOCOL, 1)] {
        varint::put(name, &mut payload);
        varint::put(value, &mut payload);
    }
    let mut out = Vec::new();
    varint::put(CONTROL, &mut out);
    put_head(kind::SETTINGS, payload.len(), &mut out);
    out.extend_from_slice(&payload);
    out
}

/// GOAWAY: no request on this stream or a later one is served (RFC 9114 5.2).
pub fn goaway(stream: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    varint::put(stream, &mut payload);
    let mut out = Vec::new();
    put_head(kind::GOAWAY, payload.len(), &mut out);
    out.extend_from_slice(&payload);
    out
}

/// A frame that means nothing (RFC 9114 7.2.8): QUIC has to say whether it has arrived.
pub fn keep_alive() -> Vec<u8> {
    let mut out = Vec::new();
    put_head(kind::RESERVED, 0, &mut out);
    out
}

/// The head of a DATA frame.
pub fn data_head(length: usize, out: &mut Vec<u8>) {
    put_head(kind::DATA, length, out);
}

/// The head of a response, with fields beside its own.
pub fn response(head: &ResponseHead, extra: &Headers) -> Vec<u8> {
    section(|out| {
        qpack::status(head.status.as_u16(), out);
        for (name, value) in head.headers.iter().chain(extra.iter()) {
            if !is_connection_specific(name) {
                qpack::encode(name, value, out);
            }
        }
    })
}

/// An interim response (RFC 9114 4.1).
pub fn interim(head: &ResponseHead) -> Vec<u8> {
    response(head, &Headers::new())
}

/// A trailer section.
pub fn trailers(trailers: &Headers) -> Vec<u8> {
    section(|out| {
        for (name, value) in trailers.iter() {
            qpack::encode(name, value, out);
        }
    })
}

/// A HEADERS frame.
fn section(fields: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut section = Vec::with_capacity(256);
    qpack::prefix(&mut section);
    fields(&mut section);
    let mut out = Vec::with_capacity(section.len() + 5);
    put_head(kind::HEADERS, section.len(), &mut out);
    out.extend_from_slice(&section);
    out
}
