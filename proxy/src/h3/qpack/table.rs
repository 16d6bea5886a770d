//! The static table (RFC 9204 Appendix A).

use std::cmp::Ordering;

/// The entries, from index 0 on.
pub(super) const STATIC: [(&str, &str); 99] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

/// Index of the first `:status`.
pub(super) const STATUS: usize = 24;

/// The indices in the order of their names, and for one name in that of the table.
static BY_NAME: [u8; STATIC.len()] = sorted();

const fn sorted() -> [u8; STATIC.len()] {
    let mut order = [0; STATIC.len()];
    let mut count = 0;
    while count < order.len() {
        let mut place = count;
        while place > 0
            && is_behind(STATIC[order[place - 1] as usize].0.as_bytes(), STATIC[count].0.as_bytes())
        {
            order[place] = order[place - 1];
            place -= 1;
        }
        order[place] = count as u8;
        count += 1;
    }
    order
}

/// Whether a name comes behind another one.
const fn is_behind(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() {
        if one[at] != other[at] {
            return one[at] > other[at];
        }
        at += 1;
    }
    one.len() > other.len()
}

/// Name and value of that index.
pub(super) fn static_field(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    STATIC.get(index).map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

/// The first index of a name in any case.
pub(super) fn find(name: &[u8]) -> Option<usize> {
    let place = BY_NAME.partition_point(|&index| compare(index, name) == Ordering::Less);
    let first = *BY_NAME.get(place)?;
    (compare(first, name) == Ordering::Equal).then_some(first.into())
}

/// An entry's name and a name in any case.
fn compare(index: u8, name: &[u8]) -> Ordering {
    let entry = STATIC.get(usize::from(index)).map_or("", |(name, _)| name);
    entry.bytes().cmp(name.iter().map(u8::to_ascii_lowercase))
}

/// The indices of a name, given the first.
pub(super) fn of_name(first: usize) -> impl Iterator<Item = usize> {
    let name = static_field(first).map(|(name, _)| name);
    let is_same = move |index: &usize| static_field(*index).map(|(name, _)| name) == name;
    (first..STATIC.len()).filter(is_same)
}

/// The index of a status.
pub(super) fn status(status: u16) -> Option<usize> {
    Some(match status {
        103 => STATUS,
        200 => 25,
        304 => 26,
        404 => 27,
        503 => 28,
        100 => 63,
        204 => 64,
        206 => 65,
        302 => 66,
        400 => 67,
        403 => 68,
        421 => 69,
        425 => 70,
        500 => 71,
        _ => return None,
    })
}
