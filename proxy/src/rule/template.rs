//! Texts with variables, in the notation and with the names of nginx: `https://$host$request_uri`. `$$` is a dollar.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::message::{ClientCertificate, RequestHead};

/// What the variables stand for.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The request.
    pub head: &'a RequestHead,
    /// Path and query as the client sent them.
    pub asked: &'a str,
    /// The normalised host, without port.
    pub host: &'a str,
    /// The normalised path.
    pub path: &'a str,
    /// The client, behind proxies that are trusted.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Whether the request came over TLS.
    pub https: bool,
    /// Name the client asked for in the TLS handshake.
    pub sni: Option<&'a str>,
    /// The certificate that the client has shown.
    pub certificate: Option<&'a ClientCertificate>,
    /// The name the client has proven to have.
    pub user: Option<&'a str>,
    /// What became of the request; none before there is a response.
    pub answered: Option<Answered>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// Status of the response.
    pub status: u16,
    /// The RS that answered; none where the proxy did.
    pub server: Option<SocketAddr>,
}

/// What the values of variables must not bring into a text: they are the client's, the text is the operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// For header fields and plain text: line ends and NUL are left out.
    Controls,
    /// For URLs: whatever may not stand there is percent-encoded (RFC 3986 2.1).
    Url,
    /// For HTML: characters that are markup become references.
    Html,
}

impl Escape {
    /// Escapes what `out` holds from `start` on.
    fn apply(self, out: &mut Vec<u8>, start: usize) {
        let harmless = |byte: &u8| match self {
            Self::Controls => !matches!(byte, b'\r' | b'\n' | 0),
            Self::Url => byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\'),
            Self::Html => !matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\''),
        };
        if out.get(start..).unwrap_or_default().iter().all(harmless) {
            return;
        }
        for byte in out.split_off(start) {
            match self {
                _ if harmless(&byte) => out.push(byte),
                Self::Controls => {}
                // Writing to a vector cannot fail.
                Self::Url => drop(write!(out, "%{byte:02X}")),
                Self::Html => drop(write!(out, "&#{byte};")),
            }
        }
    }
}

/// A text with variables, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// A capture of the regular expression this text belongs to.
    Capture(usize),
    Variable(Variable),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Variable {
    Host,
    HttpHost,
    Scheme,
    Uri,
    RequestUri,
    Args,
    IsArgs,
    Method,
    Client,
    Peer,
    PeerPort,
    ServerName,
    Certificate(OfCertificate),
    User,
    Status,
    Upstream,
    Header(Box<str>),
    Query(Box<str>),
    Cookie(Box<str>),
}

/// What is told about the client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OfCertificate {
    Verify,
    Subject,
    Issuer,
    Serial,
    Fingerprint,
    Start,
    End,
    EscapedPem,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name that stands for nothing.
    #[error(
        "there is no variable `${0}`: known are $host, $http_host, $scheme, $uri, $request_uri, $args, $is_args, \
         $request_method, $remote_addr, $realip_remote_addr, $realip_remote_port, $ssl_server_name, \
         $ssl_client_verify, $ssl_client_s_dn, $ssl_client_i_dn, $ssl_client_serial, $ssl_client_fingerprint, \
         $ssl_client_v_start, $ssl_client_v_end, $ssl_client_escaped_cert, $remote_user, $status, $upstream_addr, $http_NAME, $arg_NAME, $cookie_NAME"
    )]
    Unknown(String),
    /// A capture that the regular expression does not have.
    #[error("`${0}` is no capture of the regular expression: it has {1}")]
    Capture(usize, usize),
}

