//! A client's certificate as RS, rules and the log are told about it: text, written once per connection.

use std::fmt::Write as _;

/// What is told about a certificate that has been verified. All of it is printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Distinguished name (RFC 4514), escaped as OpenSSL does for RFC 2253.
    pub subject: String,
    /// Distinguished name of whoever has signed it.
    pub issuer: String,
    /// Serial number, upper-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub fingerprint: String,
    /// When it begins, as in `Jan  1 00:00:00 2030 GMT`.
    pub not_before: String,
    /// When it ends.
    pub not_after: String,
    /// The certificate itself, DER in base64.
    pub base64: String,
}

impl ClientCertificate {
    /// The certificate as PEM, with everything percent-encoded that is not unreserved (RFC 3986 2.3).
    pub fn escaped_pem(&self) -> String {
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        let mut rest = self.base64.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
            pem += line;
            pem.push('\n');
            rest = after;
        }
        pem += "-----END CERTIFICATE-----\n";
        let mut escaped = String::with_capacity(pem.len() + pem.len() / 8);
        for byte in pem.bytes() {
            match byte {
                _ if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
                b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
                // Writing to a string cannot fail.
                _ => drop(write!(escaped, "%{byte:02X}")),
            }
        }
        escaped
    }
}
