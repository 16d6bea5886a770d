//! Connection IDs (RFC 9000 5.1) that say which worker has the connection.
//!
//! The first two bytes of an ID, as a number modulo the number of workers, are the worker: the kernel can compute that,
//! and the random ID that a client begins with leads somewhere too. Four more bytes are the same for the whole process, so
//! that packets for one that served before it are known at a look. The rest is random: nobody can tell which connections
//! belong to the same client.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// Bytes of our IDs.
const LENGTH: usize = 12;
/// Bytes of an ID that are the worker.
const WORKER: usize = 2;
/// Where the destination's ID begins in a QUIC packet with a long header (RFC 9000 17.2).
pub const ID_IN_LONG: usize = 6;
/// Where it begins in one with a short header (RFC 9000 17.3).
pub const ID_IN_SHORT: usize = 1;

/// What stands in every ID of a process.
pub(crate) type Process = [u8; 4];

/// Whether a packet has a long header (RFC 9000 17.2).
fn is_long(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0x80 != 0)
}

/// The process that has made the ID that a datagram is for, if it was one of ours. The ID that a client begins with looks
/// like one of a given process once in billions.
pub(super) fn process_of(datagram: &[u8]) -> Option<Process> {
    let at = if is_long(datagram) {
        // Version 1 and the length of the ID.
        if datagram.get(1..ID_IN_LONG) != Some(&[0, 0, 0, 1, LENGTH as u8]) {
            return None;
        }
        ID_IN_LONG
    } else {
        ID_IN_SHORT
    };
    datagram.get(at + WORKER..)?.first_chunk().copied()
}

/// The worker that a datagram is for.
pub(super) fn worker_of(datagram: &[u8], workers: usize) -> usize {
    let at = if is_long(datagram) { ID_IN_LONG } else { ID_IN_SHORT };
    let number = datagram
        .get(at..at + WORKER)
        .map_or(0, |id| id.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)));
    number % workers.max(1)
}

/// Makes the IDs of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    worker: u16,
    workers: u16,
    process: Process,
    earlier: Arc<[Process]>,
}

impl Ids {
    /// For the worker with this number; `process` is the same for all of them, `earlier` are those before it. More workers
    /// than 65536 are not told apart: the others pass on what is theirs.
    pub(crate) fn new(worker: usize, workers: usize, process: Process, earlier: Arc<[Process]>) -> Self {
        let small = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        Self { worker: small(worker), workers: small(workers).max(1), process, earlier }
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
        let [a, b, process @ ..] = &mut id;
        [*a, *b] = self.first(u16::from_be_bytes([*a, *b])).to_be_bytes();
        if let Some(process) = process.first_chunk_mut() {
            *process = self.process;
        }
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        // Whose process has gone is told that its connection has, too (RFC 9000 10.3): the key for that is the same.
        let process = id.get(WORKER..).and_then(|id| id.first_chunk::<4>());
        let ours = process.is_some_and(|process| *process == self.process || self.earlier.contains(process));
        if ours { Ok(()) } else { Err(InvalidCid) }
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
                let mut ids = Ids::new(worker, workers, [1, 2, 3, 4], Arc::default());
                for random in [0, 1, 299, u16::MAX - 1, u16::MAX] {
                    assert_eq!(usize::from(ids.first(random)) % workers, worker, "{workers} {random}");
                }
                let id = ids.generate_cid();
                assert!(ids.validate(&id).is_ok());
                let short = [&[0x40], &id[..], &[0; 20]].concat();
                let long = [&[0xc0, 0, 0, 0, 1, LENGTH as u8], &id[..], &[0; 20]].concat();
                assert_eq!([worker_of(&short, workers), worker_of(&long, workers)], [worker; 2]);
                assert_eq!([process_of(&short), process_of(&long)], [Some([1, 2, 3, 4]); 2]);
            }
        }
        for stunted in [&b""[..], &[0x40], &[0x40, 1], &[0xc0; 7], &[0xc0, 0, 0, 0, 1, 12, 0, 0, 1, 2, 3]] {
            assert!(worker_of(stunted, 4) < 4);
            assert_eq!(process_of(stunted), None);
        }
    }

    #[test]
    fn an_id_is_of_this_process_or_of_one_before_it() {
        let id = Ids::new(0, 4, [1, 2, 3, 4], Arc::default()).generate_cid();
        assert!(Ids::new(0, 4, [1, 2, 3, 5], Arc::default()).validate(&id).is_err());
        assert!(Ids::new(0, 4, [1, 2, 3, 5], Arc::new([[9; 4], [1, 2, 3, 4]])).validate(&id).is_ok());
        // An ID of another length, or a packet of another version, was not made here.
        let long = |version: u8, length: u8| [&[0xc0, 0, 0, 0, version, length], &id[..], &[0; 20]].concat();
        assert_eq!([process_of(&long(1, 8)), process_of(&long(2, LENGTH as u8))], [None; 2]);
    }
}
