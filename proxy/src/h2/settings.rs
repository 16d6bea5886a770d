//! SETTINGS (RFC 9113 6.5): what this side announces, and what the peer's mean.

use super::error::{Code, ConnectionError};
use super::frame::{MAX_PAYLOAD, flag, kind, write};

const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
/// RFC 8441 3.
pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// What the peer's settings mean for what is sent to it; at first the defaults (RFC 9113 6.5.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) initial_window: u32,
    pub(super) max_payload: usize,
    /// Streams that it takes at a time.
    pub(super) streams: u32,
    /// Bytes of a field section that it takes, as far as it says so.
    pub(super) list_size: Option<u32>,
}

/// Streams that a server is believed to take before it has said how many: no server should say less (RFC 9113 6.5.2).
const FIRST_STREAMS: u32 = 100;

impl Default for Peer {
    fn default() -> Self {
        Self { initial_window: 65_535, max_payload: MAX_PAYLOAD, streams: FIRST_STREAMS, list_size: None }
    }
}

/// What a SETTINGS frame has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// By so much the window of every stream moves (RFC 9113 6.9.2).
    pub(super) window: i64,
    pub(super) table_size: Option<usize>,
}

impl Peer {
    /// Takes over the settings of a frame.
    pub(super) fn apply(&mut self, payload: &[u8]) -> Result<Changed, ConnectionError> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ConnectionError::size("SETTINGS of a wrong length"));
        }
        let mut changed = Changed::default();
        for &[i1, i2, v1, v2, v3, v4] in settings {
            let value = u32::from_be_bytes([v1, v2, v3, v4]);
            match u16::from_be_bytes([i1, i2]) {
                HEADER_TABLE_SIZE => changed.table_size = Some(value as usize),
                ENABLE_PUSH if value > 1 => {
                    return Err(ConnectionError::protocol("SETTINGS_ENABLE_PUSH is not 0 or 1"));
                }
                MAX_CONCURRENT_STREAMS => self.streams = value,
                MAX_HEADER_LIST_SIZE => self.list_size = Some(value),
                INITIAL_WINDOW_SIZE if value > 0x7fff_ffff => {
                    return Err(ConnectionError::new(
                        Code::FlowControl,
                        "SETTINGS_INITIAL_WINDOW_SIZE is too large",
                    ));
                }
                INITIAL_WINDOW_SIZE => {
                    changed.window += i64::from(value) - i64::from(self.initial_window);
                    self.initial_window = value;
                }
                MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                    return Err(ConnectionError::protocol("SETTINGS_MAX_FRAME_SIZE is out of range"));
                }
                // Larger frames than the default would only make other streams wait.
                MAX_FRAME_SIZE => self.max_payload = MAX_PAYLOAD,
                _ => {}
            }
        }
        Ok(changed)
    }
}

/// Appends the settings of this side: those every side has, behind its own.
pub(super) fn write_own(own: &[(u16, u32)], window: u32, list_size: u32, out: &mut Vec<u8>) {
    let every = [(INITIAL_WINDOW_SIZE, window), (MAX_HEADER_LIST_SIZE, list_size)];
    let mut payload = Vec::new();
    for (name, value) in own.iter().chain(&every) {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    write(kind::SETTINGS, 0, 0, &payload, out);
}

/// Appends the acknowledgement of the peer's settings.
pub(super) fn write_ack(out: &mut Vec<u8>) {
    write(kind::SETTINGS, flag::ACK, 0, &[], out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: u16, value: u32) -> Vec<u8> {
        [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
    }

    #[test]
    fn settings_are_applied_in_order() {
        let mut peer = Peer::default();
        let payload =
            [setting(4, 1000), setting(99, 5), setting(4, 65_536), setting(1, 0), setting(5, 1 << 20)];
        let changed = peer.apply(&payload.concat()).unwrap();
        assert_eq!(changed, Changed { window: 1, table_size: Some(0) });
        assert_eq!((peer.initial_window, peer.max_payload), (65_536, 16_384));
    }

    #[test]
    fn bad_settings_end_the_connection() {
        for (payload, code) in [
            (setting(2, 2), Code::Protocol),
            (setting(4, 1 << 31), Code::FlowControl),
            (setting(5, 16_383), Code::Protocol),
            (setting(5, 1 << 24), Code::Protocol),
            (vec![0; 5], Code::FrameSize),
        ] {
            assert_eq!(Peer::default().apply(&payload).unwrap_err().code, code, "{payload:?}");
        }
    }

    #[test]
    fn own_settings() {
        let mut out = Vec::new();
        write_own(&[(MAX_CONCURRENT_STREAMS, 128), (ENABLE_CONNECT_PROTOCOL, 1)], 1 << 20, 65_536, &mut out);
        let settings = [setting(3, 128), setting(8, 1), setting(4, 1 << 20), setting(6, 65_536)];
        assert_eq!(out, [vec![0, 0, 24, 4, 0, 0, 0, 0, 0], settings.concat()].concat());
    }
}
