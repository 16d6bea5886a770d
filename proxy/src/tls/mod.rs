//! TLS toward clients: which certificate a client is shown, and how TLS is spoken with it.
//!
//! A certificate stands in a [`Slot`] of the [`Vault`], found by where it comes from and the same through every reload;
//! whoever keeps it up to date puts another one there. A [`shelf::Shelf`] has the slots of one listener, by name. Where
//! clients have to show a certificate themselves, a [`Proof`] says what came of it, for as long as the connection lives.

mod date;
mod describe;
mod early;
mod facts;
mod failure;
mod proof;
mod server;
mod shelf;
mod slot;
mod tickets;

pub(crate) use self::date::{date, seconds};
pub(crate) use self::early::EarlySessions;
pub(crate) use self::facts::Facts;
pub(crate) use self::failure::{TIMEOUT, failure, failure_of};
pub(crate) use self::proof::Proof;
pub(crate) use self::server::TlsState;
pub(crate) use self::shelf::Index;
pub(crate) use self::slot::{Record, Slot, StapleRecord, Vault};
