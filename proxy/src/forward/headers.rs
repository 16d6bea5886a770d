//! Which fields pass from one side to the other: hop-by-hop fields end here (RFC 9110 7.6.1), and what the RS is
//! told about the client is true. It never looks at routes and knows no codec. Order matters: everything a
//! client could have forged is removed first and the proxy's own fields are added last, so that no field
//! of the proxy can be named in Connection and taken away.

use std::net::{IpAddr, SocketAddr};
use std::str;

use crate::listener::Connection;
use crate::message::{ClientFields, Headers, Known, RequestHead, ResponseHead, elements, is};
use crate::state::View;

/// Who sends a request, as the listener knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client<'a> {
    /// What is told about the other end of the connection, or about whom the PROXY protocol names.
    pub(crate) told: &'a ClientFields,
    /// Whether what the peer says about clients behind it is believed.
    pub(crate) trusted: bool,
    /// Whether it was asked for a certificate here: then nobody else is believed about that.
    pub(crate) proves: bool,
}

/// Who sends the requests of a connection.
pub(crate) fn client<'a>(view: &View, connection: &'a Connection) -> Client<'a> {
    Client {
        told: &connection.told,
        trusted: view.trusts(connection.peer.ip()),
        proves: connection.proof.is_some(),
    }
}

/// Makes the fields of a request those for the RS. Removed: Connection and what it names, all other
/// hop-by-hop fields, Expect, framing (written anew by the codec), proxy credentials (RFC 9110 11.7.2), and what
/// an untrusted peer says about clients and their certificates (RFC 9440 4), also when spelled with underscores. Added: `TE: trailers` if the
/// client takes them, X-Forwarded-For, X-Forwarded-Proto, X-Real-IP.
///
/// With `upgrade` the offer in Upgrade is passed on (RFC 9110 7.8), except one of `h2c`.
pub(crate) fn request(head: &mut RequestHead, from: &Client<'_>, upgrade: bool) {
    let headers = &mut head.headers;
    let trailers = headers.known(Known::Te).flat_map(elements).any(is_trailers);
    let chain = from.trusted.then(|| forwarded_for(headers)).flatten();
    let named = Named::of(headers);
    let mut offers = false;
    let mut told_scheme = 0_usize;
    let mut told_address = 0_usize;
    headers.retain(|known, name, value| {
        let passes = match known {
            Known::Upgrade => {
                let passes = upgrade && !value.split(|&byte| byte == b',').any(is_h2c);
                offers |= passes;
                return passes;
            }
            Known::Other | Known::Date => !is_look_alike(name),
            Known::ForwardedProto | Known::RealIp => from.trusted,
            Known::AboutClient => from.trusted && !is_look_alike(name),
            Known::AboutCertificate => from.trusted && !from.proves && !is_look_alike(name),
            // X-Forwarded-For and what frames the content are written anew, and so is Expect where the client waits for
            // 100, which is known to the listener (RFC 9110 10.1.1).
            Known::ForwardedFor | Known::Host | Known::ContentLength | Known::Expect => false,
            Known::Connection | Known::Te | Known::TransferEncoding | Known::HopByHop => false,
        };
        let passes = passes && !named.has(name);
        told_scheme += usize::from(passes && known == Known::ForwardedProto);
        told_address += usize::from(passes && known == Known::RealIp);
        passes
    });

    match (offers, trailers) {
        (true, true) => headers.append("Connection", "Upgrade, TE"),
        (true, false) => headers.append("Connection", "Upgrade"),
        (false, true) => headers.append("Connection", "TE"),
        (false, false) => {}
    }
    if trailers {
        headers.append("TE", "trailers");
    }
    if chain.is_none() && told_scheme == 0 && told_address == 0 {
        return headers.append_all(from.told.all());
    }
    let address = from.told.address();
    match chain {
        Some(mut chain) => {
            chain.extend_from_slice(b", ");
            chain.extend_from_slice(address);
            headers.append("X-Forwarded-For", chain);
        }
        None => headers.append("X-Forwarded-For", address),
    }
    tell(headers, "X-Forwarded-Proto", from.told.scheme(), told_scheme);
    tell(headers, "X-Real-IP", address, told_address);
}

/// Adds a field unless a trusted peer has told it. Several values contradict each other and count for nothing.
fn tell(headers: &mut Headers, name: &str, value: &[u8], told: usize) {
    match told {
        0 => headers.append(name, value),
        1 => {}
        _ => headers.set(name, value),
    }
}

