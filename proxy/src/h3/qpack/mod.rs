//! QPACK, the field compression of HTTP/3 (RFC 9204), without a dynamic table on either side: this side announces a
//! capacity of 0, as SETTINGS do that say nothing, and never uses what the peer offers. So sections stand for
//! themselves, no stream waits for another, and there is no state to be bounded.

mod decode;
mod encode;
mod instructions;
mod table;
#[cfg(test)]
mod tests;

pub use self::decode::decode;
pub use self::encode::{encode, prefix, status};
pub use self::instructions::{DecoderStream, EncoderStream};
use crate::field::Flaw;

/// Why a section or an instruction cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QpackError {
    /// It ends within a field (RFC 9204 4.5).
    #[error("field section ends within a field")]
    Truncated,
    /// An integer of more octets than any length or index needs (RFC 9204 4.1.1).
    #[error("integer in a field section is too long")]
    Integer,
    /// A string that does not end as the Huffman code demands, or with EOS in it (RFC 7541 5.2).
    #[error("Huffman code in a field section is malformed")]
    Huffman,
    /// An index that is not in the static table (RFC 9204 3.1).
    #[error("index in a field section is in no table")]
    Index,
    /// An entry of the dynamic table, which has none (RFC 9204 3.2.3).
    #[error("field section needs a dynamic table")]
    Dynamic,
}

impl From<Flaw> for QpackError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Truncated => Self::Truncated,
            Flaw::Integer => Self::Integer,
            Flaw::Huffman => Self::Huffman,
        }
    }
}
