//! A kernel made of maps answers the questions.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const DEVICE: u32 = 7;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// What the kernel knows, and the table under test.
struct Kernel {
    link: Option<Link>,
    routes: HashMap<IpAddr, RouteTo>,
    neighbours: HashMap<IpAddr, Neighbour>,
    hops: NextHops,
    now: Instant,
    asked: Vec<Question>,
}

fn link() -> Link {
    let name = "eth0".to_owned();
    Link {
        index: DEVICE,
        name,
        mtu: 1500,
        kind: libc::ARPHRD_ETHER,
        mac: Some(OWN_MAC),
        up: true,
        running: true,
    }
}

fn via(gateway: Option<IpAddr>) -> RouteTo {
    RouteTo { kind: RouteKind::Unicast, device: DEVICE, source: None, gateway, mtu: None }
}

fn neighbour(address: IpAddr, state: u16) -> Neighbour {
    Neighbour { device: DEVICE, address, mac: Some(GATEWAY_MAC), state }
}

impl Kernel {
    /// A gateway that is reachable leads to `PEER`; nothing has been asked yet.
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn new() -> Self {
        let known = neighbour(GATEWAY, libc::NUD_REACHABLE);
        Self {
            link: Some(link()),
            routes: HashMap::from([(PEER, via(Some(GATEWAY)))]),
            neighbours: HashMap::from([(GATEWAY, known)]),
            hops: NextHops::new(DEVICE),
            now: Instant::now(),
            asked: Vec::new(),
        }
    }

    fn answer_one(&mut self) -> bool {
        let Some(question) = self.hops.question() else { return false };
        self.asked.push(question);
        match question {
            Question::Link => self.hops.answer_link(self.link.as_ref()),
            Question::Route(to) => self.hops.answer_route(self.now, to, self.routes.get(&to).copied()),
            Question::Neighbour(address) => {
                self.hops.answer_neighbour(address, self.neighbours.get(&address).copied());
            }
        }
        true
    }

    fn answer(&mut self) {
        while self.answer_one() {}
    }

    fn way(&mut self, destination: IpAddr) -> Way {
        self.hops.way(self.now, destination)
    }

