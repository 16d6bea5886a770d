//! How far a run of bytes of one kind reaches, eight bytes at a time: most of a head is looked at by nothing else.

/// Every byte 1.
const ONES: u64 = u64::MAX / 0xff;
/// The highest bit of every byte.
const HIGHEST: u64 = ONES << 7;

/// Bytes of a token (RFC 9110 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = matches!(
            byte as u8,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
                | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        byte += 1;
    }
    table
};

/// Bytes of a token.
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

/// Bytes of a field value, white space included (RFC 9110 5.5).
pub(super) const fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Bytes at the front that can be a token. Nearly all are letters and hyphens.
pub(super) fn token(text: &[u8]) -> usize {
    let odd = |word: u64| {
        let lower = word | (ONES * 0x20);
        // From each of these bytes on the highest bit is set.
        let from = |word: u64, byte: u8| word.wrapping_add(ONES * (0x80 - u64::from(byte)));
        let is_letter = from(lower, b'a') & !from(lower, b'z' + 1);
        let is_no_hyphen = from(word ^ (ONES * u64::from(b'-')), 1);
        word | (is_no_hyphen & !is_letter)
    };
    run(text, odd, is_token)
}

/// Bytes at the front that can be a field value.
pub(super) fn value(text: &[u8]) -> usize {
    let odd = |word: u64| (word.wrapping_sub(ONES * 0x20) & !word) | equal(word, 0x7f);
    run(text, odd, is_value)
}

/// Bytes at the front that are visible ASCII.
pub(super) fn graphic(text: &[u8]) -> usize {
    let odd = |word: u64| word.wrapping_sub(ONES * 0x21) | word | equal(word, 0x7f);
    run(text, odd, |byte| byte.is_ascii_graphic())
}

/// Sets the highest bit of each byte that is this one, and maybe of some behind the first such.
const fn equal(word: u64, byte: u8) -> u64 {
    let differing = word ^ (ONES * byte as u64);
    differing.wrapping_sub(ONES) & !differing
}

/// Bytes at the front that belong. `odd` sets the highest bit of the first byte in a word that may not, and of none
/// before it.
#[inline(always)]
fn run(text: &[u8], odd: impl Fn(u64) -> u64, belongs: impl Fn(u8) -> bool) -> usize {
    let (words, _) = text.as_chunks::<8>();
    let mut clear = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let odd = odd(word) & HIGHEST;
        if odd != 0 {
            let bits = odd.trailing_zeros() & !7;
            clear += bits as usize / 8;
            if !belongs((word >> bits) as u8) {
                return clear;
            }
            break;
        }
        clear += 8;
    }
    let rest = text.get(clear..).unwrap_or_default();
    clear + rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte at each place of a word, before and behind every other kind of byte.
    #[test]
    fn runs_end_where_they_should() {
        type Run = (fn(&[u8]) -> usize, fn(u8) -> bool);
        let runs: [Run; 3] =
            [(token, is_token), (value, is_value), (graphic, |byte| byte.is_ascii_graphic())];
        for byte in 0..=255 {
            for (length, place) in (0..20).flat_map(|length| (0..length).map(move |place| (length, place))) {
                for behind in [b'a', 0, b'\t', b' ', 0x7f, 0x80, 0xff] {
                    let mut text = vec![b'a'; length];
                    text[place] = byte;
                    text[place + 1..].fill(behind);
                    for (run, belongs) in runs {
                        let expected = text.iter().take_while(|&&byte| belongs(byte)).count();
                        assert_eq!(run(&text), expected, "{text:?}");
                    }
                }
            }
        }
    }
}
