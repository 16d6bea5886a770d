//! The MSS that a SYN announces, lowered to what fits a tunnel.

use crate::wire::checksum::adjust;
use crate::wire::ip::Version;
use crate::wire::{WireError, read, tcp, write};

const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the MSS option of a SYN so that segments fit `mtu` (inner, in bytes): MTU less 40, or less 60 in IPv6 (RFC
/// 9293 section 3.7.1, RFC 8200 section 8.3). `segment` begins at the TCP header. An absent option is left absent: it
/// means 536, or 1220 in IPv6.
///
/// With `partial`, the checksum field holds the sum of the pseudo-header alone, which an option does not change;
/// otherwise the checksum is adjusted.
///
/// # Errors
/// [`WireError`] when `segment` is not TCP.
pub fn clamp_mss(segment: &mut [u8], version: Version, mtu: u16, partial: bool) -> Result<(), WireError> {
    // Either length has two digits.
    let limit = mtu.saturating_sub((version.header_len() + tcp::LEN) as u16);
    let (header, _) = tcp::Header::parse(segment)?;
    let (end, mut checksum) = (header.len(), header.checksum);
    let mut at = tcp::LEN;
    while at < end {
        let (kind, len) = match read::<1>(segment, at)? {
            [OPTION_END] => break,
            [OPTION_NOTHING] => (OPTION_NOTHING, 1),
            [kind] => match read::<1>(segment, at + 1)? {
                [len] if len >= 2 => (kind, usize::from(len)),
                _ => break,
            },
        };
        if at + len > end {
            break;
        }
        if kind == OPTION_MSS && len == 4 {
            let old = u16::from_be_bytes(read(segment, at + 2)?);
            if old > limit {
                write(segment, at + 2, limit.to_be_bytes())?;
                // At an odd offset the value straddles two words of the sum, which then sees its bytes swapped.
                let seen = |value: u16| if at.is_multiple_of(2) { value } else { value.swap_bytes() };
                checksum = adjust(checksum, seen(old), seen(limit));
            }
        }
        at += len;
    }
    if !partial {
        write(segment, tcp::CHECKSUM_AT, checksum.to_be_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::tests::naive;

    fn syn(options: &[u8]) -> Vec<u8> {
        let mut header = tcp::Header {
            source_port: 1,
            destination_port: 2,
            sequence: 3,
            acknowledgment: 4,
            flags: tcp::SYN,
            window: 5,
            checksum: 0,
            urgent: 0,
            options,
        };
        let mut bytes = vec![0; header.len()];
        header.emit(&mut bytes).unwrap();
        header.checksum = naive(&[&bytes]);
        header.emit(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn mss_is_lowered_and_the_checksum_follows() {
        for options in [
            &[2, 4, 0x05, 0xb4][..],
            &[1, 2, 4, 0x05, 0xb4, 1, 1, 1],
            &[3, 3, 7, 2, 4, 0xff, 0xff, 1, 0, 0, 0, 0],
            &[1, 1, 2, 4, 0x05, 0xb4, 2, 4, 0x05, 0xb5, 0, 0],
        ] {
            let mut bytes = syn(options);
            clamp_mss(&mut bytes, Version::V4, 1400, false).unwrap();
            let changed = syn(options);
            assert_ne!(bytes[20..], changed[20..], "{options:?}");
            assert_eq!(naive(&[&bytes]), 0, "{options:?}");
            let lowered = 1360u16.to_be_bytes();
            assert!(bytes[20..].windows(4).any(|option| option == [2, 4, lowered[0], lowered[1]]));
            assert!(!bytes[20..].windows(3).any(|option| option == [2, 4, 0xff] || option == [5, 0xb4, 2]));
        }
    }

    #[test]
    fn the_header_of_ipv6_is_longer() {
        for (version, expected) in [(Version::V4, 1360u16), (Version::V6, 1340)] {
            let mut bytes = syn(&[2, 4, 0x05, 0xb4]);
            clamp_mss(&mut bytes, version, 1400, false).unwrap();
            assert_eq!(bytes[22..24], expected.to_be_bytes(), "{version:?}");
            assert_eq!(naive(&[&bytes]), 0);
        }
    }

    #[test]
    fn a_partial_checksum_stays() {
        let mut bytes = syn(&[2, 4, 0x05, 0xb4]);
        let field = [bytes[16], bytes[17]];
        clamp_mss(&mut bytes, Version::V4, 1400, true).unwrap();
        assert_eq!([bytes[16], bytes[17]], field);
        assert_eq!(bytes[22..24], 1360u16.to_be_bytes());
    }

    #[test]
    fn what_is_small_or_broken_stays() {
        for options in
            [&[2, 4, 0x02, 0x18][..], &[], &[2, 0, 0xff, 0xff], &[5, 9, 2, 4], &[0, 0, 0, 0, 2, 4, 9, 9]]
        {
            let mut bytes = syn(options);
            clamp_mss(&mut bytes, Version::V4, 1400, false).unwrap();
            assert_eq!(bytes, syn(options));
        }
        assert!(clamp_mss(&mut [0; 10], Version::V4, 1400, false).is_err());
    }

    proptest! {
        #[test]
        fn any_options_keep_the_checksum(options in prop::collection::vec(any::<u8>(), 0..10), mtu in 68u16..) {
            let options: Vec<u8> = options.iter().flat_map(|byte| [2, 4, *byte, *byte]).collect();
            let mut bytes = syn(&options);
            clamp_mss(&mut bytes, Version::V4, mtu, false).unwrap();
            prop_assert_eq!(naive(&[&bytes]), 0);
        }

        #[test]
        fn random_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..80), mtu: u16) {
            let _ = clamp_mss(&mut bytes, Version::V4, mtu, false);
        }
    }
}
