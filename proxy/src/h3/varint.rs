//! Integers of variable length (RFC 9000 16): the two high bits of the first byte say how many bytes there are.

/// The largest number.
pub(super) const LARGEST: u64 = (1 << 62) - 1;

/// The number at the front and its length in bytes; `None` where more bytes have to come.
pub(super) fn parse(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    let length = 1_usize << (first >> 6);
    let rest = input.get(1..length)?;
    let number = rest.iter().fold(u64::from(first & 0x3f), |number, &byte| number << 8 | u64::from(byte));
    Some((number, length))
}

/// Appends a number of at most [`LARGEST`] in its shortest form.
pub(super) fn put(number: u64, out: &mut Vec<u8>) {
    match number {
        0..0x40 => out.push(number as u8),
        0x40..0x4000 => out.extend_from_slice(&(number as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(number as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(number.min(LARGEST) | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        for (bytes, number) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(parse(bytes), Some((number, bytes.len())));
            let mut out = Vec::new();
            put(number, &mut out);
            assert_eq!(out, bytes);
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), None);
            }
        }
        // Longer than necessary is allowed.
        assert_eq!(parse(&[0x40, 0x25]), Some((37, 2)));
    }

    #[test]
    fn every_size_comes_back() {
        for number in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, LARGEST] {
            let mut out = Vec::new();
            put(number, &mut out);
            assert_eq!(parse(&out), Some((number, out.len())));
        }
    }
}
