//! DER as far as OCSP needs it (X.690 8 and 10): values one after the other, read without copying.

/// Tags.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;

/// Tag of a constructed value that a context numbers.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// With tag and length.
    pub(super) whole: &'a [u8],
}

/// The values that are left of some bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The values in these bytes.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next value; nothing at the end, and nothing where the bytes are no DER.
    pub(super) fn next(&mut self) -> Option<Value<'a>> {
        let bytes = self.0;
        let (&tag, rest) = bytes.split_first()?;
        // Numbers from 31 on take more bytes; OCSP has none of them.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let count = usize::from(first & 0x7f);
            let (digits, behind) = rest.split_at_checked(count)?;
            // The shortest form, and never more than 16 MiB.
            if !(1..=3).contains(&count) || digits.first() == Some(&0) {
                return None;
            }
            length = digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit));
            if length < 0x80 {
                return None;
            }
            rest = behind;
        }
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = bytes.get(..bytes.len() - rest.len())?;
        self.0 = rest;
        Some(Value { tag, content, whole })
    }

    /// The next value where it has this tag; any other stays.
    pub(super) fn take(&mut self, tag: u8) -> Option<Value<'a>> {
        let mut ahead = *self;
        let value = ahead.next().filter(|value| value.tag == tag)?;
        *self = ahead;
        Some(value)
    }

    /// The values inside the next one, which has to have this tag.
    pub(super) fn enter(&mut self, tag: u8) -> Option<Self> {
        Some(Self(self.take(tag)?.content))
    }

    /// Whether nothing is left.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The bytes of a bit string whose number of bits is a multiple of eight.
pub(super) fn bits(value: Value<'_>) -> Option<&[u8]> {
    let (&unused, bytes) = value.content.split_first()?;
    (value.tag == BIT_STRING && unused == 0).then_some(bytes)
}

/// Writes one value.
pub(super) fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 5);
    out.push(tag);
    let digits = length.to_be_bytes();
    let digits = digits.get(digits.iter().take_while(|&&digit| digit == 0).count()..).unwrap_or_default();
    match digits {
        [] => out.push(0),
        &[short] if short < 0x80 => out.push(short),
        digits => {
            // A length has eight digits at most.
            out.push(0x80 | digits.len() as u8);
            out.extend_from_slice(digits);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_der_is_nothing() {
        for bytes in [
            &[][..],
            &[4],
            &[4, 1],
            &[4, 0x80, 0, 0],
            &[4, 0x81, 0x7f],
            &[4, 0x82, 0, 0x80],
            &[4, 0x84, 0, 0, 0, 1, 0],
            &[0x1f, 1, 0],
            &[4, 0xff],
        ] {
            assert_eq!(Reader::new(bytes).next(), None, "{bytes:x?}");
        }
    }

    #[test]
    fn values_in_values() {
        let inner = write(INTEGER, &[&[5]]);
        let outer = write(SEQUENCE, &[&inner, &write(context(0), &[])]);
        let mut reader = Reader::new(&outer);
        let mut inside = reader.enter(SEQUENCE).unwrap();
        assert!(reader.is_empty());
        assert_eq!(inside.take(BIT_STRING), None);
        assert_eq!(inside.take(INTEGER).unwrap().content, [5]);
        assert_eq!(inside.take(context(0)).unwrap().whole, [0xa0, 0]);
        assert!(inside.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tag in 0_u8..31, content in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let written = write(tag, &[&content]);
            let value = Reader::new(&written).next().unwrap();
            prop_assert_eq!((value.tag, value.content, value.whole), (tag, &content[..], &written[..]));
            prop_assert!(Reader::new(&written[..written.len() - 1]).next().is_none());
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            let mut count = 0;
            while let Some(value) = reader.next() {
                prop_assert!(value.whole.ends_with(value.content));
                count += value.whole.len();
            }
            prop_assert!(count <= bytes.len());
        }
    }
}
