//! The bytes of netlink messages: writing requests, reading answers.
//!
//! Pure: no sockets. Layout from linux/netlink.h: every message starts with `nlmsghdr` (16 bytes), every
//! attribute with `nlattr` (4 bytes), both padded to 4 bytes, in host byte order. A malformed answer ends the
//! iteration; it never panics.

const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// The two upper bits of an attribute type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;

/// A request being written.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of type `kind` with `flags`, followed by the fixed header of its family.
    pub(super) fn new(kind: u16, flags: i32, family_header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags as u16).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(family_header);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    /// Appends one attribute. Values come from this program and are far below 64 KiB.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = u16::try_from(ATTRIBUTE_HEADER_LEN + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends a 32-bit attribute.
    pub(super) fn attribute_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a zero-terminated string.
    pub(super) fn attribute_string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends an attribute that holds what `fill` appends.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.attribute(kind, &[]);
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 2) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        self
    }

    /// Appends raw bytes, for the family header inside a nested attribute.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// The finished bytes, numbered `sequence`.
    pub(super) fn finish(&mut self, sequence: u32) -> &[u8] {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(0..4) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        if let Some(field) = self.bytes.get_mut(8..12) {
            field.copy_from_slice(&sequence.to_ne_bytes());
        }
        &self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram; ends at the first malformed one.
pub(super) fn answers(mut datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(datagram, 0)? as usize;
        let answer = Answer {
            kind: u16_at(datagram, 4)?,
            flags: u16_at(datagram, 6)?,
            sequence: u32_at(datagram, 8)?,
            payload: datagram.get(HEADER_LEN..len)?,
        };
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}

/// The attributes in `bytes`, type without its flag bits; ends at the first malformed one.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attributes behind a family header of `header_len` bytes.
pub(super) fn attributes_after(payload: &[u8], header_len: usize) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(payload.get(header_len.next_multiple_of(4)..).unwrap_or_default())
}

/// The first attribute of type `kind`.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Host-order 16 bits at `offset`.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset.checked_add(2)?)?.try_into().ok()?))
}

/// Host-order 32 bits at `offset`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(offset..offset.checked_add(8)?)?.try_into().ok()?))
}

/// A zero-terminated string attribute.
pub(super) fn string(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_written() {
        let mut message = Message::new(16, 0x305, &[7; 16]);
        message.attribute_string(3, "veth0").nest(18, |inner| {
            inner.attribute_u32(1, 0xdead_beef);
        });
        let bytes = message.finish(42).to_vec();
        let all: Vec<_> = answers(&bytes).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].flags, all[0].sequence), (16, 0x305, 42));
        let mut found = attributes_after(all[0].payload, 16);
        let (kind, value) = found.next().unwrap();
        assert_eq!((kind, string(value).as_str()), (3, "veth0"));
        let (kind, value) = found.next().unwrap();
        assert_eq!(kind, 18);
        assert_eq!(find(value, 1).and_then(|value| u32_at(value, 0)), Some(0xdead_beef));
        assert!(found.next().is_none());
    }

    #[test]
    fn malformed_bytes_end_the_iteration() {
        for bytes in
            [&[][..], &[0; 3], &[0; 16], &[0xff; 16], &[15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(answers(bytes).count(), 0, "{bytes:?}");
        }
        for bytes in [&[][..], &[0; 4], &[3, 0, 1, 0], &[8, 0, 1, 0], &[0xff; 9]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        // A good attribute, then one that claims more than there is.
        let bytes = [5, 0, 1, 0, 9, 0, 0, 0, 200, 0, 2, 0];
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), vec![(1, &[9][..])]);
    }
}
