//! HTTP/1.1 as the tests speak it: requests written as the case says, messages read strictly, nothing hidden.

use std::io::{self, Read, Write};

use super::wait::uninterrupted;

/// First line and fields of a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// Request line or status line.
    pub(crate) line: String,
    /// Fields, in the order they came, with the letters they came with.
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// The value of a field that stands at most once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} stands more than once: {values:?}");
        values.first().copied()
    }

    /// All values of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// The part of the first line with this number.
    pub(crate) fn part(&self, number: usize) -> &str {
        self.line.split(' ').nth(number).unwrap_or_default()
    }
}

/// All values of a field among these.
pub(crate) fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

/// A response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    /// Status line and fields.
    pub(crate) head: Head,
    /// Content, without its framing.
    pub(crate) body: Vec<u8>,
    /// Trailers.
    pub(crate) trailers: Vec<(String, String)>,
}

impl Response {
    /// The content as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }
}

/// A request to be written.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    host: String,
    fields: Vec<(String, String)>,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, Vec<(String, String)>),
}

impl Request {
    /// A request without content.
    pub(crate) fn new(method: &str, host: &str, target: &str) -> Self {
        let (method, host, target) = (method.to_owned(), host.to_owned(), target.to_owned());
        Self { method, target, host, fields: Vec::new(), content: Content::None }
    }

    /// GET.
    pub(crate) fn get(host: &str, target: &str) -> Self {
        Self::new("GET", host, target)
    }

    /// POST with content of a known length.
    pub(crate) fn post(host: &str, target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { content: Content::Length(body.into()), ..Self::new("POST", host, target) }
    }

    /// With content in these chunks and these trailers.
    pub(crate) fn chunked(mut self, chunks: &[&[u8]], trailers: &[(&str, &str)]) -> Self {
        let chunks = chunks.iter().map(|chunk| chunk.to_vec()).collect();
        let trailers = trailers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.content = Content::Chunked(chunks, trailers);
        self
    }

    /// With another field.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another target, made of the one it has.
    pub(crate) fn map_target(mut self, map: impl FnOnce(String) -> String) -> Self {
        self.target = map(self.target);
        self
    }

    /// The last on its connection.
    pub(crate) fn close(self) -> Self {
        self.header("Connection", "close")
    }

    /// Whether the response has no content whatever it says.
    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The head as it goes over the wire.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.fields {
            out += &format!("{name}: {value}\r\n");
        }
        match &self.content {
            Content::None => {}
            Content::Length(body) => out += &format!("Content-Length: {}\r\n", body.len()),
            Content::Chunked(..) => out += "Transfer-Encoding: chunked\r\n",
        }
        (out + "\r\n").into_bytes()
    }

    /// The content as it goes over the wire.
    pub(crate) fn content(&self) -> Vec<u8> {
        match &self.content {
            Content::None => Vec::new(),
            Content::Length(body) => body.clone(),
            Content::Chunked(chunks, trailers) => chunked(chunks, trailers),
        }
    }
}

/// Content in chunks, with trailers.
pub(crate) fn chunked(chunks: &[impl AsRef<[u8]>], trailers: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(format!("{:x}\r\n", chunk.as_ref().len()).as_bytes());
        out.extend_from_slice(chunk.as_ref());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A byte stream with what was read too far.
pub(crate) struct Wire<S> {
    /// The stream.
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

/// Content of a message: its bytes and its trailers.
pub(crate) type Body = (Vec<u8>, Vec<(String, String)>);

impl<S: Read + Write> Wire<S> {
    /// Nothing read yet.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Writes all of it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads one more piece; false at the end.
    fn more(&mut self) -> io::Result<bool> {
        let start = self.buffer.len();
        self.buffer.resize(start + (64 << 10), 0);
        let read = uninterrupted(|| self.stream.read(&mut self.buffer[start..]));
        self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(read) => Ok(read > 0),
            // A TLS peer may close without saying so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Exactly so many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// A line without its CRLF.
    fn line(&mut self) -> io::Result<String> {
        let mut from = 0;
        loop {
            if let Some(end) = self.buffer[from..].windows(2).position(|two| two == b"\r\n") {
                let mut line = self.exactly(from + end + 2)?;
                line.truncate(line.len() - 2);
                return String::from_utf8(line).map_err(io::Error::other);
            }
            from = self.buffer.len().saturating_sub(1);
            if !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) =
                line.split_once(": ").ok_or_else(|| io::Error::other(format!("field {line:?}")))?;
            fields.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The head of a message.
    pub(crate) fn read_head(&mut self) -> io::Result<Head> {
        Ok(Head { line: self.line()?, fields: self.fields()? })
    }

    fn read_framed(&mut self, head: &Head) -> io::Result<Option<Body>> {
        if let Some(coding) = head.field("transfer-encoding") {
            assert_eq!(coding, "chunked");
            assert_eq!(head.field("content-length"), None, "two framings at once");
            let mut body = Vec::new();
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
                if size == 0 {
                    return Ok(Some((body, self.fields()?)));
                }
                body.append(&mut self.exactly(size)?);
                if self.exactly(2)? != b"\r\n" {
                    return Err(io::Error::other("no CRLF behind a chunk"));
                }
            }
        }
        let Some(length) = head.field("content-length") else { return Ok(None) };
        Ok(Some((self.exactly(length.parse().map_err(io::Error::other)?)?, Vec::new())))
    }

    /// The content of a request with this head.
    pub(crate) fn read_request_body(&mut self, head: &Head) -> io::Result<Body> {
        Ok(self.read_framed(head)?.unwrap_or_default())
    }

    /// The final response; `bodiless` where the request was HEAD.
    pub(crate) fn read_response(&mut self, bodiless: bool) -> io::Result<Response> {
        loop {
            let head = self.read_head()?;
            let status: u16 = head.part(1).parse().map_err(io::Error::other)?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let (body, trailers) = if bodiless || matches!(status, 101 | 204 | 304) {
                Body::default()
            } else {
                match self.read_framed(&head)? {
                    Some(body) => body,
                    None => (self.read_to_end()?, Vec::new()),
                }
            };
            return Ok(Response { status, head, body, trailers });
        }
    }

    /// Everything up to the end of the stream.
    pub(crate) fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.buffer))
    }
}
