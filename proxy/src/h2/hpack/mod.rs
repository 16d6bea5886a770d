//! HPACK, the field compression of HTTP/2 (RFC 7541): one [`Decoder`] and one [`Encoder`] per connection.
//!
//! It turns a whole field block into fields and fields into a block, and decides what the dynamic tables
//! keep. It never does I/O or reads a clock, and never judges a field: names and values are bytes here,
//! whose grammar, number and size the caller checks. What it stores is bounded by the table sizes and, while
//! a block is decoded, by the length of that block.

mod decode;
mod encode;
pub(crate) mod known;
mod table;

pub use self::{decode::Decoder, encode::Encoder};
use crate::field::Flaw;

/// Size of a dynamic table as long as SETTINGS_HEADER_TABLE_SIZE says nothing else (RFC 9113 6.5.2).
pub const DEFAULT_TABLE_SIZE: usize = 4096;

/// Why a block cannot be decoded. The tables of both sides are out of step then, so that the connection
/// ends with COMPRESSION_ERROR (RFC 9113 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// The block ends within a field (RFC 7541 6).
    #[error("field block ends within a field")]
    Truncated,
    /// An integer of more octets than any length or index needs (RFC 7541 5.1).
    #[error("integer in a field block is too long")]
    Integer,
    /// A string that does not end as the Huffman code demands, or with EOS in it (RFC 7541 5.2).
    #[error("Huffman code in a field block is malformed")]
    Huffman,
    /// Index 0, or one behind the end of the dynamic table (RFC 7541 2.3.3, 6.1).
    #[error("index in a field block is in no table")]
    Index,
    /// A table size above the limit, or behind a field (RFC 7541 4.2, 6.3).
    #[error("table size update in a field block is too large or misplaced")]
    TableSize,
}

impl From<Flaw> for HpackError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Truncated => Self::Truncated,
            Flaw::Integer => Self::Integer,
            Flaw::Huffman => Self::Huffman,
        }
    }
}
