//! Heads that are taken and heads that are refused, and what holds for all of them: bytes that come in pieces
//! mean the same as bytes that come at once, and what is written is read back as it was.

use bytes::BytesMut;
use http::Method;
use proptest::prelude::*;

use super::*;
use crate::message::{Headers, RequestHead, ResponseHead};

fn limits() -> Limits {
    Limits { head_bytes: 2048, fields: 8, target_bytes: 100, ..Limits::default() }
}

fn request(text: impl AsRef<[u8]>) -> Result<Option<(RequestHead, RequestMeta)>, HeadError> {
    let mut head =
        RequestHead { target: "left over".into(), authority: "left over".into(), ..RequestHead::default() };
    head.headers.append("left", "over");
    Ok(parse_request(text.as_ref(), &limits(), &mut head)?.map(|meta| (head, meta)))
}

fn response(
    method: &Method,
    text: impl AsRef<[u8]>,
) -> Result<Option<(ResponseHead, ResponseMeta)>, HeadError> {
    let mut head = ResponseHead::default();
    head.headers.append("left", "over");
    Ok(parse_response(text.as_ref(), &limits(), method, &mut head)?.map(|meta| (head, meta)))
}

/// A whole request is taken, no part of it is refused or taken, and what follows it changes nothing.
fn taken(text: impl AsRef<[u8]>) -> (RequestHead, RequestMeta) {
    let text = text.as_ref();
    let shown = String::from_utf8_lossy(text);
    let whole = request(text).unwrap_or_else(|error| panic!("{shown}: {error}")).expect("complete");
    assert_eq!(whole.1.consumed, text.len(), "{shown}");
    for end in 0..text.len() {
        assert_eq!(request(&text[..end]), Ok(None), "{shown} up to {end}");
    }
    assert_eq!(request([text, b"\0\nGET"].concat()), Ok(Some(whole.clone())), "{shown}");
    whole
}

/// A request is refused for this reason as a whole and in pieces, however early that shows.
fn refused(text: impl AsRef<[u8]>, status: u16, code: &str) {
    let text = text.as_ref();
    let shown = String::from_utf8_lossy(text);
    let error = request(text).expect_err(&shown);
    assert_eq!((error.status().as_u16(), error.code()), (status, code), "{shown}");
    let first = (0..=text.len()).map(|end| request(&text[..end])).find(|result| *result != Ok(None));
    assert_eq!(first, Some(Err(error)), "{shown}");
}

