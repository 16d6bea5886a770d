//! The Huffman code of strings (RFC 7541 5.2, Appendix B; RFC 9204 4.1.2). Only the decoder needs it: what we send is short
//! or in the table, and is written as it is.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and shorter
//! codes come first. So the lengths alone are the code, and all else is made from them at compile time.

use super::Flaw;

/// Length in bits of the code of each byte, and of EOS at the end (RFC 7541 Appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const LONGEST: usize = 30;
const SHORTEST: usize = 5;
const EOS: u16 = 256;

/// Codes of up to this many bits are found by one look: all letters, digits and most marks.
const QUICK: usize = 10;

/// The codes of one length, as numbers of [`LONGEST`] bits with the code on top.
#[derive(Clone, Copy)]
struct Length {
    first: u32,
    /// The number behind the last one.
    end: u32,
    /// Where in [`Code::sorted`] the symbol of the first code is.
    symbols: usize,
}

struct Code {
    /// All symbols in the order of their codes.
    sorted: [u16; 257],
    lengths: [Length; LONGEST + 1],
    /// By the next [`QUICK`] bits: the length of the code and above it the byte, or 0 if the code is longer.
    quick: [u16; 1 << QUICK],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code = Code {
        sorted: [0; 257],
        lengths: [Length { first: 0, end: 0, symbols: 0 }; LONGEST + 1],
        quick: [0; 1 << QUICK],
    };
    let (mut next, mut symbols, mut length) = (0, 0, 0);
    while length <= LONGEST {
        code.lengths[length] = Length { first: next, end: next, symbols };
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.sorted[symbols] = symbol as u16;
                symbols += 1;
                let mut slot = next as usize >> (LONGEST - QUICK);
                next += 1 << (LONGEST - length);
                while length <= QUICK && slot < next as usize >> (LONGEST - QUICK) {
                    code.quick[slot] = (symbol as u16) << 8 | length as u16;
                    slot += 1;
                }
            }
            symbol += 1;
        }
        code.lengths[length].end = next;
        length += 1;
    }
    // Every symbol has a code, no code begins with another one, and no sequence of bits is left without.
    assert!(symbols == LENGTHS.len() && next == 1 << LONGEST);
    code
}

/// Replaces what is in `out` by the decoded text.
///
/// # Errors
///
/// [`Flaw::Huffman`] for EOS, and for an end that is not up to seven bits of the beginning of EOS.
pub(crate) fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), Flaw> {
    out.clear();
    out.resize(text.len() * 8 / SHORTEST, 0);
    let mut slots = out.iter_mut();
    let mut put = |byte| {
        if let Some(slot) = slots.next() {
            *slot = byte;
        }
    };
    // The next bits of the text, from the top; the first `have` of them count.
    let (mut bits, mut have, mut rest) = (0_u64, 0, text);
    loop {
        // What is below the bits that count is 0 or the same that will be put there again.
        if let Some(word) = rest.first_chunk::<8>() {
            bits |= u64::from_be_bytes(*word) >> have;
            let taken = (63 - have) / 8;
            have += taken * 8;
            rest = rest.get(taken..).unwrap_or_default();
        } else {
            while have < 56
                && let Some((&byte, tail)) = rest.split_first()
            {
                bits |= u64::from(byte) << (56 - have);
                have += 8;
                rest = tail;
            }
        }
        if have < LONGEST {
            break;
        }
        while have >= LONGEST {
            let (byte, length) = look(bits)?;
            put(byte);
            bits <<= length;
            have -= length;
        }
    }
    // Behind the end there are ones, as if the padding went on as EOS does.
    bits |= u64::MAX >> have;
    while have > 0 {
        let Ok((byte, length)) = look(bits) else { break };
        if length > have {
            break;
        }
        put(byte);
        bits = !(!bits << length);
        have -= length;
    }
    if have > 7 || bits != u64::MAX {
        return Err(Flaw::Huffman);
    }
    let unused = slots.len();
    out.truncate(out.len() - unused);
    Ok(())
}

/// The byte whose code is on top of the bits, and the length of that code.
#[inline]
fn look(bits: u64) -> Result<(u8, usize), Flaw> {
    match CODE.quick.get((bits >> (64 - QUICK)) as usize) {
        Some(&quick @ 1..) => Ok(((quick >> 8) as u8, usize::from(quick as u8))),
        _ => look_for_long(bits),
    }
}

