//! Writes packets for the network, each with its outer headers, into a batch.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::ops::Range;

use super::MAX_FRAME_PACKETS_OUT;
use super::inner::Inner;
use super::state::State;
use super::wrap::Wrap;
use crate::batch::{Batch, Gso, InnerCarrier, InnerGso};
use crate::fragment::Fragments;
use crate::metrics::DropReason;
use crate::mtu;
use crate::segment::{SuperPacket, copy_finished};
use crate::tunnel::Seeded;
use crate::tunnel::flows::PeerIndex;
use crate::wire::checksum::Sum;
use crate::wire::{WireError, virtio};

/// Most datagrams that the kernel cuts one into (`UDP_MAX_SEGMENTS` before Linux 6.9).
const MERGED_MAX: usize = 64;

/// From so many bytes on, what leaves as it came is not copied.
const REFERRED: usize = 1024;

/// How the packets for the network are made from the one of the TUN.
pub(super) enum Cut<'a> {
    /// It is copied.
    Whole,
    /// It is copied and its checksum finished.
    Finish,
    /// It is cut.
    Segments(SuperPacket<'a>),
    /// It is left as it is, and cut so by whoever sends it.
    Uncut { segments: SuperPacket<'a>, gso_type: u8, carrier: InnerCarrier },
    /// It is fragmented, and each fragment is wrapped.
    Fragments(Fragments<'a>),
    /// It is cut, and what is still longer than `limit` fragmented.
    FragmentedSegments { segments: SuperPacket<'a>, limit: usize },
    /// It is wrapped, and the outer packet is fragmented to `limit` bytes.
    Delivery { limit: usize, identification: u32 },
}

/// What becomes of a frame on the wire.
pub(super) struct Emitted {
    pub(super) packets: usize,
    /// Bytes that whoever cuts adds: of headers that stand there once.
    pub(super) repeated: usize,
}

impl Emitted {
    /// Packets that are there one by one.
    fn all(packets: usize) -> Self {
        Self { packets, repeated: 0 }
    }
}

impl State {
    pub(super) fn emit(
        &mut self,
        packet: &[u8],
        inner: &Inner,
        cut: &Cut<'_>,
        peer: PeerIndex,
        out: &mut Batch,
    ) -> Result<Emitted, DropReason> {
        let entropy = if self.style.wants_entropy() { self.entropy(inner) } else { 0 };
        let fragmented = match cut {
            Cut::Delivery { identification, .. } => Some(*identification),
            _ => None,
        };
        let at = usize::from(peer);
        let (Some(to), Some(sequence)) = (self.remotes.get(at).copied(), self.sequences.get_mut(at)) else {
            return Err(DropReason::NoTunnel);
        };
        let tos = self.marking.outer(inner.tos);
        let identification = (fragmented, self.uncut.announcement(to));
        let wrap = self.style.wrap(to, inner.is_v4(), tos, identification, entropy);
        let wrap = wrap.map_err(|_| DropReason::Malformed)?;
        let mut writer = Writer { wrap, to, sequence, out };
        let packets = match cut {
            Cut::Whole => writer.whole(packet),
            Cut::Finish => writer.one(packet.len(), |_, place| {
                copy_finished(packet, inner.ip_len, inner.checksum_at(), place)
            }),
            Cut::Segments(segments) if self.style.can_merge() && segments.count() > 1 => {
                return writer.merged(segments);
            }
            Cut::Segments(segments) => writer.segments(segments),
            Cut::Uncut { segments, gso_type, carrier } => {
                let (at, gso_type, carrier) = (writer.wrap.len(), *gso_type, *carrier);
                let (ip_at, transport_at) = (at as u16, (at + inner.ip_len) as u16);
                let inner = InnerGso { gso_type, ip_at, transport_at, carrier };
                return writer.uncut(packet, segments, inner);
            }
            Cut::Fragments(fragments) => writer.fragments(fragments),
            Cut::FragmentedSegments { segments, limit } => writer.fragmented_segments(segments, *limit),
            Cut::Delivery { limit, identification } => writer.fragmented(packet, *limit, *identification),
        };
        packets.map(Emitted::all)
    }

    /// The same number for all packets of a flow; of packets without ports and of all pieces of a datagram, for all
    /// between two hosts.
    fn entropy(&self, inner: &Inner) -> u32 {
        let mut hasher = Seeded(0).build_hasher();
        match inner.flow_out().filter(|_| inner.fragment.is_none()) {
            Some(key) => key.hash(&mut hasher),
            None => (inner.source, inner.destination).hash(&mut hasher),
        }
        hasher.finish() as u32
    }
}

/// Writes the packets of one frame of the TUN.
struct Writer<'a> {
    wrap: Wrap,
    to: IpAddr,
    /// Next sequence number of the peer.
    sequence: &'a mut u32,
    out: &'a mut Batch,
}

impl Writer<'_> {
    /// One packet; `write` writes the inner one, of `len` bytes, and returns its sum.
    fn one(
        &mut self,
        len: usize,
        write: impl FnOnce(&Wrap, &mut [u8]) -> Result<Sum, WireError>,
    ) -> Result<usize, DropReason> {
        self.parted(len, 0..0, write)
    }

    /// One packet, of which `write` writes the first `len` bytes of the inner one; the rest of it lies in the packet of the
    /// TUN. `write` returns the sum of the whole inner packet.
    fn parted(
        &mut self,
        len: usize,
        rest: Range<usize>,
        write: impl FnOnce(&Wrap, &mut [u8]) -> Result<Sum, WireError>,
    ) -> Result<usize, DropReason> {
        let here = self.wrap.len() + len;
        let total = here + rest.len();
        let place = self.out.push(here, self.to, None).ok_or(DropReason::BatchFull)?;
        let inner = self.wrap.write(place, total).and_then(|room| write(&self.wrap, room));
        let finished = inner.and_then(|inner| self.wrap.finish(place, total, inner, self.sequence));
        finished.map_err(|_| DropReason::TooBig)?;
        if !rest.is_empty() {
            self.refer(rest)?;
        }
        Ok(1)
    }

    /// Adds a part of the packet of the TUN to the packet begun last.
    fn refer(&mut self, range: Range<usize>) -> Result<(), DropReason> {
        let in_frame = virtio::LEN + range.start..virtio::LEN + range.end;
        self.out.refer(in_frame).ok_or(DropReason::BatchFull)
    }

    /// Whether payloads of so many bytes are left in the frame of the TUN that they came in.
    fn refers(&self, bytes: usize) -> bool {
        bytes >= REFERRED && self.out.can_keep()
    }

    fn whole(&mut self, packet: &[u8]) -> Result<usize, DropReason> {
        self.one(packet.len(), |wrap, place| {
            place.copy_from_slice(packet);
            Ok(wrap.sum(packet))
        })
    }

    fn segments(&mut self, segments: &SuperPacket<'_>) -> Result<usize, DropReason> {
        let headers = segments.headers_len();
        let refers = self.refers(segments.payload_of(0).len());
        for index in 0..segments.count() {
            if refers {
                self.parted(headers, segments.payload_of(index), |_, place| {
                    segments.write_headers(index, place)
                })?;
            } else {
                self.one(segments.len_of(index), |_, place| segments.write(index, place))?;
            }
        }
        Ok(segments.count())
    }

    /// GRE-in-UDP: as few packets as possible, which the kernel or the card cuts.
    fn merged(&mut self, segments: &SuperPacket<'_>) -> Result<Emitted, DropReason> {
        let (gre_len, shared_len) = (self.wrap.gre_len(), self.wrap.shared_len());
        let piece = gre_len + segments.len_of(0);
        let most = ((usize::from(u16::MAX) - shared_len) / piece).clamp(1, MERGED_MAX);
        let refers = self.refers(segments.payload_of(0).len());
        let (mut first, mut repeated) = (0, 0);
        while first < segments.count() {
            let last = (first + most).min(segments.count());
            if last - first == 1 {
                self.one(segments.len_of(first), |_, place| segments.write(first, place))?;
                break;
            }
            let body: usize = (first..last).map(|index| gre_len + segments.len_of(index)).sum();
            // At most a path MTU.
            let gso = Gso { size: piece as u16, headers: shared_len as u16, inner: None };
            let place = self.out.push(shared_len, self.to, Some(gso)).ok_or(DropReason::BatchFull)?;
            self.wrap.write_shared(place, shared_len + body).map_err(|_| DropReason::Malformed)?;
            for index in first..last {
                let inner = if refers { segments.headers_len() } else { segments.len_of(index) };
                let place = self.out.extend(gre_len + inner).ok_or(DropReason::BatchFull)?;
                let room = self.wrap.write_gre(place, self.sequence);
                let written = room.and_then(|room| {
                    if refers { segments.write_headers(index, room) } else { segments.write(index, room) }
                });
                written.map_err(|_| DropReason::Malformed)?;
                if refers {
                    self.refer(segments.payload_of(index))?;
                }
            }
            repeated += (last - first - 1) * shared_len;
            first = last;
        }
        Ok(Emitted { packets: segments.count(), repeated })
    }

    /// One packet, which the kernel cuts behind the inner headers. Nothing in it has to be finished: checksums stay open, and
    /// there is no sequence number.
    fn uncut(
        &mut self,
        packet: &[u8],
        segments: &SuperPacket<'_>,
        inner: InnerGso,
    ) -> Result<Emitted, DropReason> {
        let outer = self.wrap.len();
        let headers = outer + segments.headers_len();
        let (head, payload) = packet.split_at_checked(segments.headers_len()).ok_or(DropReason::Malformed)?;
        // None is more than the length of the packet, which has 16 bits.
        let gso = Gso { size: segments.size() as u16, headers: headers as u16, inner: Some(inner) };
        let place = self.out.push(headers, self.to, Some(gso)).ok_or(DropReason::BatchFull)?;
        let total = outer + packet.len();
        let room = self.wrap.write(place, total).map_err(|_| DropReason::Malformed)?;
        room.copy_from_slice(head);
        self.wrap.leave_open(place, total).map_err(|_| DropReason::Malformed)?;
        if self.refers(payload.len()) {
            self.refer(head.len()..packet.len())?;
        } else {
            let place = self.out.extend(payload.len()).ok_or(DropReason::BatchFull)?;
            place.copy_from_slice(payload);
        }
        let packets = segments.count();
        Ok(Emitted { packets, repeated: (packets - 1) * headers })
    }

    fn fragments(&mut self, fragments: &Fragments<'_>) -> Result<usize, DropReason> {
        for index in 0..fragments.count() {
            self.one(fragments.len_of(index), |_, place| fragments.write(index, place))?;
        }
        Ok(fragments.count())
    }

    /// Datagrams of a sender that does not care about the path: rare, for it knows the tunnel's MTU. Not for everybody's
    /// stack.
    #[cold]
    #[inline(never)]
    fn fragmented_segments(&mut self, segments: &SuperPacket<'_>, limit: usize) -> Result<usize, DropReason> {
        let mut whole = [0; u16::MAX as usize];
        let mut packets = 0;
        for index in 0..segments.count() {
            let datagram = whole.get_mut(..segments.len_of(index)).ok_or(DropReason::TooBig)?;
            segments.write(index, datagram).map_err(|_| DropReason::Malformed)?;
            let fragments = Fragments::v4(datagram, limit).map_err(|_| DropReason::FragmentationNeeded)?;
            packets += fragments.count();
            if packets > MAX_FRAME_PACKETS_OUT {
                return Err(DropReason::TooManySegments);
            }
            self.fragments(&fragments)?;
        }
        Ok(packets)
    }

    /// The outer packet in fragments: the way of last resort (RFC 7676 section 3.3).
    fn fragmented(&mut self, packet: &[u8], limit: usize, identification: u32) -> Result<usize, DropReason> {
        let mut whole = [0; super::wrap::MAX + mtu::MIN_V6 as usize];
        let whole = whole.get_mut(..self.wrap.len() + packet.len()).ok_or(DropReason::TooBig)?;
        let mut write = || -> Result<(), WireError> {
            let total = whole.len();
            self.wrap.write(whole, total)?.copy_from_slice(packet);
            self.wrap.finish(whole, total, self.wrap.sum(packet), self.sequence)
        };
        write().map_err(|_| DropReason::Malformed)?;
        let fragments = match self.to {
            IpAddr::V4(_) => Fragments::v4(whole, limit),
            IpAddr::V6(_) => Fragments::v6(whole, limit, identification),
        };
        let fragments = fragments.map_err(|_| DropReason::TooBig)?;
        for index in 0..fragments.count() {
            let place = self.out.push(fragments.len_of(index), self.to, None).ok_or(DropReason::BatchFull)?;
            fragments.write(index, place).map_err(|_| DropReason::Malformed)?;
        }
        Ok(fragments.count())
    }
}
