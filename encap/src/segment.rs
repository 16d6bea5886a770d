//! Super-packets to packets: cuts what the kernel left whole and finishes the checksums it left open.
//!
//! Stands on the way out, between the engine's decisions and the batch. It is told where to cut and never decides
//! it, and it knows nothing of tunnels. The payload is summed where it lies, and copied only for who wants it elsewhere.
//! What the headers of all segments have in common is summed once per super-packet.
//!
//! Every function that writes a packet returns its sum, so that a checksum of the tunnel (GRE, or UDP around GRE) does
//! not have to read it again.

use std::ops::Range;

use crate::wire::checksum::Sum;
use crate::wire::ip::{Packet, Part, Version};
use crate::wire::{WireError, ipv4, ipv6, read, tcp, udp, write};

/// A TCP or UDP packet over IPv4 or IPv6 that becomes several.
pub struct SuperPacket<'a> {
    /// IP headers, and TCP or UDP header.
    headers: &'a [u8],
    payload: &'a [u8],
    /// Bytes of payload per segment, at least 1.
    size: usize,
    count: usize,
    ip_len: usize,
    ip: Ip,
    kind: Kind,
    /// Sum of the IP headers, less the fields that differ between segments.
    ip_sum: Sum,
    /// Sum of the TCP or UDP header, less the fields that differ.
    transport_sum: Sum,
    /// Sum of the pseudo-header without the length.
    pseudo: Sum,
}

#[derive(Clone, Copy)]
enum Ip {
    V4 { identification: u16 },
    V6,
}

#[derive(Clone, Copy)]
enum Kind {
    /// `flags` is the word with the data offset.
    Tcp {
        sequence: u32,
        flags: u16,
    },
    Udp,
}

impl<'a> SuperPacket<'a> {
    /// A TCP packet to be cut every `size` bytes of payload.
    ///
    /// # Errors
    /// [`WireError`] when `packet` is not one whole TCP packet; [`WireError::Length`] when `size` is 0.
    pub fn tcp(packet: &'a [u8], size: usize) -> Result<Self, WireError> {
        let (ip, segment) = whole(packet, ipv4::TCP)?;
        let (header, payload) = tcp::Header::parse(segment)?;
        let flags = u16::from_be_bytes(read(segment, 12)?);
        let kind = Kind::Tcp { sequence: header.sequence, flags };
        let [s0, s1] = [read(segment, 4)?, read(segment, 6)?].map(u16::from_be_bytes);
        let differing = [s0, s1, flags, header.checksum];
        Self::new(packet, &ip, header.len(), payload, kind, &differing, size)
    }

    /// UDP datagrams of `size` bytes of payload each, the last one maybe shorter, behind one header.
    ///
    /// # Errors
    /// [`WireError`] when `packet` is not one whole UDP packet; [`WireError::Length`] when `size` is 0.
    pub fn udp(packet: &'a [u8], size: usize) -> Result<Self, WireError> {
        let (ip, datagram) = whole(packet, ipv4::UDP)?;
        let (header, payload) = udp::Header::parse(datagram)?;
        let differing = [header.length, header.checksum];
        Self::new(packet, &ip, udp::LEN, payload, Kind::Udp, &differing, size)
    }

    fn new(
        packet: &'a [u8],
        ip: &Packet,
        transport_len: usize,
        payload: &'a [u8],
        kind: Kind,
        differing: &[u16],
        size: usize,
    ) -> Result<Self, WireError> {
        if size == 0 {
            return Err(WireError::Length);
        }
        let headers = packet.get(..ip.header_len + transport_len).ok_or(WireError::Truncated)?;
        let (ip_headers, transport) = headers.split_at_checked(ip.header_len).ok_or(WireError::Truncated)?;
        let word = |at| read::<2>(ip_headers, at).map(u16::from_be_bytes);
        let sum = Sum::default().bytes(ip_headers);
        let (version, ip_sum) = match ip.version() {
            Version::V4 => {
                let identification = word(4)?;
                let sum = sum.without(word(2)?).without(identification).without(word(10)?);
                (Ip::V4 { identification }, sum)
            }
            Version::V6 => (Ip::V6, sum.without(word(4)?)),
        };
        let transport_sum =
            differing.iter().fold(Sum::default().bytes(transport), |sum, word| sum.without(*word));
        Ok(Self {
            headers,
            payload,
            size,
            count: payload.len().div_ceil(size).max(1),
            ip_len: ip.header_len,
            ip: version,
            kind,
            ip_sum,
            transport_sum,
            pseudo: Sum::pseudo(ip.source, ip.destination, ip.protocol, 0_u16),
        })
    }

