use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const A: PeerIndex = 0;
const B: PeerIndex = 1;
const SYN: Signals = Signals { syn: true, fin: false, rst: false };
const FIN: Signals = Signals { syn: false, fin: true, rst: false };
const RST: Signals = Signals { syn: false, fin: false, rst: true };
const DATA: Signals = Signals { syn: false, fin: false, rst: false };

fn key(port: u16) -> FlowKey {
    let [local, remote] = [Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(10, 0, 0, 1)].map(IpAddr::from);
    FlowKey { protocol: TCP, local, local_port: 443, remote, remote_port: port }
}

/// A table and a clock in seconds.
struct World {
    table: FlowTable,
    start: Instant,
    now: u64,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn new(capacity: usize) -> Self {
        let start = Instant::now();
        Self { table: FlowTable::new(start, capacity, 1), start, now: 0 }
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_secs(self.now)
    }

    fn out(&mut self, port: u16, signals: Signals) -> Option<PeerIndex> {
        self.table.leaving(self.instant(), key(port), signals, Origin::Host)
    }

    /// A packet of a flow that must have been opened here.
    fn answer(&mut self, port: u16, signals: Signals) -> bool {
        self.table.arriving(self.instant(), key(port), signals, A, false)
    }

    /// A packet to a listener.
    fn client(&mut self, port: u16, signals: Signals) -> bool {
        self.table.arriving(self.instant(), key(port), signals, A, true)
    }

    fn knows(&self, port: u16) -> bool {
        self.table.look_up(self.instant(), &key(port)).is_some()
    }

    /// Seconds until the flow is forgotten.
    fn lifetime(&self, port: u16) -> u64 {
        let forgotten = |seconds: &u64| {
            let then = self.instant() + Duration::from_secs(*seconds);
            self.table.look_up(then, &key(port)).is_none()
        };
        [0, 30, 60, 3600].into_iter().find(forgotten).unwrap()
    }
}

#[test]
fn only_opened_flows_are_known() {
    let mut world = World::new(9);
    assert!(!world.answer(1, SYN));
    assert_eq!(world.out(1, SYN), None);
    assert!(world.answer(1, SYN));
    assert_eq!(world.out(1, DATA), Some(A));
    assert!(!world.answer(2, DATA));
    assert!(world.client(3, SYN));
    assert_eq!(world.table.len(), 2);
}

#[test]
fn the_newest_peer_is_followed() {
    let mut world = World::new(9);
    world.client(1, SYN);
    assert_eq!(world.out(1, SYN), Some(A));
    let now = world.instant();
    assert!(world.table.arriving(now, key(1), DATA, B, false));
    assert_eq!(world.out(1, DATA), Some(B));
}

#[test]
fn lifetimes() {
    let mut world = World::new(99);
    world.client(1, SYN);
    assert_eq!(world.lifetime(1), 30, "unanswered");
    world.client(1, DATA);
    assert_eq!(world.lifetime(1), 30, "a client that goes on without an answer");
    world.out(1, SYN);
    assert_eq!(world.lifetime(1), 30, "answered by SYN-ACK: the client may be forged");
    world.out(1, DATA);
    assert_eq!(world.lifetime(1), 3600, "the kernel goes on: established");
    world.client(1, SYN);
    assert_eq!(world.lifetime(1), 3600, "a forged SYN changes nothing");
    world.client(1, FIN);
    assert_eq!(world.lifetime(1), 3600, "half closed");
    world.out(1, FIN);
    assert_eq!(world.lifetime(1), 60, "closed");
    world.client(1, DATA);
    world.out(1, DATA);
    assert_eq!(world.lifetime(1), 60, "the last acknowledgments");
    world.client(1, SYN);
    assert_eq!(world.lifetime(1), 30, "opened anew");

    world.out(2, SYN);
    world.out(2, DATA);
    world.answer(2, RST);
    assert_eq!(world.lifetime(2), 60, "aborted");
    world.answer(2, DATA);
    assert_eq!(world.lifetime(2), 60, "others cannot bring it back");
    world.out(2, DATA);
    assert_eq!(world.lifetime(2), 3600, "the kernel did not believe it");
    world.out(2, RST);
    world.out(2, SYN);
    assert_eq!(world.lifetime(2), 30, "the port is used again");

    world.client(3, DATA);
    world.out(3, RST);
    assert_eq!(world.lifetime(3), 30, "a refusal makes nothing valuable");
}

