//! Super-packets to packets: cuts what the kernel left whole and finishes the checksums it left open.
//!
//! Stands on the way out, between the engine's decisions and the batch. It is told where to cut and never decides
//! it, and it knows nothing of tunnels. The payload is read once: copied and summed in the same pass.

use std::net::Ipv4Addr;

use crate::wire::checksum::Sum;
use crate::wire::{WireError, ipv4, read, tcp, udp, write};

/// A TCP or UDP packet over IPv4 that becomes several.
pub struct SuperPacket<'a> {
    /// IP and TCP or UDP header.
    headers: &'a [u8],
    payload: &'a [u8],
    ip_len: usize,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: u16,
    kind: Kind,
    /// Bytes of payload per segment, at least 1.
    size: usize,
}

enum Kind {
    Tcp { sequence: u32, flags: u8 },
    Udp,
}

impl<'a> SuperPacket<'a> {
    /// A TCP packet to be cut every `size` bytes of payload.
    ///
    /// # Errors
    /// [`WireError`] when `packet` is not TCP over IPv4; [`WireError::Length`] when `size` is 0.
    pub fn tcp(packet: &'a [u8], size: usize) -> Result<Self, WireError> {
        let (ip, segment) = ipv4::Header::parse(packet)?;
        let (header, _) = tcp::Header::parse(segment)?;
        // The low byte: CWR to FIN. The four bits above stay as they are.
        let kind = Kind::Tcp { sequence: header.sequence, flags: (header.flags & 0xff) as u8 };
        Self::new(packet, &ip, header.len(), kind, size)
    }

    /// UDP datagrams of `size` bytes of payload each, the last one maybe shorter, behind one header.
    ///
    /// # Errors
    /// [`WireError`] when `packet` is not UDP over IPv4; [`WireError::Length`] when `size` is 0.
    pub fn udp(packet: &'a [u8], size: usize) -> Result<Self, WireError> {
        let (ip, datagram) = ipv4::Header::parse(packet)?;
        udp::Header::parse(datagram)?;
        Self::new(packet, &ip, udp::LEN, Kind::Udp, size)
    }

    fn new(
        packet: &'a [u8],
        ip: &ipv4::Header<'_>,
        header_len: usize,
        kind: Kind,
        size: usize,
    ) -> Result<Self, WireError> {
        if size == 0 {
            return Err(WireError::Length);
        }
        let packet = packet.get(..usize::from(ip.total_length)).ok_or(WireError::Truncated)?;
        let (headers, payload) =
            packet.split_at_checked(ip.len() + header_len).ok_or(WireError::Truncated)?;
        Ok(Self {
            headers,
            payload,
            ip_len: ip.len(),
            source: ip.source,
            destination: ip.destination,
            identification: ip.identification,
            kind,
            size,
        })
    }

    /// Number of packets it becomes, at least 1.
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.size).max(1)
    }

    /// Bytes of the packet with the given index, IP header included.
    pub fn len_of(&self, index: usize) -> usize {
        self.headers.len() + self.chunk(index).len()
    }

    /// Writes the packet with the given index: identification and sequence number counted up, CWR only in the first,
    /// FIN and PSH only in the last, both checksums complete.
    ///
    /// # Errors
    /// [`WireError::Length`] when `out` is not exactly [`SuperPacket::len_of`] bytes.
    pub fn write(&self, index: usize, out: &mut [u8]) -> Result<(), WireError> {
        let chunk = self.chunk(index);
        let total = self.headers.len() + chunk.len();
        let (headers, payload) = out.split_at_mut_checked(self.headers.len()).ok_or(WireError::Length)?;
        if payload.len() != chunk.len() {
            return Err(WireError::Length);
        }
        headers.copy_from_slice(self.headers);
        let (ip, transport) = headers.split_at_mut_checked(self.ip_len).ok_or(WireError::Length)?;

        // At most the length of the whole packet, which has 16 bits.
        write(ip, 2, (total as u16).to_be_bytes())?;
        write(ip, 4, self.identification.wrapping_add(index as u16).to_be_bytes())?;
        write(ip, 10, [0, 0])?;
        let checksum = Sum::default().bytes(ip).finish();
        write(ip, 10, checksum.to_be_bytes())?;

        let length = (total - self.ip_len) as u16;
        let (protocol, checksum_at) = match self.kind {
            Kind::Tcp { sequence, flags } => {
                let offset = (index * self.size) as u32;
                write(transport, 4, sequence.wrapping_add(offset).to_be_bytes())?;
                let mut flags = flags;
                if index > 0 {
                    flags &= !(tcp::CWR as u8);
                }
                if index + 1 < self.count() {
                    flags &= !((tcp::FIN | tcp::PSH) as u8);
                }
                write(transport, 13, [flags])?;
                (ipv4::TCP, tcp::CHECKSUM_AT)
            }
            Kind::Udp => {
                write(transport, udp::LENGTH_AT, length.to_be_bytes())?;
                (ipv4::UDP, udp::CHECKSUM_AT)
            }
        };
        write(transport, checksum_at, [0, 0])?;
        let sum = Sum::pseudo(self.source, self.destination, protocol, length).bytes(transport);
        write(transport, checksum_at, stored(sum.copy(chunk, payload), checksum_at))
    }

    /// The part of the payload that goes into one packet.
    fn chunk(&self, index: usize) -> &'a [u8] {
        let start = index.saturating_mul(self.size).min(self.payload.len());
        let end = start.saturating_add(self.size).min(self.payload.len());
        self.payload.get(start..end).unwrap_or_default()
    }
}

