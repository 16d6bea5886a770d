//! The TUN and network edges with real packets, in network namespaces that the tests make.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../common/mod.rs"]
mod common;
mod guard;
mod large;
mod outlet;
mod packets;
mod pair;
mod receive;
mod segments;
mod sender;
mod transmit;
mod tun;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use common::{A, B, run};
use encap::coalesce::Slots as _;
use encap::linux::netlink::{Link, Netlink};
use encap::socket::PacketReceiver;
use pair::{A6, B6};
use rustix::event::{PollFd, PollFlags, Timespec};

fn main() -> ExitCode {
    run([
        tun::cases(),
        receive::cases(),
        transmit::cases(),
        large::cases(),
        segments::cases(),
        outlet::cases(),
        guard::cases(),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// The ends of a pair in both families.
const BOTH: [(IpAddr, IpAddr); 2] = [(IpAddr::V4(A), IpAddr::V4(B)), (IpAddr::V6(A6), IpAddr::V6(B6))];
const PATIENCE: Duration = Duration::from_millis(900);
const QUIET: Duration = Duration::from_millis(50);

fn readable(descriptor: impl AsFd, patience: Duration) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
    let mut ready = [PollFd::new(&descriptor, PollFlags::IN)];
    rustix::event::poll(&mut ready, Some(&timeout)).unwrap() > 0
}

fn link(name: &str) -> Link {
    Netlink::open().unwrap().link(name).unwrap().unwrap()
}

fn index(name: &str) -> u32 {
    link(name).index
}

/// All frames that arrive until it is quiet.
fn receive_all(receiver: &mut PacketReceiver, at_least: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while readable(&*receiver, if frames.len() < at_least { PATIENCE } else { QUIET }) {
        match receiver.receive() {
            Ok(()) => {
                let batch: Vec<_> = receiver.frames().map(|frame| frame.to_vec()).collect();
                for (number, frame) in batch.iter().enumerate() {
                    assert!(receiver.part(number, 10..frame.len()) == &frame[10..], "{number}");
                    assert!(receiver.slot(number) == frame, "{number}");
                }
                frames.extend(batch);
            }
            // Frames that were handed out count as unread until the next call.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    frames
}
