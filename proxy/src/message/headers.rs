//! Header and trailer fields in the order they came, with the letters they came in.

use std::ops::Range;

use super::{Known, elements};

const COLON: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";

/// A list of fields. Their text lies in one buffer as lines of HTTP/1.1, so that a message costs two allocations
/// at most, none when the list is used again after [`Headers::clear`], and whole runs of lines are copied at
/// once when it is written. Names compare without case (RFC 9110 5.1).
#[derive(Debug, Clone, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// What one field is, and where it lies in the text.
#[derive(Debug, Clone, Copy)]
struct Field {
    known: Known,
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
}

impl Headers {
    /// An empty list; allocates nothing.
    pub const fn new() -> Self {
        Self { text: Vec::new(), fields: Vec::new() }
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
    }

    /// Gives back the memory that is not used: what is kept for long.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.fields.shrink_to_fit();
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Adds a field behind all others, also where one of that name is there already. The caller has
    /// checked both: a name is a token, a value has no CR, LF or NUL (RFC 9110 5.1, 5.5).
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        let start = self.text.len();
        let value_at = start + name.len() + COLON.len();
        let Some(field) = Field::at(Known::of(name), start, name.len(), value_at, value.len()) else {
            return;
        };
        self.text.reserve(name.len() + value.len() + COLON.len() + LINE_END.len());
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(COLON);
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(LINE_END);
        self.fields.push(field);
    }

    /// Adds a field that lies in a piece of text which [`Headers::fill`] appends later: where in that piece its name and its
    /// value begin, and how long they are. Checked as for [`Headers::append`]. Until then the list is of no use but to
    /// be cleared.
    pub fn place(&mut self, known: Known, name: usize, name_len: usize, value: usize, value_len: usize) {
        let base = self.text.len();
        // `fill` takes no text in which a number is too large for its place.
        self.fields.push(Field {
            known,
            name: (base + name) as u32,
            name_len: name_len as u32,
            value: (base + value) as u32,
            value_len: value_len as u32,
        });
    }

    /// Appends the text in which the fields lie that were placed; without it, beyond 4 GiB, they are empty.
    pub fn fill(&mut self, text: &[u8]) {
        if u32::try_from(self.text.len() + text.len()).is_ok() {
            self.text.extend_from_slice(text);
        }
    }

    /// Adds all fields of another list behind those that are there.
    pub fn append_all(&mut self, other: &Self) {
        let base = self.text.len();
        let Ok(shift) = u32::try_from(base) else { return };
        if u32::try_from(base + other.text.len()).is_err() {
            return;
        }
        self.text.extend_from_slice(&other.text);
        let moved = |field: &Field| Field { name: field.name + shift, value: field.value + shift, ..*field };
        self.fields.extend(other.fields.iter().map(moved));
    }

    /// Replaces every field of this name by one.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes every field of this name; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.fields.len();
        self.retain(|_, candidate, _| !candidate.eq_ignore_ascii_case(name.as_bytes()));
        self.fields.len() != before
    }

    /// Keeps the fields for which `keep(known, name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(Known, &[u8], &[u8]) -> bool) {
        let text = &self.text;
        self.fields.retain(|field| keep(field.known, field.name(text), field.value(text)));
    }

    /// Joins several fields of this name into one, as HTTP/2 demands of the crumbs of Cookie before they go anywhere
    /// else (RFC 9113 8.2.3). One field or none is left as it is.
    pub fn join(&mut self, name: &str, separator: &[u8]) {
        if self.get_all(name).nth(1).is_none() {
            return;
        }
        let mut joined = Vec::new();
        for value in self.get_all(name).filter(|value| !value.is_empty()) {
            if !joined.is_empty() {
                joined.extend_from_slice(separator);
            }
            joined.extend_from_slice(value);
        }
        self.set(name, joined);
    }

    /// Appends the fields to `out` as lines of HTTP/1.1, without those that are to be left out.
    pub fn write_lines(&self, out: &mut Vec<u8>, leave_out: impl Fn(Known) -> bool) {
        let mut run = 0..0;
        let part = |range: Range<usize>| self.text.get(range).unwrap_or_default();
        for field in &self.fields {
            if leave_out(field.known) {
                continue;
            }
            match field.line(&self.text) {
                Some(line) if line.start == run.end => run.end = line.end,
                Some(line) => out.extend_from_slice(part(std::mem::replace(&mut run, line))),
                None => {
                    out.extend_from_slice(part(std::mem::take(&mut run)));
                    for part in [field.name(&self.text), COLON, field.value(&self.text), LINE_END] {
                        out.extend_from_slice(part);
                    }
                }
            }
        }
        out.extend_from_slice(part(run));
    }

    /// Bytes that [`Headers::write_lines`] writes at most, unless fields came with less white space than usual.
    pub fn size_hint(&self) -> usize {
        self.text.len()
    }

    /// All fields, name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name(&self.text), field.value(&self.text)))
    }

    /// The values of all fields of this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |field| field.name_len as usize == name.len())
            .filter(move |field| field.name(&self.text).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value(&self.text))
    }

    /// The value of the first field of this name.
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.get_all(name).next()
    }

    /// The values of all fields that are this to us, in order.
    pub fn known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let fields = self.fields.iter().filter(move |field| field.known == known);
        fields.map(|field| field.value(&self.text))
    }

    /// Whether a field of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.get_all(name).next().is_some()
    }

    /// The elements of a comma-separated field (RFC 9110 5.6.1), over all fields of this name, without
    /// surrounding white space and without empty elements.
    pub fn elements<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).flat_map(elements)
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl Field {
    /// `None` beyond 4 GiB, which no message reaches.
    fn at(known: Known, name: usize, name_len: usize, value: usize, value_len: usize) -> Option<Self> {
        let small = |number: usize| u32::try_from(number).ok();
        Some(Self {
            known,
            name: small(name)?,
            name_len: small(name_len)?,
            value: small(value)?,
            value_len: small(value_len)?,
        })
    }

    fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let start = self.name as usize;
        text.get(start..start + self.name_len as usize).unwrap_or_default()
    }

    fn value<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let start = self.value as usize;
        text.get(start..start + self.value_len as usize).unwrap_or_default()
    }

    /// Where the field lies as a line, if it stands in the text just as it is to be written.
    fn line(&self, text: &[u8]) -> Option<Range<usize>> {
        let name_end = (self.name + self.name_len) as usize;
        let value_end = (self.value + self.value_len) as usize;
        let is_line = text.get(name_end..self.value as usize) == Some(COLON)
            && text.get(value_end..value_end + LINE_END.len()) == Some(LINE_END);
        is_line.then_some(self.name as usize..value_end + LINE_END.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_case_and_keep_their_letters() {
        let mut headers = Headers::new();
        headers.append("X-One", "1");
        headers.append("x-ONE", "2, 3 ,,");
        headers.append("Other", "");
        assert_eq!(headers.get("x-one"), Some(&b"1"[..]));
        assert_eq!(headers.get_all("X-ONE").count(), 2);
        assert_eq!(headers.elements("x-one").collect::<Vec<_>>(), [b"1", b"2", b"3"]);
        assert_eq!(headers.iter().next(), Some((&b"X-One"[..], &b"1"[..])));
        assert!(headers.remove("X-one"));
        assert!(!headers.contains("x-one") && headers.contains("other"));
        headers.set("other", "new");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [(&b"other"[..], &b"new"[..])]);
    }

    #[test]
    fn lines_are_written_as_they_came_but_for_white_space() {
        let section = b"A: 1\r\nb:2\r\nConnection: x\r\nC: 3 \r\nD: \r\nE: 5\r\n";
        let mut headers = Headers::new();
        headers.append("First", "0");
        for (name, value) in [
            (0..1, 3..4),
            (6..7, 8..9),
            (11..21, 23..24),
            (26..27, 29..30),
            (33..34, 36..36),
            (38..39, 41..42),
        ] {
            let known = Known::of(&section[name.clone()]);
            headers.place(known, name.start, name.len(), value.start, value.len());
        }
        headers.fill(section);
        headers.append("Last", "6");
        let mut out = b"before ".to_vec();
        headers.write_lines(&mut out, |known| known == Known::Connection);
        let lines = "First: 0\r\nA: 1\r\nb: 2\r\nC: 3\r\nD: \r\nE: 5\r\nLast: 6\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), format!("before {lines}"));
        headers.remove("c");
        let mut same = Headers::new();
        for (name, value) in
            [("First", "0"), ("A", "1"), ("b", "2"), ("Connection", "x"), ("D", ""), ("E", "5")]
        {
            same.append(name, value);
        }
        assert_ne!(headers, same);
        same.append("Last", "6");
        assert_eq!(headers, same);
        let mut both = Headers::new();
        both.append("Before", "all");
        both.append_all(&same);
        let mut out = Vec::new();
        both.write_lines(&mut out, |_| false);
        let lines = "Before: all\r\nFirst: 0\r\nA: 1\r\nb: 2\r\nConnection: x\r\nD: \r\nE: 5\r\nLast: 6\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), lines);
        assert_eq!(both.get("last"), Some(&b"6"[..]));
    }

    #[test]
    fn crumbs_are_joined_and_a_whole_cookie_is_left_alone() {
        let mut headers = Headers::new();
        for (name, value) in [("cookie", "a=1"), ("X", "y"), ("Cookie", ""), ("cookie", "b=2; c=3")] {
            headers.append(name, value);
        }
        headers.join("cookie", b"; ");
        assert_eq!(
            headers.iter().collect::<Vec<_>>(),
            [(&b"X"[..], &b"y"[..]), (&b"cookie"[..], &b"a=1; b=2; c=3"[..])]
        );
        let before = headers.clone();
        headers.join("cookie", b"; ");
        assert_eq!(headers, before);
    }
}