#[test]
fn targets() {
    for (line, target, authority) in [
        ("GET /", "/", "h"),
        ("GET /a%20b?c=d&e=[f]|g\"<>\\^`{}", "/a%20b?c=d&e=[f]|g\"<>\\^`{}", "h"),
        ("GET //a/../b", "//a/../b", "h"),
        ("OPTIONS *", "*", "h"),
        ("OPTIONS http://a:8", "*", "a:8"),
        ("GET http://a", "/", "a"),
        ("GET HTTPS://A.b:443/c?d", "/c?d", "A.b:443"),
        ("GET http://[::1]:80?a/b", "/?a/b", "[::1]:80"),
        ("purge /x", "/x", "h"),
    ] {
        let (head, meta) = taken(format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!((head.target.as_str(), head.authority.as_str()), (target, authority));
        assert_eq!(head.method.as_str(), line.split(' ').next().unwrap());
        assert!(head.headers.is_empty() && meta.keep_alive && !meta.upgrade && !meta.expect_continue);
        assert_eq!(meta.framing, Framing::None);
    }
    for (line, status, code) in [
        ("GET  / HTTP/1.1", 400, "bad_target"),
        ("GET\t/ HTTP/1.1", 400, "bad_request_line"),
        (" GET / HTTP/1.1", 400, "bad_request_line"),
        ("G(T / HTTP/1.1", 400, "bad_request_line"),
        ("\u{16}\u{3}\u{1} / HTTP/1.1", 400, "bad_request_line"),
        ("GET / HTTP/1.1 ", 400, "bad_line_end"),
        ("GET /  HTTP/1.1", 400, "bad_version"),
        ("GET /a b HTTP/1.1", 400, "bad_version"),
        ("GET / http/1.1", 400, "bad_version"),
        ("GET /", 400, "bad_target"),
        ("GET / ", 400, "bad_version"),
        ("GET", 400, "bad_request_line"),
        ("GET / HTTP/1.2", 505, "unsupported_version"),
        ("GET / HTTP/0.9", 505, "unsupported_version"),
        ("GET / HTTP/2.0", 505, "unsupported_version"),
        ("PRI * HTTP/2.0", 505, "unsupported_version"),
        ("GET / HTTP/1.11", 400, "bad_line_end"),
        ("GET a HTTP/1.1", 400, "bad_target"),
        ("GET ?a HTTP/1.1", 400, "bad_target"),
        ("GET * HTTP/1.1", 400, "bad_target"),
        ("OPTIONS ** HTTP/1.1", 400, "bad_target"),
        ("GET a:80 HTTP/1.1", 400, "bad_target"),
        ("GET http:// HTTP/1.1", 400, "bad_target"),
        ("GET http:///a HTTP/1.1", 400, "bad_target"),
        ("GET http:/a HTTP/1.1", 400, "bad_target"),
        ("GET ftp://a/ HTTP/1.1", 400, "bad_target"),
        ("GET http://u@a/ HTTP/1.1", 400, "bad_target"),
        ("GET http://u:p@a/ HTTP/1.1", 400, "bad_target"),
        ("GET http://a\\b/ HTTP/1.1", 400, "bad_target"),
        ("GET /a#b HTTP/1.1", 400, "fragment_in_target"),
        ("GET http://a/#b HTTP/1.1", 400, "fragment_in_target"),
        ("GET /é HTTP/1.1", 400, "bad_target"),
        ("GET /\u{7f} HTTP/1.1", 400, "bad_target"),
        ("GET /\t HTTP/1.1", 400, "bad_target"),
        ("GET /\0 HTTP/1.1", 400, "bad_target"),
        ("CONNECT a:80 HTTP/1.1", 501, "connect_refused"),
        ("CONNECT /a HTTP/1.1", 501, "connect_refused"),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH / HTTP/1.1", 501, "unknown_method"),
    ] {
        refused(format!("{line}\r\nHost: h\r\n\r\n"), status, code);
    }
    refused(b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_target");
}

#[test]
fn hosts() {
    assert_eq!(taken("GET / HTTP/1.1\r\nhOST:A.b:80 \t\r\n\r\n").0.authority, "A.b:80");
    assert_eq!(taken("GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n").0.authority, "a");
    assert_eq!(taken("GET http://a/ HTTP/1.0\r\n\r\n").0.authority, "a");
    for text in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: \r\n\r\n"] {
        let (head, meta) = taken(text);
        assert_eq!((head.version, head.authority.as_str(), meta.keep_alive), (Version::Http10, "", false));
    }
    for (text, code) in [
        ("GET / HTTP/1.1\r\n\r\n", "missing_host"),
        ("GET http://a/ HTTP/1.1\r\n\r\n", "missing_host"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "missing_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "repeated_host"),
        ("GET / HTTP/1.1\r\nHost:\r\nhost: a\r\n\r\n", "repeated_host"),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "repeated_host"),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "repeated_host"),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "bad_host"),
        ("GET http://a/ HTTP/1.1\r\nHost: a/b\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", "bad_host"),
    ] {
        refused(text, 400, code);
    }
}

#[test]
fn request_framing() {
    for (fields, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("content-length:\t18446744073709551615 \r\n", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("TRANSFER-ENCODING:ChunkeD\t\r\n", Framing::Chunked),
    ] {
        let (head, meta) = taken(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(meta.framing, framing);
        assert_eq!(head.headers.is_empty(), fields.is_empty());
    }
    for (fields, status, code) in [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400, "conflicting_length"),
        ("Transfer-Encoding: gzip\r\nContent-Length: 3\r\n", 400, "conflicting_length"),
        ("Transfer-Encoding:\r\nContent-Length: 3\r\n", 400, "conflicting_length"),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", 400, "repeated_length"),
        ("Content-Length: 3\r\ncontent-length: 3\r\n", 400, "repeated_length"),
        ("Content-Length: 3, 3\r\n", 400, "repeated_length"),
        ("Content-Length: 3,4\r\n", 400, "repeated_length"),
        ("Content-Length:\r\n", 400, "bad_length"),
        ("Content-Length: +3\r\n", 400, "bad_length"),
        ("Content-Length: -3\r\n", 400, "bad_length"),
        ("Content-Length: 3 3\r\n", 400, "bad_length"),
        ("Content-Length: 0x3\r\n", 400, "bad_length"),
        ("Content-Length: 3.0\r\n", 400, "bad_length"),
        ("Content-Length: 18446744073709551616\r\n", 400, "bad_length"),
        ("Transfer-Encoding: gzip\r\n", 501, "unknown_transfer_encoding"),
        ("Transfer-Encoding: identity\r\n", 501, "unknown_transfer_encoding"),
        ("Transfer-Encoding: gzip, chunked\r\n", 501, "unknown_transfer_encoding"),
        ("Transfer-Encoding: xchunked\r\n", 501, "unknown_transfer_encoding"),
        ("Transfer-Encoding: gzip;a=b\r\n", 501, "unknown_transfer_encoding"),
        ("Transfer-Encoding:\r\n", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: chunked, gzip\r\n", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: chunked, chunked\r\n", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: chunked;a=b\r\n", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: chunked,\r\n", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: , chunked\r\n", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: \"chunked\"\r\n", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: \u{b}chunked\r\n", 400, "bad_field_value"),
    ] {
        refused(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), status, code);
    }
    refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "transfer_encoding_in_http10");
    assert_eq!(taken("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n").1.framing, Framing::Length(3));
}

