//! Header and trailer fields in the order they came, with the letters they came in.

/// A list of fields. All text lies in one buffer, so that a message costs two allocations at most and
/// none when the list is used again after [`Headers::clear`]. Names compare without case (RFC 9110 5.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// Where one field lies in the text: the name, directly followed by the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    start: u32,
    name_len: u32,
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

    /// Makes room for that many more fields with that many bytes of names and values, at one go.
    pub fn reserve(&mut self, fields: usize, text: usize) {
        self.fields.reserve(fields);
        self.text.reserve(text);
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
        let (Ok(start), Ok(name_len), Ok(value_len)) =
            (u32::try_from(self.text.len()), u32::try_from(name.len()), u32::try_from(value.len()))
        else {
            return;
        };
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.fields.push(Field { start, name_len, value_len });
    }

    /// Replaces every field of this name by one.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes every field of this name; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.fields.len();
        self.retain(|candidate, _| !candidate.eq_ignore_ascii_case(name.as_bytes()));
        self.fields.len() != before
    }

    /// Keeps the fields for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let text = &self.text;
        self.fields.retain(|field| keep(field.name(text), field.value(text)));
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

    /// Whether a field of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.get_all(name).next().is_some()
    }

    /// The elements of a comma-separated field (RFC 9110 5.6.1), over all fields of this name, without
    /// surrounding white space and without empty elements.
    pub fn elements<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }
}

impl Field {
    fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        text.get(start..start + self.name_len as usize).unwrap_or_default()
    }

    fn value<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize + self.name_len as usize;
        text.get(start..start + self.value_len as usize).unwrap_or_default()
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