    /// Number of packets it becomes, at least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of payload of each packet but the last, which may have less.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of all packets it becomes.
    pub fn bytes(&self) -> usize {
        self.count * self.headers.len() + self.payload.len()
    }

    /// Bytes of the headers of each packet.
    pub fn headers_len(&self) -> usize {
        self.headers.len()
    }

    /// Where in the super-packet the payload of the packet with the given index lies.
    pub fn payload_of(&self, index: usize) -> Range<usize> {
        let Range { start, end } = self.range(index);
        self.headers.len() + start..self.headers.len() + end
    }

    /// Bytes of the packet with the given index, IP header included.
    pub fn len_of(&self, index: usize) -> usize {
        self.headers.len() + self.chunk(index).len()
    }

    /// Writes the packet with the given index: identification and sequence number counted up, CWR only in the first,
    /// FIN and PSH only in the last, checksums complete. Returns the sum of the packet.
    ///
    /// # Errors
    /// [`WireError::Length`] when `out` is not exactly [`SuperPacket::len_of`] bytes.
    pub fn write(&self, index: usize, out: &mut [u8]) -> Result<Sum, WireError> {
        let chunk = self.chunk(index);
        let (headers, payload) = out.split_at_mut_checked(self.headers.len()).ok_or(WireError::Length)?;
        if payload.len() != chunk.len() {
            return Err(WireError::Length);
        }
        payload.copy_from_slice(chunk);
        self.write_headers(index, headers)
    }

    /// Writes only the headers, of [`SuperPacket::headers_len`] bytes, of the packet with the given index, as
    /// [`SuperPacket::write`] does; what follows them stands at [`SuperPacket::payload_of`] already.
    ///
    /// # Errors
    /// [`WireError::Length`] when `headers` has another length.
    pub fn write_headers(&self, index: usize, headers: &mut [u8]) -> Result<Sum, WireError> {
        let chunk = self.chunk(index);
        if headers.len() != self.headers.len() {
            return Err(WireError::Length);
        }
        headers.copy_from_slice(self.headers);
        let (ip, transport) = headers.split_at_mut_checked(self.ip_len).ok_or(WireError::Length)?;
        // At most the length of the whole packet, which has 16 bits.
        let length = (transport.len() + chunk.len()) as u16;
        let ip_sum = self.write_ip(index, ip, length)?;
        let (sum, checksum_at) = self.write_transport(index, transport, length)?;
        let sum = sum.bytes(chunk);
        let checksum = stored(sum.plus(self.pseudo).word(length), checksum_at);
        write(transport, checksum_at, checksum)?;
        Ok(ip_sum.word(u16::from_be_bytes(checksum)).plus(sum))
    }

    /// Writes what differs in the IP header, and returns its sum.
    fn write_ip(&self, index: usize, ip: &mut [u8], length: u16) -> Result<Sum, WireError> {
        // Neither length is more than that of the whole packet.
        match self.ip {
            Ip::V4 { identification } => {
                let total = length + ip.len() as u16;
                let identification = identification.wrapping_add(index as u16);
                let sum = self.ip_sum.word(total).word(identification);
                let checksum = sum.finish();
                write(ip, 2, total.to_be_bytes())?;
                write(ip, 4, identification.to_be_bytes())?;
                write(ip, 10, checksum.to_be_bytes())?;
                Ok(sum.word(checksum))
            }
            Ip::V6 => {
                let payload = length + ip.len().saturating_sub(ipv6::LEN) as u16;
                write(ip, 4, payload.to_be_bytes())?;
                Ok(self.ip_sum.word(payload))
            }
        }
    }

