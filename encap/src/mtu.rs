//! What keeps packets small enough: the overhead, the MSS clamp, and the message that says "too big".
//!
//! Pure functions and one small token bucket. The engine decides when to use them; discovering the path MTU of the
//! underlay is not done here.

use std::time::{Duration, Instant};

use crate::wire::checksum::{Sum, adjust};
use crate::wire::{WireError, icmp, ipv4, read, tcp, virtio, write};

/// Smallest MTU of IPv4 (RFC 791): a tunnel below it would not carry IP.
pub const MIN: u16 = 68;
/// Longest "too big" frame: virtio header and a packet of at most 576 bytes (RFC 1812 section 4.3.2.3).
pub const TOO_BIG_MAX: usize = virtio::LEN + 576;

const QUOTED_MAX: usize = 576 - ipv4::LEN - icmp::LEN;
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;

/// The MTU left for inner packets, in bytes, or `None` when it would be below [`MIN`].
pub fn inner(underlay: u16, overhead: u16) -> Option<u16> {
    underlay.checked_sub(overhead).filter(|mtu| *mtu >= MIN)
}

/// Lowers the MSS option of a SYN so that segments fit `mtu` (inner, in bytes): MTU less 40 (RFC 9293 section 3.7.1).
/// `segment` begins at the TCP header. An absent option is left absent: it means 536.
///
/// With `partial`, the checksum field holds the sum of the pseudo-header alone, which an option does not change;
/// otherwise the checksum is adjusted.
///
/// # Errors
/// [`WireError`] when `segment` is not TCP.
pub fn clamp_mss(segment: &mut [u8], mtu: u16, partial: bool) -> Result<(), WireError> {
    let limit = mtu.saturating_sub(40);
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

/// Writes the answer to `packet`, which has DF set and is longer than `mtu` (bytes): a virtio header and an ICMP
/// "fragmentation needed" (RFC 1191) that comes from the packet's destination. Returns its length.
///
/// # Errors
/// [`WireError`] when `packet` is not IPv4 or `out` is shorter than [`TOO_BIG_MAX`].
pub fn too_big(packet: &[u8], mtu: u16, out: &mut [u8]) -> Result<usize, WireError> {
    let (original, _) = ipv4::Header::parse(packet)?;
    let quoted = packet.get(..QUOTED_MAX.min(packet.len())).ok_or(WireError::Truncated)?;
    let total = ipv4::LEN + icmp::LEN + quoted.len();
    let frame = out.get_mut(..virtio::LEN + total).ok_or(WireError::Truncated)?;

    let ip = ipv4::Header {
        tos: 0,
        // At most 576.
        total_length: total as u16,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: ipv4::ICMP,
        // Any address behind the tunnel would do; one of this host's own would be refused as a martian.
        source: original.destination,
        destination: original.source,
        options: &[],
    };
    let message = ip.emit(virtio::Header::default().emit(frame)?)?;
    let mut header = icmp::Header::fragmentation_needed(mtu);
    header.emit(message)?.copy_from_slice(quoted);
    header.checksum = Sum::default().bytes(message).finish();
    header.emit(message)?;
    Ok(virtio::LEN + total)
}

/// A token bucket: how often something may happen.
#[derive(Debug, Clone)]
pub struct Allowance {
    every: Duration,
    burst: u32,
    left: u32,
    refilled: Option<Instant>,
}

impl Allowance {
    /// At most `burst` at once, and one more each `every`, which is not zero.
    pub fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, left: burst, refilled: None }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let since = *self.refilled.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_nanos() / self.every.as_nanos().max(1);
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(self.burst);
            // What is left of a period is forgotten, which errs to the slower side.
            self.refilled = Some(now);
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
    fn room_for_inner_packets() {
        assert_eq!(inner(1500, 28), Some(1472));
        assert_eq!(inner(90, 28), None);
        assert_eq!(inner(20, 28), None);
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
            clamp_mss(&mut bytes, 1400, false).unwrap();
            let changed = syn(options);
            assert_ne!(bytes[20..], changed[20..], "{options:?}");
            assert_eq!(naive(&[&bytes]), 0, "{options:?}");
            let lowered = 1360u16.to_be_bytes();
            assert!(bytes[20..].windows(4).any(|option| option == [2, 4, lowered[0], lowered[1]]));
            assert!(!bytes[20..].windows(3).any(|option| option == [2, 4, 0xff] || option == [5, 0xb4, 2]));
        }
    }

    #[test]
    fn a_partial_checksum_stays() {
        let mut bytes = syn(&[2, 4, 0x05, 0xb4]);
        let field = [bytes[16], bytes[17]];
        clamp_mss(&mut bytes, 1400, true).unwrap();
        assert_eq!([bytes[16], bytes[17]], field);
        assert_eq!(bytes[22..24], 1360u16.to_be_bytes());
    }

    #[test]
    fn what_is_small_or_broken_stays() {
        for options in
            [&[2, 4, 0x02, 0x18][..], &[], &[2, 0, 0xff, 0xff], &[5, 9, 2, 4], &[0, 0, 0, 0, 2, 4, 9, 9]]
        {
            let mut bytes = syn(options);
            clamp_mss(&mut bytes, 1400, false).unwrap();
            assert_eq!(bytes, syn(options));
        }
        assert!(clamp_mss(&mut [0; 10], 1400, false).is_err());
    }

    #[test]
    fn too_big_names_the_mtu() {
        let ip = ipv4::Header {
            tos: 0,
            total_length: 1480,
            identification: 1,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 9,
            protocol: ipv4::TCP,
            source: Ipv4Addr::new(1, 2, 3, 4),
            destination: Ipv4Addr::new(5, 6, 7, 8),
            options: &[],
        };
        let mut packet = vec![0x33; 1480];
        ip.emit(&mut packet).unwrap();
        let mut out = [0xee; TOO_BIG_MAX];
        let len = too_big(&packet, 1472, &mut out).unwrap();
        assert_eq!(len, TOO_BIG_MAX);
        assert_eq!(out[..virtio::LEN], [0; virtio::LEN]);
        let (answer, message) = ipv4::Header::parse(&out[virtio::LEN..len]).unwrap();
        assert_eq!((answer.source, answer.destination), (ip.destination, ip.source));
        let (header, quoted) = icmp::Header::parse(message).unwrap();
        assert_eq!((header.kind, header.code, header.rest), (3, 4, [0, 0, 0x05, 0xc0]));
        assert_eq!(naive(&[message]), 0);
        assert_eq!(quoted, &packet[..548]);
        assert!(too_big(&packet, 1472, &mut [0; 50]).is_err());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn allowance_refills() {
        let start = Instant::now();
        let mut allowance = Allowance::new(Duration::from_millis(10), 2);
        let taken = |allowance: &mut Allowance, ms| allowance.take(start + Duration::from_millis(ms));
        assert_eq!([0, 0, 0, 9].map(|ms| taken(&mut allowance, ms)), [true, true, false, false]);
        assert_eq!([10, 10].map(|ms| taken(&mut allowance, ms)), [true, false]);
        assert_eq!([5000, 5000, 5000].map(|ms| taken(&mut allowance, ms)), [true, true, false]);
    }

    proptest! {
        #[test]
        fn any_options_keep_the_checksum(options in prop::collection::vec(any::<u8>(), 0..10), mtu in 68u16..) {
            let options: Vec<u8> = options.iter().flat_map(|byte| [2, 4, *byte, *byte]).collect();
            let mut bytes = syn(&options);
            clamp_mss(&mut bytes, mtu, false).unwrap();
            prop_assert_eq!(naive(&[&bytes]), 0);
        }

        #[test]
        fn random_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..80), mtu: u16) {
            let _ = clamp_mss(&mut bytes, mtu, false);
            let _ = too_big(&bytes, mtu, &mut [0; TOO_BIG_MAX]);
        }
    }
}
