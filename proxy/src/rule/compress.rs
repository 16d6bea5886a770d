//! Whether a response is compressed on its way to the client, and how (RFC 9110 8.4, 12.5.3).
//!
//! What an RS has coded itself passes as it is. Which algorithm would be used is asked of the request before any edit
//! of a rule, so that a rule may keep Accept-Encoding from its RS; whether it is used is asked of the response.

use http::StatusCode;

use crate::message::{Headers, RequestHead, ResponseHead};

/// How the responses of a rule are compressed.
#[derive(Debug, Clone)]
pub struct Compress {
    /// In the order of preference, for clients that have none.
    pub algorithms: Vec<Algorithm>,
    /// Media types, in lower case and without parameters.
    pub types: Vec<String>,
    /// Bytes below which a response stays as it is, where its length is known.
    pub min_size: u64,
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// Gzip (RFC 1952).
    Gzip,
}

impl Algorithm {
    /// Its name in Accept-Encoding and Content-Encoding.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    fn is_named(self, coding: &[u8]) -> bool {
        // The two names of gzip mean the same (RFC 9110 8.4.1.3).
        coding.eq_ignore_ascii_case(self.name().as_bytes())
            || (self == Self::Gzip && coding.eq_ignore_ascii_case(b"x-gzip"))
    }
}

impl Compress {
    /// The media types that are compressed unless others are listed: those of Tencent CLB, and those that text/html
    /// and JavaScript go by today.
    pub const TYPES: [&'static str; 17] = [
        "application/atom+xml",
        "application/javascript",
        "application/json",
        "application/rss+xml",
        "application/vnd.ms-fontobject",
        "application/x-font-ttf",
        "application/x-web-app-manifest+json",
        "application/xhtml+xml",
        "application/xml",
        "font/opentype",
        "image/svg+xml",
        "image/x-icon",
        "text/css",
        "text/html",
        "text/javascript",
        "text/plain",
        "text/x-component",
    ];

    /// Whether a media type may be listed: a stream of events must not wait for its compressor, and gRPC has a
    /// compression of its own.
    pub fn may_list(media_type: &str) -> bool {
        media_type != "text/event-stream" && !media_type.starts_with("application/grpc")
    }

    /// What the client likes best of what is offered; none where it rather has the content as it is.
    pub fn choose(&self, request: &RequestHead) -> Option<Algorithm> {
        if forbids_change(&request.headers) {
            return None;
        }
        let accepted = Accepted(&request.headers);
        let liking = |algorithm: &Algorithm| accepted.quality(|coding| algorithm.is_named(coding));
        // Of equals `max_by_key` takes the last.
        let (algorithm, quality) = (self.algorithms.iter().rev())
            .map(|offer| (*offer, liking(offer).unwrap_or(0)))
            .max_by_key(|(_, q)| *q)?;
        let identity = accepted.identity().unwrap_or(0);
        (quality > 0 && quality >= identity).then_some(algorithm)
    }

    /// Whether this response is one that is compressed for clients that like it; `length` is that of its content, where
    /// known. A response to HEAD gets the fields of the one to GET.
    pub fn concerns(&self, response: &ResponseHead, length: Option<u64>) -> bool {
        let headers = &response.headers;
        let status = response.status;
        let without = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
        !(status.is_informational()
            || status == StatusCode::PARTIAL_CONTENT
            || without.contains(&status)
            || length.is_some_and(|length| length < self.min_size.max(1))
            // The digests are those of the content as it is.
            || ["content-encoding", "content-range", "content-digest", "repr-digest", "digest", "content-md5"]
                .iter()
                .any(|name| headers.contains(name))
            || forbids_change(headers))
            && self.has_type(headers)
    }

    fn has_type(&self, headers: &Headers) -> bool {
        let value = headers.get("content-type").unwrap_or_default();
        let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        self.types.iter().any(|listed| media_type.eq_ignore_ascii_case(listed.as_bytes()))
    }

    /// Says that the response would be another one for clients that accept something else.
    pub fn mark_varying(headers: &mut Headers) {
        let known = |element: &[u8]| element == b"*" || element.eq_ignore_ascii_case(b"accept-encoding");
        if !headers.elements("vary").any(known) {
            headers.append("Vary", "Accept-Encoding");
        }
    }

