//! The client's control stream (RFC 9114 6.2.1): SETTINGS first, and then hardly anything that concerns a server.

use super::error::{Code, ConnectionError};
use super::frame::{FrameHead, Partial, kind};
use super::varint;

/// Bytes of the largest payload that is read: SETTINGS with some forty entries.
const LONGEST_PAYLOAD: u64 = 1024;
/// Frames that a client may send beyond SETTINGS, and bytes of those that nobody knows. Browsers send a priority frame or
/// two with each request, so that this many last for a long connection; what is skipped pays with them.
const MOST_FRAMES: u32 = 10_000;
const MOST_SKIPPED: u64 = 1 << 20;

/// Identifiers of settings (RFC 9114 7.2.4.1, RFC 9220 3).
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;

/// The state of that stream.
#[derive(Debug, Default)]
pub struct ControlStream {
    partial: Partial,
    frame: Option<FrameHead>,
    payload: Vec<u8>,
    /// Bytes to skip of a frame that nobody knows.
    skip: u64,
    settled: bool,
    max_push: Option<u64>,
    goaway: Option<u64>,
    frames: u32,
    skipped: u64,
}

impl ControlStream {
    /// Whether SETTINGS have come.
    pub fn has_settled(&self) -> bool {
        self.settled
    }

    /// Requests were answered: the client may say a little more.
    pub fn satisfied(&mut self) {
        self.frames = self.frames.saturating_sub(10);
        self.skipped = self.skipped.saturating_sub(4096);
    }

    /// Takes the next bytes, in whatever pieces.
    ///
    /// # Errors
    /// Where the client breaks the rules.
    pub fn receive(&mut self, mut input: &[u8]) -> Result<(), ConnectionError> {
        while !input.is_empty() {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).map_or(input.len(), |skip| skip.min(input.len()));
                input = input.get(skipped..).unwrap_or_default();
                self.skip -= skipped as u64;
                continue;
            }
            if self.frame.is_none() {
                let Some(head) = self.partial.take(&mut input) else { return Ok(()) };
                self.begin(head)?;
            }
            let Some(head) = self.frame else { continue };
            let missing = head.length as usize - self.payload.len();
            let (part, rest) = input.split_at(missing.min(input.len()));
            self.payload.extend_from_slice(part);
            input = rest;
            if self.payload.len() as u64 == head.length {
                let payload = std::mem::take(&mut self.payload);
                self.frame = None;
                self.frame(head.kind, &payload)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, head: FrameHead) -> Result<(), ConnectionError> {
        let error = |code, reason| Err(ConnectionError::new(code, reason));
        if !self.settled && head.kind != kind::SETTINGS {
            return error(Code::MissingSettings, "the control stream does not begin with SETTINGS");
        }
        match head.kind {
            kind::SETTINGS if self.settled => {
                return error(Code::FrameUnexpected, "SETTINGS for the second time");
            }
            kind::SETTINGS | kind::CANCEL_PUSH | kind::GOAWAY | kind::MAX_PUSH_ID => {
                self.tired(0)?;
                if head.length > LONGEST_PAYLOAD {
                    return error(Code::ExcessiveLoad, "a frame on the control stream is too large");
                }
                if head.length == 0 {
                    // Nothing more has to come for it.
                    return self.frame(head.kind, &[]);
                }
                self.frame = Some(head);
            }
            kind::DATA | kind::HEADERS | kind::PUSH_PROMISE => {
                return error(Code::FrameUnexpected, "a frame of a request on the control stream");
            }
            _ if head.is_of_http2() => return error(Code::FrameUnexpected, "a frame of HTTP/2"),
            _ => {
                self.tired(head.length)?;
                self.skip = head.length;
            }
        }
        Ok(())
    }

    fn frame(&mut self, kind: u64, payload: &[u8]) -> Result<(), ConnectionError> {
        if kind == kind::SETTINGS {
            self.settled = true;
            return settings(payload);
        }
        let Some((number, length)) = varint::parse(payload) else {
            return Err(ConnectionError::new(Code::Frame, "a frame without its number"));
        };
        if length != payload.len() {
            return Err(ConnectionError::new(Code::Frame, "a frame with more than its number"));
        }
        let fits = match kind {
            // Numbers of pushes: they never go backwards, resp. forwards (RFC 9114 7.2.7, 5.2).
            kind::MAX_PUSH_ID => self.max_push.replace(number).is_none_or(|before| before <= number),
            kind::GOAWAY => self.goaway.replace(number).is_none_or(|before| before >= number),
            // Nothing was promised (RFC 9114 7.2.3).
            _ => false,
        };
        if fits { Ok(()) } else { Err(ConnectionError::new(Code::Id, "a push that cannot be meant")) }
    }

    fn tired(&mut self, skipped: u64) -> Result<(), ConnectionError> {
        self.frames += 1;
        self.skipped = self.skipped.saturating_add(skipped);
        match self.frames <= MOST_FRAMES && self.skipped <= MOST_SKIPPED {
            true => Ok(()),
            false => Err(ConnectionError::new(Code::ExcessiveLoad, "too many frames on the control stream")),
        }
    }
}

/// Checks SETTINGS (RFC 9114 7.2.4). None of them changes what this side sends: it pushes nothing, and uses no table.
fn settings(mut payload: &[u8]) -> Result<(), ConnectionError> {
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let mut number = || {
            let (number, length) = varint::parse(payload)
                .ok_or(ConnectionError::new(Code::Frame, "SETTINGS end within a setting"))?;
            payload = payload.get(length..).unwrap_or_default();
            Ok(number)
        };
        let (name, value) = (number()?, number()?);
        if seen.contains(&name) {
            return Err(ConnectionError::new(Code::Settings, "a setting is repeated"));
        }
        seen.push(name);
        if matches!(name, 0x0 | 0x2..=0x5) {
            return Err(ConnectionError::new(Code::Settings, "a setting of HTTP/2"));
        }
        if name == ENABLE_CONNECT_PROTOCOL && value > 1 {
            return Err(ConnectionError::new(Code::Settings, "a setting that is neither 0 nor 1"));
        }
    }
    Ok(())
}
