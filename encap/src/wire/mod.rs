//! The bytes of each protocol: one protocol, one file, one shape.
//!
//! Every file has a plain `Header` with `parse(&[u8]) -> Result<(Header, rest), WireError>` and
//! `emit(&self, &mut [u8]) -> Result<rest, WireError>`. Nothing here decides what happens to a packet, keeps state
//! or can panic: bytes are read and written only through checked splits.

pub mod checksum;
pub mod gre;
pub mod icmp;
pub mod icmpv6;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;
pub mod virtio;

/// Why bytes are not the header they were taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the header, or than its length field says.
    #[error("the packet ends before its header or its stated length")]
    Truncated,
    /// A version field this code does not speak.
    #[error("the version field is not the expected one")]
    Version,
    /// A length field that contradicts itself or the header's minimum.
    #[error("a length field is impossible")]
    Length,
    /// Bits that must be zero are set.
    #[error("reserved bits are set")]
    Reserved,
    /// Extension headers in an order or a number that is not followed.
    #[error("the chain of extension headers is out of order or too long")]
    Chain,
    /// A packet of another protocol than it was taken for, or only a part of one.
    #[error("the packet is of another protocol")]
    Protocol,
}

/// The `N` bytes at offset `at`.
///
/// # Errors
/// [`WireError::Truncated`] when they are not all there.
pub fn read<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], WireError> {
    let chunk = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    chunk.copied().ok_or(WireError::Truncated)
}

/// Overwrites the `N` bytes at offset `at`.
///
/// # Errors
/// [`WireError::Truncated`] when they are not all there; nothing is written then.
pub fn write<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Result<(), WireError> {
    let chunk = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>());
    *chunk.ok_or(WireError::Truncated)? = value;
    Ok(())
}
