//! `virtio_net_hdr`: what the kernel has left undone in a packet (virtio 1.2 section 5.1.6, `linux/virtio_net.h`).
//!
//! Ten bytes, in the byte order of the machine, in front of every frame of a TUN device and of a packet socket with
//! `PACKET_VNET_HDR`.

use super::WireError;

/// Length of the header in bytes.
pub const LEN: usize = 10;
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
