//! What the fields say about framing and connection: gathered in one pass over a head, judged once
//! (RFC 9112 6 and 9, RFC 9110 7.6.1, 10.1.1). Strict where two readings are possible; it never repairs.

use http::{Method, StatusCode};

use super::{Framing, HeadError, Limits, lines, syntax};
use crate::message::{Headers, Known, Version, elements, is};

/// Most options in Connection: each may name a field that has to be found and removed.
const MOST_OPTIONS: usize = 64;

/// What one pass over the fields has found.
#[derive(Debug, Default)]
pub(super) struct Seen<'a> {
    /// The first Host, and whether there was another.
    pub(super) host: Option<&'a [u8]>,
    pub(super) host_repeated: bool,
    length: Option<&'a [u8]>,
    length_repeated: bool,
    coding: Coding,
    options: usize,
    close: bool,
    stay: bool,
    wants_upgrade: bool,
    upgrade: Upgrade,
    expect: Expect,
}

/// The transfer codings, in one word.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    Unknown,
    Malformed,
}

/// The protocols in Upgrade, in one word.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Upgrade {
    #[default]
    None,
    Offered,
    /// `h2c` among them: it would take requests past the routes, so that none is offered.
    ClearTextHttp2,
}

/// The expectations, in one word.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Expect {
    #[default]
    None,
    Continue,
    Unknown,
}

impl<'a> Seen<'a> {
    /// Takes note of the fields of a section, and those that are to be kept into the list; the section's text, once all of
    /// it is there.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        text: &'a [u8],
        limits: &Limits,
        headers: &mut Headers,
        keep: impl Fn(Known) -> bool,
    ) -> Result<Option<&'a [u8]>, HeadError> {
        let length = lines::fields(text, limits.most_fields(), |line| {
            let known = Known::of(line.name);
            self.note(known, line.value);
            if keep(known) {
                headers.place(known, line.name_at, line.name.len(), line.value_at, line.value.len());
            }
        })?;
        let section = length.and_then(|length| text.get(..length));
        if let Some(section) = section {
            headers.fill(section.strip_suffix(b"\r\n").unwrap_or(section));
        }
        Ok(section)
    }

    /// Takes note of one field.
    fn note(&mut self, known: Known, value: &'a [u8]) {
        match known {
            Known::Host => {
                self.host_repeated |= self.host.is_some();
                self.host = self.host.or(Some(value));
            }
            Known::Expect => self.note_expect(value),
            Known::Upgrade => self.note_upgrade(value),
            Known::Connection => self.note_connection(value),
            Known::ContentLength => {
                self.length_repeated |= self.length.is_some() || value.contains(&b',');
                self.length = self.length.or(Some(value));
            }
            Known::TransferEncoding => self.note_coding(value),
            _ => {}
        }
    }

    /// Whether the connection may carry another message (RFC 9112 9.3).
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version != Version::Http10 || self.stay)
    }

    /// Whether the client offers to switch to a protocol other than clear-text HTTP/2 (RFC 9110 7.8).
    pub(super) fn upgrade(&self, version: Version) -> bool {
        version == Version::Http11 && self.wants_upgrade && self.upgrade == Upgrade::Offered
    }

    /// Whether the client waits for 100; HTTP/1.0 does not know it (RFC 9110 10.1.1).
    pub(super) fn expect_continue(&self, version: Version) -> Result<bool, HeadError> {
        match self.expect {
            Expect::Unknown if version != Version::Http10 => Err(HeadError::UnknownExpectation),
            expect => Ok(expect == Expect::Continue && version != Version::Http10),
        }
    }

    /// How the body of a request is framed (RFC 9112 6.3).
    pub(super) fn request_framing(&self, version: Version) -> Result<Framing, HeadError> {
        Ok(self.declared(version)?.unwrap_or(Framing::None))
    }

    /// How the body of a response is framed, and whether the connection is in a known state behind it.
    pub(super) fn response_framing(
        &self,
        version: Version,
        method: &Method,
        status: StatusCode,
    ) -> Result<(Framing, bool), HeadError> {
        let declared = self.declared(version)?;
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            // Such a response must not declare a body (RFC 9110 8.6, RFC 9112 6.1). If it does, nobody knows
            // whether one follows, and the next response could be part of it.
            return Ok((Framing::None, matches!(declared, None | Some(Framing::Length(0)))));
        }
        if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Ok((Framing::None, true));
        }
        Ok(declared.map_or((Framing::UntilClose, false), |framing| (framing, true)))
    }

    /// Whether Connection has more options than can be served.
    pub(super) fn check_options(&self) -> Result<(), HeadError> {
        if self.options > MOST_OPTIONS { Err(HeadError::TooManyOptions) } else { Ok(()) }
    }

    fn declared(&self, version: Version) -> Result<Option<Framing>, HeadError> {
        match (self.length, self.coding) {
            (Some(_), Coding::Chunked | Coding::Unknown | Coding::Malformed) => {
                Err(HeadError::ConflictingLength)
            }
            (Some(_), Coding::None) if self.length_repeated => Err(HeadError::RepeatedLength),
            (Some(digits), Coding::None) => {
                let length = syntax::decimal(digits).ok_or(HeadError::Length)?;
                Ok(Some(Framing::Length(length)))
            }
            (None, Coding::None) => Ok(None),
            (None, _) if version == Version::Http10 => Err(HeadError::TransferEncodingInHttp10),
            (None, Coding::Chunked) => Ok(Some(Framing::Chunked)),
            (None, Coding::Unknown) => Err(HeadError::UnknownTransferEncoding),
            (None, Coding::Malformed) => Err(HeadError::TransferEncoding),
        }
    }

    fn note_coding(&mut self, value: &[u8]) {
        for coding in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            let name = coding.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
            let chunked = is(name, b"chunked");
            self.coding = match self.coding {
                _ if !syntax::valid_name(name) => Coding::Malformed,
                // Nothing may follow `chunked`, and it has no parameters (RFC 9112 7.1).
                Coding::Chunked | Coding::Malformed => Coding::Malformed,
                Coding::None | Coding::Unknown if chunked && coding.len() != name.len() => Coding::Malformed,
                Coding::None if chunked => Coding::Chunked,
                Coding::None | Coding::Unknown => Coding::Unknown,
            };
        }
    }

    fn note_connection(&mut self, value: &[u8]) {
        // What most say, and nothing else.
        if is(value, b"keep-alive") {
            self.options += 1;
            self.stay = true;
            return;
        }
        for option in elements(value) {
            self.options += 1;
            match option.len() {
                5 => self.close |= is(option, b"close"),
                7 => self.wants_upgrade |= is(option, b"upgrade"),
                10 => self.stay |= is(option, b"keep-alive"),
                _ => {}
            }
        }
    }

    fn note_upgrade(&mut self, value: &[u8]) {
        for protocol in elements(value) {
            if is(protocol, b"h2c") {
                self.upgrade = Upgrade::ClearTextHttp2;
            } else if self.upgrade == Upgrade::None {
                self.upgrade = Upgrade::Offered;
            }
        }
    }

    fn note_expect(&mut self, value: &[u8]) {
        for expectation in elements(value) {
            if !is(expectation, b"100-continue") {
                self.expect = Expect::Unknown;
            } else if self.expect == Expect::None {
                self.expect = Expect::Continue;
            }
        }
    }
}
