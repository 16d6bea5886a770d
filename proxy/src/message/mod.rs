//! Our own request and response heads: what `forward` sees on both sides, never a type of
//! an HTTP library, so that the codec on either side can be replaced.

mod certificate;
mod client;
mod headers;
mod known;
mod spare;

use http::{Method, StatusCode};

pub use self::certificate::ClientCertificate;
pub use self::client::ClientFields;
pub use self::headers::Headers;
pub use self::known::Known;

/// Whether a token or a checked field value is `lower`, which is in lower case, whatever the case of its letters.
/// Exact because neither holds control bytes: setting the bit that makes letters lower case changes nothing
/// else into a letter, digit or hyphen. Far quicker than a comparison that has to look at each byte.
#[inline]
pub(crate) fn is(text: &[u8], lower: &[u8]) -> bool {
    const LOWER_CASE: u8 = 0x20;
    text.len() == lower.len()
        && text
            .iter()
            .zip(lower)
            .fold(0, |differing, (byte, wanted)| differing | ((byte | LOWER_CASE) ^ wanted))
            == 0
}

/// The elements of a comma-separated list, without white space around and without empty ones (RFC 9110 5.6.1).
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Protocol version of a message. HTTP/0.9 is refused by the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0 (RFC 1945).
    Http10,
    /// HTTP/1.1 (RFC 9112).
    #[default]
    Http11,
    /// HTTP/2 (RFC 9113).
    Http2,
    /// HTTP/3 (RFC 9114).
    Http3,
}

/// A request without its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// The method; CONNECT never gets past the codec.
    pub method: Method,
    /// Path and query as received, beginning with `/`; `*` for OPTIONS in asterisk-form (RFC 9112 3.2.4).
    pub target: String,
    /// Host and port from the absolute-form target, `:authority` or Host, in this order (RFC 9112 3.2.2,
    /// RFC 9113 8.3.1, RFC 9114 4.3.1); empty where an HTTP/1.0 request has none.
    pub authority: String,
    /// Version the client speaks.
    pub version: Version,
    /// The fields, without pseudo-header fields.
    pub headers: Headers,
}

impl RequestHead {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.method = Method::GET;
        self.target.clear();
        self.authority.clear();
        self.version = Version::Http11;
        self.headers.clear();
    }
}

/// A response without its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: StatusCode,
    /// Version the RS speaks.
    pub version: Version,
    /// The fields.
    pub headers: Headers,
}

impl ResponseHead {
    /// A head with a status and no field.
    pub fn new(status: StatusCode) -> Self {
        Self { status, version: Version::Http11, headers: Headers::new() }
    }
}
