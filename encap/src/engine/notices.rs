//! The engine's own packets on their way to a TUN device: a bounded queue without allocation per packet.

use crate::mtu;
use crate::wire::WireError;

const CAPACITY: usize = 64;

/// Packets that wait to be written to a TUN device.
pub(super) struct Notices {
    slots: Box<[Slot]>,
    first: usize,
    len: usize,
}

struct Slot {
    tunnel: usize,
    len: usize,
    bytes: [u8; mtu::TOO_BIG_MAX],
}

impl Notices {
    pub(super) fn new() -> Self {
        let slot = || Slot { tunnel: 0, len: 0, bytes: [0; mtu::TOO_BIG_MAX] };
        Self { slots: (0..CAPACITY).map(|_| slot()).collect(), first: 0, len: 0 }
    }

    /// Queues the "too big" answer to a packet; does nothing when the queue is full.
    pub(super) fn too_big(&mut self, tunnel: usize, packet: &[u8], limit: u16) -> Result<(), WireError> {
        if self.len == CAPACITY {
            return Ok(());
        }
        let Some(slot) = self.slots.get_mut((self.first + self.len) % CAPACITY) else { return Ok(()) };
        slot.len = mtu::too_big(packet, limit, &mut slot.bytes)?;
        slot.tunnel = tunnel;
        self.len += 1;
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<(usize, &[u8])> {
        self.len = self.len.checked_sub(1)?;
        let slot = self.slots.get(self.first)?;
        self.first = (self.first + 1) % CAPACITY;
        Some((slot.tunnel, slot.bytes.get(..slot.len)?))
    }
}
