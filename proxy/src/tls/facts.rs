//! What a certificate says about itself: whom it is for, who made it, and for how long.
//!
//! Pure. It reads and never judges who may be trusted: that is for clients.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use super::date::date;

/// Names that are kept of one certificate; a hundred is what public authorities allow.
const MOST_NAMES: usize = 1000;
/// Feature of TLS that asks for a staple (RFC 7633 4.2.2).
const STATUS_REQUEST: u16 = 5;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// DNS names in lower case and addresses; its common name where there are none.
    pub(crate) names: Vec<String>,
    /// As text, such as `CN=a.test`.
    pub(crate) subject: String,
    /// The same of who made it.
    pub(crate) issuer: String,
    /// In hexadecimal, without separators.
    pub(crate) serial: String,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// Seconds since 1970; the last one at which it holds.
    pub(crate) not_after: i64,
    /// Kind and size, such as `EC P-256` or `RSA 2048`.
    pub(crate) key: String,
    /// Who can say whether it was revoked: the URL of an OCSP responder (RFC 5280 4.2.2.1),
    /// the first of HTTP in clear where there are several.
    pub(crate) responder: Option<String>,
    /// Whether clients are told to insist on a staple (RFC 7633).
    pub(crate) must_staple: bool,
}

impl Facts {
    /// Reads a certificate; nothing where it is none.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        let mut facts = Self {
            names: Vec::new(),
            subject: text(parsed.subject()),
            issuer: text(parsed.issuer()),
            serial: hex(parsed.raw_serial()),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            key: kind(parsed.public_key()),
            responder: None,
            must_staple: false,
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    facts.names.extend(names.general_names.iter().filter_map(name).take(MOST_NAMES));
                }
                ParsedExtension::AuthorityInfoAccess(access) => {
                    let ocsp = x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;
                    let all = access.accessdescs.iter().filter_map(|description| {
                        let GeneralName::URI(uri) = &description.access_location else { return None };
                        (description.access_method == ocsp).then(|| printable(uri))
                    });
                    let all: Vec<_> = all.take(MOST_NAMES).collect();
                    let of_http = all.iter().find(|uri| uri.starts_with("http://"));
                    facts.responder = of_http.or(all.first()).cloned();
                }
                _ if extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.24" => {
                    facts.must_staple = asks_for_status(extension.value);
                }
                _ => {}
            }
        }
        if facts.names.is_empty() {
            let common = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok());
            facts.names.extend(common.map(printable));
        }
        Some(facts)
    }

    /// Whether it holds at this second since 1970.
    pub(crate) fn holds_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether it may be put in the place of another: never one that does not hold in the place of one that does.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_replace(&self, other: &Self, now: i64) -> Result<(), String> {
        if self.holds_at(now) || !other.holds_at(now) {
            return Ok(());
        }
        Err(match now > self.not_after {
            true => format!("the new certificate has expired on {}", date(self.not_after)),
            false => format!("the new certificate does not hold before {}", date(self.not_before)),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(printable(name).to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| Ipv4Addr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| Ipv6Addr::from(ip).to_string()),
        },
        _ => None,
    }
}

fn kind(key: &SubjectPublicKeyInfo<'_>) -> String {
    let bits = |key: &PublicKey<'_>| key.key_size();
    match key.parsed() {
        Ok(parsed @ PublicKey::RSA(_)) => format!("RSA {}", bits(&parsed)),
        Ok(parsed @ PublicKey::EC(_)) => match bits(&parsed) {
            // What is read is the length of a coordinate in whole bytes.
            521..=528 => "EC P-521".to_owned(),
            bits => format!("EC P-{bits}"),
        },
        _ if key.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => key.algorithm.algorithm.to_id_string(),
    }
}

fn text(name: &X509Name<'_>) -> String {
    printable(&name.to_string())
}

/// Without control characters: it is shown on terminals and in logs.
fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Whether a TLS feature extension, a sequence of small numbers, has the status request.
fn asks_for_status(value: &[u8]) -> bool {
    use x509_parser::asn1_rs::FromDer as _;
    let features = Vec::<u16>::from_der(value);
    features.is_ok_and(|(_, features)| features.contains(&STATUS_REQUEST))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn made(params: &CertificateParams, key: &KeyPair) -> Facts {
        Facts::of(params.self_signed(key).unwrap().der()).unwrap()
    }

    #[test]
    fn a_certificate_is_read() {
        let names = ["A.test", "*.b.test", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a\u{7}.test");
        params.serial_number = Some(vec![1, 0xab].into());
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2031, 12, 31);
        // AIA with an OCSP responder, and the feature 5 among others.
        let url = b"http://o.test/";
        let mut access = vec![0x30, 28, 0x30, 26, 0x06, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 0x86, 14];
        access.extend_from_slice(url);
        params.custom_extensions = vec![
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access),
            CustomExtension::from_oid_content(
                &[1, 3, 6, 1, 5, 5, 7, 1, 24],
                vec![0x30, 6, 2, 1, 17, 2, 1, 5],
            ),
        ];
        let facts = made(&params, &KeyPair::generate().unwrap());
        assert_eq!(facts.names, ["a.test", "*.b.test", "192.0.2.1", "2001:db8::1"]);
        assert_eq!(
            (facts.serial.as_str(), facts.key.as_str(), facts.must_staple),
            ("01ab", "EC P-256", true)
        );
        assert_eq!(facts.responder.as_deref(), Some("http://o.test/"));
        assert!(facts.subject.ends_with("CN=a.test"), "{}", facts.subject);
        assert_eq!(date(facts.not_before), "2024-02-29T00:00:00Z");
        assert_eq!(date(facts.not_after), "2031-12-31T00:00:00Z");
    }

    #[test]
    fn kinds_of_keys_and_a_certificate_without_names() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "common");
        for (algorithm, kind) in [(&PKCS_ECDSA_P384_SHA384, "EC P-384"), (&PKCS_ED25519, "Ed25519")] {
            let facts = made(&params, &KeyPair::generate_for(algorithm).unwrap());
            assert_eq!(facts.key, kind);
            assert_eq!((facts.names.len(), facts.must_staple, facts.responder), (1, false, None));
        }
        assert_eq!(Facts::of(&CertificateDer::from(vec![0x30, 3, 1, 2, 3])), None);
    }

    #[test]
    fn one_that_does_not_hold_never_replaces_one_that_does() {
        let facts = |not_before, not_after| {
            let params = CertificateParams::new(vec!["a.test".into()]).unwrap();
            Facts { not_before, not_after, ..made(&params, &KeyPair::generate().unwrap()) }
        };
        let (good, expired, early) = (facts(0, 100), facts(0, 49), facts(51, 100));
        for (new, old, allowed) in [
            (&good, &good, true),
            (&good, &expired, true),
            (&expired, &expired, true),
            (&early, &expired, true),
            (&expired, &good, false),
            (&early, &good, false),
        ] {
            assert_eq!(new.may_replace(old, 50).is_ok(), allowed);
        }
        let (early, expired) = (early.may_replace(&good, 50), expired.may_replace(&good, 50));
        assert_eq!(early.unwrap_err(), "the new certificate does not hold before 1970-01-01T00:00:51Z");
        assert_eq!(expired.unwrap_err(), "the new certificate has expired on 1970-01-01T00:00:49Z");
    }
}