impl Template {
    /// Reads a text. `captures` is the number of groups of the regular expression whose captures `$1` to `$9` stand for.
    ///
    /// # Errors
    /// Where a variable is not known or a capture does not exist.
    pub fn parse(text: &str, captures: usize) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            let (before, from) = rest.split_at(dollar);
            push_text(&mut parts, before);
            let after = &from[1..];
            if let Some(after) = after.strip_prefix('$') {
                push_text(&mut parts, "$");
                rest = after;
                continue;
            }
            if let Some(digit) = after.bytes().next().filter(u8::is_ascii_digit) {
                let number = usize::from(digit - b'0');
                if number > captures || number == 0 {
                    return Err(TemplateError::Capture(number, captures));
                }
                parts.push(Part::Capture(number));
                rest = &after[1..];
                continue;
            }
            let length =
                after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
            let (name, after) = after.split_at(length);
            match name {
                "" => push_text(&mut parts, "$"),
                _ => parts.push(Part::Variable(
                    Variable::named(name).ok_or_else(|| TemplateError::Unknown(name.to_owned()))?,
                )),
            }
            rest = after;
        }
        push_text(&mut parts, rest);
        Ok(Self(parts.into()))
    }

    /// The text, where it has no variables.
    pub fn constant(&self) -> Option<&str> {
        match &*self.0 {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text in front of the first variable.
    pub fn beginning(&self) -> &str {
        match self.0.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The text. Variables without a value are empty.
    pub fn render(
        &self,
        facts: &Facts<'_>,
        captures: Option<&regex::Captures<'_>>,
        escape: Escape,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.0 {
            let start = out.len();
            match part {
                Part::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    continue;
                }
                Part::Capture(number) => {
                    if let Some(found) = captures.and_then(|captures| captures.get(*number)) {
                        out.extend_from_slice(found.as_str().as_bytes());
                    }
                }
                Part::Variable(variable) => variable.render(facts, &mut out),
            }
            escape.apply(&mut out, start);
        }
        out
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(last)) => *last = format!("{last}{text}").into(),
        _ => parts.push(Part::Text(text.into())),
    }
}

impl Variable {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "host" => Self::Host,
            "http_host" => Self::HttpHost,
            "scheme" => Self::Scheme,
            "uri" => Self::Uri,
            "request_uri" => Self::RequestUri,
            "args" | "query_string" => Self::Args,
            "is_args" => Self::IsArgs,
            "request_method" => Self::Method,
            "remote_addr" => Self::Client,
            "realip_remote_addr" => Self::Peer,
            "realip_remote_port" => Self::PeerPort,
            "ssl_server_name" => Self::ServerName,
            "ssl_client_verify" => Self::Certificate(OfCertificate::Verify),
            "ssl_client_s_dn" => Self::Certificate(OfCertificate::Subject),
            "ssl_client_i_dn" => Self::Certificate(OfCertificate::Issuer),
            "ssl_client_serial" => Self::Certificate(OfCertificate::Serial),
            "ssl_client_fingerprint" => Self::Certificate(OfCertificate::Fingerprint),
            "ssl_client_v_start" => Self::Certificate(OfCertificate::Start),
            "ssl_client_v_end" => Self::Certificate(OfCertificate::End),
            "ssl_client_escaped_cert" => Self::Certificate(OfCertificate::EscapedPem),
            "remote_user" => Self::User,
            "status" => Self::Status,
            "upstream_addr" => Self::Upstream,
            _ => {
                let (kind, of) = name.split_once('_').filter(|(_, of)| !of.is_empty())?;
                match kind {
                    "http" => Self::Header(of.replace('_', "-").into()),
                    "arg" => Self::Query(of.into()),
                    "cookie" => Self::Cookie(of.into()),
                    _ => return None,
                }
            }
        })
    }

    fn render(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        let query = || facts.asked.split_once('?').map(|(_, query)| query);
        // Writing to a vector cannot fail.
        let mut shown = |value: &dyn std::fmt::Display| drop(write!(out, "{value}"));
        let text: &[u8] = match self {
            Self::Host => facts.host.as_bytes(),
            Self::HttpHost => facts.head.authority.as_bytes(),
            Self::Scheme if facts.https => b"https",
            Self::Scheme => b"http",
            Self::Uri => facts.path.as_bytes(),
            Self::RequestUri => facts.asked.as_bytes(),
            Self::Args => query().unwrap_or_default().as_bytes(),
            Self::IsArgs => query().map_or(b"", |_| b"?"),
            Self::Method => facts.head.method.as_str().as_bytes(),
            Self::Client => return shown(&facts.client.to_canonical()),
            Self::Peer => return shown(&facts.peer.ip().to_canonical()),
            Self::PeerPort => return shown(&facts.peer.port()),
            Self::ServerName => facts.sni.unwrap_or_default().as_bytes(),
            Self::Certificate(what) => return what.render(facts, out),
            Self::User => facts.user.unwrap_or_default().as_bytes(),
            Self::Status => return facts.answered.map_or((), |answered| shown(&answered.status)),
            Self::Upstream => match facts.answered.and_then(|answered| answered.server) {
                Some(server) => return shown(&server),
                None => b"",
            },
            Self::Header(name) => facts.head.headers.get(name).unwrap_or_default(),
            Self::Query(name) => parameter(facts.asked, name).unwrap_or_default().as_bytes(),
            Self::Cookie(name) => cookie(facts.head, name).unwrap_or_default(),
        };
        out.extend_from_slice(text);
    }
}

