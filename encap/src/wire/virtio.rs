//! `virtio_net_hdr`: what the kernel has left undone in a packet (virtio 1.2 section 5.1.6, `linux/virtio_net.h`).
//!
//! Ten bytes, in the byte order of the machine, in front of every frame of a TUN device and of a packet socket with
//! `PACKET_VNET_HDR`; 24 where the kernel is also told of a tunnel's headers ([`TunnelHeader`]).

use super::WireError;

/// Length of the header in bytes.
pub const LEN: usize = 10;
/// Length of a [`TunnelHeader`] in bytes.
pub const TUNNEL_LEN: usize = 24;
/// Flag: the checksum at `csum_start + csum_offset` holds only the pseudo-header sum.
pub const NEEDS_CSUM: u8 = 1;
/// Flag: the kernel has verified the checksum.
pub const DATA_VALID: u8 = 2;
/// `gso_type`: an ordinary packet.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4, to be cut every `gso_size` bytes of payload.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: TCP over IPv6, to be cut every `gso_size` bytes of payload.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP datagrams of `gso_size` bytes of payload each.
pub const GSO_UDP_L4: u8 = 5;
/// Flag: a tunnel's outer UDP checksum is to be made as well.
const TUNNEL_CSUM: u8 = 8;
/// Bits of `gso_type`: the packet that is to be cut lies in one of a tunnel, over IPv4 or IPv6.
const GSO_IN_IPV4: u8 = 0x20;
const GSO_IN_IPV6: u8 = 0x40;
/// Bit of `gso_type`: the TCP header has CWR set, which belongs to the first segment alone.
pub const GSO_ECN: u8 = 0x80;

/// A `virtio_net_hdr` of the ten-byte layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` types, maybe with [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of headers in front of the payload.
    pub hdr_len: u16,
    /// Bytes of payload per segment.
    pub gso_size: u16,
    /// Offset from the start of the packet at which the checksum starts.
    pub csum_start: u16,
    /// Offset from `csum_start` at which the checksum is stored.
    pub csum_offset: u16,
}

impl Header {
    /// The header and what follows it.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let (head, rest) = bytes.split_first_chunk::<LEN>().ok_or(WireError::Truncated)?;
        let [flags, gso_type, hdr_len @ .., _, _, _, _, _, _] = *head;
        let [.., s0, s1, c0, c1, o0, o1] = *head;
        let header = Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes(hdr_len),
            gso_size: u16::from_ne_bytes([s0, s1]),
            csum_start: u16::from_ne_bytes([c0, c1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        };
        Ok((header, rest))
    }

    /// Writes the header and returns the room after it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when it does not fit.
    pub fn emit<'b>(&self, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
        let (head, rest) = out.split_first_chunk_mut::<LEN>().ok_or(WireError::Truncated)?;
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [s0, s1] = self.gso_size.to_ne_bytes();
        let [c0, c1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        *head = [self.flags, self.gso_type, h0, h1, s0, s1, c0, c1, o0, o1];
        Ok(rest)
    }
}

/// A `virtio_net_hdr_v1_hash_tunnel` of a packet that is to be cut inside of a tunnel's packet (virtio 1.4 section 5.1.6,
/// since Linux 6.17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelHeader {
    /// What is to be done, its offsets from the start of the whole frame.
    pub header: Header,
    /// Whether the outer packet is one of IPv6.
    pub is_v6: bool,
    /// Whether there is an outer UDP header whose checksum is open too: it holds the sum of the pseudo-header.
    pub udp_checksum: bool,
    /// Offset of what follows the outer IP header.
    pub transport_at: u16,
    /// Offset of the inner IP header: at least 8 bytes more.
    pub inner_at: u16,
}

impl TunnelHeader {
    /// The header as it stands in front of the frame.
    pub fn bytes(&self) -> [u8; TUNNEL_LEN] {
        let mut bytes = [0; TUNNEL_LEN];
        let tunnel = if self.is_v6 { GSO_IN_IPV6 } else { GSO_IN_IPV4 };
        let (head, rest) = bytes.split_at_mut(LEN);
        let flags = self.header.flags | if self.udp_checksum { TUNNEL_CSUM } else { 0 };
        // A virtio header always fits its own length.
        let _ = Header { flags, gso_type: self.header.gso_type | tunnel, ..self.header }.emit(head);
        // Buffers, hash and its kind are of no meaning here. These two are little-endian on every machine.
        let offsets = [self.transport_at, self.inner_at].map(u16::to_le_bytes);
        rest.iter_mut().skip(10).zip(offsets.as_flattened()).for_each(|(place, byte)| *place = *byte);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layout_of_the_kernel() {
        let header = Header { flags: 1, gso_type: 5, hdr_len: 2, gso_size: 3, csum_start: 4, csum_offset: 6 };
        let mut bytes = [0; LEN];
        header.emit(&mut bytes).unwrap();
        let words = [2u16, 3, 4, 6].map(u16::to_ne_bytes).concat();
        assert_eq!(bytes[..2], [1, 5]);
        assert_eq!(bytes[2..], words);
        assert_eq!(Header::parse(&bytes[..9]), Err(WireError::Truncated));
    }

    #[test]
    fn layout_of_the_kernel_for_a_tunnel() {
        let header =
            Header { flags: 1, gso_type: 0x84, hdr_len: 2, gso_size: 3, csum_start: 4, csum_offset: 6 };
        let (transport_at, inner_at) = (54, 0x103);
        let tunnel = TunnelHeader { header, is_v6: true, udp_checksum: false, transport_at, inner_at };
        let bytes = tunnel.bytes();
        assert_eq!(bytes[..2], [1, 0xc4]);
        assert_eq!(bytes[2..10], [2u16, 3, 4, 6].map(u16::to_ne_bytes).concat());
        assert_eq!(bytes[10..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 54, 0, 3, 1]);
        let other = TunnelHeader { is_v6: false, udp_checksum: true, ..tunnel };
        assert_eq!(other.bytes()[..2], [9, 0xa4]);
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_emit(f: u8, t: u8, h: u16, s: u16, c: u16, o: u16) {
            let header =
                Header { flags: f, gso_type: t, hdr_len: h, gso_size: s, csum_start: c, csum_offset: o };
            let mut bytes = [0; LEN + 3];
            prop_assert_eq!(header.emit(&mut bytes).unwrap().len(), 3);
            prop_assert_eq!(Header::parse(&bytes).unwrap(), (header, &[0; 3][..]));
        }
    }
}
