//! Why a message was refused: one variant per reason, one stable word each for the access log, and the
//! status a client gets. It never carries bytes of the message: they belong neither into logs nor answers.

use http::StatusCode;

/// Why a head was refused. The connection cannot be used any more: where the message ends is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No method, white space where none belongs, or too many empty lines before (RFC 9112 2.2, 3).
    #[error("request line is malformed: it must be method SP target SP version CRLF")]
    RequestLine,
    /// Not `HTTP/x.y SP code`, or a code outside 100 to 999 (RFC 9112 4).
    #[error("status line is malformed: it must be version SP code SP reason CRLF")]
    StatusLine,
    /// A method longer than any that is known (RFC 9112 3).
    #[error("method is unknown: it is longer than any registered one")]
    UnknownMethod,
    /// CONNECT: this is not a forward proxy.
    #[error("CONNECT is refused: send requests to the origin directly")]
    Connect,
    /// Something else than `HTTP/x.y` where the version belongs.
    #[error("version is malformed: it must be HTTP/1.1 or HTTP/1.0")]
    Version,
    /// A version other than 1.0 and 1.1, the preface of HTTP/2 included.
    #[error("version is not supported here: use HTTP/1.1")]
    UnsupportedVersion,
    /// A target in none of the accepted forms, or with a byte outside visible ASCII (RFC 9112 3.2).
    #[error("request target is malformed: it must be a path, an absolute http(s) URI, or * for OPTIONS")]
    Target,
    /// A fragment in the target (RFC 9112 3.2).
    #[error("request target has a fragment: fragments are for the client alone")]
    Fragment,
    /// More than [`Limits::target_bytes`](super::Limits::target_bytes).
    #[error("request target is too long: shorten the path or query")]
    TargetTooLong,
    /// A line end that is not CRLF (RFC 9112 2.2).
    #[error("line end is not CRLF: end every line with CRLF")]
    LineEnd,
    /// A field name that is no token; also folded lines and white space before the colon (RFC 9112 5.1, 5.2).
    #[error("field name is not a token: no white space before the colon, no folded lines")]
    FieldName,
    /// A control byte in a field value (RFC 9110 5.5).
    #[error("field value has a control character: remove it")]
    FieldValue,
    /// More than [`Limits::fields`](super::Limits::fields).
    #[error("too many fields: send fewer")]
    TooManyFields,
    /// More than [`Limits::head_bytes`](super::Limits::head_bytes).
    #[error("head is too large: send fewer or shorter fields")]
    HeadTooLarge,
    /// No Host, or an empty one and no authority in the target either (RFC 9112 3.2).
    #[error("Host is missing: HTTP/1.1 needs exactly one")]
    MissingHost,
    /// More than one Host (RFC 9112 3.2).
    #[error("Host is repeated: HTTP/1.1 needs exactly one")]
    RepeatedHost,
    /// A Host or authority that is no host with an optional port (RFC 9110 7.2).
    #[error("Host is malformed: it must be a name or address with an optional port")]
    Host,
    /// Content-Length together with Transfer-Encoding (RFC 9112 6.1).
    #[error("Content-Length conflicts with Transfer-Encoding: send one of them")]
    ConflictingLength,
    /// Several Content-Length, equal or not (RFC 9112 6.3).
    #[error("Content-Length is repeated: send it once")]
    RepeatedLength,
    /// A Content-Length that is not a number below 2^64 (RFC 9110 8.6).
    #[error("Content-Length is malformed: it must be decimal digits")]
    Length,
    /// A malformed coding list, or `chunked` not once and last (RFC 9112 6.1, 7).
    #[error("Transfer-Encoding is malformed: it must be chunked, once")]
    TransferEncoding,
    /// A coding other than `chunked` (RFC 9112 6.1).
    #[error("Transfer-Encoding is not supported: only chunked is")]
    UnknownTransferEncoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1).
    #[error("Transfer-Encoding in HTTP/1.0: use Content-Length")]
    TransferEncodingInHttp10,
    /// More than 64 connection options: stripping the fields they name would cost too much.
    #[error("too many options in Connection: send fewer")]
    TooManyOptions,
    /// An expectation other than `100-continue` (RFC 9110 10.1.1).
    #[error("expectation is unknown: only 100-continue is met")]
    UnknownExpectation,
}

