//! Connection IDs (RFC 9000 5.1) that say which worker has the connection.
//!
//! The first two bytes of an ID, as a number modulo the number of workers, are the worker: the kernel can compute that,
//! and the random ID that a client begins with leads somewhere too. Two more bytes are the same for the whole process, so
//! that packets for another one are known at a look. The rest is random: nobody can tell which connections belong to the
//! same client.

use std::time::Duration;

use aws_lc_rs::rand;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// Bytes of our IDs.
const LENGTH: usize = 12;
/// Where the destination's ID begins in a QUIC packet with a long header (RFC 9000 17.2).
pub const ID_IN_LONG: usize = 6;
/// Where it begins in one with a short header (RFC 9000 17.3).
pub const ID_IN_SHORT: usize = 1;

/// The worker that a datagram is for.
pub(super) fn worker_of(datagram: &[u8], workers: usize) -> usize {
    let is_long = datagram.first().is_some_and(|first| first & 0x80 != 0);
    let at = if is_long { ID_IN_LONG } else { ID_IN_SHORT };
    let number = datagram
        .get(at..at + 2)
        .map_or(0, |id| id.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)));
    number % workers.max(1)
}

/// Makes the IDs of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    worker: u16,
    workers: u16,
    process: [u8; 2],
}

impl Ids {
    /// For the worker with this number; `process` is the same for all of them. More workers than 65536 are not told
    /// apart: the others pass on what is theirs.
    pub(crate) fn new(worker: usize, workers: usize, process: [u8; 2]) -> Self {
        let small = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        Self { worker: small(worker), workers: small(workers).max(1), process }
    }

    /// The number of the worker in two bytes, of which `random` decides which of many.
    fn first(&self, random: u16) -> u16 {
        let (worker, workers) = (u32::from(self.worker), u32::from(self.workers));
        let number = u32::from(random) - u32::from(random) % workers + worker;
        // The last round is not complete.
        let number = if number > u32::from(u16::MAX) { number - workers } else { number };
        number as u16
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LENGTH];
        // A system without random numbers has had no key for TLS either.
        let _ = rand::fill(&mut id);
        let [first, second, third, fourth, ..] = &mut id;
        [*first, *second] = self.first(u16::from_be_bytes([*first, *second])).to_be_bytes();
        [*third, *fourth] = self.process;
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if id.get(2..4) == Some(&self.process) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_to_its_worker() {
        for workers in [1, 2, 3, 4, 7, 64, 300, 1000] {
            for worker in [0, workers / 2, workers - 1] {
                let mut ids = Ids::new(worker, workers, [1, 2]);
                for random in [0, 1, 299, u16::MAX - 1, u16::MAX] {
                    assert_eq!(usize::from(ids.first(random)) % workers, worker, "{workers} {random}");
                }
                let id = ids.generate_cid();
                assert!(ids.validate(&id).is_ok());
                let short = [&[0x40], &id[..], &[0; 20]].concat();
                let long = [&[0xc0, 0, 0, 0, 1, LENGTH as u8], &id[..], &[0; 20]].concat();
                assert_eq!([worker_of(&short, workers), worker_of(&long, workers)], [worker; 2]);
            }
        }
        let id = Ids::new(0, 4, [1, 2]).generate_cid();
        assert!(Ids::new(0, 4, [1, 3]).validate(&id).is_err());
        for stunted in [&b""[..], &[0x40], &[0x40, 1], &[0xc0; 7]] {
            assert!(worker_of(stunted, 4) < 4);
        }
    }
}
