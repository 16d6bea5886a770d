//! Why a connection or a stream ends (RFC 9113 7).

/// Error codes (RFC 9113 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// No error: the end was wanted.
    NoError = 0,
    /// The peer breaks the protocol.
    Protocol = 1,
    /// A defect of this program.
    Internal = 2,
    /// The peer sends more than its window.
    FlowControl = 3,
    /// A frame for a stream that has ended.
    StreamClosed = 5,
    /// A frame of a wrong size.
    FrameSize = 6,
    /// The stream was refused before anything was done for it.
    RefusedStream = 7,
    /// The stream is not wanted any more.
    Cancel = 8,
    /// A field section that cannot be decoded.
    Compression = 9,
    /// The peer makes us work for nothing.
    EnhanceYourCalm = 11,
}

/// Why the whole connection has to end (RFC 9113 5.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HTTP/2 connection error {code:?}: {reason}")]
pub struct ConnectionError {
    /// What the peer is told.
    pub code: Code,
    /// What an operator is told.
    pub reason: &'static str,
}

impl ConnectionError {
    pub(super) const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason }
    }

    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self::new(Code::Protocol, reason)
    }

    pub(super) const fn size(reason: &'static str) -> Self {
        Self::new(Code::FrameSize, reason)
    }
}
