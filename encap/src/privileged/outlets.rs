//! Outlets: how packets that stand for several get to an underlay interface uncut.
//!
//! The kernel cuts packets inside of GRE only when it takes them by a TAP device (see `device/outlet.rs`). nf_tables gives what
//! arrives there to the underlay interface, which needs no routing: a frame has its link header already. Everything works
//! without, only slower.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use super::plan::Plan;
use crate::batch::Takers;
use crate::device;
use crate::linux::ethtool;
use crate::linux::netlink::{self, Netlink};

/// A driver that says one of these gets packets uncut, and they look to it like those of a tunnel in UDP. A card may know what to
/// do with GRE then, or not.
const TAKES_UNCUT: [&str; 2] = ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
/// The driver that has no card: it passes packets on to who may be anybody.
const NO_CARD: &str = "veth";

/// The outlets made so far.
#[derive(Default)]
pub(super) struct Outlets {
    /// By the index of the underlay interface; none where there can be none.
    made: HashMap<u32, Option<Outlet>>,
}

struct Outlet {
    device: OwnedFd,
    takers: Takers,
    /// Goes with its socket.
    _table: OwnedFd,
}

impl Outlets {
    /// The outlet of an underlay interface, made when it is first asked for. None when this kernel has nothing like it, or
    /// the interface might not cut right.
    pub(super) fn get(&mut self, netlink: &mut Netlink, plan: &Plan) -> Option<(OwnedFd, Takers)> {
        let outlet = self.made.entry(plan.index).or_insert_with(|| {
            let takers = takers(&plan.interface)?;
            make(netlink, plan.index, takers)
        });
        let outlet = outlet.as_ref()?;
        Some((outlet.device.try_clone().ok()?, outlet.takers))
    }
}

/// To whom packets may go uncut by an interface, if to anybody.
fn takers(interface: &str) -> Option<Takers> {
    let takes_uncut = TAKES_UNCUT.map(|feature| ethtool::is_on(interface, feature));
    if takes_uncut.iter().all(|is_on| matches!(is_on, Ok(false))) {
        return Some(Takers::Everybody);
    }
    ethtool::driver(interface).is_ok_and(|driver| driver == NO_CARD).then_some(Takers::WhoSaysSo)
}

fn make(netlink: &mut Netlink, to: u32, takers: Takers) -> Option<Outlet> {
    let (device, name) = device::create_outlet().ok()?;
    let table = netlink::hand_on(&format!("{name}-{}", std::process::id()), &name, to).ok()?;
    let index = netlink.link(&name).ok()??.index;
    // Nobody reads what the host might have to say there.
    netlink.set_queue(index, 1).ok()?;
    let _ = netlink.disable_ipv6_autoconfiguration(index);
    netlink.set_up(index).ok()?;
    Some(Outlet { device, takers, _table: table })
}
