//! Heads and chunk lines as bytes (RFC 9112 3, 4, 7). Framing is written from [`Framing`] alone: what the
//! fields say about it is left out, so that a message never carries two lengths. Names and values are
//! taken as they are: whoever made them has checked them (`parse_*`, `valid_name`, `valid_value`).

use http::StatusCode;

use super::Framing;
use crate::digits::push_decimal;
use crate::message::{Headers, Known, RequestHead, ResponseHead, Version};

/// The end of the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Appends a request head in HTTP/1.1: the line, Host from the authority, the fields, the framing.
/// Content-Length, Transfer-Encoding and Host among the fields are left out; `Framing::UntilClose` is none for a
/// request and written like [`Framing::None`].
pub fn write_request(head: &RequestHead, framing: Framing, out: &mut Vec<u8>) {
    let method = head.method.as_str();
    out.reserve(method.len() + head.target.len() + head.authority.len() + head.headers.size_hint() + 96);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(head.authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    head.headers.write_lines(out, |known| known.is_framing() || known == Known::Host);
    write_framing(framing, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response head in HTTP/1.1, the version of this server whatever the client speaks (RFC 9110 2.5):
/// the line, the fields, the framing, and Connection where the client does not assume what is meant.
///
/// Content-Length among the fields is left out unless the framing is [`Framing::None`]: there it says how long the
/// body would be (HEAD, 304), and passes; 1xx and 204 never have one (RFC 9110 8.6). Interim responses say
/// nothing about the connection. `Framing::UntilClose` implies close; see [`Framing::toward`] for the client.
pub fn write_response(
    head: &ResponseHead,
    framing: Framing,
    keep_alive: bool,
    client: Version,
    out: &mut Vec<u8>,
) {
    let reason = head.status.canonical_reason().unwrap_or_default();
    out.reserve(reason.len() + head.headers.size_hint() + 96);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let interim = head.status.is_informational();
    let bodiless = interim || head.status == StatusCode::NO_CONTENT;
    if framing == Framing::None && !bodiless {
        head.headers.write_lines(out, |known| known == Known::TransferEncoding);
    } else {
        head.headers.write_lines(out, Known::is_framing);
    }
    if !bodiless {
        write_framing(framing, out);
    }
    let closes = !keep_alive || framing == Framing::UntilClose;
    if closes && !interim {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if client == Version::Http10 && !interim {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the line before the data of a chunk. `len` is not 0: that would end the body.
pub fn write_chunk_head(len: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; usize::BITS as usize / 4];
    let mut rest = len;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = match (rest & 0xf) as u8 {
            low @ 0..=9 => b'0' + low,
            low => b'a' - 10 + low,
        };
        used += 1;
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a chunked body, with the trailer section if there is one (RFC 9112 7.1.2).
pub fn write_last_chunk(trailers: Option<&Headers>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        out.reserve(trailers.size_hint() + 2);
        trailers.write_lines(out, Known::is_framing);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            push_decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, framing: Framing, keep_alive: bool, client: Version) -> String {
        let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
        head.headers.append("A", "b");
        head.headers.append("content-length", "5");
        head.headers.append("Transfer-encoding", "gzip");
        let mut out = Vec::new();
        write_response(&head, framing, keep_alive, client, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn responses() {
        use Framing::*;
        use Version::*;
        for (status, framing, keep_alive, client, text) in [
            (200, Length(0), true, Http11, "200 OK\r\nA: b\r\nContent-Length: 0\r\n"),
            (200, Chunked, true, Http11, "200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n"),
            (200, Length(7), false, Http11, "200 OK\r\nA: b\r\nContent-Length: 7\r\nConnection: close\r\n"),
            (
                200,
                Length(7),
                true,
                Http10,
                "200 OK\r\nA: b\r\nContent-Length: 7\r\nConnection: keep-alive\r\n",
            ),
            (200, UntilClose, true, Http10, "200 OK\r\nA: b\r\nConnection: close\r\n"),
            (200, None, true, Http11, "200 OK\r\nA: b\r\ncontent-length: 5\r\n"),
            (304, None, true, Http11, "304 Not Modified\r\nA: b\r\ncontent-length: 5\r\n"),
            (204, None, true, Http11, "204 No Content\r\nA: b\r\n"),
            (204, Length(0), true, Http11, "204 No Content\r\nA: b\r\n"),
            (103, None, false, Http11, "103 Early Hints\r\nA: b\r\n"),
            (299, Length(u64::MAX), true, Http11, "299 \r\nA: b\r\nContent-Length: 18446744073709551615\r\n"),
        ] {
            assert_eq!(response(status, framing, keep_alive, client), format!("HTTP/1.1 {text}\r\n"));
        }
        assert_eq!(Chunked.toward(Http10), UntilClose);
        assert_eq!(UntilClose.toward(Http11), Chunked);
        assert_eq!(Length(1).toward(Http10), Length(1));
    }

    #[test]
    fn requests() {
        let mut head =
            RequestHead { target: "/a?b".into(), authority: "c:1".into(), ..RequestHead::default() };
        for (name, value) in
            [("host", "other"), ("Content-Length", "9"), ("TRANSFER-ENCODING", "x"), ("d", "e")]
        {
            head.headers.append(name, value);
        }
        let mut out = b"before".to_vec();
        write_request(&head, Framing::Length(10), &mut out);
        assert_eq!(out, b"beforeGET /a?b HTTP/1.1\r\nHost: c:1\r\nd: e\r\nContent-Length: 10\r\n\r\n");
    }

    #[test]
    fn chunk_lines() {
        let mut out = Vec::new();
        for len in [1, 9, 10, 15, 16, 255, 4096, usize::MAX] {
            write_chunk_head(len, &mut out);
        }
        assert_eq!(out, b"1\r\n9\r\na\r\nf\r\n10\r\nff\r\n1000\r\nffffffffffffffff\r\n");
        out.clear();
        let mut trailers = Headers::new();
        trailers.append("grpc-status", "0");
        write_last_chunk(Some(&trailers), &mut out);
        write_last_chunk(None, &mut out);
        assert_eq!(out, b"0\r\ngrpc-status: 0\r\n\r\n0\r\n\r\n");
    }
}
