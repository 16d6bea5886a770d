//! Fields of messages into blocks (RFC 7541 3 and 6). Fast first: a field is looked up by its name once,
//! what repeats on a connection becomes one octet, and strings are written without Huffman code.

use super::{
    DEFAULT_TABLE_SIZE,
    known::{self, Values},
    table::{FIRST_DYNAMIC, Table, entry_size, static_field},
};
use crate::field::integer;

/// Longest value that is kept: it would take the place of several others.
const LONGEST_KEPT: usize = 128;

/// How many of the newest entries are found again; the table has room for few more.
const MARKS: usize = 64;

/// How many entries of one hash slot are looked at.
const MOST_LOOKS: usize = 8;

/// First octets of a literal (RFC 7541 6.2) and a size update (6.3), and the bits that are left for a number.
const WITH_INDEXING: (u8, u32) = (0x40, 6);
const WITHOUT_INDEXING: (u8, u32) = (0x00, 4);
const NEVER_INDEXED: (u8, u32) = (0x10, 4);
const INDEXED: (u8, u32) = (0x80, 7);
const SIZE_UPDATE: (u8, u32) = (0x20, 5);

/// Index of `:status: 200`, the first of that name.
const STATUS: usize = 8;
/// Indices of `:authority`, of `:method: GET` before POST, of `:path: /`, and of `:scheme: http` before https.
const AUTHORITY: usize = 1;
const METHOD: usize = 2;
const PATH: usize = 4;
const SCHEME: usize = 6;

/// Encodes the blocks of one connection, which are sent in that order and each as a whole.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// How many entries were ever made, modulo 2^32. The number of an entry is that count then.
    made: u32,
    /// By the number modulo their count.
    marks: [Mark; MARKS],
    /// The newest entry of each hash slot.
    newest: [u32; MARKS],
    /// What the peer allowed since the last block, if that changes something: the least, and now.
    limits: Option<(usize, usize)>,
}

/// What is remembered of an entry to find it.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    hash: u32,
    /// The number of the entry that was the newest of the slot before.
    older: u32,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// For a peer that has not said anything about its table yet.
    pub fn new() -> Self {
        Self {
            table: Table::new(DEFAULT_TABLE_SIZE),
            made: 0,
            marks: [Mark::default(); MARKS],
            newest: [0; MARKS],
            limits: None,
        }
    }

    /// SETTINGS_HEADER_TABLE_SIZE of the peer, which the next block obeys. Of more than
    /// [`DEFAULT_TABLE_SIZE`] only that is used.
    pub fn limit(&mut self, peer_table_size: usize) {
        let now = peer_table_size.min(DEFAULT_TABLE_SIZE);
        let least = self.limits.map_or(self.table.limit(), |(least, _)| least).min(now);
        self.limits = Some((least, now));
    }

    /// Begins a block. Every block has to begin so: it says how the limit changed (RFC 7541 4.2).
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, now)) = self.limits.take() {
            for size in [least, now] {
                if size != self.table.limit() {
                    self.table.resize(size);
                    put(SIZE_UPDATE, size, out);
                }
            }
        }
    }

    /// Appends `:status`, which is the first field of a response. `status` has three digits.
    #[inline]
    pub fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let index = match status {
            200 => STATUS,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                put(WITHOUT_INDEXING, STATUS, out);
                let digit = |number: u16| b'0' + (number % 10) as u8;
                return string(&[digit(status / 100), digit(status / 10), digit(status)], out);
            }
        };
        put(INDEXED, index, out);
    }

    /// Appends the pseudo-header fields of a request, which are its first (RFC 9113 8.3.1). The authority repeats on a
    /// connection, the path does not.
    pub fn request(&mut self, method: &str, scheme: &str, authority: &str, path: &str, out: &mut Vec<u8>) {
        match method {
            "GET" => put(INDEXED, METHOD, out),
            "POST" => put(INDEXED, METHOD + 1, out),
            _ => literal(METHOD, method, out),
        }
        put(INDEXED, if scheme == "https" { SCHEME + 1 } else { SCHEME }, out);
        if !authority.is_empty() {
            self.repeated((":authority", AUTHORITY), authority, out);
        }
        match path {
            "/" => put(INDEXED, PATH, out),
            _ => literal(PATH, path, out),
        }
    }

    /// Appends a field whose name has this index in the static table and whose value is likely to come again.
    fn repeated(&mut self, (name, index): (&str, usize), value: &str, out: &mut Vec<u8>) {
        let (text, bytes) = (name.as_bytes(), value.as_bytes());
        if bytes.len() > LONGEST_KEPT || entry_size(text, bytes) > self.table.limit() {
            return literal(index, value, out);
        }
        match self.find_or_keep(text, bytes) {
            Some(age) => put(INDEXED, FIRST_DYNAMIC + age, out),
            None => {
                put(WITH_INDEXING, index, out);
                string(bytes, out);
            }
        }
    }

    /// Appends a field. The name is written in lower case, whatever it has.
    pub fn encode(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        out.reserve(name.len() + value.len() + 16);
        let Some(known) = known::find(name) else {
            put(WITHOUT_INDEXING, 0, out);
            let length = name.len();
            string(name, out);
            let start = out.len() - length;
            out.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
            return string(value, out);
        };
        let (name, index) = (known.name.as_bytes(), usize::from(known.index));
        let form = match known.values {
            Values::Secret => NEVER_INDEXED,
            _ if static_field(index).is_some_and(|(_, text)| text == value) => {
                return put(INDEXED, index, out);
            }
            Values::Repeat
                if value.len() <= LONGEST_KEPT && entry_size(name, value) <= self.table.limit() =>
            {
                if let Some(age) = self.find_or_keep(name, value) {
                    return put(INDEXED, FIRST_DYNAMIC + age, out);
                }
                WITH_INDEXING
            }
            _ => WITHOUT_INDEXING,
        };
        put(form, index, out);
        if index == 0 {
            string(name, out);
        }
        string(value, out);
    }

    /// The age of the entry of this field; or there was none and it is made.
    fn find_or_keep(&mut self, name: &[u8], value: &[u8]) -> Option<usize> {
        let hash = hash(name, value);
        let slot = self.newest.get_mut(hash as usize % MARKS)?;
        let mut number = *slot;
        // A number that was forgotten or comes from before a wrap leads nowhere or to another field.
        for _ in 0..MOST_LOOKS {
            let age = self.made.wrapping_sub(number) as usize;
            let mark = self.marks.get(number as usize % MARKS)?;
            if age >= self.table.len().min(MARKS) {
                break;
            }
            if mark.hash == hash && self.table.get(age) == Some((name, value)) {
                return Some(age);
            }
            number = mark.older;
        }
        self.table.insert(name, value);
        self.made = self.made.wrapping_add(1);
        let mark = self.marks.get_mut(self.made as usize % MARKS)?;
        *mark = Mark { hash, older: *slot };
        *slot = self.made;
        None
    }
}

