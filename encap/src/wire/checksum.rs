//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are kept in 64 bits, in the byte order of the machine, and folded once at the end: the ones' complement sum
//! does not care about byte order as long as the first and the last step agree.

use std::net::IpAddr;

/// A sum that is not folded yet. Every part but the last must have an even length. Overflow would take 16 GiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The pseudo-header of TCP and UDP over IPv4 (RFC 9293 section 3.1, RFC 768), and of those and ICMPv6 over IPv6
    /// (RFC 8200 section 8.1), which differs in the addresses alone; `length` in bytes, transport header included.
    pub fn pseudo(
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        protocol: u8,
        length: impl Into<u32>,
    ) -> Self {
        let sum = Self::default().address(source.into()).address(destination.into());
        let length: u32 = length.into();
        // The length by its halves.
        sum.word(u16::from(protocol)).word((length >> 16) as u16).word(length as u16)
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    /// Adds one 16-bit field, given as the number it stands for.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// Takes one 16-bit field out again, given as the number it stands for.
    #[must_use]
    pub fn without(self, word: u16) -> Self {
        self.word(!word)
    }

    /// Adds another sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Takes another sum out again.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        // What `finish` returns is the complement already, which is the negative.
        self.word(other.finish())
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if bytes.len() >= WIDE && is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2.
            return Self(self.0 + unsafe { sum_by_avx2(bytes) });
        }
        Self(self.0 + sum(bytes))
    }

    /// Copies `from` to the equally long `to` and adds it. Should one be longer, its end is left out.
    #[must_use]
    pub fn copy(self, from: &[u8], to: &mut [u8]) -> Self {
        let len = from.len().min(to.len());
        let (from, to) = (from.split_at(len).0, to.split_at_mut(len).0);
        // One loop that does both is slower: the C library copies by wider vectors than a program may use that runs
        // everywhere, and what it has just read is in the nearest cache.
        to.copy_from_slice(from);
        self.bytes(from)
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

/// From so many bytes on it pays to ask what the processor can do.
#[cfg(target_arch = "x86_64")]
const WIDE: usize = 128;

/// The same as [`sum`], by vectors of 32 bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_by_avx2(bytes: &[u8]) -> u64 {
    sum(bytes)
}

/// The sum of 16-bit words, not folded.
#[inline(always)]
fn sum(bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<8>();
    // The sum of the lower halves is what is left of the whole once the upper halves are taken out, also where the
    // whole has wrapped around. This takes an addition, a shift and an addition per vector of words, which is fewer
    // instructions than to take every word apart.
    let (mut whole, mut upper) = (0_u64, 0_u64);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        whole = whole.wrapping_add(word);
        upper += word >> 32;
    }
    let lower = whole.wrapping_sub(upper << 32);
    let (word, tail) = tail.as_chunks::<4>();
    let word = word.first().map_or(0, |word| u64::from(u32::from_ne_bytes(*word)));
    lower + upper + word + last(tail)
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
    use std::net::{Ipv4Addr, Ipv6Addr};

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

    /// Bytes of which many are ones, so that every carry is met.
    fn bytes(len: usize) -> Vec<u8> {
        let byte = |at: usize| if at % 7 < 5 { 0xff } else { (at * 37) as u8 };
        (0..len).map(byte).collect()
    }

    #[test]
    fn equals_the_naive_sum_at_every_length_and_alignment() {
        let from = bytes(308);
        for len in 0..=300 {
            for at in 0..8 {
                let part = &from[at..at + len];
                let expected = naive(&[part]);
                assert_eq!(Sum::default().bytes(part).finish(), expected, "{len} bytes at {at}");
                for to_at in 0..8 {
                    let mut to = vec![0xee; len + 16];
                    let sum = Sum::default().copy(part, &mut to[to_at..to_at + len]);
                    assert_eq!(sum, Sum::default().bytes(part), "{len} bytes from {at} to {to_at}");
                    assert_eq!(&to[to_at..to_at + len], part);
                    assert!(to[..to_at].iter().chain(&to[to_at + len..]).all(|byte| *byte == 0xee));
                }
            }
        }
    }

    #[test]
    fn the_longest_packets() {
        for len in [4095, 4096, 65_519, 65_535] {
            for from in [bytes(len), vec![0xff; len], vec![0; len]] {
                let mut to = vec![1; len];
                assert_eq!(Sum::default().bytes(&from).finish(), naive(&[&from]), "{len}");
                assert_eq!(Sum::default().copy(&from, &mut to).finish(), naive(&[&from]), "{len}");
                assert_eq!(from, to);
            }
        }
    }

    #[test]
    fn only_what_both_have_is_copied() {
        let mut to = [9; 4];
        assert_eq!(Sum::default().copy(&[1, 2], &mut to), Sum::default().bytes(&[1, 2]));
        assert_eq!(to, [1, 2, 9, 9]);
        assert_eq!(Sum::default().copy(&[3, 4, 5], &mut to[..2]), Sum::default().bytes(&[3, 4]));
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
        fn pseudo_header_of_ipv6(source: u128, destination: u128, protocol: u8, length: u32) {
            let [source, destination] = [source, destination].map(Ipv6Addr::from);
            let ends = [source.octets(), destination.octets()].concat();
            let bytes = [&ends[..], &length.to_be_bytes(), &[0, 0, 0, protocol]].concat();
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
