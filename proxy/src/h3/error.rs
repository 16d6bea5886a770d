//! Why a connection or a stream ends (RFC 9114 8.1, RFC 9204 6).

/// Error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// No error: the end was wanted.
    NoError = 0x100,
    /// The peer breaks the protocol in a way that no other code says.
    GeneralProtocol = 0x101,
    /// A defect of this program.
    Internal = 0x102,
    /// A stream that the peer may not open, or not again.
    StreamCreation = 0x103,
    /// A stream that the connection needs has ended.
    ClosedCriticalStream = 0x104,
    /// A frame where it may not be.
    FrameUnexpected = 0x105,
    /// A frame that is too long, too short, or does not end.
    Frame = 0x106,
    /// The peer makes us work for nothing.
    ExcessiveLoad = 0x107,
    /// A number that was not given, or goes backwards.
    Id = 0x108,
    /// SETTINGS that contradict themselves.
    Settings = 0x109,
    /// No SETTINGS at the beginning of the control stream.
    MissingSettings = 0x10a,
    /// The request was refused before anything was done for it.
    RequestRejected = 0x10b,
    /// The request or its response is not wanted any more.
    RequestCancelled = 0x10c,
    /// The request ended before it was complete.
    RequestIncomplete = 0x10d,
    /// A message that is malformed.
    Message = 0x10e,
    /// A field section that cannot be decoded.
    QpackDecompression = 0x200,
    /// An instruction on the encoder stream that cannot be obeyed.
    QpackEncoderStream = 0x201,
    /// An instruction on the decoder stream that cannot be obeyed.
    QpackDecoderStream = 0x202,
}

/// Why the whole connection has to end (RFC 9114 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HTTP/3 connection error {code:?}: {reason}")]
pub struct ConnectionError {
    /// What the peer is told.
    pub code: Code,
    /// What the peer and an operator are told.
    pub reason: &'static str,
}

impl ConnectionError {
    pub(super) const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason }
    }

    /// The client has closed its control stream, or one of its compression (RFC 9114 6.2.1, RFC 9204 4.2).
    pub const fn closed_critical_stream() -> Self {
        Self::new(Code::ClosedCriticalStream, "a stream has ended that the connection needs")
    }
}
