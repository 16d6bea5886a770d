//! Decoded fields to our own heads (RFC 9113 8.2, 8.3, RFC 9114 4.2, 4.3): what is malformed becomes an answer like any other.
//! It never touches the compression; whoever calls it decodes every block to its end.

use http::{Method, StatusCode};

use crate::error::Error;
use crate::h1::{self, HeadError};
use crate::message::{Headers, RequestHead, ResponseHead, Version};

use super::is_connection_specific;

/// What a field costs beyond its bytes (RFC 9113 6.5.2, RFC 9114 4.2.2).
pub(crate) const FIELD_COST: usize = 32;

/// A request head while its fields come in.
pub(crate) struct Request {
    head: Box<RequestHead>,
    seen: Pseudo,
    regular: bool,
    cookies: usize,
    length: Option<u64>,
    expects: bool,
    /// `:protocol` is `websocket`.
    websocket: bool,
    bytes_left: usize,
    fields_left: usize,
    target_bytes: usize,
    flaw: Option<Error>,
}

/// Which pseudo-header fields have come.
#[derive(Default)]
struct Pseudo {
    method: bool,
    scheme: bool,
    path: bool,
    authority: bool,
    protocol: bool,
}

/// A head, or why it is none; then with what could be read of it.
pub(crate) struct Read {
    pub(crate) head: Box<RequestHead>,
    /// Content-Length.
    pub(crate) length: Option<u64>,
    /// The client waits for 100 before it sends content (RFC 9110 10.1.1).
    pub(crate) expects: bool,
    pub(crate) flaw: Option<Error>,
}

impl Request {
    pub(crate) fn new(version: Version, limits: &h1::Limits) -> Self {
        let mut head = RequestHead::spare();
        head.version = version;
        Self {
            head,
            seen: Pseudo::default(),
            regular: false,
            cookies: 0,
            length: None,
            expects: false,
            websocket: false,
            bytes_left: limits.head_bytes,
            fields_left: limits.fields,
            target_bytes: limits.target_bytes,
            flaw: None,
        }
    }

    /// Takes one field. Nothing is kept of what comes behind a flaw.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.flaw.is_none()
            && let Err(flaw) = self.take(name, value)
        {
            self.flaw = Some(flaw);
        }
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let cost = name.len() + value.len() + FIELD_COST;
        self.bytes_left = self.bytes_left.checked_sub(cost).ok_or(Error::Head(HeadError::HeadTooLarge))?;
        if let [b':', pseudo @ ..] = name {
            return self.take_pseudo(pseudo, value);
        }
        self.regular = true;
        // The crumbs of Cookie become one field.
        if self.cookies == 0 || name != b"cookie" {
            self.fields_left =
                self.fields_left.checked_sub(1).ok_or(Error::Head(HeadError::TooManyFields))?;
        }
        check_field(name, value).map_err(Error::Head)?;
        match name {
            _ if is_connection_specific(name) => return Err(Error::Head(HeadError::FieldName)),
            b"te" if !value.eq_ignore_ascii_case(b"trailers") => {
                return Err(Error::Head(HeadError::FieldValue));
            }
            b"content-length" if self.length.is_some() => return Err(Error::Head(HeadError::RepeatedLength)),
            b"content-length" => {
                self.length = Some(h1::decimal(value).ok_or(Error::Head(HeadError::Length))?);
            }
            b"cookie" => self.cookies += 1,
            b"expect" if !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Error::Head(HeadError::UnknownExpectation));
            }
            b"expect" => self.expects = true,
            _ => {}
        }
        self.head.headers.append(name, value);
        Ok(())
    }

    fn take_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let seen = match name {
            b"method" => &mut self.seen.method,
            b"scheme" => &mut self.seen.scheme,
            b"path" => &mut self.seen.path,
            b"authority" => &mut self.seen.authority,
            b"protocol" => &mut self.seen.protocol,
            _ => return Err(Error::Head(HeadError::FieldName)),
        };
        // Once each, and before all other fields (RFC 9113 8.3).
        if std::mem::replace(seen, true) || self.regular {
            return Err(Error::Head(HeadError::FieldName));
        }
        match name {
            b"method" if value.len() > h1::LONGEST_METHOD => {
                return Err(Error::Head(HeadError::UnknownMethod));
            }
            b"method" => {
                self.head.method =
                    Method::from_bytes(value).map_err(|_| Error::Head(HeadError::RequestLine))?;
            }
            b"path" if value.len() > self.target_bytes => return Err(Error::Head(HeadError::TargetTooLong)),
            b"path" => self.head.target.push_str(target(value).ok_or(Error::Head(HeadError::Target))?),
            b"authority" => {
                self.head.authority.push_str(h1::authority(value).ok_or(Error::Head(HeadError::Host))?);
            }
            b"protocol" => self.websocket = value.eq_ignore_ascii_case(b"websocket"),
            _ => {}
        }
        Ok(())
    }

    /// The end of the fields.
    pub(crate) fn finish(mut self) -> Read {
        if self.flaw.is_none() {
            self.flaw = self.complete().err();
        }
        Read { head: self.head, length: self.length, expects: self.expects, flaw: self.flaw }
    }

    fn complete(&mut self) -> Result<(), Error> {
        if !self.seen.method {
            return Err(Error::Head(HeadError::RequestLine));
        }
        // CONNECT with a protocol has all the others too, and no content before it is answered (RFC 8441 4).
        match (self.head.method == Method::CONNECT, self.seen.protocol) {
            (true, true) if self.websocket && self.length.is_none() => {}
            (true, _) => return Err(Error::Head(HeadError::Connect)),
            (false, true) => return Err(Error::Head(HeadError::FieldName)),
            (false, false) => {}
        }
        if !self.seen.scheme || !self.seen.path {
            return Err(Error::Head(HeadError::RequestLine));
        }
        let asterisk = self.head.target == "*" && self.head.method == Method::OPTIONS;
        if !self.head.target.starts_with('/') && !asterisk {
            return Err(Error::Head(HeadError::Target));
        }
        let head = &mut *self.head;
        if head.headers.get_all("host").nth(1).is_some() {
            return Err(Error::Host);
        }
        let host = head.headers.get("host").map(|host| h1::authority(host).map(str::to_owned));
        if let Some(host) = host {
            let host = host.ok_or(Error::Host)?;
            match self.seen.authority {
                true if !host.eq_ignore_ascii_case(&head.authority) => return Err(Error::Host),
                true => {}
                false => head.authority = host,
            }
            head.headers.remove("host");
        }
        if head.authority.is_empty() {
            return Err(Error::Host);
        }
        if self.cookies > 1 {
            head.headers.join("cookie", b"; ");
        }
        Ok(())
    }
}