impl HeadError {
    /// The status a client gets. For a head of an RS the answer is 502, whatever this says.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::UnknownExpectation => StatusCode::EXPECTATION_FAILED,
            Self::TooManyFields | Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownMethod | Self::Connect | Self::UnknownTransferEncoding => {
                StatusCode::NOT_IMPLEMENTED
            }
            Self::UnsupportedVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::RequestLine
            | Self::StatusLine
            | Self::Version
            | Self::Target
            | Self::Fragment
            | Self::LineEnd
            | Self::FieldName
            | Self::FieldValue
            | Self::MissingHost
            | Self::RepeatedHost
            | Self::Host
            | Self::ConflictingLength
            | Self::RepeatedLength
            | Self::Length
            | Self::TransferEncoding
            | Self::TransferEncodingInHttp10
            | Self::TooManyOptions => StatusCode::BAD_REQUEST,
        }
    }

    /// The reason as one word for the access log; never changes between releases.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RequestLine => "bad_request_line",
            Self::StatusLine => "bad_status_line",
            Self::UnknownMethod => "unknown_method",
            Self::Connect => "connect_refused",
            Self::Version => "bad_version",
            Self::UnsupportedVersion => "unsupported_version",
            Self::Target => "bad_target",
            Self::Fragment => "fragment_in_target",
            Self::TargetTooLong => "target_too_long",
            Self::LineEnd => "bad_line_end",
            Self::FieldName => "bad_field_name",
            Self::FieldValue => "bad_field_value",
            Self::TooManyFields => "too_many_fields",
            Self::HeadTooLarge => "head_too_large",
            Self::MissingHost => "missing_host",
            Self::RepeatedHost => "repeated_host",
            Self::Host => "bad_host",
            Self::ConflictingLength => "conflicting_length",
            Self::RepeatedLength => "repeated_length",
            Self::Length => "bad_length",
            Self::TransferEncoding => "bad_transfer_encoding",
            Self::UnknownTransferEncoding => "unknown_transfer_encoding",
            Self::TransferEncodingInHttp10 => "transfer_encoding_in_http10",
            Self::TooManyOptions => "too_many_connection_options",
            Self::UnknownExpectation => "unknown_expectation",
        }
    }
}

/// Why a body was refused. The connection cannot be used any more, and the message must not look complete
/// to whoever it is passed on to (RFC 9112 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The peer closed before the end.
    #[error("body is truncated: the peer closed before its end")]
    Truncated,
    /// A chunk size that is not 1 to 16 hexadecimal digits (RFC 9112 7.1).
    #[error("chunk size is malformed: it must be 1 to 16 hexadecimal digits and CRLF")]
    ChunkSize,
    /// A control byte in a chunk extension (RFC 9112 7.1.1).
    #[error("chunk extension has a control character: remove it")]
    Extension,
    /// More than [`Limits::extension_bytes`](super::Limits::extension_bytes).
    #[error("chunk extensions are too long: leave them out")]
    ExtensionsTooLong,
    /// No CRLF behind the data of a chunk, or a bare LF in a chunk line (RFC 9112 7.1).
    #[error("line end in chunked body is not CRLF: chunk sizes must match their data")]
    LineEnd,
    /// A trailer section that is no list of fields (RFC 9112 7.1.2).
    #[error("trailer section is malformed: it must be fields, each ended by CRLF")]
    Trailers,
    /// More than [`Limits::trailer_bytes`](super::Limits::trailer_bytes) or
    /// [`Limits::fields`](super::Limits::fields).
    #[error("trailer section is too large: send fewer or shorter fields")]
    TrailersTooLarge,
}

impl BodyError {
    /// The reason as one word for the access log; never changes between releases.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Truncated => "truncated_body",
            Self::ChunkSize => "bad_chunk_size",
            Self::Extension => "bad_chunk_extension",
            Self::ExtensionsTooLong => "chunk_extensions_too_long",
            Self::LineEnd => "bad_chunk_line_end",
            Self::Trailers => "bad_trailers",
            Self::TrailersTooLarge => "trailers_too_large",
        }
    }
}
