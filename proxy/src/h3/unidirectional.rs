//! What a stream of the client's own is for (RFC 9114 6.2), and that there is one of each kind.

use super::error::{Code, ConnectionError};
use super::frame::Partial;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The control stream.
    Control,
    /// Instructions of the client's encoder (RFC 9204 4.2).
    Encoder,
    /// Instructions of the client's decoder.
    Decoder,
    /// Nothing that is known here: it is stopped (RFC 9114 6.2.3).
    Unknown,
}

/// The streams that a client has opened.
#[derive(Debug, Default)]
pub struct Unidirectional {
    control: bool,
    encoder: bool,
    decoder: bool,
}

/// The beginning of one stream.
#[derive(Debug, Default)]
pub struct Beginning(Partial);

impl Beginning {
    /// Takes the type off the front of the input, in whatever pieces it comes.
    pub fn take(&mut self, input: &mut &[u8]) -> Option<u64> {
        self.0.take_number(input)
    }
}

impl Unidirectional {
    /// A stream of this type has been opened.
    ///
    /// # Errors
    /// For a push, which only servers make, and a second stream where one may be.
    pub fn open(&mut self, kind: u64) -> Result<Kind, ConnectionError> {
        let (seen, kind) = match kind {
            0x0 => (&mut self.control, Kind::Control),
            0x1 => return Err(ConnectionError::new(Code::StreamCreation, "a push of a client")),
            0x2 => (&mut self.encoder, Kind::Encoder),
            0x3 => (&mut self.decoder, Kind::Decoder),
            _ => return Ok(Kind::Unknown),
        };
        match std::mem::replace(seen, true) {
            true => Err(ConnectionError::new(Code::StreamCreation, "a second stream of a kind")),
            false => Ok(kind),
        }
    }
}
