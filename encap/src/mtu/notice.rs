//! What the sender of an inner packet is told when its packet is too big.

use crate::wire::ip::{Packet, Version};
use crate::wire::{WireError, icmp, icmpv6, virtio};

/// Longest packet that is a notice about IPv4 (RFC 1812 section 4.3.2.3).
const LONGEST_V4: usize = 576;
/// Longest packet that is a notice about IPv6 (RFC 4443 section 2.4 (c)).
const LONGEST_V6: usize = 1280;
/// Longest frame of a notice, in bytes: a virtio header and a packet.
pub const NOTICE_MAX: usize = virtio::LEN + LONGEST_V6;

/// Writes for the sender of `packet` that it is longer than `mtu` bytes and nobody may fragment it: "fragmentation needed"
/// (RFC 1191 section 4) or "packet too big" (RFC 4443 section 3.2). It is a frame for a TUN device: a virtio header
/// and a packet that quotes as much as it may. Returns its length. Whether, and how often, that may be said is not
/// decided here.
///
/// It comes from the packet's destination: a host refuses packets from addresses of its own, and any address behind the
/// tunnel will do.
///
/// # Errors
/// [`WireError`] when `packet` is not IP, or `out` is shorter than [`NOTICE_MAX`] and the notice does not fit.
pub fn write_too_big(packet: &[u8], mtu: u16, out: &mut [u8]) -> Result<usize, WireError> {
    let (about, _) = Packet::parse(packet)?;
    let (header, longest) = match about.version() {
        Version::V4 => (icmp::fragmentation_needed(mtu), LONGEST_V4),
        Version::V6 => (icmpv6::packet_too_big(mtu.into()), LONGEST_V6),
    };
    let quoted = about.total.min(longest - about.version().header_len() - icmp::LEN);
    let quoted = packet.get(..quoted).ok_or(WireError::Truncated)?;
    let room = virtio::Header::default().emit(out)?;
    Ok(virtio::LEN + icmp::write_packet(about.destination, about.source, header, quoted, room)?)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::tests::naive;
    use crate::wire::{ipv4, ipv6};

    const FROM_V4: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);
    const TO_V4: Ipv4Addr = Ipv4Addr::new(5, 6, 7, 8);
    const FROM_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const TO_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn v4(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let ip = ipv4::Header {
            tos: 0,
            total_length: (ipv4::LEN + payload.len()) as u16,
            identification: 1,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 9,
            protocol,
            source,
            destination,
            options: &[],
        };
        let mut packet = vec![0; usize::from(ip.total_length)];
        ip.emit(&mut packet).unwrap().copy_from_slice(payload);
        packet
    }

    fn v6(next_header: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let ip = ipv6::Header {
            traffic_class: 0,
            flow_label: 0,
            payload_length: payload.len() as u16,
            next_header,
            hop_limit: 9,
            source,
            destination,
        };
        let mut packet = vec![0; ipv6::LEN + payload.len()];
        ip.emit(&mut packet).unwrap().copy_from_slice(payload);
        packet
    }

    /// The packet of a notice, without its virtio header.
    fn written(packet: &[u8], mtu: u16) -> Vec<u8> {
        let mut out = [0xee; NOTICE_MAX];
        let len = write_too_big(packet, mtu, &mut out).unwrap();
        assert_eq!(out[..virtio::LEN], [0; virtio::LEN]);
        assert!(write_too_big(packet, mtu, &mut out[..len - 1]).is_err());
        out[virtio::LEN..len].to_vec()
    }

    #[test]
    fn fragmentation_needed_names_the_mtu() {
        let packet = v4(ipv4::TCP, FROM_V4, TO_V4, &[0x33; 1460]);
        let padded = [&packet[..], &[9; 9]].concat();
        let notice = written(&padded, 1472);
        let (ip, message) = ipv4::Header::parse(&notice).unwrap();
        assert_eq!((ip.source, ip.destination, ip.protocol), (TO_V4, FROM_V4, ipv4::ICMP));
        let (header, quoted) = icmp::Header::parse(message).unwrap();
        assert_eq!((header.kind, header.code, header.rest), (3, 4, [0, 0, 0x05, 0xc0]));
        assert_eq!(naive(&[message]), 0);
        assert_eq!(quoted, &packet[..548]);
        assert_eq!(notice.len(), 576);
    }

    #[test]
    fn packet_too_big_names_the_mtu() {
        let packet = v6(ipv6::TCP, FROM_V6, TO_V6, &[0x33; 1460]);
        let notice = written(&packet, 1400);
        let (ip, message) = ipv6::Header::parse(&notice).unwrap();
        assert_eq!((ip.source, ip.destination, ip.next_header), (TO_V6, FROM_V6, ipv6::ICMPV6));
        let (header, quoted) = icmpv6::Header::parse(message).unwrap();
        assert_eq!((header.kind, header.code, header.rest), (2, 0, [0, 0, 0x05, 0x78]));
        let length = (message.len() as u32).to_be_bytes();
        assert_eq!(naive(&[&notice[8..40], &length, &[0, 0, 0, ipv6::ICMPV6], message]), 0);
        assert_eq!(quoted, &packet[..1232]);
        assert_eq!(notice.len(), 1280);
    }

    #[test]
    fn a_short_packet_is_quoted_whole_without_padding() {
        let packet = v4(ipv4::UDP, FROM_V4, TO_V4, &[0x33; 20]);
        let notice = written(&[&packet[..], &[9; 9]].concat(), 68);
        assert_eq!(notice[ipv4::LEN + icmp::LEN..], packet);
    }

    proptest! {
        #[test]
        fn random_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..80), version in 4u8..7) {
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 0x0f;
            }
            let _ = write_too_big(&bytes, 1400, &mut [0; NOTICE_MAX]);
        }
    }
}
