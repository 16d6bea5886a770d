//! Hashes that every worker and every node computes alike: where a request goes must not depend on who sends it.
//!
//! Not keyed, so a client that may choose its key can choose its RS; it gains nothing that it could not have by
//! sending many requests.

use std::net::{IpAddr, SocketAddr};

/// A hash of a key: FNV-1a, with its bits mixed well.
pub fn hash(key: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    mix(key.iter().fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
}

/// The hash of an RS, by its address.
pub(super) fn hash_address(address: &SocketAddr) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    };
    mix(ip ^ u64::from(address.port()))
}

/// Makes every bit depend on every bit: the finaliser of SplitMix64.
pub(super) const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 30;
    hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^= hash >> 27;
    hash = hash.wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Another hash of the same key, independent of the one for every other `number`.
pub(super) const fn again(hash: u64, number: u64) -> u64 {
    mix(hash ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Whether an RS with `share` of its `whole` share takes the key with this hash: always with its whole share, and
/// with half of it half of the keys, the same ones every time.
pub(super) fn takes(hash: u64, share: u32, whole: u32) -> bool {
    share >= whole || again(hash, u64::MAX) % u64::from(whole) < u64::from(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_on_every_machine() {
        assert_eq!(hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_ne!(hash(b"a"), hash(b"b"));
        let address = |text: &str| hash_address(&text.parse().unwrap());
        assert_ne!(address("192.0.2.1:80"), address("192.0.2.1:81"));
        assert_ne!(address("192.0.2.1:80"), address("[2001:db8::1]:80"));
    }

    #[test]
    fn a_part_of_the_share_takes_that_part_of_the_keys() {
        let taken = |share| (0..10_000).filter(|key| takes(mix(*key), share, 1000)).count();
        assert_eq!((taken(0), taken(1000)), (0, 10_000));
        assert!((2300..2700).contains(&taken(250)), "{}", taken(250));
        // Who takes a key with a small share takes it with a larger one.
        assert!((0..1000).all(|key| !takes(mix(key), 250, 1000) || takes(mix(key), 300, 1000)));
    }
}