    /// Makes the fields those of the compressed response. The same content comes out in other bytes from one time to
    /// the next, so that its entity tag is weak (RFC 9110 8.8.1) and parts of it cannot be asked for.
    pub fn mark_compressed(algorithm: Algorithm, headers: &mut Headers) {
        headers.remove("content-length");
        headers.remove("accept-ranges");
        headers.append("Content-Encoding", algorithm.name());
        if let Some(tag) = headers.get("etag").filter(|tag| !tag.starts_with(b"W/")) {
            let weak = [b"W/", tag].concat();
            headers.set("ETag", weak);
        }
    }
}

/// `no-transform` (RFC 9111 5.2.1.6 and 5.2.2.6).
fn forbids_change(headers: &Headers) -> bool {
    headers.elements("cache-control").any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// What Accept-Encoding says.
struct Accepted<'a>(&'a Headers);

impl<'a> Accepted<'a> {
    fn codings(&self) -> impl Iterator<Item = (&'a [u8], u16)> {
        self.0.elements("accept-encoding").map(|element| {
            let mut parts = element.splitn(2, |&byte| byte == b';').map(<[u8]>::trim_ascii);
            (parts.next().unwrap_or_default(), parts.next().map_or(1000, weight))
        })
    }

    /// The weight of the coding that is meant, in thousandths; `*` speaks for those without a word of their own.
    fn quality(&self, is_meant: impl Fn(&[u8]) -> bool) -> Option<u16> {
        let of = |wanted: &dyn Fn(&[u8]) -> bool| {
            self.codings().find(|(coding, _)| wanted(coding)).map(|(_, quality)| quality)
        };
        of(&is_meant).or_else(|| of(&|coding| coding == b"*"))
    }

    /// The weight of the content as it is, where the client has given it one.
    fn identity(&self) -> Option<u16> {
        let mut codings = self.codings();
        codings.find(|(coding, _)| coding.eq_ignore_ascii_case(b"identity")).map(|(_, quality)| quality)
    }
}