/// Appends a number with a form.
#[inline]
fn put((flags, prefix): (u8, u32), number: usize, out: &mut Vec<u8>) {
    integer::put(number, prefix, flags, out);
}

/// Appends a field with a name of the static table that no table keeps.
#[inline]
fn literal(name: usize, value: &str, out: &mut Vec<u8>) {
    put(WITHOUT_INDEXING, name, out);
    string(value.as_bytes(), out);
}

/// Appends a string as it is.
#[inline]
fn string(text: &[u8], out: &mut Vec<u8>) {
    integer::put(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}

/// A hash of a field that is known by name: the length of the name and the value, eight bytes at a time.
/// Values that collide are told apart by comparing them, and at most [`MOST_LOOKS`] times.
#[inline]
fn hash(name: &[u8], value: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (words, rest) = value.as_chunks::<8>();
    let mut hash = words
        .iter()
        .fold((name.len() << 8 | value.len()) as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let last = match value.last_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => rest.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    hash = mix(hash, last);
    (hash ^ hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;

    fn encoded(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in fields {
            encoder.encode(name.as_bytes(), value.as_bytes(), &mut out);
        }
        out
    }

    #[test]
    fn forms() {
        for (name, value, first, again) in [
            ("Age", "", &[0x95][..], &[0x95][..]),
            ("accept-encoding", "gzip, deflate", &[0x90], &[0x90]),
            ("age", "1", b"\x0f\x06\x011", b"\x0f\x06\x011"),
            ("Content-Length", "12", b"\x0f\x0d\x0212", b"\x0f\x0d\x0212"),
            ("X-Own", "a", b"\x00\x05x-own\x01a", b"\x00\x05x-own\x01a"),
            ("Server", "a", b"\x76\x01a", &[0xbe]),
            ("X-Powered-By", "a", b"\x40\x0cx-powered-by\x01a", &[0xbe]),
            ("Set-Cookie", "a=b", b"\x1f\x28\x03a=b", b"\x1f\x28\x03a=b"),
            ("set-cookie", "", b"\x1f\x28\x00", b"\x1f\x28\x00"),
            (
                "Authentication-Info",
                "a",
                b"\x10\x13authentication-info\x01a",
                b"\x10\x13authentication-info\x01a",
            ),
        ] {
            let mut encoder = Encoder::default();
            assert_eq!(encoded(&mut encoder, &[(name, value)]), first, "{name}");
            assert_eq!(encoded(&mut encoder, &[(name, value)]), again, "{name}");
        }
        let long = "a".repeat(129);
        let mut encoder = Encoder::new();
        assert_eq!(encoded(&mut encoder, &[("vary", &long)]).len(), 2 + 2 + 129);
        assert_eq!(encoded(&mut encoder, &[("vary", &long[1..])]).len(), 1 + 2 + 128);
        assert_eq!(encoded(&mut encoder, &[("vary", &long[1..])]).len(), 1);
    }

    #[test]
    fn statuses() {
        for status in 100..1000 {
            let mut out = Vec::new();
            Encoder::new().status(status, &mut out);
            let mut found = None;
            let field = |name: &[u8], value: &[u8]| found = Some((name.to_vec(), value.to_vec()));
            Decoder::new(4096).decode(&out, field).unwrap();
            assert_eq!(found, Some((b":status".to_vec(), status.to_string().into_bytes())));
            assert_eq!(out.len(), if [200, 204, 206, 304, 400, 404, 500].contains(&status) { 1 } else { 5 });
        }
    }

    #[test]
    fn size_updates() {
        let mut encoder = Encoder::new();
        encoder.limit(65536);
        assert_eq!(encoded(&mut encoder, &[]), Vec::<u8>::new());
        encoded(&mut encoder, &[("server", "a"), ("via", "b")]);
        encoder.limit(70);
        assert_eq!(encoded(&mut encoder, &[("via", "b"), ("server", "a")]), b"\x3f\x27\xbe\x76\x01a");
        encoder.limit(0);
        encoder.limit(50);
        encoder.limit(4096);
        assert_eq!(encoded(&mut encoder, &[("server", "a")]), b"\x20\x3f\xe1\x1f\x76\x01a");
        encoder.limit(0);
        encoder.limit(4096);
        assert_eq!(encoded(&mut encoder, &[("server", "a")]), b"\x20\x3f\xe1\x1f\x76\x01a");
        encoder.limit(0);
        // Too large for the table: it is not even tried.
        assert_eq!(
            encoded(&mut encoder, &[("server", "a"), ("server", "a")]),
            b"\x20\x0f\x27\x01a\x0f\x27\x01a"
        );
    }

    #[test]
    fn what_repeats_is_found_among_many() {
        let mut encoder = Encoder::new();
        let mut total = 0;
        for second in 0..10_000 {
            let date = format!("date number {second:05}");
            let fields = [("server", "a"), ("vary", "b"), ("date", &date), ("date", &date)];
            let block = encoded(&mut encoder, &fields);
            assert!(block.ends_with(&[0xbe]));
            total += block.len();
        }
        // Only the date is new each time, and the others when 64 dates have come since they were made.
        assert!(total < 10_000 * (3 + 19) + 10_000 / 50 * 4, "{total}");
    }

    /// Any fields, with limits that change: the decoder finds the same.
    #[test]
    fn the_decoder_finds_what_was_encoded() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize % below
        };
        let names = [
            "Server",
            "date",
            "Content-Type",
            "VARY",
            "via",
            "x-own",
            "set-cookie",
            "age",
            "x",
            "x-powered-by",
        ];
        for _ in 0..200 {
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
            let kinds = 1 + random(200);
            for _ in 0..100 {
                for _ in 0..random(3) {
                    encoder.limit([0, 100, 1000, 4096, 10_000][random(5)]);
                }
                let mut out = Vec::new();
                encoder.begin(&mut out);
                let fields: Vec<_> = (0..random(12))
                    .map(|_| {
                        let value = vec![b'a' + random(kinds.min(26)) as u8; random(kinds)];
                        (names[random(names.len())], value)
                    })
                    .collect();
                for (name, value) in &fields {
                    encoder.encode(name.as_bytes(), value, &mut out);
                }
                let mut left = fields.iter();
                let field = |name: &[u8], value: &[u8]| {
                    let (expected, text) = left.next().unwrap();
                    assert_eq!((name, value), (expected.to_lowercase().as_bytes(), &text[..]));
                };
                decoder.decode(&out, field).unwrap();
                assert!(left.next().is_none());
            }
        }
    }
}
