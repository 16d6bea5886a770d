//! The two tables a field is looked up in by its index (RFC 7541 2.3): the static one, and the dynamic one
//! that both sides keep in step. Text is kept in one buffer, so that an entry costs no allocation.

use std::collections::VecDeque;

/// What an entry counts beside its text (RFC 7541 4.1).
pub(super) const OVERHEAD: usize = 32;

/// The index of the newest entry of a dynamic table.
pub(super) const FIRST_DYNAMIC: usize = STATIC.len() + 1;

/// The static table, from index 1 on (RFC 7541 Appendix A).
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The field of that index in the static table.
#[inline]
pub(super) fn static_field(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    static TABLE: [(&str, &str); 61] = STATIC;
    let (name, value) = TABLE.get(index.wrapping_sub(1))?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// A dynamic table. Its buffer is at most about twice as large as the table may be.
#[derive(Debug)]
pub(super) struct Table {
    /// The oldest in front.
    entries: VecDeque<Entry>,
    /// The text of all entries in their order, name and value; in front of it that of some that are gone.
    text: Vec<u8>,
    /// How much was cut off the front of `text` so far.
    cut: usize,
    size: usize,
    limit: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where the text begins, counted with what was cut off.
    start: usize,
    name: usize,
    value: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), text: Vec::new(), cut: 0, size: 0, limit }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Sets the size, and drops the oldest entries beyond it (RFC 7541 4.3).
    pub(super) fn resize(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink(limit);
    }

    /// An entry by its age, 0 for the newest.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(self.entries.len().wrapping_sub(age).wrapping_sub(1))?;
        let text = self.text.get(entry.start.wrapping_sub(self.cut)..)?;
        text.get(..entry.name + entry.value)?.split_at_checked(entry.name)
    }

    /// Adds an entry and drops the oldest ones that have no room beside it. One that is larger than the table
    /// empties it (RFC 7541 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = entry_size(name, value);
        self.shrink(self.limit.saturating_sub(size));
        if size > self.limit {
            return;
        }
        let unused =
            self.entries.front().map_or(self.text.len(), |oldest| oldest.start.wrapping_sub(self.cut));
        // Not each time: what is moved is then never more than what was dropped before.
        if unused >= self.limit {
            self.text.drain(..unused);
            self.cut = self.cut.wrapping_add(unused);
        }
        let start = self.cut.wrapping_add(self.text.len());
        self.entries.push_back(Entry { start, name: name.len(), value: value.len() });
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.size += size;
    }

    fn shrink(&mut self, most: usize) {
        while self.size > most
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.name + oldest.value + OVERHEAD;
        }
    }
}

/// What an entry of this field counts (RFC 7541 4.1).
pub(super) fn entry_size(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(table: &Table) -> Vec<String> {
        let names = (0..table.len()).map(|age| table.get(age).unwrap().0.to_vec());
        names.map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn the_static_table() {
        assert_eq!(static_field(0), None);
        assert_eq!(static_field(1), Some((&b":authority"[..], &b""[..])));
        assert_eq!(static_field(16), Some((&b"accept-encoding"[..], &b"gzip, deflate"[..])));
        assert_eq!(static_field(61), Some((&b"www-authenticate"[..], &b""[..])));
        assert_eq!(static_field(62), None);
        assert_eq!(FIRST_DYNAMIC, 62);
    }

    #[test]
    fn the_oldest_go_first() {
        let mut table = Table::new(3 * 34);
        for name in ["a", "b", "c", "d"] {
            table.insert(name.as_bytes(), b"1");
        }
        assert_eq!((names(&table), table.size), (vec!["d".into(), "c".into(), "b".into()], 102));
        assert_eq!((table.get(0), table.get(3)), (Some((&b"d"[..], &b"1"[..])), None));
        assert_eq!(table.get(usize::MAX), None);
        table.insert(b"long", &[b'x'; 60]);
        assert_eq!(names(&table), ["long"]);
        table.insert(b"longer", &[b'x'; 65]);
        assert_eq!((table.len(), table.size), (0, 0));
        table.insert(b"a", &[b'x'; 69]);
        assert_eq!(table.size, table.limit());
        table.resize(101);
        assert_eq!(table.len(), 0);
        table.resize(0);
        table.insert(b"", b"");
        assert_eq!((table.len(), table.size), (0, 0));
    }

    #[test]
    fn text_stays_right_and_bounded() {
        let mut table = Table::new(500);
        for number in 0..10_000_usize {
            let name = format!("name-{number}");
            let value = vec![b'v'; number % 100];
            table.insert(name.as_bytes(), &value);
            for age in 0..table.len() {
                let (name, value) = table.get(age).unwrap();
                assert_eq!(name, format!("name-{}", number - age).as_bytes());
                assert_eq!(value.len(), (number - age) % 100);
            }
            assert!(table.len() > 2 || number < 5);
            assert!(table.size <= 500 && table.text.len() <= 1000);
            if number % 1000 == 999 {
                table.resize(0);
                assert_eq!(table.len(), 0);
                table.resize(500);
                for extra in (0..5_usize).rev() {
                    let number = number - extra;
                    table.insert(format!("name-{number}").as_bytes(), &vec![b'v'; number % 100]);
                }
            }
        }
    }
}