/// `q=0.5` in thousandths (RFC 9110 12.4.2); what cannot be read counts as refused.
fn weight(parameter: &[u8]) -> u16 {
    let Some((b"q=" | b"Q=", value)) = parameter.split_at_checked(2) else { return 0 };
    let (whole, fraction) = match value {
        [whole, b'.', fraction @ ..] => (whole, fraction),
        [whole] => (whole, &[][..]),
        _ => return 0,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let digit = |place: usize| fraction.get(place).map_or(0, |digit| u16::from(digit - b'0'));
    let thousandths = digit(0) * 100 + digit(1) * 10 + digit(2);
    match (whole, thousandths) {
        (b'0', thousandths) => thousandths,
        (b'1', 0) => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::conditions::tests::head;

    fn compress() -> Compress {
        Compress {
            algorithms: vec![Algorithm::Zstd, Algorithm::Brotli, Algorithm::Gzip],
            types: Compress::TYPES.map(str::to_owned).to_vec(),
            min_size: 1024,
        }
    }

    #[test]
    fn the_client_chooses() {
        for (accepts, chosen) in [
            ("Accept-Encoding: gzip, deflate, br, zstd", Some("zstd")),
            ("Accept-Encoding: gzip, deflate, br", Some("br")),
            ("Accept-Encoding: GZIP", Some("gzip")),
            ("Accept-Encoding: x-gzip", Some("gzip")),
            ("Accept-Encoding: gzip;q=1.0, br;q=0.9, zstd;q=0.5", Some("gzip")),
            ("Accept-Encoding: gzip;q=0.5, br; q=0.5", Some("br")),
            ("Accept-Encoding: gzip;q=0.001", Some("gzip")),
            ("Accept-Encoding: gzip;q=0", None),
            ("Accept-Encoding: gzip;q=0.000, *;q=0.1", Some("zstd")),
            ("Accept-Encoding: *", Some("zstd")),
            ("Accept-Encoding: *;q=0", None),
            ("Accept-Encoding: *;q=0, gzip", Some("gzip")),
            ("Accept-Encoding: zstd;q=0, *", Some("br")),
            ("Accept-Encoding: identity", None),
            ("Accept-Encoding: identity, gzip;q=0.5", None),
            ("Accept-Encoding: identity;q=0.5, gzip;q=0.5", Some("gzip")),
            ("Accept-Encoding: identity;q=0", None),
            ("Accept-Encoding: deflate", None),
            ("Accept-Encoding: gzipped, brr, q=1", None),
            ("Accept-Encoding: gzip;q=2, br;q=x, zstd;q=0.1234", None),
            ("Accept-Encoding: gzip;q=1.001, br;q=, zstd;level=3", None),
            ("Accept-Encoding: deflate\nAccept-Encoding: gzip", Some("gzip")),
            ("Accept-Encoding: gzip\nCache-Control: no-cache, No-Transform", None),
            ("Accept-Encoding: ", None),
            ("", None),
        ] {
            let chosen_now = compress().choose(&head("GET", "/", accepts)).map(Algorithm::name);
            assert_eq!(chosen_now, chosen, "{accepts}");
        }
        let gzip_first = Compress { algorithms: vec![Algorithm::Gzip, Algorithm::Zstd], ..compress() };
        let chosen = gzip_first.choose(&head("GET", "/", "Accept-Encoding: zstd, br, gzip"));
        assert_eq!(chosen, Some(Algorithm::Gzip));
    }

    #[test]
    fn the_response_has_to_fit() {
        const TEXT: &str = "Content-Type: text/plain";
        for (status, lines, length, concerned) in [
            (200, TEXT, Some(1024), true),
            (200, TEXT, None, true),
            (200, TEXT, Some(1023), false),
            (404, "Content-Type: TEXT/HTML ; charset=utf-8", None, true),
            (200, "Content-Type: text/html5", None, false),
            (200, "Content-Type: image/png", None, false),
            (200, "Content-Type: text/event-stream", None, false),
            (200, "Content-Type: application/grpc", None, false),
            (200, "", None, false),
            (200, "Content-Type: text/css\nContent-Encoding: br", None, false),
            (200, "Content-Type: text/css\nCache-Control: public, no-transform", None, false),
            (200, "Content-Type: text/css\nCache-Control: public", None, true),
            (200, "Content-Type: text/css\nContent-Range: bytes 0-1/2", None, false),
            (200, "Content-Type: text/css\nRepr-Digest: sha-256=:x:", None, false),
            (206, TEXT, None, false),
            (204, TEXT, None, false),
            (205, TEXT, None, false),
            (304, TEXT, None, false),
            (101, TEXT, None, false),
        ] {
            let mut response = ResponseHead::new(StatusCode::from_u16(status).unwrap());
            response.headers = head("GET", "/", lines).headers;
            assert_eq!(compress().concerns(&response, length), concerned, "{status} {lines} {length:?}");
        }
        let any = Compress { min_size: 0, ..compress() };
        let mut empty = ResponseHead::new(StatusCode::OK);
        empty.headers.append("Content-Type", "text/css");
        assert!(!any.concerns(&empty, Some(0)) && any.concerns(&empty, Some(1)));
    }

    #[test]
    fn the_fields_tell() {
        let marked = |lines: &str, algorithm: Option<Algorithm>| {
            let mut headers = head("GET", "/", lines).headers;
            Compress::mark_varying(&mut headers);
            if let Some(algorithm) = algorithm {
                Compress::mark_compressed(algorithm, &mut headers);
            }
            let line = |(name, value): (&[u8], &[u8])| {
                format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
            };
            headers.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(marked("Vary: Origin", None), "Vary: Origin\nVary: Accept-Encoding");
        assert_eq!(marked("Vary: a, accept-encoding", None), "Vary: a, accept-encoding");
        assert_eq!(marked("Vary: *", None), "Vary: *");
        assert_eq!(
            marked("Content-Length: 5\nAccept-Ranges: bytes\nETag: \"a\"", Some(Algorithm::Brotli)),
            "Vary: Accept-Encoding\nContent-Encoding: br\nETag: W/\"a\""
        );
        assert!(marked("ETag: W/\"a\"", Some(Algorithm::Gzip)).starts_with("ETag: W/\"a\"\n"));
    }
}