/// Makes the fields of a response those for the client: without Connection and what it names, and without other
/// hop-by-hop fields. Content-Length stays, since with HEAD and 304 it is all there is (RFC 9110 8.6), but not with 204,
/// which must not have it; the codec writes its own wherever there is a body. Upgrade stays with 101 alone. Date is the
/// caller's.
pub(crate) fn response(head: &mut ResponseHead) {
    let named = Named::of(&head.headers);
    let switching = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
    let mut switched = false;
    head.headers.retain(|known, name, value| {
        if known == Known::Upgrade {
            let passes = switching && !value.split(|&byte| byte == b',').any(is_h2c);
            switched |= passes;
            return passes;
        }
        !known.is_hop_by_hop() && !named.has(name)
    });
    if switched {
        head.headers.append("Connection", "Upgrade");
    }
    if head.status == http::StatusCode::NO_CONTENT {
        head.headers.remove("content-length");
    }
}

/// Makes the fields of an interim response those for the client. It has no content, whatever it says (RFC 9110 8.6).
pub(crate) fn interim(head: &mut ResponseHead) {
    response(head);
    head.headers.remove("content-length");
}

/// The client as it is logged and limited: the nearest address that is not trusted, walking X-Forwarded-For from
/// right to left, since each hop vouches only for the one before it. What cannot be read ends the walk, and
/// so do 32 hops: the answer is then the last address somebody trusted has vouched for.
pub(crate) fn client_address(headers: &Headers, peer: IpAddr, trusted: &dyn Fn(IpAddr) -> bool) -> IpAddr {
    const MOST_HOPS: usize = 32;
    let mut address = peer.to_canonical();
    if !trusted(address) {
        return address;
    }
    let lines = headers.known(Known::ForwardedFor).count();
    // Each line needs a walk over the fields: no more lines than hops.
    let lines =
        (0..lines).rev().take(MOST_HOPS).filter_map(|line| headers.known(Known::ForwardedFor).nth(line));
    let hops = lines.flat_map(|line| line.rsplit(|&byte| byte == b','));
    for hop in hops.take(MOST_HOPS) {
        if !trusted(address) {
            break;
        }
        let Some(next) = parse_address(hop.trim_ascii()) else { break };
        address = next;
    }
    address
}

/// The fields named in Connection, without those that are never meant by it.
struct Named(Vec<u8>);

impl Named {
    /// Allocates only when there is a name beyond the usual ones.
    fn of(headers: &Headers) -> Self {
        let mut names = Vec::new();
        for value in headers.known(Known::Connection) {
            if is(value, b"keep-alive") || is(value, b"close") {
                continue;
            }
            for name in elements(value) {
                if !is(name, b"close") && !Known::of(name).is_hop_by_hop() && !is_end_to_end(name) {
                    names.extend_from_slice(name);
                    names.push(b',');
                }
            }
        }
        Self(names)
    }

    fn has(&self, name: &[u8]) -> bool {
        !self.0.is_empty() && self.0.split(|&byte| byte == b',').any(|named| named.eq_ignore_ascii_case(name))
    }
}

/// Fields that concern the two ends. A peer that names them in Connection wants the other end not to see them.
fn is_end_to_end(name: &[u8]) -> bool {
    const FIELDS: [&str; 11] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "host",
        "origin",
        "set-cookie",
        "strict-transport-security",
    ];
    Known::of(name).is_about_client() || FIELDS.iter().any(|field| is(name, field.as_bytes()))
}

/// With an underscore, a name means the same to every RS that hands fields on as variables (RFC 3875 4.1.18).
fn is_look_alike(name: &[u8]) -> bool {
    const LONGEST: usize = 32;
    if !name.contains(&b'_') {
        return false;
    }
    let mut hyphens = [0; LONGEST];
    let Some(hyphens) = hyphens.get_mut(..name.len()) else {
        return name.get(..12).is_some_and(is_look_alike);
    };
    for (to, &from) in hyphens.iter_mut().zip(name) {
        *to = if from == b'_' { b'-' } else { from };
    }
    let known = Known::of(hyphens);
    known.is_about_client() || known.is_hop_by_hop() || matches!(known, Known::Host | Known::ContentLength)
}

/// `trailers` among the codings in TE (RFC 9110 10.1.4).
fn is_trailers(element: &[u8]) -> bool {
    element.split(|&byte| byte == b';').next().is_some_and(|name| is(name.trim_ascii(), b"trailers"))
}

fn is_h2c(protocol: &[u8]) -> bool {
    is(protocol.trim_ascii(), b"h2c")
}

