//! A line of JSON, appended field by field. It is written for every request: what is known to need no escape is copied,
//! and numbers and addresses go no way round.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::digits::{push_decimal, push_thousandths};

/// A field that has been begun: everything up to its value.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(super) use key;

/// Room that most lines need.
const ROOM: usize = 1 << 10;

/// A line under way; [`Line::end`] completes it.
pub(super) struct Line<'a>(&'a mut Vec<u8>);

impl<'a> Line<'a> {
    /// Begins a line behind what is there, with the time in milliseconds since 1970.
    pub(super) fn begin(out: &'a mut Vec<u8>, time: u64) -> Self {
        out.reserve(ROOM);
        out.extend_from_slice(b"{\"ts\":");
        push_thousandths(time, out);
        Self(out)
    }

    /// Text, escaped where it has to be (RFC 8259 7).
    #[inline(always)]
    pub(super) fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        self.push_text(value);
    }

    /// Text that is known to need no escape.
    #[inline(always)]
    pub(super) fn plain(&mut self, key: &'static str, value: &str) {
        self.key(key);
        self.push_plain(value);
    }

    /// A number.
    #[inline(always)]
    pub(super) fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        push_decimal(value, self.0);
    }

    /// A number of thousandths.
    #[inline(always)]
    pub(super) fn thousandths(&mut self, key: &'static str, value: u64) {
        self.key(key);
        push_thousandths(value, self.0);
    }

    /// An address.
    #[inline(always)]
    pub(super) fn ip(&mut self, key: &'static str, value: IpAddr) {
        self.key(key);
        self.push_ip(value);
    }

    /// An address with its port.
    #[inline(always)]
    pub(super) fn socket(&mut self, key: &'static str, value: SocketAddr) {
        self.key(key);
        self.push_socket(value);
    }

    /// Ends the line.
    pub(super) fn end(self) {
        self.0.extend_from_slice(b"}\n");
    }

    /// Inlined with what begins a field, of which the length is known: no call for a few bytes.
    #[inline(always)]
    fn key(&mut self, key: &'static str) {
        self.0.extend_from_slice(key.as_bytes());
    }

    fn push_text(&mut self, value: &str) {
        let is_plain = |byte: u8| (byte >= b' ') & (byte != b'"') & (byte != b'\\');
        if value.bytes().fold(true, |all, byte| all & is_plain(byte)) {
            self.push_plain(value);
        } else {
            // Writing text to memory cannot fail.
            let _ = serde_json::to_writer(&mut *self.0, value);
        }
    }

    fn push_plain(&mut self, value: &str) {
        self.0.push(b'"');
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'"');
    }

    fn push_ip(&mut self, address: IpAddr) {
        self.0.push(b'"');
        match address {
            IpAddr::V4(v4) => self.push_v4(v4),
            IpAddr::V6(v6) => drop(write!(self.0, "{v6}")),
        }
        self.0.push(b'"');
    }

    fn push_socket(&mut self, address: SocketAddr) {
        self.0.push(b'"');
        match address {
            SocketAddr::V4(v4) => {
                self.push_v4(*v4.ip());
                self.0.push(b':');
                push_decimal(v4.port().into(), self.0);
            }
            SocketAddr::V6(v6) => drop(write!(self.0, "{v6}")),
        }
        self.0.push(b'"');
    }

    fn push_v4(&mut self, address: Ipv4Addr) {
        let [first, rest @ ..] = address.octets();
        push_decimal(first.into(), self.0);
        for octet in rest {
            self.0.push(b'.');
            push_decimal(octet.into(), self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_object_whatever_is_in_it() {
        let texts =
            ["", "plain", "quote \" and \\", "control \n\t\0\u{1f}", "é\u{7f}\u{2028}", &"x".repeat(5000)];
        let addresses = [
            "192.0.2.1:80",
            "255.255.255.255:65535",
            "0.0.0.0:0",
            "[::1]:443",
            "[2001:db8::a:1]:1",
            "[fe80::1%7]:1",
        ];
        let mut out = b"before\n".to_vec();
        for (text, address) in texts.iter().flat_map(|text| addresses.map(|address| (text, address))) {
            let address: SocketAddr = address.parse().unwrap();
            out.truncate("before\n".len());
            let mut line = Line::begin(&mut out, 1_795_734_207_501);
            line.text(key!("text"), text);
            line.number(key!("number"), u64::MAX);
            line.thousandths(key!("thousandths"), 42);
            line.plain(key!("plain"), "a-b");
            line.ip(key!("ip"), address.ip());
            line.socket(key!("socket"), address);
            line.end();
            let text_of_line = std::str::from_utf8(&out).unwrap().strip_prefix("before\n").unwrap();
            assert_eq!(text_of_line.matches('\n').count(), 1);
            let read: serde_json::Value = serde_json::from_str(text_of_line).unwrap();
            let expected = serde_json::json!({
                "ts": 1_795_734_207.501, "text": text, "number": u64::MAX, "thousandths": 0.042, "plain": "a-b",
                "ip": address.ip().to_string(), "socket": address.to_string(),
            });
            assert_eq!(read, expected);
        }
    }
}
