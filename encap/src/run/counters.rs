//! What the edges drop: packets that a socket or a device refused, which no engine sees.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::socket::SendReport;

/// Why an edge dropped a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeDrop {
    /// In: the receive buffer was full; the engine thread is too slow.
    ReceiveBufferFull,
    /// In: larger than an IPv4 packet can be.
    ReceivedTooBig,
    /// In: the device refused it, being down for one.
    TunRefused,
    /// Out: larger than the MTU of the underlay interface.
    SendTooBig,
    /// Out: the queue of the underlay interface was full.
    SendNoRoom,
    /// Out: no route, or the next hop does not answer.
    SendUnreachable,
    /// Out: a firewall of this host refused it.
    SendRefused,
    /// Out: any other error.
    SendFailed,
}

const COUNT: usize = EdgeDrop::ALL.len();

impl EdgeDrop {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ReceiveBufferFull,
        Self::ReceivedTooBig,
        Self::TunRefused,
        Self::SendTooBig,
        Self::SendNoRoom,
        Self::SendUnreachable,
        Self::SendRefused,
        Self::SendFailed,
    ];

    /// The label of the metric, in snake case.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReceiveBufferFull => "receive_buffer_full",
            Self::ReceivedTooBig => "received_too_big",
            Self::TunRefused => "tun_refused",
            Self::SendTooBig => "send_too_big",
            Self::SendNoRoom => "send_no_room",
            Self::SendUnreachable => "send_unreachable",
            Self::SendRefused => "send_refused",
            Self::SendFailed => "send_failed",
        }
    }
}

/// One counter per [`EdgeDrop`], of all engine threads together; values only grow.
#[derive(Debug, Default)]
pub struct EdgeCounters {
    drops: [AtomicU64; COUNT],
}

impl EdgeCounters {
    /// Packets dropped for this reason.
    pub fn get(&self, reason: EdgeDrop) -> u64 {
        self.drops[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, reason: EdgeDrop, packets: u64) {
        if packets > 0 {
            self.drops[reason as usize].fetch_add(packets, Ordering::Relaxed);
        }
    }

    pub(super) fn add_report(&self, report: &SendReport) {
        self.add(EdgeDrop::SendTooBig, report.too_big);
        self.add(EdgeDrop::SendNoRoom, report.no_room);
        self.add(EdgeDrop::SendUnreachable, report.unreachable);
        self.add(EdgeDrop::SendRefused, report.refused);
        self.add(EdgeDrop::SendFailed, report.other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_name_of_its_own() {
        let counters = EdgeCounters::default();
        for (number, reason) in (1..).zip(EdgeDrop::ALL) {
            counters.add(reason, number);
        }
        let values: Vec<_> = EdgeDrop::ALL.map(|reason| counters.get(reason)).to_vec();
        assert_eq!(values, [1, 2, 3, 4, 5, 6, 7, 8]);
        let names: std::collections::BTreeSet<_> = EdgeDrop::ALL.map(EdgeDrop::name).into();
        assert_eq!(names.len(), COUNT);
    }
}
