//! A client of HTTP/2 that sends exactly the frames a case wants, over TLS, and hides nothing of what comes back.

use std::io;

use proxy::h2::hpack::Decoder;

use super::client::Client;
use super::program::Program;

/// What every client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
/// Flags.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// A frame that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its type.
    pub(crate) kind: u8,
    /// Its flags.
    pub(crate) flags: u8,
    /// Its stream.
    pub(crate) stream: u32,
    /// What it carries.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Whether nothing follows on the stream.
    pub(crate) fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The number at this place of the payload: an error code, an increment, a stream.
    pub(crate) fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A frame as it goes over the wire.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let [_, l1, l2, l3] = (payload.len() as u32).to_be_bytes();
    let mut out = vec![l1, l2, l3, kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A field block without compression; names and values are shorter than 127 bytes.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        assert!(name.len() < 127 && value.len() < 127);
        out.extend_from_slice(&[0, name.len() as u8]);
        out.extend_from_slice(name.as_bytes());
        out.push(value.len() as u8);
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// HEADERS of a request for `localhost`.
pub(crate) fn request(stream: u32, method: &str, path: &str, end: bool) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)];
    frame(HEADERS, END_HEADERS | u8::from(end), stream, block(&fields))
}

/// GET.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    request(stream, "GET", path, true)
}

/// RST_STREAM with CANCEL.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, 8_u32.to_be_bytes())
}

/// WINDOW_UPDATE.
pub(crate) fn update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

/// PING.
pub(crate) fn ping(text: &[u8; 8]) -> Vec<u8> {
    frame(PING, 0, 0, text)
}

/// One connection.
pub(crate) struct Frames {
    client: Client,
    decoder: Decoder,
    /// Bytes of content that the program still takes on all streams together.
    pub(crate) window: i64,
}

impl Frames {
    /// Connects and says nothing.
    pub(crate) fn silent(program: &Program) -> Self {
        let client = Client::connect_tls(program.listener("https"), &program.tls().offer(&["h2"]));
        assert_eq!(client.protocol().as_deref(), Some("h2"));
        Self { client, decoder: Decoder::new(4096), window: 65_535 }
    }

    /// Connects with windows of this size for each stream; reads the program's settings.
    pub(crate) fn connect(program: &Program, window: u32) -> Self {
        let mut client = Self::silent(program);
        let setting = [&[0, 4][..], &window.to_be_bytes()].concat();
        client.send([PREFACE, &frame(SETTINGS, 0, 0, setting)].concat());
        while client
            .next()
            .is_some_and(|frame| frame != Frame { kind: SETTINGS, flags: ACK, stream: 0, payload: vec![] })
        {
        }
        client.send(frame(SETTINGS, ACK, 0, []));
        client
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.send(bytes);
    }

    /// Sends bytes; the program may have closed already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.client.try_send(bytes)
    }

    /// The next frame; nothing at the end of the connection, however that comes.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let frame = self.try_next().unwrap_or_else(|error| {
            assert!(
                !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
                "nothing comes"
            );
            None
        })?;
        if (frame.kind, frame.stream) == (WINDOW_UPDATE, 0) {
            self.window += i64::from(frame.number(0));
        }
        Some(frame)
    }

    fn try_next(&mut self) -> io::Result<Option<Frame>> {
        let head = self.client.try_exactly(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let payload = self.client.try_exactly(length)?;
        Ok(Some(Frame { kind: head[3], flags: head[4], stream, payload }))
    }

    /// The next frame of this type on this stream; others in front of it are dropped.
    pub(crate) fn wait(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.next().unwrap_or_else(|| panic!("no frame of type {kind} on stream {stream}"));
            if (frame.kind, frame.stream) == (kind, stream) {
                return frame;
            }
        }
    }

    /// Asks for a sign of life and returns every frame that comes before it.
    pub(crate) fn round(&mut self) -> Vec<Frame> {
        self.send(ping(b"e2e test"));
        let mut frames = Vec::new();
        loop {
            let frame = self.next().expect("the connection is open");
            if frame == (Frame { kind: PING, flags: ACK, stream: 0, payload: b"e2e test".to_vec() }) {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// Status and fields of HEADERS; every one that comes has to be decoded.
    pub(crate) fn fields(&mut self, frame: &Frame) -> Vec<(String, String)> {
        assert_eq!((frame.kind, frame.flags & END_HEADERS), (HEADERS, END_HEADERS));
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let field = |name: &[u8], value: &[u8]| fields.push((text(name), text(value)));
        self.decoder.decode(&frame.payload, field).unwrap();
        fields
    }

    /// Status and content of the response on this stream, which has to be the only one under way.
    pub(crate) fn response(&mut self, stream: u32) -> (u16, String) {
        let (mut status, mut content) = (0, Vec::new());
        loop {
            let frame = self.next().expect("the connection is open");
            if frame.kind == HEADERS {
                let fields = self.fields(&frame);
                assert_eq!((frame.stream, fields[0].0.as_str()), (stream, ":status"));
                status = fields[0].1.parse().unwrap();
            } else if frame.kind == DATA {
                assert_eq!(frame.stream, stream);
                content.extend_from_slice(&frame.payload);
            }
            assert!(frame.kind != RST_STREAM, "stream {} is reset: {}", frame.stream, frame.number(0));
            if frame.ends() {
                return (status, String::from_utf8_lossy(&content).into_owned());
            }
        }
    }

    /// The code of GOAWAY, behind which the connection ends.
    pub(crate) fn goaway(&mut self) -> u32 {
        let code = self.wait(GOAWAY, 0).number(4);
        assert_eq!(self.next(), None);
        code
    }
}
