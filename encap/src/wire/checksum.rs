//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are kept in 64 bits, in the byte order of the machine, and folded once at the end: the ones' complement sum
//! does not care about byte order as long as the first and the last step agree.

use std::net::Ipv4Addr;

/// A sum that is not folded yet. Every part but the last must have an even length. Overflow would take 16 GiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The pseudo-header of TCP and UDP over IPv4 (RFC 9293 section 3.1, RFC 768); `length` in bytes, header included.
    pub fn pseudo(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> Self {
        Self::default()
            .bytes(&source.octets())
            .bytes(&destination.octets())
            .word(u16::from(protocol))
            .word(length)
    }

    /// Adds one 16-bit field, given as the number it stands for.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<4>();
        let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        Self(self.0 + sum + last(tail))
    }

    /// Copies `from` to the equally long `to` and adds it, reading it once.
    #[must_use]
    pub fn copy(self, from: &[u8], to: &mut [u8]) -> Self {
        let (words, tail) = from.as_chunks::<4>();
        let (places, end) = to.as_chunks_mut::<4>();
        let mut sum = 0;
        for (place, word) in places.iter_mut().zip(words) {
            *place = *word;
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        for (place, byte) in end.iter_mut().zip(tail) {
            *place = *byte;
        }
        Self(self.0 + sum + last(tail))
    }

    /// The checksum: the complement of the folded sum, as the number to store in network byte order.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // The loop leaves 16 bits.
        u16::from_be(!(sum as u16))
    }
}

/// Up to three bytes as a word padded with zeros at its end, as RFC 1071 pads.
fn last(tail: &[u8]) -> u64 {
    let mut word = [0; 4];
    for (place, byte) in word.iter_mut().zip(tail) {
        *place = *byte;
    }
    u64::from(u32::from_ne_bytes(word))
}

/// The checksum after one 16-bit field that it covers went from `old` to `new` (RFC 1624 equation 3).
pub fn adjust(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum as RFC 1071 words it, two bytes at a time: the oracle of every test.
    pub(crate) fn naive(parts: &[&[u8]]) -> u16 {
        let bytes = parts.concat();
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn known_header() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
            0xa8, 0x00, 0xc7,
        ];
        assert_eq!(Sum::default().bytes(&header).finish(), 0xb861);
    }

    proptest! {
        #[test]
        fn equals_the_naive_sum(bytes in prop::collection::vec(any::<u8>(), 0..3000), word: u16) {
            let mut copy = vec![0; bytes.len()];
            let expected = naive(&[&word.to_be_bytes(), &bytes]);
            prop_assert_eq!(Sum::default().word(word).bytes(&bytes).finish(), expected);
            prop_assert_eq!(Sum::default().word(word).copy(&bytes, &mut copy).finish(), expected);
            prop_assert_eq!(copy, bytes);
        }

        #[test]
        fn pseudo_header(source: u32, destination: u32, protocol: u8, length: u16) {
            let [source, destination] = [source, destination].map(Ipv4Addr::from);
            let bytes = [&source.octets()[..], &destination.octets(), &[0, protocol], &length.to_be_bytes()].concat();
            prop_assert_eq!(Sum::pseudo(source, destination, protocol, length).finish(), naive(&[&bytes]));
        }

        #[test]
        fn adjusted_is_recomputed(mut bytes in prop::collection::vec(any::<u8>(), 4..60), new: u16) {
            bytes[0] |= 1; // a sum of nothing but zeros has two representations
            let before = naive(&[&bytes]);
            let old = u16::from_be_bytes([bytes[2], bytes[3]]);
            bytes[2..4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(adjust(before, old, new), naive(&[&bytes]));
        }
    }
}