/// Copies a packet whose checksum covers everything from `start` on and is stored `offset` bytes after it. The
/// field holds the sum of the pseudo-header; the copy has the complete checksum.
///
/// # Errors
/// [`WireError::Length`] when `out` is not as long as `packet`, or the field lies outside it or at an odd place.
pub fn copy_finished(packet: &[u8], start: usize, offset: usize, out: &mut [u8]) -> Result<(), WireError> {
    if packet.len() != out.len() {
        return Err(WireError::Length);
    }
    let (head, covered) = packet.split_at_checked(start).ok_or(WireError::Length)?;
    let (head_out, covered_out) = out.split_at_mut_checked(start).ok_or(WireError::Length)?;
    read::<2>(covered, offset).map_err(|_| WireError::Length)?;
    head_out.copy_from_slice(head);
    let sum = Sum::default().copy(covered, covered_out);
    write(covered_out, offset, stored(sum, offset))
}

/// A checksum as it is stored at this offset of a header. A zero would mean "none" to UDP, which stores its other form
/// (RFC 768); nobody else does, and some take that form for a wrong checksum (RFC 1624 section 3).
fn stored(sum: Sum, offset: usize) -> [u8; 2] {
    match sum.finish() {
        0 if offset == udp::CHECKSUM_AT => [0xff, 0xff],
        checksum => checksum.to_be_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::tests::naive;

    const FROM: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
    const TO: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

    fn ip<'a>(protocol: u8, len: usize, options: &'a [u8]) -> ipv4::Header<'a> {
        ipv4::Header {
            tos: 0,
            total_length: (ipv4::LEN + options.len() + len) as u16,
            identification: 0xfffe,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol,
            source: FROM,
            destination: TO,
            options,
        }
    }

    fn tcp_packet(flags: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let header = tcp::Header {
            source_port: 5,
            destination_port: 80,
            sequence: 0xffff_ff00,
            acknowledgment: 9,
            flags,
            window: 10,
            checksum: 0xdead,
            urgent: 0,
            options,
        };
        let ip = ip(ipv4::TCP, header.len() + payload.len(), &[1; 4]);
        let mut bytes = vec![0; usize::from(ip.total_length)];
        let rest = header.emit(ip.emit(&mut bytes).unwrap()).unwrap();
        rest.copy_from_slice(payload);
        bytes
    }

    /// Every packet, with its checksums verified by the naive sum.
    fn cut(whole: &SuperPacket<'_>) -> Vec<Vec<u8>> {
        let write = |index| {
            let mut out = vec![0xee; whole.len_of(index)];
            whole.write(index, &mut out).unwrap();
            let (ip, transport) = ipv4::Header::parse(&out).unwrap();
            assert_eq!(usize::from(ip.total_length), out.len());
            assert_eq!(naive(&[&out[..ip.len()]]), 0, "IP checksum of {index}");
            let pseudo = [&FROM.octets()[..], &TO.octets(), &[0, ip.protocol]].concat();
            let length = (transport.len() as u16).to_be_bytes();
            assert_eq!(naive(&[&pseudo, &length, transport]), 0, "checksum of {index}");
            assert_eq!(ip.identification, 0xfffe_u16.wrapping_add(index as u16));
            out
        };
        (0..whole.count()).map(write).collect()
    }

    #[test]
    fn zero_has_its_other_form_in_udp_only() {
        for (offset, stored) in [(tcp::CHECKSUM_AT, [0, 0]), (udp::CHECKSUM_AT, [0xff, 0xff])] {
            let mut packet = [0; 20];
            packet[offset] = 0x12;
            packet[18..].copy_from_slice(&[0xed, 0xff]);
            let mut out = [0; 20];
            copy_finished(&packet, 0, offset, &mut out).unwrap();
            assert_eq!(out[offset..offset + 2], stored, "{offset}");
        }
    }

    proptest! {
        #[test]
        fn tcp_segments_are_the_payload(
            payload in prop::collection::vec(any::<u8>(), 0..5000), size in 1usize..1500, words in 0usize..=10,
        ) {
            let options = vec![1; words * 4];
            let packet = tcp_packet(tcp::FIN | tcp::PSH | tcp::ACK | tcp::CWR | 0x100, &options, &payload);
            let segments = cut(&SuperPacket::tcp(&packet, size).unwrap());
            let mut joined = Vec::new();
            for (index, bytes) in segments.iter().enumerate() {
                let (ip, segment) = ipv4::Header::parse(bytes).unwrap();
                let (header, data) = tcp::Header::parse(segment).unwrap();
                prop_assert_eq!(ip.options, [1; 4]);
                prop_assert_eq!(header.options, &options[..]);
                prop_assert_eq!(header.sequence, 0xffff_ff00_u32.wrapping_add(joined.len() as u32));
                let (first, last) = (index == 0, index + 1 == segments.len());
                prop_assert_eq!(header.flags & tcp::CWR != 0, first);
                prop_assert_eq!(header.flags & (tcp::FIN | tcp::PSH), if last { tcp::FIN | tcp::PSH } else { 0 });
                prop_assert_eq!(header.flags & (tcp::ACK | 0x100), tcp::ACK | 0x100);
                prop_assert!(last || data.len() == size);
                joined.extend_from_slice(data);
            }
            prop_assert_eq!(joined, payload);
        }

        #[test]
        fn udp_datagrams_are_the_payload(
            payload in prop::collection::vec(any::<u8>(), 0..5000), size in 1usize..1500,
        ) {
            let length = (udp::LEN + payload.len()) as u16;
            let header = udp::Header { source_port: 5, destination_port: 443, length, checksum: 0xdead };
            let ip = ip(ipv4::UDP, usize::from(length), &[]);
            let mut packet = vec![0; usize::from(ip.total_length)];
            header.emit(ip.emit(&mut packet).unwrap()).unwrap().copy_from_slice(&payload);
            let mut joined = Vec::new();
            for bytes in cut(&SuperPacket::udp(&packet, size).unwrap()) {
                let (_, datagram) = ipv4::Header::parse(&bytes).unwrap();
                let (header, data) = udp::Header::parse(datagram).unwrap();
                prop_assert_eq!(usize::from(header.length), datagram.len());
                joined.extend_from_slice(data);
            }
            prop_assert_eq!(joined, payload);
        }

        #[test]
        fn open_checksum_is_finished(payload in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut packet = tcp_packet(tcp::ACK, &[], &payload);
            let length = (packet.len() - 24) as u16;
            // The kernel leaves the folded sum of the pseudo-header, not its complement.
            let open = !Sum::pseudo(FROM, TO, ipv4::TCP, length).finish();
            packet[24 + tcp::CHECKSUM_AT..][..2].copy_from_slice(&open.to_be_bytes());
            let mut out = vec![0; packet.len()];
            copy_finished(&packet, 24, tcp::CHECKSUM_AT, &mut out).unwrap();
            let pseudo = [&FROM.octets()[..], &TO.octets(), &[0, ipv4::TCP], &length.to_be_bytes()].concat();
            prop_assert_eq!(naive(&[&pseudo, &out[24..]]), 0);
            prop_assert_eq!(&out[..24 + 16], &packet[..24 + 16]);
            prop_assert_eq!(&out[24 + 18..], &packet[24 + 18..]);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let packet = tcp_packet(tcp::ACK, &[], b"abc");
        assert!(SuperPacket::tcp(&packet, 0).is_err());
        assert!(SuperPacket::tcp(&packet[..30], 5).is_err());
        let whole = SuperPacket::tcp(&packet, 2).unwrap();
        assert_eq!(whole.write(0, &mut [0; 20]), Err(WireError::Length));
        assert_eq!(whole.write(0, &mut [0; 90]), Err(WireError::Length));
        assert!(copy_finished(&packet, 46, 16, &mut vec![0; packet.len()]).is_err());
        assert!(copy_finished(&packet, 24, 16, &mut [0; 9]).is_err());
    }
}
