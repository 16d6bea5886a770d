//! Small packets of one flow that a TUN device had one by one, made one that stands for several.
//!
//! Only for tunnels whose packets leave uncut: for the kernel, what goes on the way is then one packet. The coalescer, which
//! joins what arrives, does it.

use std::ops::Range;

use crate::coalesce::{Coalescer, Piece, Slots};
use crate::wire::virtio;

/// Frames that are gathered at a time: as many datagrams as are joined to one.
const MOST: usize = 64;
/// Longest frame that is gathered: of what is longer, a few are enough to keep the kernel busy.
const SMALL: usize = 2048;

/// Frames read from one TUN device.
pub(super) struct Gather {
    frames: Frames,
    coalescer: Coalescer,
    /// Whether the frames were given to the coalescer.
    is_pushed: bool,
}

struct Frames {
    arena: Box<[u8]>,
    lengths: Vec<usize>,
}

impl Gather {
    pub(super) fn new() -> Self {
        Self {
            frames: Frames {
                arena: vec![0; MOST * SMALL].into_boxed_slice(),
                lengths: Vec::with_capacity(MOST),
            },
            coalescer: Coalescer::new(true),
            is_pushed: false,
        }
    }

    /// Takes a frame; returns false when it is too long, or there are enough. Then, and at the end of a turn, call
    /// [`Gather::next_frame`] until there is none.
    pub(super) fn take(&mut self, frame: &[u8]) -> bool {
        let number = self.frames.lengths.len();
        let place = self.frames.arena.chunks_exact_mut(SMALL).nth(number);
        let Some(place) = place.and_then(|place| place.get_mut(..frame.len())) else { return false };
        place.copy_from_slice(frame);
        self.frames.lengths.push(frame.len());
        true
    }

    /// Puts the next frame to be sent in place of what is in `whole`: virtio header and packet. Returns of how many packets it is
    /// made, or nothing when there is none.
    pub(super) fn next_frame(&mut self, whole: &mut Vec<u8>) -> Option<usize> {
        let Self { frames, coalescer, is_pushed } = self;
        whole.clear();
        // A frame alone needs nobody to look for others.
        if let ([len], false) = (&frames.lengths[..], *is_pushed) {
            whole.extend_from_slice(frames.arena.get(..*len).unwrap_or_default());
            frames.lengths.clear();
            return Some(1);
        }
        if !*is_pushed {
            *is_pushed = true;
            for slot in 0..frames.lengths.len() {
                let frame = frames.frame(slot);
                // What is shorter than a header the engine counts.
                let (header, packet) = virtio::Header::parse(frame).unwrap_or_default();
                let range = frame.len() - packet.len()..frame.len();
                coalescer.push(0, header, Piece { slot, range }, packet);
            }
        }
        let Some(joined) = coalescer.next_frame(frames) else {
            frames.lengths.clear();
            *is_pushed = false;
            return None;
        };
        whole.resize(virtio::LEN, 0);
        // A virtio header always fits its own length.
        let _ = joined.header.emit(whole);
        for Piece { slot, range } in joined.pieces {
            whole.extend_from_slice(frames.frame(*slot).get(range.clone()).unwrap_or_default());
        }
        Some(joined.pieces.len())
    }
}

impl Frames {
    fn range(&self, slot: usize) -> Range<usize> {
        let len = self.lengths.get(slot).copied().unwrap_or(0);
        slot * SMALL..slot * SMALL + len
    }

    fn frame(&self, slot: usize) -> &[u8] {
        self.arena.get(self.range(slot)).unwrap_or_default()
    }
}

impl Slots for Frames {
    fn slot(&mut self, number: usize) -> &mut [u8] {
        self.arena.get_mut(self.range(number)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::segment::SuperPacket;
    use crate::wire::{ipv4, udp};

    /// A datagram of the kernel's, its checksums complete.
    fn datagram(port: u16, identification: u16, payload: &[u8]) -> Vec<u8> {
        let length = (udp::LEN + payload.len()) as u16;
        let header = ipv4::Header {
            tos: 0,
            total_length: ipv4::LEN as u16 + length,
            identification,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: ipv4::UDP,
            source: Ipv4Addr::new(10, 0, 0, 1),
            destination: Ipv4Addr::new(10, 0, 0, 2),
            options: &[],
        };
        let mut bytes = vec![0; ipv4::LEN + udp::LEN + payload.len()];
        let rest = header.emit(&mut bytes).unwrap();
        let header = udp::Header { source_port: port, destination_port: 53, length, checksum: 0 };
        header.emit(rest).unwrap().copy_from_slice(payload);
        // Cut into one piece, it gets its checksum.
        let mut packet = vec![0; bytes.len()];
        SuperPacket::udp(&bytes, payload.len()).unwrap().write(0, &mut packet).unwrap();
        packet
    }

    fn frame(packet: &[u8]) -> Vec<u8> {
        [&[0; virtio::LEN], packet].concat()
    }

    fn all(gather: &mut Gather) -> Vec<(usize, Vec<u8>)> {
        let mut whole = vec![0xee; 9];
        std::iter::from_fn(|| gather.next_frame(&mut whole).map(|packets| (packets, whole.clone()))).collect()
    }

    #[test]
    fn datagrams_of_a_flow_become_one_that_is_cut_into_the_same() {
        let mut gather = Gather::new();
        for round in 0..3 {
            let of_flow: Vec<_> =
                (0..5).map(|number| datagram(1, number, &[number as u8 + round; 64])).collect();
            let other = datagram(2, 77, &[9; 64]);
            for packet in [&of_flow[..3], std::slice::from_ref(&other), &of_flow[3..]].concat() {
                assert!(gather.take(&frame(&packet)));
            }
            let got = all(&mut gather);
            assert_eq!(got.iter().map(|(packets, _)| *packets).collect::<Vec<_>>(), [5, 1]);
            let (header, packet) = virtio::Header::parse(&got[0].1).unwrap();
            assert_eq!((header.gso_type, header.gso_size), (virtio::GSO_UDP_L4, 64));
            let cut = SuperPacket::udp(packet, 64).unwrap();
            for (number, packet) in of_flow.iter().enumerate() {
                let mut piece = vec![0; cut.len_of(number)];
                cut.write(number, &mut piece).unwrap();
                assert_eq!(piece, *packet);
            }
            assert_eq!(got[1].1, frame(&other));
        }
    }

    #[test]
    fn what_is_alone_long_or_too_much_is_left_as_it_is() {
        let mut gather = Gather::new();
        assert_eq!(all(&mut gather), []);
        let strange = vec![7; 5];
        for lone in [frame(&datagram(1, 0, b"x")), strange.clone(), vec![]] {
            assert!(gather.take(&lone));
            assert_eq!(all(&mut gather), [(1, lone)]);
        }
        assert!(!gather.take(&[0; SMALL + 1]) && gather.take(&[0; SMALL]));
        for _ in 1..MOST {
            assert!(gather.take(&frame(&strange)));
        }
        assert!(!gather.take(&frame(&strange)), "there are enough");
        let got = all(&mut gather);
        assert_eq!(got.len(), MOST);
        assert!(got.iter().skip(1).all(|(packets, bytes)| (*packets, bytes) == (1, &frame(&strange))));
    }
}