/// A response head while its fields come in.
pub(crate) struct Response {
    head: Box<ResponseHead>,
    status: Option<StatusCode>,
    length: Option<u64>,
    bytes_left: usize,
    fields_left: usize,
    flaw: Option<HeadError>,
}

impl Response {
    pub(crate) fn new(limits: &h1::Limits) -> Self {
        let mut head = ResponseHead::spare();
        head.version = Version::Http2;
        Self {
            head,
            status: None,
            length: None,
            bytes_left: limits.head_bytes,
            fields_left: limits.fields,
            flaw: None,
        }
    }

    /// Takes one field. Nothing is kept of what comes behind a flaw.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.flaw.is_none()
            && let Err(flaw) = self.take(name, value)
        {
            self.flaw = Some(flaw);
        }
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        let cost = name.len() + value.len() + FIELD_COST;
        self.bytes_left = self.bytes_left.checked_sub(cost).ok_or(HeadError::HeadTooLarge)?;
        if let [b':', pseudo @ ..] = name {
            // Once, and before all other fields (RFC 9113 8.3.2).
            if pseudo != b"status" || self.status.is_some() || !self.head.headers.is_empty() {
                return Err(HeadError::FieldName);
            }
            self.status = Some(StatusCode::from_bytes(value).map_err(|_| HeadError::StatusLine)?);
            return Ok(());
        }
        self.fields_left = self.fields_left.checked_sub(1).ok_or(HeadError::TooManyFields)?;
        check_field(name, value)?;
        if is_connection_specific(name) {
            return Err(HeadError::FieldName);
        }
        if name == b"content-length" {
            let length = Some(h1::decimal(value).ok_or(HeadError::Length)?);
            if self.length.is_some() {
                return Err(HeadError::RepeatedLength);
            }
            self.length = length;
        }
        self.head.headers.append(name, value);
        Ok(())
    }

    /// The head and Content-Length, at the end of the fields.
    pub(crate) fn finish(mut self) -> Result<(Box<ResponseHead>, Option<u64>), HeadError> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        self.head.status = self.status.ok_or(HeadError::StatusLine)?;
        Ok((self.head, self.length))
    }
}

/// A trailer section while its fields come in (RFC 9113 8.1).
pub(crate) struct Trailers {
    pub(crate) headers: Headers,
    bytes_left: usize,
    fields_left: usize,
    pub(crate) malformed: bool,
}

impl Trailers {
    pub(crate) fn new(limits: &h1::Limits) -> Self {
        Self {
            headers: Headers::new(),
            bytes_left: limits.trailer_bytes,
            fields_left: limits.fields,
            malformed: false,
        }
    }

    /// Takes one field; one that does not belong into trailers is left out.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        let left = self.bytes_left.checked_sub(name.len() + value.len() + FIELD_COST);
        let fields_left = self.fields_left.checked_sub(1);
        let (Some(left), Some(fields_left), Ok(())) = (left, fields_left, check_field(name, value)) else {
            self.malformed = true;
            return;
        };
        (self.bytes_left, self.fields_left) = (left, fields_left);
        if !h1::forbidden_trailer(name) {
            self.headers.append(name, value);
        }
    }
}

/// Names are in lower case, and nothing passes that could become a line of its own in HTTP/1.1 (RFC 9113 8.2.1, 10.3).
fn check_field(name: &[u8], value: &[u8]) -> Result<(), HeadError> {
    if !h1::valid_name(name) || name.iter().any(u8::is_ascii_uppercase) {
        return Err(HeadError::FieldName);
    }
    if h1::valid_value(value) { Ok(()) } else { Err(HeadError::FieldValue) }
}

/// Visible ASCII without a fragment.
fn target(value: &[u8]) -> Option<&str> {
    let fits = value.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#');
    std::str::from_utf8(value).ok().filter(|_| fits)
}
