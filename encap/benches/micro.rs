//! What a packet costs in the pure modules: `cargo bench -p encap --bench micro`.
//!
//! Devices, sockets and threads are not in here.

#[path = "../../benches/timing/mod.rs"]
mod timing;

use std::hint::black_box;
use std::net::Ipv4Addr;

use encap::batch::Batch;
use encap::coalesce::{Coalescer, Piece, Slots};
use encap::config::Tunnel;
use encap::engine::{Engine, MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT};
use encap::metrics::Counters;
use encap::segment::SuperPacket;
use encap::wire::checksum::Sum;
use encap::wire::{gre, ipv4, tcp, virtio};
use timing::{measure, now};

const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const KEY: u32 = 1001;
const HOST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const RS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// Inner MTU of a tunnel with a key over Ethernet.
const MTU: u16 = 1472;
/// Payload of a segment: MTU less IPv4, TCP and its timestamps.
const SEGMENT: u16 = MTU - 52;
/// TCP timestamps with their padding.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

fn main() {
    headers();
    checksums();
    let packet = super_packet();
    segments(&packet);
    way_out(&packet);
    joins(&packet);
}

/// The outer headers of one packet.
fn headers() {
    let gre = gre::Header { protocol: gre::IPV4, checksum: None, key: Some(KEY), sequence: None };
    let outer = ip(ipv4::LEN + gre.len(), ipv4::GRE, LOCAL, PEER);
    let mut bytes = vec![0; ipv4::LEN + gre.len()];
    measure("GRE header with key: write", || {
        black_box(&gre).emit(black_box(&mut bytes)).expect("there is room").len()
    });
    measure("GRE header with key: parse", || {
        let (header, rest) = gre::Header::parse(black_box(&bytes)).expect("the header is valid");
        (header.key, rest.len())
    });
    measure("IPv4 and GRE headers: write", || {
        let rest = black_box(&outer).emit(black_box(&mut bytes)).expect("there is room");
        gre.emit(rest).expect("there is room").len()
    });
    measure("IPv4 and GRE headers: parse", || {
        let (outer, rest) = ipv4::Header::parse(black_box(&bytes)).expect("the header is valid");
        let (header, rest) = gre::Header::parse(rest).expect("the header is valid");
        (outer.source, header.key, rest.len())
    });
}

/// The Internet checksum at the lengths of small, middling, full and merged packets, behind headers of odd alignment.
fn checksums() {
    let from: Vec<_> = (0..=254_u8).cycle().take(70_000).collect();
    let mut to = vec![0; from.len()];
    for len in [64, 576, 1448, 65_000] {
        measure(&format!("checksum of {len} bytes"), || Sum::default().bytes(black_box(&from[34..34 + len])));
        measure(&format!("checksum and copy of {len} bytes"), || {
            Sum::default().copy(black_box(&from[34..34 + len]), black_box(&mut to[62..62 + len]))
        });
    }
}

/// 64 KiB of TCP cut to the MTU with checksums finished, without anything around it.
fn segments(packet: &[u8]) {
    let mut out = vec![0; usize::from(MTU)];
    measure("64 KiB of TCP: cut", || {
        let whole = SuperPacket::tcp(black_box(packet), usize::from(SEGMENT)).expect("the packet is valid");
        for index in 0..whole.count() {
            let place = &mut out[..whole.len_of(index)];
            whole.write(index, place).expect("the place is as long as the segment");
        }
        whole.count()
    });
}

/// The same as a frame of the TUN on its way through the engine: found in its flow, cut, wrapped, in the batch.
fn way_out(packet: &[u8]) {
    let tunnel = Tunnel {
        key: Some(KEY),
        addresses: vec![HOST.into()],
        ..Tunnel::new(
            "bench",
            LOCAL.into(),
            vec![PEER.into()],
            vec!["10.0.0.0/24".parse().expect("a network")],
        )
    };
    let (counters, now) = (Counters::default(), now());
    let mut engine = Engine::new(now, &counters, 1);
    engine.set_tunnel(now, 0, &tunnel, MTU, counters.add(&tunnel), true);
    let mut frame = vec![0; virtio::LEN];
    let header = virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type: virtio::GSO_TCPV4,
        hdr_len: 52,
        gso_size: SEGMENT,
        csum_start: ipv4::LEN as u16,
        csum_offset: tcp::CHECKSUM_AT as u16,
    };
    header.emit(&mut frame).expect("there is room");
    frame.extend_from_slice(packet);
    let mut out = Batch::new(MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT);
    let mut read = Vec::with_capacity(frame.len());
    measure("64 KiB of TCP: read, and from the TUN's frame to GRE packets", || {
        out.clear();
        // As the kernel does: the batch may have kept the last one.
        read.clear();
        read.extend_from_slice(black_box(&frame));
        engine.handle_tun_input(now, 0, &mut read, &mut out);
        out.bytes()
    });
    assert!(out.len() > 1, "nothing was cut: {:?}", counters.snapshot());
}

/// Segments of TCP joined to super-packets: what a batch of so many costs from the first push to the last frame, once
/// with checksums to be verified and once without.
fn joins(packet: &[u8]) {
    let whole = SuperPacket::tcp(packet, usize::from(SEGMENT)).expect("the packet is valid");
    for flags in [0, virtio::DATA_VALID] {
        let header = virtio::Header { flags, ..virtio::Header::default() };
        let fresh: Vec<_> = (0..16)
            .map(|index| {
                let mut slot = vec![0; whole.len_of(index)];
                whole.write(index, &mut slot).expect("the place is as long as the segment");
                slot
            })
            .collect();
        let mut slots = Received(fresh.clone());
        let mut coalescer = Coalescer::new(true);
        for count in [1, 2, 16] {
            let verified = if flags == 0 { "" } else { ", checksums known" };
            measure(&format!("segments joined: {count}{verified}"), || {
                // The headers of the first were rewritten.
                slots.0[0][..52].copy_from_slice(&fresh[0][..52]);
                for (slot, bytes) in slots.0[..count].iter().enumerate() {
                    coalescer.push(0, header, Piece { slot, range: 0..bytes.len() }, black_box(bytes));
                }
                let mut pieces = 0;
                while let Some(frame) = coalescer.next_frame(&mut slots) {
                    pieces += frame.pieces.len();
                }
                assert_eq!(pieces, count);
            });
        }
    }
}

struct Received(Vec<Vec<u8>>);

impl Slots for Received {
    fn slot(&mut self, number: usize) -> &mut [u8] {
        self.0.get_mut(number).map(Vec::as_mut_slice).unwrap_or_default()
    }
}

/// A TCP packet as long as a packet can be.
fn super_packet() -> Vec<u8> {
    let header = tcp::Header {
        source_port: 40_000,
        destination_port: 80,
        sequence: 1,
        acknowledgment: 1,
        flags: tcp::ACK | tcp::PSH,
        window: 500,
        checksum: 0,
        urgent: 0,
        options: &TIMESTAMPS,
    };
    let mut packet: Vec<_> = (0..=254_u8).cycle().take(usize::from(u16::MAX)).collect();
    let rest = ip(packet.len(), ipv4::TCP, HOST, RS).emit(&mut packet).expect("there is room");
    header.emit(rest).expect("there is room");
    packet
}

fn ip(total: usize, protocol: u8, source: Ipv4Addr, destination: Ipv4Addr) -> ipv4::Header<'static> {
    ipv4::Header {
        tos: 0,
        total_length: total.try_into().expect("at most 65535 bytes"),
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol,
        source,
        destination,
        options: &[],
    }
}
