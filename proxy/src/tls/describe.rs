//! A certificate in words: what RS, rules and the log are told about a client's. Pure.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::ToDer as _;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::facts::hex;
use crate::message::ClientCertificate;

/// The attributes that are called by a name (RFC 4514 3, and what OpenSSL adds); others by their number.
const SHORT_NAMES: [(&str, &str); 14] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// What is told about a certificate; nothing where it cannot be read.
pub(super) fn describe(der: &[u8]) -> Option<ClientCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(ClientCertificate {
        subject: distinguished_name(certificate.subject()),
        issuer: distinguished_name(certificate.issuer()),
        serial: serial(certificate.raw_serial()),
        fingerprint: hex(digest(&SHA256, der).as_ref()),
        not_before: date(&certificate.validity().not_before),
        not_after: date(&certificate.validity().not_after),
        base64: base64::engine::general_purpose::STANDARD.encode(der),
    })
}

/// Without the byte that only says that the number is not negative.
fn serial(raw: &[u8]) -> String {
    let number = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    hex(number).to_ascii_uppercase()
}

fn date(time: &ASN1Time) -> String {
    let time = time.to_datetime();
    let month = time.month().to_string();
    format!(
        "{} {:2} {:02}:{:02}:{:02} {} GMT",
        month.get(..3).unwrap_or(&month),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.year()
    )
}

/// RFC 4514 2: the last part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in name.iter_rdn() {
        let attributes: Vec<String> = part.iter().map(attribute).collect();
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let number = attribute.attr_type().to_id_string();
    let known = SHORT_NAMES.iter().find(|(id, _)| *id == number);
    match (known, attribute.as_str()) {
        (Some((_, name)), Ok(value)) => format!("{name}={}", escaped(value)),
        (known, _) => {
            let value = attribute.attr_value().to_der_vec().unwrap_or_default();
            format!(
                "{}=#{}",
                known.map_or(number.as_str(), |(_, name)| name),
                hex(&value).to_ascii_uppercase()
            )
        }
    }
}

/// RFC 4514 2.4; control characters and what is not ASCII as the numbers of their bytes.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(byte.into());
            }
            b' ' if index == 0 || index == last => text += "\\ ",
            b'#' if index == 0 => text += "\\#",
            b' '..=b'~' => text.push(byte.into()),
            // Writing to a string cannot fail.
            _ => drop(write!(text, "\\{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SerialNumber};

    use super::*;

    fn certificate(name: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in name {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.serial_number = Some(SerialNumber::from_slice(&[0x8a, 0x01]));
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_written_as_openssl_does() {
        let text = |value: &str| DnValue::Utf8String(value.to_owned());
        for (name, expected) in [
            (vec![(DnType::CountryName, text("DE")), (DnType::CommonName, text("ann"))], "CN=ann,C=DE"),
            (vec![(DnType::CommonName, text("a, O=b+c\"<>;\\"))], r#"CN=a\, O=b\+c\"\<\>\;\\"#),
            (vec![(DnType::CommonName, text(" é\r\n#"))], r"CN=\ \C3\A9\0D\0A#"),
            (vec![(DnType::OrganizationName, text("# "))], r"O=\#\ "),
            (vec![(DnType::CustomDnType(vec![1, 2, 3]), text("x"))], "1.2.3=#0C0178"),
            (vec![], ""),
        ] {
            let told = describe(&certificate(&name)).unwrap();
            assert_eq!(told.subject, expected);
            assert_eq!(told.issuer, expected);
        }
        let told = describe(&certificate(&[])).unwrap();
        assert_eq!((told.serial.as_str(), told.not_after.as_str()), ("8A01", "Feb  3 00:00:00 2031 GMT"));
        assert_eq!(told.fingerprint.len(), 64);
        assert!(
            told.escaped_pem().starts_with("-----BEGIN%20CERTIFICATE-----%0AMI"),
            "{}",
            told.escaped_pem()
        );
        assert!(told.escaped_pem().ends_with("%0A-----END%20CERTIFICATE-----%0A"));
    }

    proptest! {
        #[test]
        fn whatever_is_told_is_printable(value in ".{0,40}", cut in 0_usize..400, flip in any::<(usize, u8)>()) {
            let mut der = certificate(&[(DnType::CommonName, DnValue::Utf8String(value))]);
            let told = describe(&der).unwrap();
            prop_assert!(told.subject.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert!(describe(&der[..cut.min(der.len() - 1)]).is_none());
            let place = flip.0 % der.len();
            der[place] ^= flip.1;
            if let Some(told) = describe(&der) {
                prop_assert!(told.subject.bytes().chain(told.issuer.bytes()).all(|byte| matches!(byte, b' '..=b'~')));
            }
        }
    }
}