fn look_for_long(bits: u64) -> Result<(u8, usize), Flaw> {
    let top = (bits >> (64 - LONGEST)) as u32;
    for (length, codes) in CODE.lengths.iter().enumerate().skip(QUICK + 1) {
        if top < codes.end {
            let nth = (top - codes.first) >> (LONGEST - length);
            return match CODE.sorted.get(codes.symbols + nth as usize) {
                Some(&symbol) if symbol != EOS => Ok((symbol as u8, length)),
                _ => Err(Flaw::Huffman),
            };
        }
    }
    Err(Flaw::Huffman)
}

/// The code of a text, padded.
#[cfg(test)]
pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
    let symbols: Vec<u16> = text.iter().map(|&byte| byte.into()).collect();
    tests::pack(&symbols, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes of these symbols, then these bits, then as many ones as an octet needs.
    pub(crate) fn pack(symbols: &[u16], more: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for &symbol in symbols {
            let length = usize::from(LENGTHS[usize::from(symbol)]);
            let codes = CODE.lengths[length];
            let place = CODE.sorted.iter().position(|&sorted| sorted == symbol).unwrap();
            let code = (codes.first >> (LONGEST - length)) + (place - codes.symbols) as u32;
            bits.extend((0..length).rev().map(|bit| (code >> bit & 1) as u8));
        }
        bits.extend(more);
        let padded =
            bits.chunks(8).map(|bits| (0..8).fold(0, |byte, bit| byte << 1 | bits.get(bit).unwrap_or(&1)));
        padded.collect()
    }

    fn decoded(text: &[u8]) -> Result<Vec<u8>, Flaw> {
        let mut out = b"before".to_vec();
        decode(text, &mut out).map(|()| out)
    }

    #[test]
    fn codes_of_the_rfc() {
        for (symbol, code, length) in [
            (b'0'.into(), 0x0, 5),
            (b'a'.into(), 0x3, 5),
            (b' '.into(), 0x14, 6),
            (b':'.into(), 0x5c, 7),
            (b'&'.into(), 0xf8, 8),
            (b'!'.into(), 0x3f8, 10),
            (0, 0x1ff8, 13),
            (b'\\'.into(), 0x7fff0, 19),
            (1, 0x7fffd8, 23),
            (255, 0x3ffffee, 26),
            (b'\n'.into(), 0x3ffffffc, 30),
            (EOS, 0x3fffffff_u64, 30),
        ] {
            let packed = pack(&[symbol], &[]);
            let bytes = packed.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
            assert_eq!(bytes >> (packed.len() * 8 - length), code, "{symbol}");
        }
    }

    #[test]
    fn texts_of_the_rfc() {
        assert_eq!(
            decoded(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            Ok(b"www.example.com".to_vec())
        );
        assert_eq!(decoded(&[0x64, 0x02]), Ok(b"302".to_vec()));
        assert_eq!(decoded(&[]), Ok(vec![]));
    }

    #[test]
    fn every_text_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)), Ok(all.clone()));
        for byte in all {
            for count in 1..40 {
                let text = vec![byte; count];
                assert_eq!(decoded(&encode(&text)), Ok(text.clone()));
                let mixed = [b"/a?".as_slice(), &text, b" Z"].concat();
                assert_eq!(decoded(&encode(&mixed)), Ok(mixed.clone()));
            }
        }
    }

    #[test]
    fn malformed_ends() {
        for before in 0..20 {
            let text = vec![u16::from(b'a'); before];
            // EOS, whole and as padding of more than seven bits.
            assert_eq!(decoded(&pack(&[&text[..], &[EOS]].concat(), &[])), Err(Flaw::Huffman));
            assert_eq!(decoded(&pack(&[&text[..], &[EOS], &text[..]].concat(), &[])), Err(Flaw::Huffman));
            for ones in [8, 9, 15, 16, 29] {
                assert_eq!(decoded(&pack(&text, &vec![1; ones])), Err(Flaw::Huffman), "{before} {ones}");
            }
        }
        // Whatever is taken is the one code of its text, padding included.
        for number in 0..=u16::MAX {
            for before in [&b""[..], b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b"] {
                let text = [before, &number.to_be_bytes()].concat();
                assert!(
                    decoded(&text).is_ok_and(|plain| encode(&plain) == text)
                        || decoded(&text) == Err(Flaw::Huffman)
                );
            }
        }
        assert_eq!(decoded(&[0xff]), Err(Flaw::Huffman));
        assert_eq!(decoded(&[0xff; 100]), Err(Flaw::Huffman));
        // A code that was cut, and padding that is all ones or not.
        assert_eq!(decoded(&[0b0000_0000]), Err(Flaw::Huffman));
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), Err(Flaw::Huffman));
        assert_eq!(decoded(&[0b0000_0011]), Err(Flaw::Huffman));
    }
}
