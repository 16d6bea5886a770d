//! The HTTP/1.1 codec (RFC 9112), one for both sides: server toward clients, client toward the RS.
//!
//! It turns bytes into our own message types and back, and decides how a message is framed. It never does
//! I/O, waits, or reads a clock: the caller brings bytes, and comes again with more when they do not suffice.
//! It never guesses: a message that two parsers could read in two ways (RFC 9112 11.2) is refused, so that
//! nothing can be smuggled past the routes. Every length and count it keeps is bounded by [`Limits`].

mod body;
mod error;
mod framing;
mod lines;
mod request;
mod response;
mod scan;
mod syntax;
#[cfg(test)]
mod tests;
mod write;

use crate::message::Version;

pub(crate) use self::{
    body::forbidden_trailer,
    request::LONGEST_METHOD,
    syntax::{authority, decimal},
};
pub use self::{
    body::{Decoded, Decoder},
    error::{BodyError, HeadError},
    request::{RequestMeta, parse_request},
    response::{ResponseMeta, parse_response},
    syntax::{valid_name, valid_value},
    write::{CHUNK_END, write_chunk_head, write_last_chunk, write_request, write_response},
};

/// What a message may cost. Everything beyond is refused while it arrives, not after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, from the first line to the empty line; more is 431. Default 64 KiB.
    pub head_bytes: usize,
    /// Fields of a head or trailer section, at most [`Limits::MAX_FIELDS`]; more is 431. Default 128.
    pub fields: usize,
    /// Bytes of the request target; more is 414. Default 8 KiB.
    pub target_bytes: usize,
    /// Bytes of a trailer section with its empty line. Default 8 KiB.
    pub trailer_bytes: usize,
    /// Bytes of chunk extensions in one body, all of which are skipped (RFC 9112 7.1.1). Default 4 KiB.
    pub extension_bytes: usize,
}

impl Limits {
    /// Most fields a section can have, whatever [`Limits::fields`] says: some are looked for among all others.
    pub const MAX_FIELDS: usize = 256;

    fn most_fields(&self) -> usize {
        self.fields.min(Self::MAX_FIELDS)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 << 10,
            fields: 128,
            target_bytes: 8 << 10,
            trailer_bytes: 8 << 10,
            extension_bytes: 4 << 10,
        }
    }
}

/// Where a body ends (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body and nothing in the head says how long it is.
    None,
    /// Content-Length: exactly that many bytes.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// Until the peer closes; responses only.
    UntilClose,
}

impl Framing {
    /// The framing to use for a response of this framing toward a client of that version: HTTP/1.0 knows
    /// no chunks (RFC 9112 6.1), and toward HTTP/1.1 chunks keep the connection and show truncation.
    pub fn toward(self, client: Version) -> Self {
        match (self, client) {
            (Self::Chunked, Version::Http10) => Self::UntilClose,
            (Self::UntilClose, Version::Http11) => Self::Chunked,
            (framing, _) => framing,
        }
    }
}
