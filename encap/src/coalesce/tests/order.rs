//! Traffic of all sorts: whatever is joined, each flow gets what was sent, in the order it arrived.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What the flow of a packet is known by: tunnel, then addresses, protocol and ports as bytes.
type Id = (usize, Vec<u8>);

fn id(tunnel: usize, packet: &[u8]) -> Id {
    let (ip_len, protocol, ends) = layout(packet);
    (tunnel, [ends, &[protocol], &packet[ip_len..ip_len + 4]].concat())
}

/// All that each flow gets in these frames, in order, and of each packet what `of` it counts.
fn by_flow(frames: &[Written], of: fn(Vec<u8>) -> Vec<u8>) -> HashMap<Id, Vec<Vec<u8>>> {
    let mut flows: HashMap<_, Vec<_>> = HashMap::new();
    for frame in frames {
        let is_cut = frame.header.gso_type & virtio::GSO_ECN == 0;
        let packets = if is_cut { cut(frame) } else { vec![frame.packet.clone()] };
        for packet in packets {
            flows.entry(id(frame.tunnel, &packet)).or_default().push(of(packet));
        }
    }
    flows
}

/// Pushes all, writes all, and compares flow by flow what `of` each packet counts; returns the number of frames.
fn check(packets: &[Written], of: fn(Vec<u8>) -> Vec<u8>) -> usize {
    let mut batch = Batch::new();
    packets.iter().for_each(|pushed| batch.push_bytes(pushed.tunnel, pushed.header, &pushed.packet));
    let written = batch.write();
    assert_eq!(by_flow(&written, of), by_flow(packets, of));
    written.len()
}

/// What happens to the next packet of a flow.
#[derive(Debug, Clone, Copy)]
enum Event {
    Plain,
    Short(usize),
    Long,
    Flags(u16),
    Damaged,
    DamagedHeader,
    Lost,
    Empty,
    Congested,
    Acknowledging,
    Options,
    Open,
    Valid,
    Merged(u16),
    Ecn,
    FixedIdentification,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        30 => Just(Event::Plain),
        1 => (1usize..100).prop_map(Event::Short),
        1 => Just(Event::Long),
        3 => prop::sample::select(vec![tcp::PSH, tcp::FIN, tcp::SYN, tcp::RST, tcp::URG, tcp::CWR, 0x40, 0x100])
            .prop_map(Event::Flags),
        1 => Just(Event::Damaged),
        1 => Just(Event::DamagedHeader),
        1 => Just(Event::Lost),
        1 => Just(Event::Empty),
        1 => Just(Event::Congested),
        1 => Just(Event::Acknowledging),
        1 => Just(Event::Options),
        2 => Just(Event::Open),
        2 => Just(Event::Valid),
        3 => (2u16..5).prop_map(Event::Merged),
        1 => Just(Event::Ecn),
    ]
}

/// One flow: the packet that comes next.
fn sender(flow: usize) -> Inner {
    let packet = kinds()[flow % 4].clone();
    Inner { tunnel: flow / 4 % 2, ports: (40_000 + (flow / 8) as u16, 443), ..packet }
}

/// The packet that `sender` sends at this event; the sender goes on to the next.
fn send(sender: &mut Inner, event: Event) -> Option<Written> {
    let mut packet = sender.clone();
    let mut count = 1;
    match event {
        Event::Short(len) => packet.payload.truncate(len),
        Event::Long => packet.payload.extend([9; 10]),
        Event::Flags(flags) => packet.flags |= flags,
        Event::Empty => packet.payload.clear(),
        Event::Congested => packet.tos |= 3,
        Event::Acknowledging => (sender.acknowledgment, packet.acknowledgment) = (7, 7),
        Event::Options => packet.options = vec![1; 4],
        Event::Merged(segments) => {
            count = segments;
            packet.payload = packet.payload.repeat(usize::from(segments));
        }
        _ => {}
    }
    let position = packet.sequence;
    for (at, byte) in packet.payload.iter_mut().enumerate() {
        *byte = position.wrapping_add(at as u32) as u8;
    }
    let next = packet.next();
    (sender.sequence, sender.identification) = (next.sequence, packet.identification.wrapping_add(count));
    if let Event::FixedIdentification = event {
        sender.identification = packet.identification;
    }

    let mut bytes = packet.bytes();
    let mut header = virtio::Header::default();
    match event {
        Event::Damaged => *bytes.last_mut().unwrap() ^= 0x10,
        Event::DamagedHeader => bytes[if packet.is_v4() { 10 } else { 60 }] ^= 0x10,
        Event::Lost => return None,
        Event::Open => header = opened(&mut bytes, None),
        Event::Valid => header.flags = virtio::DATA_VALID,
        Event::Merged(_) => header = opened(&mut bytes, Some(100)),
        Event::Ecn if packet.is_tcp => {
            header = opened(&mut bytes, Some(50));
            header.gso_type |= virtio::GSO_ECN;
        }
        _ => {}
    }
    Some(Written { tunnel: packet.tunnel, pieces: 1, header, packet: bytes })
}