/// All X-Forwarded-For as one value; `None` when there is none or nothing in them.
fn forwarded_for(headers: &Headers) -> Option<Vec<u8>> {
    let mut chain = Vec::new();
    for value in headers.known(Known::ForwardedFor).filter(|value| !value.is_empty()) {
        if !chain.is_empty() {
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(value);
    }
    (!chain.is_empty()).then_some(chain)
}

/// An address as proxies write it: with or without brackets, with or without a port.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address =
        bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip())).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(address: &str) -> &'static ClientFields {
        Box::leak(Box::new(ClientFields::of(address.parse().unwrap(), true)))
    }

    fn peer() -> Client<'static> {
        Client { told: told("192.0.2.1"), trusted: false, proves: false }
    }

    fn trusted() -> Client<'static> {
        Client { trusted: true, ..peer() }
    }

    fn lines(headers: &Headers) -> String {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        headers.iter().map(|(name, value)| text(name) + ": " + &text(value) + "\n").collect()
    }

    fn headers(text: &str) -> Headers {
        let mut headers = Headers::new();
        for line in text.lines() {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            headers.append(name, value);
        }
        headers
    }

    fn requested(text: &str, from: &Client<'_>, upgrade: bool) -> String {
        let mut head = RequestHead { headers: headers(text), ..RequestHead::default() };
        request(&mut head, from, upgrade);
        lines(&head.headers)
    }

    fn responded(status: u16, text: &str) -> String {
        let mut head = ResponseHead::new(http::StatusCode::from_u16(status).unwrap());
        head.headers = headers(text);
        response(&mut head);
        lines(&head.headers)
    }

    const OWN: &str = "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: https\nX-Real-IP: 192.0.2.1\n";

    #[test]
    fn hop_by_hop_fields_end_here() {
        for text in [
            "",
            "Connection: keep-alive, x-Own\nKeep-Alive: 5\nX-OWN: 1\nProxy-Connection: close\nTransfer-Encoding: chunked",
            "Connection: x-a\nConnection: x-b,,\nX-A: 1\nX-B: 2\nContent-Length: 5\nTE: gzip\nHost: a",
            "Proxy-Authorization: x\nUpgrade: websocket\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: x",
        ] {
            assert_eq!(requested(text, &peer(), false), OWN, "{text}");
        }
    }

    #[test]
    fn a_client_cannot_have_fields_taken_away() {
        let kept = "Authorization: a\nCookie: b\nContent-Type: c\n";
        let text = format!(
            "{kept}Connection: Authorization, cookie, X-Real-IP, X-Forwarded-For, Content-Type, Host"
        );
        assert_eq!(requested(&text, &peer(), false), format!("{kept}{OWN}"));
        let text =
            "X-Forwarded-For: 198.51.100.1\nConnection: x-forwarded-for, x-real-ip\nX-Real-IP: 198.51.100.1";
        assert!(requested(text, &trusted(), false).contains("X-Forwarded-For: 198.51.100.1, 192.0.2.1\n"));
    }

    #[test]
    fn nobody_untrusted_says_who_the_client_is() {
        let text = "X-Forwarded-For: 1.1.1.1\nx-forwarded-proto: http\nX-REAL-IP: 1.1.1.1\nForwarded: for=1.1.1.1\n\
                    X-Forwarded-Host: a\nX_Forwarded_For: 1.1.1.1\nX-Real_IP: 1.1.1.1\nContent_Length: 4\n\
                    Transfer_Encoding: chunked\nX_Forwarded-something-longer-than-any-name-there-is: a\nX_Other: 1";
        assert_eq!(requested(text, &peer(), false), format!("X_Other: 1\n{OWN}"));
    }

    #[test]
    fn a_trusted_peer_is_believed() {
        let text = "X-Forwarded-For: 1.1.1.1\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\nX-Forwarded-Proto: http\nX-Real-IP: 1.1.1.1\n\
                    X-Forwarded-Host: a\nX_Forwarded_For: 4.4.4.4";
        assert_eq!(
            requested(text, &trusted(), false),
            "X-Forwarded-Proto: http\nX-Real-IP: 1.1.1.1\nX-Forwarded-Host: a\n\
             X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.1\n"
        );
        assert_eq!(requested("X-Real-IP: 1.1.1.1\nX-Real-IP: 2.2.2.2", &trusted(), false), OWN);
        let mapped = Client { told: told("::ffff:192.0.2.1"), ..peer() };
        assert_eq!(requested("", &mapped, false), OWN);
        let longest = "1111:2222:3333:4444:5555:6666:7777:8888";
        let longest = requested("", &Client { told: told(longest), ..peer() }, false);
        assert!(longest.contains("X-Real-IP: 1111:2222:3333:4444:5555:6666:7777:8888\n"));
    }

    #[test]
    fn nobody_says_what_certificate_a_client_has() {
        let text = "Client-Cert: :AA==:\nclient-cert-chain: :AA==:\nX-SSL-Client-Verify: SUCCESS\nx-ssl-client-s-dn: CN=a\n\
                    X_SSL_Client_Verify: SUCCESS\nX-SSL_CLIENT-Something-that-is-longer-than-any-of-ours: a\nClient_Cert: :AA==:\n\
                    X-SSL-Client: 1\nClient-Certificate: mine\nX-SSL: 1\n\
                    Connection: X-SSL-Client-Verify";
        let own = "Client-Certificate: mine\nX-SSL: 1\n";
        assert_eq!(requested(text, &peer(), false), format!("{own}{OWN}"));
        assert_eq!(requested(text, &Client { proves: true, ..trusted() }, false), format!("{own}{OWN}"));
        let passed = requested(text, &trusted(), false);
        assert!(
            passed.starts_with(
                "Client-Cert: :AA==:\nclient-cert-chain: :AA==:\nX-SSL-Client-Verify: SUCCESS\n"
            ),
            "{passed}"
        );
        assert!(!passed.contains('_'), "{passed}");
    }

    #[test]
    fn trailers_and_upgrades_are_made_anew() {
        let text = "TE: gzip;q=1, Trailers\nConnection: TE";
        assert_eq!(requested(text, &peer(), false), format!("Connection: TE\nTE: trailers\n{OWN}"));
        let text = "Connection: upgrade\nUpgrade: websocket";
        assert_eq!(requested(text, &peer(), true), format!("Upgrade: websocket\nConnection: Upgrade\n{OWN}"));
        for text in ["Connection: upgrade\nUpgrade: h2c", "Connection: upgrade\nUpgrade: websocket, H2C", ""]
        {
            assert_eq!(requested(text, &peer(), true), OWN);
        }
    }

    #[test]
    fn responses() {
        let text = "Connection: close, x-own, set-cookie\nX-Own: 1\nSet-Cookie: a\nContent-Length: 5\nUpgrade: h2\nKeep-Alive: 3";
        assert_eq!(responded(200, text), "Set-Cookie: a\nContent-Length: 5\n");
        let text = "Connection: Upgrade\nUpgrade: websocket\nTransfer-Encoding: chunked";
        assert_eq!(responded(101, text), "Upgrade: websocket\nConnection: Upgrade\n");
        assert_eq!(responded(426, text), "");
    }

    #[test]
    fn the_client_is_the_nearest_that_is_not_trusted() {
        let trusted = |address: IpAddr| {
            matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10) || address.is_loopback()
        };
        let many = format!("X-Forwarded-For: 9.9.9.9{}", ", 10.0.0.9".repeat(40));
        let lines = format!("X-Forwarded-For: 9.9.9.9\n{}", "X-Forwarded-For: 10.0.0.9\n".repeat(40));
        for (peer, text, client) in [
            ("192.0.2.1", "X-Forwarded-For: 1.1.1.1", "192.0.2.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For: 1.1.1.1", "1.1.1.1"),
            ("::ffff:10.0.0.1", "X-Forwarded-For: 1.1.1.1, 2.2.2.2 , 10.0.0.2", "2.2.2.2"),
            ("10.0.0.1", "X-Forwarded-For: 1.1.1.1\nX-Forwarded-For: 10.0.0.2", "1.1.1.1"),
            ("10.0.0.1", "X-Forwarded-For: 1.1.1.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "X-Forwarded-For: 1.1.1.1, ", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For: 1.1.1.1:80", "1.1.1.1"),
            ("::1", "X-Forwarded-For: [2001:db8::1]:80", "2001:db8::1"),
            ("::1", "X-Forwarded-For: [2001:db8::1]", "2001:db8::1"),
            ("::1", "X-Forwarded-For: 2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", &many, "10.0.0.9"),
            ("10.0.0.1", &lines, "10.0.0.9"),
        ] {
            let address = client_address(&headers(text), peer.parse().unwrap(), &trusted);
            assert_eq!(address, client.parse::<IpAddr>().unwrap(), "{text}");
        }
    }
}
