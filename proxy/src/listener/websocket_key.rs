//! What an RS proves that it speaks WebSocket with (RFC 6455 4.2.2). A client of HTTP/2 sends no key (RFC 8441 5), so
//! that one is made for it.

use aws_lc_rs::{digest, rand};

use crate::message::Headers;

/// What is hashed with a key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Sec-WebSocket-Key.
pub(super) struct Key(String);

impl Key {
    /// Another one each time. None where the system has no random numbers.
    pub(super) fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).ok()?;
        Some(Self(base64(&bytes)))
    }

    /// The value of the field.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Whether Sec-WebSocket-Accept is the one that goes with the key.
    pub(super) fn is_answered_by(&self, headers: &Headers) -> bool {
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(self.0.as_bytes());
        hash.update(GUID.as_bytes());
        let accept = base64(hash.finish().as_ref());
        headers.get("sec-websocket-accept") == Some(accept.as_bytes())
    }
}

/// RFC 4648 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0_u32, |number, &byte| number << 8 | u32::from(byte));
        let number = number << (8 * (3 - three.len()));
        for place in 0..=three.len() {
            let digit = (number >> (18 - 6 * place)) as usize % DIGITS.len();
            text.push(char::from(DIGITS[digit]));
        }
        for _ in three.len()..3 {
            text.push('=');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455() {
        let key = Key("dGhlIHNhbXBsZSBub25jZQ==".into());
        let answered = |value: &str| {
            let mut headers = Headers::new();
            headers.append("Sec-WebSocket-Accept", value);
            key.is_answered_by(&headers)
        };
        assert!(answered("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!answered("s3pPLMBiTxaQ9kYGzzhZRbK+xOO=") && !answered(""));
        assert!(!key.is_answered_by(&Headers::new()));
    }

    #[test]
    fn the_examples_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
        let keys: Vec<_> = (0..9).map(|_| Key::random().unwrap().0).collect();
        assert!(keys.iter().all(|key| key.len() == 24) && keys[1..].iter().all(|key| *key != keys[0]));
    }
}