#[test]
fn udp_and_forwarded_flows() {
    let mut world = World::new(9);
    let now = world.instant();
    let udp = FlowKey { protocol: 17, ..key(1) };
    world.table.leaving(now, udp, DATA, Origin::Host);
    let later = |seconds| now + Duration::from_secs(seconds);
    assert!(world.table.look_up(later(59), &udp).is_some());
    assert!(world.table.look_up(later(60), &udp).is_none());

    world.table.leaving(now, key(2), SYN, Origin::Forwarded);
    world.table.leaving(now, key(2), DATA, Origin::Forwarded);
    assert_eq!(world.lifetime(2), 30, "one direction may be forged");
    world.answer(2, DATA);
    assert_eq!(world.lifetime(2), 3600);
}

#[test]
fn a_flood_pushes_out_only_attempts() {
    let mut world = World::new(100);
    for port in 0..50 {
        world.out(port, SYN);
        world.answer(port, SYN);
        world.out(port, DATA);
    }
    world.out(60, SYN);
    for port in 1000..3000 {
        world.client(port, SYN);
        world.out(port, SYN);
    }
    assert_eq!(world.table.len(), 100);
    assert!((0..50).all(|port| world.knows(port)));
    assert!(world.knows(60), "what this host is opening is worth more than what others want");
    assert!(!world.knows(2950) && world.knows(2951), "the oldest attempts went first");
}

#[test]
fn a_full_table_of_established_flows_takes_another() {
    let mut world = World::new(2);
    for port in 0..3 {
        world.now += 1;
        world.out(port, DATA);
    }
    assert_eq!([0, 1, 2].map(|port| world.knows(port)), [false, true, true]);
}

#[test]
fn expiry_is_bounded_and_complete() {
    let mut world = World::new(1000);
    for port in 0..100 {
        world.client(port, SYN);
    }
    world.out(500, DATA);
    world.now = 29;
    assert_eq!(world.table.expire(world.instant(), 1000), 0);
    world.client(7, DATA);
    world.now = 30;
    assert_eq!(world.table.expire(world.instant(), 40), 40);
    assert_eq!(world.table.expire(world.instant(), 1000), 59);
    assert!(world.knows(7) && world.knows(500));
    world.now = 59;
    assert_eq!(world.table.expire(world.instant(), 1000), 1);
    world.now = 3599;
    assert_eq!(world.table.expire(world.instant(), 1000), 0);
    world.now = 3600;
    assert_eq!(world.table.expire(world.instant(), 1000), 1);
    assert!(world.table.is_empty());
    world.client(1, SYN);
    assert_eq!((world.table.len(), world.table.entries.len()), (1, 101), "entries are used again");
}

proptest! {
    /// Whatever happens, the lists and the index hold the same flows, each once and in order.
    #[test]
    fn lists_and_index_agree(
        steps in prop::collection::vec((0u16..20, 0u8..8, any::<bool>(), 0u64..40), 0..400),
    ) {
        let mut world = World::new(8);
        for (port, bits, out, pause) in steps {
            world.now += pause.saturating_sub(30);
            let signals = Signals { syn: bits & 1 != 0, fin: bits & 2 != 0, rst: bits & 4 != 0 };
            if out { world.out(port, signals); } else { world.client(port, signals); }
            if pause == 0 { world.table.expire(world.instant(), 3); }
            let table = &world.table;
            let mut listed = 0;
            for (class, list) in table.lists.iter().enumerate() {
                let (mut at, mut before, mut seen) = (list.head, NONE, None);
                while at != NONE {
                    let entry = &table.entries[at as usize];
                    prop_assert_eq!(entry.class as usize, class);
                    prop_assert_eq!(entry.previous, before);
                    prop_assert_eq!(table.find(entry.last_seen, &entry.key).ok(), Some(at));
                    prop_assert!(seen <= Some(entry.last_seen));
                    (seen, before, at) = (Some(entry.last_seen), at, entry.next);
                    listed += 1;
                }
                prop_assert_eq!(list.tail, before);
            }
            prop_assert_eq!(listed, table.len());
            prop_assert!(listed <= 8 && table.entries.len() <= 8);
        }
    }
}