#[test]
fn connection_expectation_and_upgrade() {
    for (version, fields, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: a,, keep-alive ,close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let (_, meta) = taken(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(meta.keep_alive, keep_alive, "{version} {fields}");
    }
    for (version, fields, upgrade) in [
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
        ("1.1", "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n", true),
        ("1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", false),
        ("1.1", "Connection: upgrade\r\nUpgrade:\r\n", false),
        ("1.1", "Connection: upgrade\r\n", false),
        ("1.1", "Upgrade: websocket\r\n", false),
        ("1.1", "Connection: upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\n", false),
        ("1.1", "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", false),
        ("1.1", "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", false),
    ] {
        let (_, meta) = taken(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(meta.upgrade, upgrade, "{version} {fields}");
    }
    for (version, fields, expected) in [
        ("1.1", "Expect: 100-Continue\r\nContent-Length: 1\r\n", true),
        ("1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", true),
        ("1.1", "Expect: 100-continue\r\n", false),
        ("1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n", false),
        ("1.0", "Expect: more\r\nContent-Length: 1\r\n", false),
    ] {
        let (_, meta) = taken(format!("PUT / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(meta.expect_continue, expected, "{version} {fields}");
    }
    refused("GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417, "unknown_expectation");
    refused("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, more\r\n\r\n", 417, "unknown_expectation");
    taken(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "a,".repeat(64)));
    let options = "a,".repeat(65);
    refused(
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}\r\n\r\n"),
        400,
        "too_many_connection_options",
    );
}

#[test]
fn lines_and_fields() {
    let (head, _) = taken(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nx-ONE:\r\nX-Two: \t a\tb \xff: \t\r\n\r\n");
    let fields = [(&b"x-ONE"[..], &b""[..]), (b"X-Two", b"a\tb \xff:")];
    assert_eq!(head.headers.iter().collect::<Vec<_>>(), fields);
    for (text, code) in [
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_line_end"),
        ("\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_line_end"),
        ("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_line_end"),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", "bad_line_end"),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", "bad_line_end"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", "bad_line_end"),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "bad_line_end"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b \nY: c\r\n\r\n", "bad_line_end"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX:\nY: c\r\n\r\n", "bad_line_end"),
        ("GET / HTTP/1.1\nHost: a\n\n", "bad_line_end"),
        ("GET / HTTP/1.1\n\n", "bad_line_end"),
        ("GET / HTTP/1.1\r\n\rHost: a\r\n\r\n", "bad_line_end"),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", "bad_line_end"),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "bad_field_value"),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "bad_field_value"),
        ("GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n", "bad_field_name"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", "bad_field_name"),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "bad_field_name"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "bad_field_name"),
        ("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", "bad_field_name"),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", "bad_field_name"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "bad_field_name"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX y: b\r\n\r\n", "bad_field_name"),
        ("GET / HTTP/1.1\r\nHost: a\r\nXé: b\r\n\r\n", "bad_field_name"),
    ] {
        refused(text, 400, code);
    }
}

#[test]
fn every_byte_in_a_name_and_a_value() {
    for byte in 0..=255_u8 {
        for length in [0, 7, 31, 70] {
            let pad = vec![b'a'; length];
            let name = [&pad[..], &[byte], &pad].concat();
            let text = [b"GET / HTTP/1.1\r\nHost: a\r\nx", &name[..], b"x: v\r\n\r\n"].concat();
            assert_eq!(request(&text).is_ok(), valid_name(&name) || byte == b':', "name with {byte:#x}");
            let value = [b"x", &pad[..], &[byte], &pad, b"x"].concat();
            let text = [b"GET / HTTP/1.1\r\nHost: a\r\nx: ", &value[..], b"\r\n\r\n"].concat();
            assert_eq!(matches!(request(&text), Ok(Some(_))), valid_value(&value), "value with {byte:#x}");
            let target = [b"/", &pad[..], &[byte]].concat();
            let text = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let visible = byte.is_ascii_graphic() && byte != b'#';
            assert_eq!(matches!(request(&text), Ok(Some(_))), visible, "target with {byte:#x}");
        }
    }
}

#[test]
fn limits_are_kept_before_the_head_is_complete() {
    let longest = "a".repeat(99);
    taken(format!("GET /{longest} HTTP/1.1\r\nHost: a\r\n\r\n"));
    refused(format!("GET /{longest}a HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "target_too_long");
    refused(format!("GET /{}", "a".repeat(5000)), 414, "target_too_long");
    refused("A".repeat(33), 501, "unknown_method");

    let fields = "A: b\r\n".repeat(7);
    taken(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}A: b\r\n\r\n"), 431, "too_many_fields");

    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let value = "x".repeat(2048 - frame);
    taken(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n"));
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}x\r\n\r\n"), 431, "head_too_large");
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}{value}"), 431, "head_too_large");
    // Also an error far behind the first bytes is found once the end is there.
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\n\n", "x".repeat(1000)), 400, "bad_line_end");

    let many = Limits { fields: 100_000, ..Limits::default() };
    let mut head = RequestHead::default();
    for (fields, taken) in [(255, true), (256, false)] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(fields));
        assert_eq!(parse_request(text.as_bytes(), &many, &mut head).is_ok(), taken);
    }
}

#[test]
fn responses() {
    use Framing::*;
    let (get, head_method) = (Method::GET, Method::HEAD);
    for (method, text, status, framing, keep_alive) in [
        (&get, "1.1 200 OK\r\n", 200, UntilClose, false),
        (&get, "1.1 200\r\n", 200, UntilClose, false),
        (&get, "1.1 200 \r\nContent-Length: 5\r\n", 200, Length(5), true),
        (&get, "1.1 999 Überall\tso\r\nContent-Length: 0\r\n", 999, Length(0), true),
        (&get, "1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n", 200, Chunked, true),
        (&get, "1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n", 200, Length(5), false),
        (&get, "1.0 200 OK\r\nContent-Length: 5\r\n", 200, Length(5), false),
        (&get, "1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n", 200, Length(5), true),
        (&get, "1.0 200 OK\r\nConnection: keep-alive\r\n", 200, UntilClose, false),
        (&get, "1.1 304 Not Modified\r\nContent-Length: 5\r\n", 304, None, true),
        (&head_method, "1.1 200 OK\r\nContent-Length: 5\r\n", 200, None, true),
        (&head_method, "1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", 200, None, true),
        (&head_method, "1.1 404 No\r\n", 404, None, true),
        (&get, "1.1 204 No Content\r\n", 204, None, true),
        (&get, "1.1 204 No Content\r\nContent-Length: 0\r\n", 204, None, true),
        (&get, "1.1 204 No Content\r\nContent-Length: 5\r\n", 204, None, false),
        (&get, "1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n", 204, None, false),
        (&get, "1.1 100 Continue\r\n", 100, None, true),
        (&get, "1.1 103 Early Hints\r\nLink: a\r\n", 103, None, true),
        (&get, "1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n", 101, None, true),
    ] {
        let text = format!("HTTP/{text}\r\n");
        let (head, meta) = response(method, &text).unwrap().expect("complete");
        assert_eq!(head.status.as_u16(), status, "{text}");
        assert_eq!(meta, ResponseMeta { consumed: text.len(), framing, keep_alive }, "{text}");
        for end in 0..text.len() {
            assert_eq!(response(method, &text.as_bytes()[..end]), Ok(Option::None), "{text} up to {end}");
        }
    }
    for (text, code) in [
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "bad_status_line"),
        ("HTTP/1.1 20 OK\r\n\r\n", "bad_status_line"),
        ("HTTP/1.1 099 OK\r\n\r\n", "bad_status_line"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "bad_status_line"),
        ("HTTP/1.1  200 OK\r\n\r\n", "bad_status_line"),
        ("HTTP/1.1 200 O\0K\r\n\r\n", "bad_status_line"),
        ("HTTP/1.1 200 O\rK\r\n\r\n", "bad_status_line"),
        ("HTTP/1.1 200 OK\n\r\n", "bad_line_end"),
        ("HTTP/1.1 200\n\r\n", "bad_line_end"),
        ("HTTP/1.1 200 OK\r\n\n", "bad_line_end"),
        ("HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", "bad_line_end"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "bad_field_name"),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "bad_field_name"),
        ("HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "bad_field_value"),
        ("HTTP/2.0 200 OK\r\n\r\n", "unsupported_version"),
        ("ICY 200 OK\r\n\r\n", "bad_version"),
        ("<html>hello</html>", "bad_version"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "conflicting_length"),
        ("HTTP/1.1 204 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "conflicting_length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "repeated_length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n", "bad_length"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "unknown_transfer_encoding"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer_encoding_in_http10"),
    ] {
        let result = response(&get, text);
        assert_eq!(result.map_err(|error| error.code()), Err(code), "{text}");
    }
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(9));
    assert_eq!(response(&get, fields), Err(HeadError::TooManyFields));
    assert_eq!(response(&get, format!("HTTP/1.1 200 {}", "x".repeat(4000))), Err(HeadError::HeadTooLarge));
}

fn fields() -> impl Strategy<Value = Headers> {
    let field = ("x-[a-zA-Z0-9!#$%&'*+.^_`|~-]{0,20}", "([!-~\u{80}-\u{ff}]([\t -~]{0,30}[!-~])?)?");
    proptest::collection::vec(field, 0..7).prop_map(|fields| {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    })
}

fn framing() -> impl Strategy<Value = Framing> {
    prop_oneof![Just(Framing::None), any::<u64>().prop_map(Framing::Length), Just(Framing::Chunked)]
}

/// The fields without those the codec has written.
fn passed(headers: &Headers) -> Headers {
    let mut passed = Headers::new();
    for (name, value) in headers.iter().filter(|(name, _)| name.starts_with(b"x-")) {
        passed.append(name, value);
    }
    passed
}

fn all(decoder: &mut Decoder, input: &mut BytesMut, data: &mut Vec<u8>) -> Option<Headers> {
    loop {
        match decoder.decode(input).unwrap() {
            Decoded::Data(piece) => data.extend_from_slice(&piece),
            Decoded::Trailers(trailers) => return Some(trailers),
            Decoded::End | Decoded::NeedMore => return None,
        }
    }
}

/// Field lines, most of them well-formed.
fn sections() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        8 => "[a-zA-Z!~-]{1,12}: ?[ -~\t]{0,30}\r\n",
        1 => "[a-z\t :\u{0}é\"\r\n]{0,6}[:\r][a-z\t \u{7f}\u{b}é\r\n]{0,12}\r?\n",
    ];
    (proptest::collection::vec(line, 0..6), "(\r\n)?[a\r\n]{0,2}")
        .prop_map(|(lines, end)| lines.concat() + &end)
}

