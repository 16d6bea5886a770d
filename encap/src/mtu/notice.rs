//! What the sender of an inner packet is told when its packet is not carried.

use std::net::IpAddr;

use crate::wire::checksum::Sum;
use crate::wire::ip::{Packet, Part, Version};
use crate::wire::{WireError, icmp, icmpv6, ipv4, ipv6, virtio};

/// Longest packet that is a notice about IPv4 (RFC 1812 section 4.3.2.3).
const LONGEST_V4: usize = 576;
/// Longest packet that is a notice about IPv6 (RFC 4443 section 2.4 (c)).
const LONGEST_V6: usize = 1280;
/// Longest frame of a notice, in bytes: a virtio header and a packet.
pub const NOTICE_MAX: usize = virtio::LEN + LONGEST_V6;
/// Hops that a notice may go.
const TTL: u8 = 64;

/// An ICMP error of this node about an inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The packet is longer than `mtu` bytes and nobody may fragment it: "fragmentation needed" (RFC 1191 section 4),
    /// "packet too big" (RFC 4443 section 3.2).
    TooBig {
        /// MTU of the tunnel, in bytes.
        mtu: u16,
    },
    /// The packet was to be forwarded and had no hop left: "time exceeded" (RFC 792, RFC 4443 section 3.3).
    TimeExceeded,
}

impl Notice {
    /// Whether this may be said about a packet, whose transport begins with `transport`: not about another error, a
    /// later fragment, a packet to many, or one whose source is not a single host (RFC 1122 section 3.2.2, RFC 1812
    /// section 4.3.2.7, RFC 4443 section 2.4 (e)). How often it may be said is not decided here.
    pub fn may_be_about(self, packet: &Packet, transport: &[u8]) -> bool {
        let is_error = match packet.protocol {
            ipv4::ICMP if packet.version() == Version::V4 => {
                icmp::Header::parse(transport).is_ok_and(|(header, _)| header.is_error())
            }
            ipv6::ICMPV6 if packet.version() == Version::V6 => {
                icmpv6::Header::parse(transport).is_ok_and(|(header, _)| header.is_error())
            }
            _ => false,
        };
        // Senders to a group, too, have to learn the MTU of the path (RFC 4443 section 2.4 (e.3)).
        let told = packet.version() == Version::V6 && matches!(self, Self::TooBig { .. });
        packet.part != Part::Later
            && !is_error
            && (!is_many(packet.destination) || told)
            && !is_many(packet.source)
            && !packet.source.is_unspecified()
            && !packet.source.is_loopback()
    }

    /// Writes the notice about `packet` for its sender, as a frame for a TUN device: a virtio header and an ICMP or
    /// ICMPv6 packet that quotes as much as it may. Returns its length.
    ///
    /// It comes from `from`, or else from the packet's destination: a host refuses packets from addresses of its own,
    /// and any address behind the tunnel will do.
    ///
    /// # Errors
    /// [`WireError`] when `packet` is not IP, `from` is of another version, or `out` is shorter than [`NOTICE_MAX`]
    /// and the notice does not fit.
    pub fn write(self, packet: &[u8], from: Option<IpAddr>, out: &mut [u8]) -> Result<usize, WireError> {
        let (about, _) = Packet::parse(packet)?;
        let packet = packet.get(..about.total).ok_or(WireError::Truncated)?;
        let frame = match (from.unwrap_or(about.destination), about.source) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let quoted = quote(packet, LONGEST_V4 - ipv4::LEN - icmp::LEN);
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
                    ttl: TTL,
                    protocol: ipv4::ICMP,
                    source,
                    destination,
                    options: &[],
                };
                let message = ip.emit(virtio::Header::default().emit(frame)?)?;
                let mut header = match self {
                    Self::TooBig { mtu } => icmp::Header::fragmentation_needed(mtu),
                    Self::TimeExceeded => icmp::Header::time_exceeded(),
                };
                header.emit(message)?.copy_from_slice(quoted);
                header.checksum = Sum::default().bytes(message).finish();
                header.emit(message)?;
                frame
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let quoted = quote(packet, LONGEST_V6 - ipv6::LEN - icmpv6::LEN);
                // At most 1240.
                let payload_length = (icmpv6::LEN + quoted.len()) as u16;
                let total = ipv6::LEN + usize::from(payload_length);
                let frame = out.get_mut(..virtio::LEN + total).ok_or(WireError::Truncated)?;
                let ip = ipv6::Header {
                    traffic_class: 0,
                    flow_label: 0,
                    payload_length,
                    next_header: ipv6::ICMPV6,
                    hop_limit: TTL,
                    source,
                    destination,
                };
                let message = ip.emit(virtio::Header::default().emit(frame)?)?;
                let mut header = match self {
                    Self::TooBig { mtu } => icmpv6::Header::packet_too_big(mtu.into()),
                    Self::TimeExceeded => icmpv6::Header::time_exceeded(),
                };
                header.emit(message)?.copy_from_slice(quoted);
                let pseudo = Sum::pseudo(source, destination, ipv6::ICMPV6, payload_length);
                header.checksum = pseudo.bytes(message).finish();
                header.emit(message)?;
                frame
            }
            _ => return Err(WireError::Version),
        };
        Ok(frame.len())
    }
}

/// As much of a packet as may be quoted.
fn quote(packet: &[u8], most: usize) -> &[u8] {
    packet.get(..most).unwrap_or(packet)
}

