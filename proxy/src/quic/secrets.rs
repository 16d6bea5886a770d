//! What all workers of the process have to know alike, and those of the process that takes over from it.

use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac, rand};

use super::ids::Process;

/// Processes that are remembered after they were taken over from.
const MOST_EARLIER: usize = 16;

/// Keys that are made at the start and leave the process only toward one that takes over.
#[derive(Clone, PartialEq, Eq)]
pub struct QuicKeys {
    /// Signs stateless resets (RFC 9000 10.3).
    pub reset: [u8; 32],
    /// Seals the tokens of address validation (RFC 9000 8.1).
    pub token: [u8; 32],
    /// Stands in every connection ID of this process.
    pub process: [u8; 4],
    /// Those of the processes before it, the last one last.
    pub earlier: Vec<[u8; 4]>,
}

impl QuicKeys {
    /// Other ones each time. None where the system has no random numbers.
    pub fn random() -> Option<Self> {
        let mut keys = Self { reset: [0; 32], token: [0; 32], process: [0; 4], earlier: Vec::new() };
        for secret in [&mut keys.reset[..], &mut keys.token, &mut keys.process] {
            rand::fill(secret).ok()?;
        }
        Some(keys)
    }

    /// Those of a process that takes over from the one that has these: it takes the tokens of that one, and ends connections
    /// of which nobody is left. None where the system has no random numbers.
    pub fn succeed(&self) -> Option<Self> {
        let mut keys = self.clone();
        keys.earlier.push(self.process);
        let surplus = keys.earlier.len().saturating_sub(MOST_EARLIER);
        keys.earlier.drain(..surplus);
        while keys.earlier.contains(&keys.process) {
            rand::fill(&mut keys.process).ok()?;
        }
        Some(keys)
    }
}

/// The same as the workers use it.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub(crate) reset: Arc<hmac::Key>,
    /// Any worker may get a token back.
    pub(crate) token: Arc<hkdf::Prk>,
    pub(crate) process: Process,
    pub(crate) earlier: Arc<[Process]>,
}

impl Secrets {
    pub(crate) fn new(keys: &QuicKeys) -> Self {
        Self {
            reset: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &keys.reset)),
            token: Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&keys.token)),
            process: keys.process,
            earlier: keys.earlier.as_slice().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_knows_those_before_it() {
        let first = QuicKeys::random().unwrap();
        let mut last = first.succeed().unwrap();
        assert_eq!((last.reset, last.token), (first.reset, first.token));
        assert_eq!(last.earlier, [first.process]);
        assert_ne!(last.process, first.process);
        for _ in 0..40 {
            last = last.succeed().unwrap();
        }
        assert_eq!(last.earlier.len(), MOST_EARLIER);
        assert!(!last.earlier.contains(&first.process));
    }
}
