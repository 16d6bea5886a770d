//! What HTTP/2 and HTTP/3 have in common about the fields of messages: decoded fields become heads, and the integers and
//! strings of either compression are written alike. Pure.

pub(crate) mod head;
pub(crate) mod huffman;
pub(crate) mod integer;

use crate::message::is;

/// Why an integer or a string cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// More has to follow.
    Truncated,
    /// An integer of more octets than any length or index needs.
    Integer,
    /// A string that does not end as the Huffman code demands, or with EOS in it.
    Huffman,
}

/// Fields that HTTP/2 and HTTP/3 do not know (RFC 9113 8.2.2, RFC 9114 4.2).
pub(crate) fn is_connection_specific(name: &[u8]) -> bool {
    match name.len() {
        7 => is(name, b"upgrade"),
        10 => is(name, b"connection") || is(name, b"keep-alive"),
        16 => is(name, b"proxy-connection"),
        17 => is(name, b"transfer-encoding"),
        _ => false,
    }
}
