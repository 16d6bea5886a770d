//! Fields the encoder knows by name: where they are in the static table, and whether their values repeat or
//! must not be guessed. A name is found by one look into a perfect hash table that is made at compile time.

use super::table::STATIC;

/// What the encoder does with the values of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// Different in each response: written and forgotten.
    Differ,
    /// Mostly the same on a connection: kept in the dynamic table.
    Repeat,
    /// Never in a table of anybody, so that nobody can guess them by the size of a block (RFC 7541 7.1.3).
    Secret,
}

/// A field known by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// In lower case, as HTTP/2 wants it; empty where the hash table has none.
    pub(crate) name: &'static str,
    /// The first of that name in the static table, or 0.
    pub(crate) index: u8,
    pub(crate) values: Values,
}

/// Known because of what they are for; the rest of the static table is known as well.
const REPEAT: [&str; 22] = [
    "accept-ranges",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "alt-svc",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-type",
    "date",
    "referrer-policy",
    "server",
    "strict-transport-security",
    "vary",
    "via",
    "x-content-type-options",
    "x-frame-options",
    "x-powered-by",
    "x-xss-protection",
];
const SECRET: [&str; 8] = [
    "authentication-info",
    "authorization",
    "cookie",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "set-cookie",
    "www-authenticate",
];

/// Where the names that are no pseudo-headers begin in the static table.
const FIRST_NAME: usize = 15;

/// Found by trying: with it no two of the names share a slot, which [`build`] checks.
const FACTOR: u32 = 0x9c54_6497;

static SLOTS: [Known; 256] = build();

/// The field of that name in any case.
#[inline]
pub(crate) fn find(name: &[u8]) -> Option<&'static Known> {
    let known = SLOTS.get(slot(name)?)?;
    is(name, known.name.as_bytes()).then_some(known)
}

/// Whether the name is that one in any case. All bytes with the bit 0x40 in the names above are letters, in
/// which the bit 0x20 is the case.
#[inline]
fn is(name: &[u8], lower: &[u8]) -> bool {
    let differ = |(&byte, &lower): (&u8, &u8)| (byte ^ lower) & !(lower >> 1 & 0x20);
    name.len() == lower.len() && name.iter().zip(lower).map(differ).fold(0, |all, bits| all | bits) == 0
}

/// The slot a name can be in. Names differ in their length or their first, third last or last byte.
#[inline]
const fn slot(name: &[u8]) -> Option<usize> {
    let ([first, ..], [.., third_last, _, last]) = (name, name) else { return None };
    // Lower case for letters; the other bytes of a known name are not changed by it.
    let lower = 0x20;
    let key = u32::from_le_bytes([*first | lower, *third_last | lower, *last | lower, name.len() as u8]);
    Some((key.wrapping_mul(FACTOR) >> 24) as usize)
}

const fn build() -> [Known; 256] {
    let mut slots = [Known { name: "", index: 0, values: Values::Differ }; 256];
    let mut index = FIRST_NAME;
    while index <= STATIC.len() {
        let name = STATIC[index - 1].0;
        add(&mut slots, Known { name, index: index as u8, values: Values::Differ });
        index += 1;
    }
    let mut nth = 0;
    while nth < REPEAT.len() {
        add(&mut slots, Known { name: REPEAT[nth], index: 0, values: Values::Repeat });
        nth += 1;
    }
    nth = 0;
    while nth < SECRET.len() {
        add(&mut slots, Known { name: SECRET[nth], index: 0, values: Values::Secret });
        nth += 1;
    }
    slots
}

/// Adds a field, or says what is to be done with the values of one that is there.
const fn add(slots: &mut [Known; 256], mut field: Known) {
    let Some(slot) = slot(field.name.as_bytes()) else { panic!("a name is too short") };
    let present = slots[slot];
    if !present.name.is_empty() {
        assert!(same(present.name.as_bytes(), field.name.as_bytes()), "two names share a slot");
        field.index = present.index;
    }
    slots[slot] = field;
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut same = one.len() == other.len();
    let mut at = 0;
    while same && at < one.len() {
        same = one[at] == other[at];
        at += 1;
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_found_in_any_case() {
        for (number, (name, _)) in STATIC.iter().enumerate().skip(FIRST_NAME - 1) {
            for name in [name.to_string(), name.to_uppercase()] {
                let known = find(name.as_bytes()).unwrap();
                assert_eq!(usize::from(known.index), number + 1);
                assert_eq!(known.values == Values::Repeat, REPEAT.contains(&known.name), "{name}");
                assert_eq!(known.values == Values::Secret, SECRET.contains(&known.name), "{name}");
            }
        }
        for (names, values) in [(&REPEAT[..], Values::Repeat), (&SECRET, Values::Secret)] {
            for name in names {
                assert_eq!(find(name.as_bytes()).unwrap().values, values, "{name}");
            }
        }
        assert_eq!(find(b"X-Powered-By").unwrap().index, 0);
    }

    #[test]
    fn others_are_not() {
        for name in
            [&b""[..], b"a", b"te", b"dates", b"Dat", b":status", b"set\rcookie", b"x-request-id", &[0; 300]]
        {
            assert!(find(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn one_byte_makes_another_name() {
        for known in SLOTS.iter().filter(|known| !known.name.is_empty()) {
            for at in 0..known.name.len() {
                for byte in 0..=255 {
                    let mut name = known.name.as_bytes().to_vec();
                    name[at] = byte;
                    let same = name.eq_ignore_ascii_case(known.name.as_bytes());
                    assert!(find(&name).is_none_or(|found| name.eq_ignore_ascii_case(found.name.as_bytes())));
                    assert_eq!(find(&name).is_some_and(|found| found.name == known.name), same, "{name:?}");
                }
            }
        }
    }
}
