//! The value of a sticky cookie: which RS a client belongs to and until when, sealed.
//!
//! A client can neither read nor make one. Sealed with AES-256-GCM-SIV (RFC 8452): many nodes may seal with one key for
//! years, and nonces are random; were one to come twice, it would show that two cookies say the same, and no more.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Moment, address, port.
const PLAIN: usize = 8 + 16 + 2;
const TAG: usize = 16;
/// Nonce, then what is sealed.
const SEALED: usize = NONCE_LEN + PLAIN + TAG;
/// Characters of a value.
const TEXT: usize = (SEALED * 4).div_ceil(3);

/// Seals and opens the cookies of one pool.
#[derive(Debug)]
pub struct Seal {
    key: RandomizedNonceKey,
    pool: String,
}

impl Seal {
    /// With a key made from this secret. What is sealed for one pool opens for no other. `None` if the crypto library
    /// refuses, which does not happen with the one that is built in.
    pub fn new(secret: &[u8], pool: &str) -> Option<Self> {
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, digest(&SHA256, secret).as_ref()).ok()?;
        Some(Self { key, pool: pool.to_owned() })
    }

    /// The value that binds a client to an RS until a moment, in seconds since 1970.
    pub fn seal(&self, server: SocketAddr, until: u64) -> Option<String> {
        let ip = match server.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut text = Vec::with_capacity(PLAIN + TAG);
        text.extend(until.to_be_bytes());
        text.extend(ip.octets());
        text.extend(server.port().to_be_bytes());
        let nonce = self.key.seal_in_place_append_tag(Aad::from(&self.pool), &mut text).ok()?;
        let sealed = [nonce.as_ref().as_slice(), &text].concat();
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The RS a value names, if this pool sealed it and the moment has not passed.
    pub fn open(&self, value: &[u8], now: u64) -> Option<SocketAddr> {
        if value.len() != TEXT {
            return None;
        }
        let mut sealed = [0; SEALED];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut sealed).ok()?;
        let (nonce, text) = sealed.get_mut(..length)?.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::from(&self.pool), text).ok()?;
        let (until, rest) = plain.split_first_chunk()?;
        let (ip, port) = rest.split_first_chunk::<16>()?;
        let ip = Ipv6Addr::from(*ip).to_canonical();
        let server = SocketAddr::new(ip, u16::from_be_bytes(port.try_into().ok()?));
        (now < u64::from_be_bytes(*until)).then_some(server)
    }
}

/// The value of a cookie among the Cookie fields of a request (RFC 6265 5.4).
pub fn cookie<'a>(mut fields: impl Iterator<Item = &'a [u8]>, name: &str) -> Option<&'a [u8]> {
    fields.find_map(|field| {
        field.split(|byte| *byte == b';').find_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seal() -> Seal {
        Seal::new(b"a secret of this test", "shop").unwrap()
    }

    #[test]
    fn what_is_sealed_opens_until_it_expires() {
        for address in ["192.0.2.1:8080", "[2001:db8::1]:443"] {
            let address = address.parse().unwrap();
            let value = seal().seal(address, 1000).unwrap();
            assert_eq!(seal().open(value.as_bytes(), 999), Some(address));
            assert_eq!(seal().open(value.as_bytes(), 1000), None);
            assert_ne!(value, seal().seal(address, 1000).unwrap(), "the same value twice");
            assert_eq!(Seal::new(b"another secret", "shop").unwrap().open(value.as_bytes(), 0), None);
            let secret = b"a secret of this test";
            assert_eq!(Seal::new(secret, "other").unwrap().open(value.as_bytes(), 0), None);
        }
    }

    #[test]
    fn a_value_with_any_character_changed_does_not_open() {
        let value = seal().seal("192.0.2.1:80".parse().unwrap(), 1000).unwrap();
        assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        for index in 0..value.len() {
            let mut forged = value.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal().open(&forged, 0), None, "character {index}");
        }
    }

    #[test]
    fn cookies_are_found_by_name() {
        let find = |fields: &[&str], name| {
            cookie(fields.iter().map(|field| field.as_bytes()), name)
                .map(|v| String::from_utf8_lossy(v).into_owned())
        };
        let fields = ["a=1; sticky=x=y;b=2", "sticky=second; quoted=\"q\""];
        assert_eq!(find(&fields, "sticky"), Some("x=y".into()));
        assert_eq!(find(&fields, "quoted"), Some("q".into()));
        assert_eq!(find(&fields, "b"), Some("2".into()));
        for absent in ["stick", "icky", "B", "c"] {
            assert_eq!(find(&fields, absent), None, "{absent}");
        }
        assert_eq!(find(&["a", "=", ";;", ""], "a"), None);
    }

    proptest! {
        #[test]
        fn nothing_a_client_sends_opens(value in prop::collection::vec(any::<u8>(), 0..100), text in "[A-Za-z0-9_-]{72}") {
            prop_assert_eq!(seal().open(&value, 0), None);
            prop_assert_eq!(seal().open(text.as_bytes(), 0), None);
        }
    }
}