    /// The way to the peer once everything is asked and answered.
    fn settled(&mut self) -> Way {
        for _ in 0..3 {
            self.way(PEER);
            self.answer();
        }
        self.way(PEER)
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    fn change_neighbour(&mut self, known: Neighbour) {
        self.neighbours.insert(known.address, known);
        self.hops.handle(&Event::Neighbour(known));
    }
}

fn header(kind: u16) -> Way {
    Way::Link([&GATEWAY_MAC[..], &OWN_MAC, &kind.to_be_bytes()].concat().try_into().unwrap())
}

#[test]
fn what_is_not_known_yet_is_routed_and_asked_for() {
    let mut kernel = Kernel::new();
    assert_eq!(kernel.way(PEER), Way::Routed);
    kernel.answer();
    assert_eq!(kernel.way(PEER), Way::Routed);
    kernel.answer();
    assert_eq!(kernel.way(PEER), header(0x0800));
    assert_eq!(kernel.asked, [Question::Link, Question::Route(PEER), Question::Neighbour(GATEWAY)]);
    assert_eq!(kernel.way(PEER), header(0x0800));
    assert_eq!(kernel.hops.question(), None, "what is known is not asked again");
    assert_eq!(kernel.hops.mtu(PEER), Some(1500));
}

#[test]
fn a_question_waits_once_however_many_packets_there_are() {
    let mut kernel = Kernel::new();
    for _ in 0..3 {
        for _ in 0..100 {
            assert_eq!(kernel.way(PEER), Way::Routed);
        }
        assert!(kernel.answer_one());
    }
    assert_eq!(kernel.hops.question(), None);
}

#[test]
fn a_host_on_the_link_is_its_own_next_hop_and_ipv6_has_its_own_kind() {
    let mut kernel = Kernel::new();
    let far: IpAddr = "2001:db8::9".parse().unwrap();
    let gateway: IpAddr = "fe80::1".parse().unwrap();
    for (to, hop) in [(NEAR, None), (far, Some(gateway))] {
        kernel.routes.insert(to, via(hop));
        let hop = hop.unwrap_or(to);
        kernel.neighbours.insert(hop, neighbour(hop, libc::NUD_PERMANENT));
    }
    for (to, kind) in [(NEAR, 0x0800), (far, 0x86dd)] {
        for _ in 0..3 {
            kernel.way(to);
            kernel.answer();
        }
        assert_eq!(kernel.way(to), header(kind));
    }
    // The next hop of an IPv4 packet may have an IPv6 address (RFC 8950).
    kernel.routes.insert(PEER, via(Some(gateway)));
    assert_eq!(kernel.settled(), header(0x0800));
}

#[test]
fn routes_out_of_the_ordinary_are_left_to_the_kernel() {
    for route in [
        RouteTo { kind: RouteKind::Local, ..via(None) },
        RouteTo { kind: RouteKind::Other, ..via(Some(GATEWAY)) },
        RouteTo { device: DEVICE + 1, ..via(Some(GATEWAY)) },
    ] {
        let mut kernel = Kernel::new();
        kernel.routes.insert(PEER, route);
        assert_eq!(kernel.settled(), Way::Routed, "{route:?}");
    }
    let mut kernel = Kernel::new();
    kernel.routes.clear();
    assert_eq!(kernel.settled(), Way::Routed, "no route");
    assert_eq!(kernel.hops.question(), None, "not asked again before something changes");
}

#[test]
fn links_without_an_ethernet_header_or_without_carrier_are_left_to_the_kernel() {
    for unusable in [
        Link { kind: libc::ARPHRD_NONE, mac: None, ..link() },
        Link { kind: libc::ARPHRD_LOOPBACK, mac: Some([0; 6]), ..link() },
        Link { up: false, ..link() },
        Link { running: false, ..link() },
    ] {
        let mut kernel = Kernel::new();
        kernel.link = Some(unusable.clone());
        assert_eq!(kernel.settled(), Way::Routed, "{unusable:?}");
        // The same later, and back.
        let mut kernel = Kernel::new();
        assert_ne!(kernel.settled(), Way::Routed);
        kernel.hops.handle(&Event::Link(unusable));
        assert_eq!(kernel.way(PEER), Way::Routed);
        kernel.hops.handle(&Event::Link(link()));
        assert_ne!(kernel.settled(), Way::Routed);
    }
    let mut kernel = Kernel::new();
    kernel.settled();
    kernel.hops.handle(&Event::LinkGone(DEVICE));
    assert_eq!(kernel.settled(), Way::Routed);
}

#[test]
fn only_a_neighbour_that_answers_or_did_so_lately_is_used() {
    let usable = [
        libc::NUD_REACHABLE,
        libc::NUD_STALE,
        libc::NUD_DELAY,
        libc::NUD_PROBE,
        libc::NUD_PERMANENT,
        libc::NUD_NOARP,
    ];
    for state in usable.into_iter().chain([libc::NUD_NONE, libc::NUD_INCOMPLETE, libc::NUD_FAILED]) {
        let mut kernel = Kernel::new();
        kernel.settled();
        kernel.change_neighbour(neighbour(GATEWAY, state));
        // The first packet may be the one with which the kernel makes sure.
        kernel.way(PEER);
        assert_eq!(kernel.way(PEER) != Way::Routed, usable.contains(&state), "{state:#x}");
        kernel.change_neighbour(Neighbour { mac: None, ..neighbour(GATEWAY, state) });
        kernel.pass(2000);
        kernel.way(PEER);
        assert_eq!(kernel.way(PEER), Way::Routed, "{state:#x} without address");
    }
    let mut kernel = Kernel::new();
    kernel.neighbours.clear();
    assert_eq!(kernel.settled(), Way::Routed, "not known to the kernel");
    kernel.change_neighbour(neighbour(GATEWAY, libc::NUD_REACHABLE));
    assert_eq!(kernel.way(PEER), header(0x0800), "told, not asked");
    let elsewhere =
        Neighbour { device: DEVICE + 1, mac: Some([6; 6]), ..neighbour(GATEWAY, libc::NUD_STALE) };
    kernel.hops.handle(&Event::Neighbour(elsewhere));
    assert_eq!(kernel.way(PEER), header(0x0800), "another link has the same address");
}

#[test]
fn one_packet_per_second_lets_the_kernel_make_sure_of_a_neighbour() {
    for (state, expected) in [
        (libc::NUD_REACHABLE, 0),
        (libc::NUD_PERMANENT, 0),
        (libc::NUD_NOARP, 0),
        (libc::NUD_STALE, 10),
        (libc::NUD_DELAY, 10),
        (libc::NUD_PROBE, 10),
    ] {
        let mut kernel = Kernel::new();
        kernel.settled();
        kernel.change_neighbour(neighbour(GATEWAY, state));
        let mut routed = 0;
        for _ in 0..1000 {
            routed += usize::from(kernel.way(PEER) == Way::Routed);
            kernel.pass(10);
        }
        assert_eq!(routed, expected, "{state:#x}");
    }
}

#[test]
fn a_change_of_routes_is_asked_for_before_the_next_packet_goes_on_the_link() {
    let mut kernel = Kernel::new();
    kernel.settled();
    kernel.pass(60_000);
    kernel.routes.insert(PEER, RouteTo { device: DEVICE + 1, ..via(None) });
    kernel.hops.handle(&Event::Routes);
    assert_eq!(kernel.way(PEER), Way::Routed);
    assert_eq!(kernel.settled(), Way::Routed);
    kernel.routes.insert(PEER, via(Some(GATEWAY)));
    kernel.hops.handle(&Event::Routes);
    kernel.pass(100);
    assert_eq!(kernel.settled(), header(0x0800));
}

#[test]
fn while_routes_keep_changing_answers_are_a_tenth_of_a_second_old_at_most() {
    let mut kernel = Kernel::new();
    kernel.settled();
    kernel.asked.clear();
    let mut routed = 0;
    for _ in 0..1000 {
        kernel.pass(1);
        kernel.hops.handle(&Event::Routes);
        routed += usize::from(kernel.way(PEER) == Way::Routed);
        kernel.answer();
    }
    assert_eq!((kernel.asked.len(), routed), (10, 10));
}

#[test]
fn an_answer_is_refreshed_now_and_then_without_leaving_the_link() {
    let mut kernel = Kernel::new();
    kernel.settled();
    kernel.asked.clear();
    kernel.pass(29_999);
    kernel.way(PEER);
    kernel.answer();
    assert_eq!(kernel.asked, []);
    kernel.pass(1);
    kernel.routes.insert(PEER, RouteTo { mtu: Some(1400), ..via(Some(GATEWAY)) });
    assert_eq!(kernel.way(PEER), header(0x0800));
    kernel.answer();
    assert_eq!(kernel.asked, [Question::Route(PEER)]);
    assert_eq!(kernel.hops.mtu(PEER), Some(1400));
}

#[test]
fn after_missed_events_everything_is_asked_again() {
    let mut kernel = Kernel::new();
    kernel.settled();
    kernel.asked.clear();
    kernel.pass(1000);
    kernel.hops.handle(&Event::Missed);
    assert_eq!(kernel.way(PEER), Way::Routed);
    assert_eq!(kernel.settled(), header(0x0800));
    assert_eq!(kernel.asked, [Question::Link, Question::Route(PEER), Question::Neighbour(GATEWAY)]);
}

#[test]
fn memory_is_bounded_and_goes_to_those_who_use_it() {
    let mut kernel = Kernel::new();
    kernel.settled();
    let far = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
    let all = 3 * MAX_DESTINATIONS as u32;
    for number in 0..all {
        kernel.routes.insert(far(number), via(None));
        kernel.way(far(number));
        kernel.answer();
        assert!(kernel.hops.destinations.len() <= MAX_DESTINATIONS);
        assert!(kernel.hops.neighbours.len() <= MAX_DESTINATIONS);
    }
    assert_eq!(kernel.hops.destinations.len(), MAX_DESTINATIONS);
    assert_eq!(kernel.way(PEER), header(0x0800), "who was there first stays");
    kernel.pass(61_000);
    kernel.way(PEER);
    kernel.answer();
    kernel.routes.insert(far(all), via(None));
    kernel.way(far(all));
    kernel.answer();
    assert_eq!((kernel.hops.destinations.len(), kernel.hops.neighbours.len()), (2, 2));
    assert_eq!(kernel.way(PEER), header(0x0800));
}

proptest! {
    /// Whatever happens in whatever order: once things are quiet, the way is the right one.
    #[test]
    fn it_ends_at_what_the_kernel_knows(steps in proptest::collection::vec((0u8..9, 0u64..300), 0..60)) {
        let mut kernel = Kernel::new();
        for (step, pause) in steps {
            match step {
                0 => kernel.change_neighbour(neighbour(GATEWAY, libc::NUD_FAILED)),
                1 => kernel.change_neighbour(neighbour(GATEWAY, libc::NUD_REACHABLE)),
                2 => { kernel.routes.remove(&PEER); kernel.hops.handle(&Event::Routes); }
                3 => { kernel.routes.insert(PEER, via(Some(GATEWAY))); kernel.hops.handle(&Event::Routes); }
                4 => {
                    kernel.link = Some(Link { up: step % 2 == 0, ..link() });
                    kernel.hops.handle(&Event::Link(kernel.link.clone().unwrap()));
                }
                5 => { kernel.link = None; kernel.hops.handle(&Event::LinkGone(DEVICE)); }
                6 => kernel.hops.handle(&Event::Missed),
                7 => { kernel.answer_one(); }
                _ => { kernel.way(PEER); }
            }
            kernel.pass(pause);
        }
        kernel.pass(100);
        let up = kernel.link.as_ref().is_some_and(|link| link.up);
        let known = kernel.neighbours[&GATEWAY].state == libc::NUD_REACHABLE;
        let expected = if up && known && kernel.routes.contains_key(&PEER) { header(0x0800) } else { Way::Routed };
        prop_assert_eq!(kernel.settled(), expected);
    }
}
