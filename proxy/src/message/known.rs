//! The fields that a proxy has to do something about, told apart once when they come in: everybody behind compares a byte
//! instead of names.

use super::is;

/// What a field is to us, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it passes.
    Other,
    /// `Connection` (RFC 9110 7.6.1).
    Connection,
    /// `TE` (RFC 9110 10.1.4).
    Te,
    /// `Transfer-Encoding` (RFC 9112 6.1).
    TransferEncoding,
    /// `Upgrade` (RFC 9110 7.8).
    Upgrade,
    /// Another one that ends at the next hop: `Keep-Alive`, `Proxy-Connection`, `Proxy-Authorization`,
    /// `HTTP2-Settings` (RFC 9110 7.6.1, 11.7).
    HopByHop,
    /// `Host` (RFC 9110 7.2).
    Host,
    /// `Content-Length` (RFC 9110 8.6).
    ContentLength,
    /// `Expect` (RFC 9110 10.1.1).
    Expect,
    /// `Date` (RFC 9110 6.6.1).
    Date,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `X-Real-IP`.
    RealIp,
    /// Another one in which proxies tell who the client is: `Forwarded` (RFC 7239), `X-Forwarded-*`.
    AboutClient,
    /// One in which they tell what certificate it has: `Client-Cert`, `Client-Cert-Chain` (RFC 9440), `X-SSL-Client*`.
    AboutCertificate,
}

impl Known {
    /// What a field of this name is; the name is a token. Length and first letter tell most others apart without a look
    /// at the rest.
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        match (name.len(), first.to_ascii_lowercase()) {
            (2, b't') if is(name, b"te") => Self::Te,
            (4, b'h') if is(name, b"host") => Self::Host,
            (4, b'd') if is(name, b"date") => Self::Date,
            (6, b'e') if is(name, b"expect") => Self::Expect,
            (7, b'u') if is(name, b"upgrade") => Self::Upgrade,
            (9, b'x') if is(name, b"x-real-ip") => Self::RealIp,
            (9, b'f') if is(name, b"forwarded") => Self::AboutClient,
            (10, b'c') if is(name, b"connection") => Self::Connection,
            (10, b'k') if is(name, b"keep-alive") => Self::HopByHop,
            (11, b'c') if is(name, b"client-cert") => Self::AboutCertificate,
            (14, b'c') if is(name, b"content-length") => Self::ContentLength,
            (14, b'h') if is(name, b"http2-settings") => Self::HopByHop,
            (15, b'x') if is(name, b"x-forwarded-for") => Self::ForwardedFor,
            (16, b'p') if is(name, b"proxy-connection") => Self::HopByHop,
            (17, b't') if is(name, b"transfer-encoding") => Self::TransferEncoding,
            (17, b'c') if is(name, b"client-cert-chain") => Self::AboutCertificate,
            (17, b'x') if is(name, b"x-forwarded-proto") => Self::ForwardedProto,
            (19, b'p') if is(name, b"proxy-authorization") => Self::HopByHop,
            (12.., b'x') => Self::by_beginning(name),
            _ => Self::Other,
        }
    }

    fn by_beginning(name: &[u8]) -> Self {
        match name.first_chunk::<12>() {
            Some(beginning) if is(beginning, b"x-forwarded-") => Self::AboutClient,
            Some(beginning) if is(beginning, b"x-ssl-client") => Self::AboutCertificate,
            _ => Self::Other,
        }
    }

    /// Whether it ends at the next hop, named in Connection or not.
    pub fn is_hop_by_hop(self) -> bool {
        matches!(self, Self::Connection | Self::Te | Self::TransferEncoding | Self::Upgrade | Self::HopByHop)
    }

    /// Whether it says how the content is framed.
    pub fn is_framing(self) -> bool {
        matches!(self, Self::ContentLength | Self::TransferEncoding)
    }

    /// Whether proxies tell in it who the client is, or what certificate it has.
    pub fn is_about_client(self) -> bool {
        matches!(
            self,
            Self::ForwardedFor
                | Self::ForwardedProto
                | Self::RealIp
                | Self::AboutClient
                | Self::AboutCertificate
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_known_whatever_their_case() {
        for (name, known) in [
            ("te", Known::Te),
            ("host", Known::Host),
            ("date", Known::Date),
            ("expect", Known::Expect),
            ("upgrade", Known::Upgrade),
            ("forwarded", Known::AboutClient),
            ("x-real-ip", Known::RealIp),
            ("connection", Known::Connection),
            ("keep-alive", Known::HopByHop),
            ("client-cert", Known::AboutCertificate),
            ("client-cert-chain", Known::AboutCertificate),
            ("x-ssl-client", Known::AboutCertificate),
            ("x-ssl-client-verify", Known::AboutCertificate),
            ("content-length", Known::ContentLength),
            ("http2-settings", Known::HopByHop),
            ("x-forwarded-", Known::AboutClient),
            ("x-forwarded-by", Known::AboutClient),
            ("x-forwarded-for", Known::ForwardedFor),
            ("x-forwarded-host", Known::AboutClient),
            ("x-forwarded-proto", Known::ForwardedProto),
            ("x-forwarded-client-cert", Known::AboutClient),
            ("proxy-connection", Known::HopByHop),
            ("proxy-authorization", Known::HopByHop),
            ("transfer-encoding", Known::TransferEncoding),
        ] {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
            assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), known, "{name}");
            for other in [format!("a{name}"), name.replace('-', "_") + "_"] {
                assert!(!Known::of(other.as_bytes()).is_hop_by_hop(), "{other}");
            }
        }
        for name in [
            "",
            "x",
            "etag",
            "server",
            "x-real-ips",
            "x-forwarded",
            "content-type",
            "accept-encoding",
            "x_forwarded_for",
        ] {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name}");
        }
    }
}
