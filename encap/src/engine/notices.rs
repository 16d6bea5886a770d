//! The engine's own packets on their way to a TUN device: a bounded queue without allocation per packet.

use crate::mtu::{NOTICE_MAX, write_too_big};
use crate::wire::WireError;

const CAPACITY: usize = 64;

/// Packets that wait to be written to a TUN device.
pub(super) struct Notices {
    slots: Box<[Slot]>,
    first: usize,
    len: usize,
}

struct Slot {
    /// None when the tunnel has ended meanwhile.
    tunnel: Option<usize>,
    len: usize,
    bytes: [u8; NOTICE_MAX],
}

impl Notices {
    pub(super) fn new() -> Self {
        let slot = || Slot { tunnel: None, len: 0, bytes: [0; NOTICE_MAX] };
        Self { slots: (0..CAPACITY).map(|_| slot()).collect(), first: 0, len: 0 }
    }

    /// Queues the "too big" answer to a packet; does nothing when the queue is full.
    pub(super) fn too_big(&mut self, tunnel: usize, packet: &[u8], limit: u16) -> Result<(), WireError> {
        if self.len == CAPACITY {
            return Ok(());
        }
        let Some(slot) = self.slots.get_mut((self.first + self.len) % CAPACITY) else { return Ok(()) };
        slot.len = write_too_big(packet, limit, &mut slot.bytes)?;
        slot.tunnel = Some(tunnel);
        self.len += 1;
        Ok(())
    }

    /// Drops what waits for a tunnel.
    pub(super) fn forget(&mut self, tunnel: usize) {
        for slot in &mut self.slots {
            slot.tunnel = slot.tunnel.filter(|waiting| *waiting != tunnel);
        }
    }

    pub(super) fn pop(&mut self) -> Option<(usize, &[u8])> {
        loop {
            self.len = self.len.checked_sub(1)?;
            let at = self.first;
            self.first = (self.first + 1) % CAPACITY;
            if let Some(tunnel) = self.slots.get(at)?.tunnel {
                let slot = self.slots.get(at)?;
                return Some((tunnel, slot.bytes.get(..slot.len)?));
            }
        }
    }
}