/// Whether the address is that of a group, or of everybody.
fn is_many(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::tests::naive;

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
    fn written(notice: Notice, packet: &[u8], from: Option<IpAddr>) -> Vec<u8> {
        let mut out = [0xee; NOTICE_MAX];
        let len = notice.write(packet, from, &mut out).unwrap();
        assert_eq!(out[..virtio::LEN], [0; virtio::LEN]);
        assert!(notice.write(packet, from, &mut out[..len - 1]).is_err());
        out[virtio::LEN..len].to_vec()
    }

    #[test]
    fn fragmentation_needed_names_the_mtu() {
        let packet = v4(ipv4::TCP, FROM_V4, TO_V4, &[0x33; 1460]);
        let padded = [&packet[..], &[9; 9]].concat();
        let notice = written(Notice::TooBig { mtu: 1472 }, &padded, None);
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
        let notice = written(Notice::TooBig { mtu: 1400 }, &packet, None);
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
    fn time_exceeded_quotes_a_short_packet_whole() {
        let packet = v4(ipv4::UDP, FROM_V4, TO_V4, &[0x33; 20]);
        let own = Ipv4Addr::new(9, 9, 9, 9);
        let notice = written(Notice::TimeExceeded, &[&packet[..], &[9; 9]].concat(), Some(own.into()));
        let (ip, message) = ipv4::Header::parse(&notice).unwrap();
        let (header, quoted) = icmp::Header::parse(message).unwrap();
        assert_eq!((ip.source, ip.destination), (own, FROM_V4));
        assert_eq!((header.kind, header.code, header.rest, quoted), (11, 0, [0; 4], &packet[..]));

        let packet = v6(ipv6::UDP, FROM_V6, TO_V6, &[0x33; 20]);
        let notice = written(Notice::TimeExceeded, &packet, Some(Ipv6Addr::LOCALHOST.into()));
        let (ip, message) = ipv6::Header::parse(&notice).unwrap();
        let (header, quoted) = icmpv6::Header::parse(message).unwrap();
        assert_eq!((ip.source, ip.destination), (Ipv6Addr::LOCALHOST, FROM_V6));
        assert_eq!((header.kind, header.code, header.rest, quoted), (3, 0, [0; 4], &packet[..]));

        let mut out = [0; NOTICE_MAX];
        let mixed = Notice::TimeExceeded.write(&packet, Some(own.into()), &mut out);
        assert_eq!(mixed, Err(WireError::Version));
    }

    const BOTH: [Notice; 2] = [Notice::TooBig { mtu: 1400 }, Notice::TimeExceeded];

    fn may(notice: Notice, packet: &[u8]) -> bool {
        let (about, transport) = Packet::parse(packet).unwrap();
        notice.may_be_about(&about, transport)
    }

    #[test]
    fn nothing_is_said_about_errors_but_about_questions() {
        let icmp = |kind| v4(ipv4::ICMP, FROM_V4, TO_V4, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        let icmpv6 = |kind| v6(ipv6::ICMPV6, FROM_V6, TO_V6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        for notice in BOTH {
            assert!(may(notice, &icmp(icmp::ECHO_REQUEST)) && may(notice, &icmpv6(icmpv6::ECHO_REQUEST)));
            assert!(!may(notice, &icmp(icmp::UNREACHABLE)) && !may(notice, &icmp(icmp::REDIRECT)));
            assert!(!may(notice, &icmpv6(icmpv6::PACKET_TOO_BIG)) && !may(notice, &icmpv6(icmpv6::REDIRECT)));
            // Protocol 58 in IPv4 is not ICMPv6, nor 1 in IPv6 ICMP.
            assert!(
                may(notice, &v4(58, FROM_V4, TO_V4, &[1; 8])) && may(notice, &v6(1, FROM_V6, TO_V6, &[3; 8]))
            );
        }
    }

    #[test]
    fn nothing_is_said_about_later_fragments() {
        for notice in BOTH {
            let mut packet = v4(ipv4::UDP, FROM_V4, TO_V4, &[0; 8]);
            packet[6] = 0x20;
            assert!(may(notice, &packet), "the first one");
            packet[7] = 1;
            assert!(!may(notice, &packet));
            let fragment = |offset: u8| [ipv6::UDP, 0, 0, offset | 1, 0, 0, 0, 0];
            assert!(may(notice, &v6(ipv6::FRAGMENT, FROM_V6, TO_V6, &fragment(0))));
            assert!(!may(notice, &v6(ipv6::FRAGMENT, FROM_V6, TO_V6, &fragment(8))));
        }
    }

    #[test]
    fn nothing_is_said_to_or_about_many_but_too_big_in_ipv6() {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        for notice in BOTH {
            for odd in [Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
                assert!(!may(notice, &v4(ipv4::UDP, FROM_V4, odd, &[0; 8])), "to {odd}");
            }
            let odd = [
                Ipv4Addr::BROADCAST,
                Ipv4Addr::UNSPECIFIED,
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::new(239, 0, 0, 1),
            ];
            for odd in odd {
                assert!(!may(notice, &v4(ipv4::UDP, odd, TO_V4, &[0; 8])), "from {odd}");
            }
            for odd in [group, Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST] {
                assert!(!may(notice, &v6(ipv6::UDP, odd, TO_V6, &[0; 8])), "from {odd}");
            }
        }
        let packet = v6(ipv6::UDP, FROM_V6, group, &[0; 8]);
        assert_eq!(BOTH.map(|notice| may(notice, &packet)), [true, false]);
    }

    proptest! {
        #[test]
        fn random_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..80), version in 4u8..7) {
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 0x0f;
            }
            for notice in BOTH {
                let _ = notice.write(&bytes, None, &mut [0; NOTICE_MAX]);
            }
        }
    }
}