proptest! {
    #[test]
    fn a_request_that_was_written_is_read(
        method in "[A-Z]{1,20}", target in "/[!-\"$-~]{0,90}", host in "[a-zA-Z0-9.-]{1,30}(:[0-9]{1,4})?",
        headers in fields(), framing in framing(),
    ) {
        prop_assume!(method != "CONNECT");
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let head = RequestHead { method, target, authority: host, version: Version::Http11, headers };
        let mut text = Vec::new();
        write_request(&head, framing, &mut text);
        let (mut read, meta) = taken(&text);
        read.headers = passed(&read.headers);
        prop_assert_eq!(meta.framing, framing);
        prop_assert_eq!(read, head);
    }

    #[test]
    fn a_response_that_was_written_is_read(
        status in 200_u16..1000, headers in fields(), framing in framing(), keep_alive: bool,
    ) {
        let mut head = ResponseHead::new(http::StatusCode::from_u16(status).unwrap());
        head.headers = headers;
        let mut text = Vec::new();
        write_response(&head, framing, keep_alive, Version::Http11, &mut text);
        let (mut read, meta) = response(&Method::GET, &text).unwrap().expect("complete");
        read.headers = passed(&read.headers);
        prop_assert_eq!(read, head);
        let expected = match framing {
            _ if matches!(status, 204 | 304) => Framing::None,
            Framing::None => Framing::UntilClose,
            framing => framing,
        };
        prop_assert_eq!(meta.framing, expected);
        prop_assert_eq!(meta.keep_alive, keep_alive && expected != Framing::UntilClose);
    }

    #[test]
    fn chunks_that_were_written_are_read(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 0..10),
        trailers in fields(), cuts in proptest::collection::vec(1_usize..50, 1..20),
    ) {
        let mut text = Vec::new();
        for chunk in &chunks {
            write_chunk_head(chunk.len(), &mut text);
            text.extend_from_slice(chunk);
            text.extend_from_slice(CHUNK_END);
        }
        write_last_chunk(Some(&trailers), &mut text);
        text.extend_from_slice(b"next");

        let mut decoder = Decoder::new(Framing::Chunked, &Limits::default());
        let (mut input, mut data, mut read, mut rest) = (BytesMut::new(), Vec::new(), Headers::new(), &text[..]);
        for cut in cuts.iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(*cut));
            rest = later;
            input.extend_from_slice(piece);
            read = all(&mut decoder, &mut input, &mut data).unwrap_or(read);
            if decoder.is_done() {
                break;
            }
            prop_assert!(!piece.is_empty());
        }
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!(read, trailers);
        prop_assert_eq!(decoder.decode(&mut input), Ok(Decoded::End));
        prop_assert_eq!([&input[..], rest].concat(), b"next");
    }

    /// A parser that is not ours reads the same fields, but for a bare LF, which it takes.
    #[test]
    fn fields_are_what_others_read(text in sections(), most in 0_usize..6) {
        let mut slots = [httparse::EMPTY_HEADER; 6];
        let theirs = httparse::parse_headers(text.as_bytes(), &mut slots[..most]);
        let mut ours = Vec::new();
        let length = lines::fields(text.as_bytes(), most, |line| {
            assert_eq!(&text.as_bytes()[line.name_at..][..line.name.len()], line.name);
            assert_eq!(&text.as_bytes()[line.value_at..][..line.value.len()], line.value);
            ours.push((line.name, line.value));
        });
        match (length, theirs) {
            (Ok(None), Ok(httparse::Status::Partial)) => {}
            (Ok(Some(length)), Ok(httparse::Status::Complete((theirs, fields)))) => {
                prop_assert_eq!(length, theirs);
                let fields: Vec<_> = fields.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
                prop_assert_eq!(ours, fields);
            }
            // One line more, whatever it looks like.
            (Err(HeadError::TooManyFields), Ok(httparse::Status::Partial) | Err(_)) => {}
            (Err(HeadError::FieldName), Err(httparse::Error::HeaderName)) => {}
            (Err(HeadError::FieldValue), Err(httparse::Error::HeaderValue)) => {}
            (Err(HeadError::LineEnd), Err(httparse::Error::NewLine)) => {}
            (Err(HeadError::LineEnd), _) => prop_assert!(text.replace("\r\n", "").contains('\n'), "{:?}", text),
            (ours, theirs) => prop_assert!(false, "{text:?}: {ours:?} where others say {theirs:?}"),
        }
    }

    #[test]
    fn nothing_panics_and_nothing_grows(text in proptest::collection::vec(any::<u8>(), 0..300), pick in 0_usize..6) {
        let beginnings = [&b""[..], b"GET ", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n", b"HTTP/1.1 200 ", b"1\r\n"];
        let text = [beginnings[pick], &text].concat();
        if let Ok(Some((_, meta))) = request(&text) {
            prop_assert!(meta.consumed <= text.len());
        }
        if let Ok(Some((_, meta))) = response(&Method::GET, &text) {
            prop_assert!(meta.consumed <= text.len());
        }
        for framing in [Framing::Chunked, Framing::Length(9), Framing::UntilClose] {
            let mut decoder = Decoder::new(framing, &Limits::default());
            let mut input = BytesMut::from(&text[..]);
            while let Ok(Decoded::Data(_) | Decoded::Trailers(_)) = decoder.decode(&mut input) {}
        }
    }
}