    /// Writes what differs in the TCP or UDP header, except the checksum. Returns the sum of the header without it, and
    /// its offset.
    fn write_transport(
        &self,
        index: usize,
        transport: &mut [u8],
        length: u16,
    ) -> Result<(Sum, usize), WireError> {
        match self.kind {
            Kind::Tcp { sequence, mut flags } => {
                let sequence = sequence.wrapping_add((index * self.size) as u32).to_be_bytes();
                if index > 0 {
                    flags &= !tcp::CWR;
                }
                if index + 1 < self.count {
                    flags &= !(tcp::FIN | tcp::PSH);
                }
                write(transport, 4, sequence)?;
                write(transport, 12, flags.to_be_bytes())?;
                Ok((self.transport_sum.bytes(&sequence).word(flags), tcp::CHECKSUM_AT))
            }
            Kind::Udp => {
                write(transport, udp::LENGTH_AT, length.to_be_bytes())?;
                Ok((self.transport_sum.word(length), udp::CHECKSUM_AT))
            }
        }
    }

    /// The part of the payload that goes into one packet.
    fn chunk(&self, index: usize) -> &'a [u8] {
        self.payload.get(self.range(index)).unwrap_or_default()
    }

    /// Where that part lies in the payload.
    fn range(&self, index: usize) -> Range<usize> {
        let start = index.saturating_mul(self.size).min(self.payload.len());
        start..start.saturating_add(self.size).min(self.payload.len())
    }
}

/// The view of a packet that is not a fragment and carries `protocol`.
fn whole(packet: &[u8], protocol: u8) -> Result<(Packet, &[u8]), WireError> {
    let (ip, transport) = Packet::parse(packet)?;
    let fits = ip.part == Part::Whole && ip.protocol == protocol;
    if fits { Ok((ip, transport)) } else { Err(WireError::Protocol) }
}

/// Copies a packet whose checksum covers everything from `start` on and is stored `offset` bytes after it. The
/// field holds the sum of the pseudo-header; the copy has the complete checksum. Returns the sum of the copy.
///
/// # Errors
/// [`WireError::Length`] when `out` is not as long as `packet`, or the field lies outside it or at an odd place.
pub fn copy_finished(packet: &[u8], start: usize, offset: usize, out: &mut [u8]) -> Result<Sum, WireError> {
    if packet.len() != out.len() {
        return Err(WireError::Length);
    }
    let (head, covered) = packet.split_at_checked(start).ok_or(WireError::Length)?;
    let (head_out, covered_out) = out.split_at_mut_checked(start).ok_or(WireError::Length)?;
    let pseudo = open_field(start, covered, offset)?;
    let head = Sum::default().copy(head, head_out);
    let sum = Sum::default().copy(covered, covered_out);
    let checksum = stored(sum, offset);
    write(covered_out, offset, checksum)?;
    Ok(head.without(pseudo).word(u16::from_be_bytes(checksum)).plus(sum))
}

/// Finishes the checksum of a packet where it stands; arguments as for [`copy_finished`].
///
/// # Errors
/// [`WireError::Length`] when the field lies outside the packet or at an odd place.
pub fn finish(packet: &mut [u8], start: usize, offset: usize) -> Result<(), WireError> {
    let covered = packet.get_mut(start..).ok_or(WireError::Length)?;
    open_field(start, covered, offset)?;
    let checksum = stored(Sum::default().bytes(covered), offset);
    write(covered, offset, checksum)
}

/// What stands in the checksum field of a packet whose checksum is open.
fn open_field(start: usize, covered: &[u8], offset: usize) -> Result<u16, WireError> {
    if !start.is_multiple_of(2) || !offset.is_multiple_of(2) {
        return Err(WireError::Length);
    }
    read(covered, offset).map(u16::from_be_bytes).map_err(|_| WireError::Length)
}

/// A checksum as it is stored at this offset of a header. A zero would mean "none" to UDP, which stores its other form
/// (RFC 768, RFC 8200 section 8.1); nobody else does, and some take that form for a wrong checksum (RFC 1624 section
/// 3).
fn stored(sum: Sum, offset: usize) -> [u8; 2] {
    match sum.finish() {
        0 if offset == udp::CHECKSUM_AT => [0xff, 0xff],
        checksum => checksum.to_be_bytes(),
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