/// The packet without its identification, which means nothing where nobody may fragment, and is not kept where it does
/// not count up. What is wrong with the checksum of the header stands in its place.
fn without_identification(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        let error = naive(&[&packet[..20]]);
        packet[4..6].fill(0);
        packet[10..12].copy_from_slice(&error.to_be_bytes());
    }
    packet
}

/// The packets of 20 flows to which all this happens.
fn traffic(events: &[(usize, Event)]) -> Vec<Written> {
    let mut senders: Vec<_> = (0..20).map(sender).collect();
    events.iter().filter_map(|(flow, event)| send(&mut senders[*flow], *event)).collect()
}

proptest! {
    #[test]
    fn every_flow_gets_what_was_sent(events in prop::collection::vec((0usize..20, event()), 1..200)) {
        check(&traffic(&events), |packet| packet);
    }

    #[test]
    fn every_flow_gets_what_was_sent_where_the_identification_stays(
        mut events in prop::collection::vec((0usize..20, event()), 1..200), each in 1usize..10,
    ) {
        for (_, event) in events.iter_mut().step_by(each) {
            *event = Event::FixedIdentification;
        }
        check(&traffic(&events), without_identification);
    }

    #[test]
    fn a_burst_with_accidents_is_still_joined(accidents in prop::collection::vec(event(), 3), kind in 0usize..4) {
        let mut sender = sender(kind);
        let events = accidents.iter().flat_map(|event| std::iter::repeat_n(Event::Plain, 10).chain([*event]));
        let packets: Vec<_> = events.filter_map(|event| send(&mut sender, event)).collect();
        // At worst, what happens stays alone and ends a frame.
        prop_assert!(check(&packets, |packet| packet) <= 2 * accidents.len());
    }

    /// Segments that arrive in any order, some of them twice, are delivered in that order, and what is joined is what
    /// follows one another.
    #[test]
    fn permutations_never_corrupt_the_stream(
        kind in 0usize..2, order in prop::collection::vec(0usize..12, 1..60).prop_shuffle(),
    ) {
        let mut sender = sender(kind);
        let sent: Vec<_> = (0..12).filter_map(|_| send(&mut sender, Event::Plain)).collect();
        let packets: Vec<_> = order.iter().map(|index| sent[*index].clone()).collect();
        let frames = check(&packets, |packet| packet);
        let breaks = order.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
        prop_assert_eq!(frames, breaks + 1);
    }
}

#[test]
fn what_has_no_ports_in_sight_ends_all_frames_of_its_tunnel() {
    let fragment = Inner { fragment: 0x4001 & 0x1fff, ..udp4() };
    let mut extended = tcp6().bytes();
    extended[6] = 0;
    for strange in [fragment.bytes(), extended, vec![], vec![0x45; 3], vec![0x99; 60]] {
        for (tunnel, expected) in [(0, 3), (1, 2)] {
            let mut batch = Batch::new();
            batch.push(&tcp4());
            batch.push_bytes(tunnel, virtio::Header::default(), &strange);
            batch.push(&tcp4().next());
            assert_eq!(batch.write().len(), expected, "{strange:02x?}");
        }
    }
}

#[test]
fn icmp_ends_no_frame() {
    for (packet, at, icmp) in [(udp4(), 9, 1), (udp6(), 6, 58)] {
        let mut bytes = packet.bytes();
        bytes[at] = icmp;
        let mut batch = Batch::new();
        batch.push(&tcp4());
        batch.push_bytes(0, virtio::Header::default(), &bytes);
        batch.push(&tcp4().next());
        let written = batch.write();
        assert_eq!(written.iter().map(|written| written.pieces).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(written[1].packet, bytes);
    }
}

#[test]
fn a_packet_that_stays_alone_ends_the_frame_of_its_flow() {
    let first = tcp4();
    // A pure acknowledgment with the sequence number of what follows.
    let acknowledgment = first.next().with_payload([]);
    let third = first.next();
    let mut batch = Batch::new();
    let all = [first, acknowledgment, third.clone(), third.next()];
    batch.push_all(&all);
    let written = batch.write();
    assert_eq!(written.iter().map(|written| written.pieces).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(written.iter().flat_map(cut).collect::<Vec<_>>(), all.map(|packet| packet.bytes()));
}

#[test]
fn a_packet_that_ends_a_frame_also_ends_the_one_it_does_not_fit() {
    // The second is lost track of as soon as it has come: the third would fit the first.
    for first in [tcp4(), tcp6()] {
        let second =
            Inner { sequence: first.sequence.wrapping_add(500), flags: tcp::ACK | tcp::PSH, ..first.next() };
        assert_eq!(joined(&[first.clone(), second, first.next()]), [1, 1, 1]);
    }
    let second = Inner { tos: 0, ..udp6() }.with_payload([1; 250]);
    let mut bytes = second.bytes();
    let header = opened(&mut bytes, Some(100));
    let mut batch = Batch::new();
    batch.push(&udp6());
    batch.push_bytes(0, header, &bytes);
    batch.push(&udp6());
    assert_eq!(batch.write().len(), 3);
}
