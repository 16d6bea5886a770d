//! Outlets: how packets that stand for several get to an underlay interface uncut.
//!
//! The kernel cuts packets inside of GRE only when it takes them by a TAP device (see `device/outlet.rs`). nf_tables gives what
//! arrives there to the underlay interface, which needs no routing: a frame has its link header already. Everything works
//! without, only slower.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};

use super::plan::Plan;
use crate::device;
use crate::linux::ethtool;
use crate::linux::netlink::{self, Netlink};

/// Cut packets of a tunnel in UDP is what the frames of an outlet look like to a driver. One that has hardware for it may know
/// what to do with GRE, or not.
const CUTS_IN_HARDWARE: &str = "tx-udp_tnl-segmentation";
/// It has no hardware: it passes packets on whole, or the kernel cuts them.
const NO_HARDWARE: &str = "veth";

/// The outlets made so far.
#[derive(Default)]
pub(super) struct Outlets {
    /// By the index of the underlay interface; none where there can be none.
    made: HashMap<u32, Option<Outlet>>,
}

struct Outlet {
    device: OwnedFd,
    /// Goes with its socket.
    _table: OwnedFd,
}

impl Outlets {
    /// The outlet of an underlay interface, made when it is first asked for. None when this kernel has nothing like it, or
    /// the interface might not cut right.
    pub(super) fn get(&mut self, netlink: &mut Netlink, plan: &Plan) -> Option<OwnedFd> {
        let outlet = self.made.entry(plan.index).or_insert_with(|| {
            let cuts_right = !ethtool::is_on(&plan.interface, CUTS_IN_HARDWARE).ok()?
                || ethtool::driver(&plan.interface).is_ok_and(|driver| driver == NO_HARDWARE);
            if cuts_right { make(netlink, plan.index) } else { None }
        });
        outlet.as_ref()?.device.as_fd().try_clone_to_owned().ok()
    }
}

fn make(netlink: &mut Netlink, to: u32) -> Option<Outlet> {
    let (device, name) = device::create_outlet().ok()?;
    let table = netlink::hand_on(&format!("{name}-{}", std::process::id()), &name, to).ok()?;
    let index = netlink.link(&name).ok()??.index;
    // Nobody reads what the host might have to say there.
    netlink.set_queue(index, 1).ok()?;
    let _ = netlink.disable_ipv6_autoconfiguration(index);
    netlink.set_up(index).ok()?;
    Some(Outlet { device, _table: table })
}
