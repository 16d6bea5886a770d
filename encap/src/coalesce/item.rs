//! A delivered packet in its slot: its checksums verified, its headers made those of a super-packet.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::Slots;
use super::packet::IPV6_LEN;
use crate::wire::checksum::{Sum, adjust};
use crate::wire::{WireError, ipv4, read, tcp, udp, virtio, write};

/// Offset of the flags FIN to CWR in the TCP header.
const FLAGS_AT: usize = 13;

/// One delivered packet.
pub(super) struct Item {
    pub(super) tunnel: usize,
    pub(super) slot: usize,
    /// What is left undone in the packet.
    pub(super) header: virtio::Header,
    /// Where the packet lies in the slot.
    pub(super) range: Range<usize>,
    /// Bytes of the IP and the transport header. At most 100: there are no IP options.
    pub(super) headers: u8,
    /// Bytes of payload per segment; 0 in a packet that stays alone, of which nothing else is known either.
    pub(super) size: u16,
    pub(super) checksum: Checksum,
    /// The item that can be joined to this one.
    pub(super) next: u32,
}

/// What is known about the checksum of the transport.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Unknown,
    /// It is right, or has not crossed a wire yet.
    Trusted,
    /// It is wrong, or that of the IP header is.
    Wrong,
}

/// Where the transport stands in a packet without IP options, and which one it is.
struct Layout {
    is_v4: bool,
    ip_len: usize,
    protocol: u8,
}

impl Item {
    /// The place of the payload in the slot.
    pub(super) fn payload(&self) -> Range<usize> {
        (self.range.start + usize::from(self.headers)).min(self.range.end)..self.range.end
    }

    /// The checksum of the transport and that of the IPv4 header, which the kernel's own merging verifies as well.
    pub(super) fn verify(&self, slots: &mut (impl Slots + ?Sized)) -> Checksum {
        let Some(packet) = self.packet(slots) else { return Checksum::Wrong };
        match is_right(packet, self.checksum == Checksum::Trusted) {
            Ok(true) => Checksum::Trusted,
            Ok(false) | Err(_) => Checksum::Wrong,
        }
    }

    /// Makes this packet's headers those of a super-packet with `payload` bytes that ends with the segment `last`. Only
    /// for a packet whose checksums were verified: the new ones are right whatever the old ones were. Returns what is
    /// left undone then.
    pub(super) fn rewrite(
        &self,
        payload: usize,
        last: &Self,
        slots: &mut (impl Slots + ?Sized),
    ) -> Option<virtio::Header> {
        let flags = last.packet(slots).and_then(|packet| last.ending_flags(packet).ok()).unwrap_or(0);
        // Fails only where the headers are not there, but those were read for the checksums.
        self.write_headers(self.packet(slots)?, payload, flags).ok()
    }

    fn packet<'a>(&self, slots: &'a mut (impl Slots + ?Sized)) -> Option<&'a mut [u8]> {
        slots.slot(self.slot).get_mut(self.range.clone())
    }

    /// FIN and PSH of a TCP segment.
    fn ending_flags(&self, packet: &[u8]) -> Result<u8, WireError> {
        let layout = Layout::of(packet)?;
        if layout.protocol != ipv4::TCP {
            return Ok(0);
        }
        let [flags] = read(packet, layout.ip_len + FLAGS_AT)?;
        // Both in the lower byte.
        Ok(flags & (tcp::FIN | tcp::PSH) as u8)
    }

    fn write_headers(
        &self,
        packet: &mut [u8],
        payload: usize,
        flags: u8,
    ) -> Result<virtio::Header, WireError> {
        let layout = Layout::of(packet)?;
        // At most 65 535: no more is joined.
        let total = (usize::from(self.headers) + payload) as u16;
        let (ip, transport) = packet.split_at_mut_checked(layout.ip_len).ok_or(WireError::Truncated)?;
        let length = total - layout.ip_len as u16;
        if layout.is_v4 {
            let [old, checksum] = [read(ip, 2)?, read(ip, 10)?].map(u16::from_be_bytes);
            write(ip, 2, total.to_be_bytes())?;
            write(ip, 10, adjust(checksum, old, total).to_be_bytes())?;
        } else {
            write(ip, 4, length.to_be_bytes())?;
        }
        let (gso_type, checksum_at) = if layout.protocol == ipv4::TCP {
            let [old] = read(transport, FLAGS_AT)?;
            write(transport, FLAGS_AT, [old | flags])?;
            (if layout.is_v4 { virtio::GSO_TCPV4 } else { virtio::GSO_TCPV6 }, tcp::CHECKSUM_AT)
        } else {
            write(transport, udp::LENGTH_AT, length.to_be_bytes())?;
            (virtio::GSO_UDP_L4, udp::CHECKSUM_AT)
        };
        // What the kernel expects to find is the sum, not its complement.
        let pseudo = !layout.pseudo(ip, length)?.finish();
        write(transport, checksum_at, pseudo.to_be_bytes())?;
        Ok(virtio::Header {
            flags: virtio::NEEDS_CSUM,
            gso_type,
            hdr_len: u16::from(self.headers),
            gso_size: self.size,
            csum_start: layout.ip_len as u16,
            csum_offset: checksum_at as u16,
        })
    }
}

/// Whether the checksums of a packet are right; that of the transport is read only when it is not `trusted`.
fn is_right(packet: &[u8], trusted: bool) -> Result<bool, WireError> {
    let layout = Layout::of(packet)?;
    let (ip, transport) = packet.split_at_checked(layout.ip_len).ok_or(WireError::Truncated)?;
    if layout.is_v4 && Sum::default().bytes(ip).finish() != 0 {
        return Ok(false);
    }
    // The packet was found to be as long as its IP header says, which has 16 bits.
    Ok(trusted || layout.pseudo(ip, transport.len() as u16)?.bytes(transport).finish() == 0)
}

impl Layout {
    fn of(packet: &[u8]) -> Result<Self, WireError> {
        let [first] = read(packet, 0)?;
        let is_v4 = first >> 4 == 4;
        let (ip_len, protocol_at) = if is_v4 { (ipv4::LEN, 9) } else { (IPV6_LEN, 6) };
        let [protocol] = read(packet, protocol_at)?;
        Ok(Self { is_v4, ip_len, protocol })
    }

    /// The sum of the pseudo-header; `length` is that of the transport with its header.
    fn pseudo(&self, ip: &[u8], length: u16) -> Result<Sum, WireError> {
        Ok(if self.is_v4 {
            let [source, destination] = [read::<4>(ip, 12)?, read::<4>(ip, 16)?].map(Ipv4Addr::from);
            Sum::pseudo(source, destination, self.protocol, length)
        } else {
            let [source, destination] = [read::<16>(ip, 8)?, read::<16>(ip, 24)?].map(Ipv6Addr::from);
            Sum::pseudo(source, destination, self.protocol, length)
        })
    }
}
