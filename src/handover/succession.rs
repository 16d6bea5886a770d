//! The hand-over as one process sees it, from its start to its end. Without the option nothing of it happens.

use anyhow::Context as _;
use proxy::{Predecessor, QuicKeys};

use super::{Claim, Event, Giver, Inventory, Past, Socket, Taken};
use crate::config::Handover;
use crate::notice::{chain, say};

/// What a process knows before it serves.
pub(crate) struct Succession {
    place: Option<Handover>,
    taken: Option<Taken>,
    keys: QuicKeys,
}

impl Succession {
    /// Asks the process that serves, if there is one, for what it has.
    ///
    /// # Errors
    /// Where it does not give that, or nobody could take over from this process in turn.
    pub(crate) fn begin(handover: Option<&Handover>) -> anyhow::Result<Self> {
        let taken = handover.map(|handover| Taken::from(&handover.path, handover.timeout));
        let taken = taken.transpose()?.flatten();
        if let Some(handover) = handover {
            // It is found out now whether that can be done; a process that is killed meanwhile leaves no file behind.
            drop(Claim::beside(&handover.path)?);
        }
        let keys = match &taken {
            Some(taken) => taken.keys(),
            None => QuicKeys::random(),
        };
        let keys = keys.context("there is no source of random numbers")?;
        Ok(Self { place: handover.cloned(), taken, keys })
    }

    /// Where sockets are found that another process has had.
    pub(crate) fn taken(&mut self) -> Option<&mut Taken> {
        self.taken.as_mut()
    }

    /// What QUIC is spoken with.
    pub(crate) fn keys(&self) -> QuicKeys {
        self.keys.clone()
    }

    /// The processes before this one, for the listeners with these names.
    ///
    /// # Errors
    /// Where descriptors have run out.
    pub(crate) fn predecessors(&self, listeners: &[String]) -> std::io::Result<Vec<Predecessor>> {
        self.taken.as_ref().map_or_else(|| Ok(Vec::new()), |taken| taken.predecessors(listeners))
    }

    /// Says that this process is ready, and returns when nobody else reads the sockets any more.
    ///
    /// # Errors
    /// Where the other process goes on.
    pub(crate) fn succeed(self) -> anyhow::Result<Standing> {
        let past = self.taken.map(Taken::finish).transpose()?.unwrap_or_default();
        Ok(Standing { place: self.place, keys: self.keys, past })
    }
}

/// What a process knows that serves, of those before it and for those after it.
pub(crate) struct Standing {
    place: Option<Handover>,
    keys: QuicKeys,
    past: Vec<Past>,
}

impl Standing {
    /// From now on another process may take over these sockets, of the listeners with these names in their order. To be
    /// called on a runtime.
    pub(crate) fn offer(self, sockets: Vec<Socket>, listeners: Vec<String>) -> Heir {
        let Some(handover) = self.place else { return Heir(None) };
        let claim = match Claim::of(&handover.path) {
            Ok(claim) => claim,
            Err(error) => {
                // What is served already is not given up for that.
                say(&format!("no process can take over from this one: {}", chain(&error)));
                return Heir(None);
            }
        };
        let inventory = Inventory { sockets, keys: self.keys, past: self.past };
        Heir(Some(Giver::start(claim, inventory, listeners, handover.timeout)))
    }
}

/// Who may take over.
pub(crate) struct Heir(Option<Giver>);

impl Heir {
    /// What happens next; nothing, where nobody can take over.
    pub(crate) async fn next(&mut self) -> Event {
        match &mut self.0 {
            Some(giver) => giver.next().await,
            None => std::future::pending().await,
        }
    }

    /// Nobody can from now on; nothing of this process is found at its place any more.
    pub(crate) fn refuse(&mut self) {
        self.0 = None;
    }
}
