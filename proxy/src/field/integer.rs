//! Integers with a prefix (RFC 7541 5.1, RFC 9204 4.1.1): the low bits of an octet whose high bits say something else, and
//! then seven bits per octet where these do not suffice.

use super::Flaw;

/// Where the bits of each further octet go. Four octets are enough for 2^28: no index, length or table size
/// is as large, so that nothing can overflow and zeros cannot be sent without end.
const SHIFTS: [u32; 4] = [0, 7, 14, 21];

/// Takes an integer with a prefix of that many bits, 1 to 8, off the front of the input.
///
/// # Errors
///
/// [`Flaw::Truncated`] or [`Flaw::Integer`].
#[inline]
pub(crate) fn take(input: &mut &[u8], prefix: u32) -> Result<usize, Flaw> {
    let (&first, rest) = input.split_first().ok_or(Flaw::Truncated)?;
    *input = rest;
    let most = (1 << prefix) - 1;
    let value = usize::from(first) & most;
    if value < most { Ok(value) } else { take_more(input, value) }
}

fn take_more(input: &mut &[u8], mut value: usize) -> Result<usize, Flaw> {
    for shift in SHIFTS {
        let (&byte, rest) = input.split_first().ok_or(Flaw::Truncated)?;
        *input = rest;
        value += usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Flaw::Integer)
}

/// Appends an integer with a prefix of that many bits, 1 to 8, and `flags` in the bits above.
#[inline]
pub(crate) fn put(value: usize, prefix: u32, flags: u8, out: &mut Vec<u8>) {
    let most = (1 << prefix) - 1;
    if value < most {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: usize, prefix: u32, flags: u8) -> Vec<u8> {
        let mut out = Vec::new();
        put(value, prefix, flags, &mut out);
        out
    }

    #[test]
    fn examples_of_the_rfc() {
        assert_eq!(written(10, 5, 0xe0), [0xea]);
        assert_eq!(written(1337, 5, 0), [0x1f, 0x9a, 0x0a]);
        assert_eq!(written(42, 7, 0), [0x2a]);
        assert_eq!(take(&mut &[0xea][..], 5), Ok(10));
        assert_eq!(take(&mut &[0x1f, 0x9a, 0x0a][..], 5), Ok(1337));
    }

    #[test]
    fn what_is_written_is_read() {
        for prefix in 1..=7 {
            let most = (1 << prefix) - 1;
            for value in [0, 1, most - 1, most, most + 1, most + 127, most + 128, 65535, most + (1 << 28) - 1]
            {
                let mut text = written(value, prefix, !(most as u8));
                text.push(7);
                let mut input = &text[..];
                assert_eq!(take(&mut input, prefix), Ok(value));
                assert_eq!(input, [7]);
                for cut in 0..text.len() - 1 {
                    assert_eq!(take(&mut &text[..cut], prefix), Err(Flaw::Truncated));
                }
            }
        }
    }

    #[test]
    fn too_many_octets() {
        for text in [
            &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00][..],
            &[0x7f, 0xff, 0xff, 0xff, 0xff],
            &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
        ] {
            assert_eq!(take(&mut &text[..], 7), Err(Flaw::Integer));
        }
        assert_eq!(take(&mut &[0x7f, 0x80, 0x80, 0x80, 0x00][..], 7), Ok(127));
    }
}
