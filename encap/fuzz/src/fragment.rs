//! Whatever packet is fragmented, to whatever limit, no fragment is longer, and together they are the payload.

use encap::fragment::Fragments;
use encap::wire::checksum::Sum;
use encap::wire::{ipv4, ipv6};

const ID: u32 = 0x0102_0304;

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    let Some((limit, packet)) = bytes.split_first_chunk() else { return };
    let limit = usize::from(u16::from_be_bytes(*limit));
    if let Ok(fragments) = Fragments::v4(packet, limit) {
        let (original, payload) = ipv4::Header::parse(packet).expect("it was parsed before");
        let base = usize::from(original.fragment_offset) * 8;
        let mut joined = Vec::new();
        for (index, bytes) in written(&fragments, limit).iter().enumerate() {
            let (header, data) = ipv4::Header::parse(bytes).expect("a packet");
            assert_eq!(Sum::default().bytes(&bytes[..header.len()]).finish(), 0);
            assert_eq!(usize::from(header.fragment_offset) * 8, base + joined.len());
            let last = index + 1 == fragments.count();
            assert_eq!(header.more_fragments, !last || original.more_fragments);
            assert!(last || data.len() % 8 == 0 && !data.is_empty());
            joined.extend_from_slice(data);
        }
        assert_eq!(joined, payload);
    }
    if let Ok(fragments) = Fragments::v6(packet, limit, ID) {
        let (original, payload) = ipv6::Header::parse(packet).expect("it was parsed before");
        let mut joined = Vec::new();
        for (index, bytes) in written(&fragments, limit).iter().enumerate() {
            let (header, data) = ipv6::Header::parse(bytes).expect("a packet");
            let upper = header.upper(data).expect("a chain of one");
            if fragments.count() > 1 {
                let more = index + 1 < fragments.count();
                let offset = (joined.len() / 8) as u16;
                assert_eq!(upper.fragment, Some(ipv6::Fragment { offset, more, identification: ID }));
                assert_eq!(upper.protocol, original.next_header);
                assert!(!more || (data.len() - upper.offset) % 8 == 0);
            }
            joined.extend_from_slice(&data[upper.offset..]);
        }
        assert_eq!(joined, payload);
    }
}

fn written(fragments: &Fragments<'_>, limit: usize) -> Vec<Vec<u8>> {
    let write = |index| {
        let mut out = vec![0; fragments.len_of(index)];
        let sum = fragments.write(index, &mut out).expect("the place is as long as the fragment");
        assert_eq!(sum.finish(), Sum::default().bytes(&out).finish());
        assert!(out.len() <= limit);
        out
    };
    let all: Vec<_> = (0..fragments.count()).map(write).collect();
    assert_eq!(all.iter().map(Vec::len).sum::<usize>(), fragments.bytes());
    all
}