impl OfCertificate {
    fn render(self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        let text = match (self, facts.certificate) {
            (Self::Verify, Some(_)) => "SUCCESS",
            (Self::Verify, None) if facts.https => "NONE",
            (_, None) => "",
            (Self::Subject, Some(certificate)) => &certificate.subject,
            (Self::Issuer, Some(certificate)) => &certificate.issuer,
            (Self::Serial, Some(certificate)) => &certificate.serial,
            (Self::Fingerprint, Some(certificate)) => &certificate.fingerprint,
            (Self::Start, Some(certificate)) => &certificate.not_before,
            (Self::End, Some(certificate)) => &certificate.not_after,
            (Self::EscapedPem, Some(certificate)) => {
                return out.extend_from_slice(certificate.escaped_pem().as_bytes());
            }
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// The value of the first parameter of this name in the query of a target, as it is written there.
pub(super) fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// The value of the first cookie of this name (RFC 6265 5.4), as it is written there.
pub fn cookie<'a>(head: &'a RequestHead, name: &str) -> Option<&'a [u8]> {
    let pairs = head.headers.get_all("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::conditions::tests::head;

    fn rendered(text: &str, escape: Escape) -> String {
        let mut head = head("GET", "/a%20b?x=1&y", "Cookie: s=1; t=2=3\nX-One-Two: v\nEvil: a \"b'&\\#é");
        head.authority = "A.test:8443".into();
        let certificate = ClientCertificate {
            subject: "CN=ann".into(),
            issuer: "CN=CA".into(),
            serial: "0A".into(),
            fingerprint: "ab".into(),
            not_before: "then".into(),
            not_after: "later".into(),
            base64: "AA+=".into(),
        };
        let facts = Facts {
            head: &head,
            asked: &head.target,
            host: "a.test",
            path: "/a%20b",
            client: "192.0.2.7".parse().unwrap(),
            peer: "[::ffff:10.0.0.1]:4000".parse().unwrap(),
            https: true,
            sni: None,
            certificate: Some(&certificate),
            user: Some("ann"),
            answered: Some(Answered { status: 200, server: Some("10.0.0.9:80".parse().unwrap()) }),
        };
        String::from_utf8(Template::parse(text, 0).unwrap().render(&facts, None, escape)).unwrap()
    }

    #[test]
    fn every_variable() {
        for (text, expected) in [
            ("$scheme://$host$request_uri", "https://a.test/a%20b?x=1&y"),
            ("$http_host|$uri|$args|$query_string|$is_args", "A.test:8443|/a%20b|x=1&y|x=1&y|?"),
            ("$request_method $remote_addr", "GET 192.0.2.7"),
            ("$realip_remote_addr:$realip_remote_port", "10.0.0.1:4000"),
            ("[$ssl_server_name]", "[]"),
            ("$ssl_client_verify $ssl_client_s_dn $ssl_client_i_dn", "SUCCESS CN=ann CN=CA"),
            ("$ssl_client_serial $ssl_client_fingerprint", "0A ab"),
            ("$ssl_client_v_start $ssl_client_v_end", "then later"),
            (
                "$ssl_client_escaped_cert",
                "-----BEGIN%20CERTIFICATE-----%0AAA%2B%3D%0A-----END%20CERTIFICATE-----%0A",
            ),
            ("$remote_user", "ann"),
            ("$status $upstream_addr", "200 10.0.0.9:80"),
            ("$http_x_one_two,$http_none", "v,"),
            ("$arg_x,$arg_y,$arg_z", "1,,"),
            ("$cookie_s,$cookie_t,$cookie_u", "1,2=3,"),
            ("cost: 5$, $$host $", "cost: 5$, $host $"),
        ] {
            assert_eq!(rendered(text, Escape::Controls), expected, "{text}");
        }
    }

    #[test]
    fn values_bring_nothing_with_them() {
        for (escape, expected) in [
            (Escape::Controls, "<i>a \"b'&\\#é"),
            (Escape::Url, "<i>a%20%22b'&%5C%23%C3%A9"),
            (Escape::Html, "<i>a &#34;b&#39;&#38;\\#é"),
        ] {
            assert_eq!(rendered("<i>$http_evil", escape), expected);
        }
    }

    #[test]
    fn what_is_no_template() {
        assert_eq!(Template::parse("$hots", 0), Err(TemplateError::Unknown("hots".into())));
        assert_eq!(Template::parse("$cookie_", 0), Err(TemplateError::Unknown("cookie_".into())));
        assert_eq!(Template::parse("$2", 1), Err(TemplateError::Capture(2, 1)));
        assert_eq!(Template::parse("plain", 0).unwrap().constant(), Some("plain"));
        assert_eq!(Template::parse("https://$host", 0).unwrap().beginning(), "https://");
    }
}
