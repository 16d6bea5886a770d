//! What the workers work from: a [`Snapshot`] of the configuration, swapped whole at a reload, and each
//! worker's own [`View`] of it.

mod limits;
mod snapshot;
mod tls;
mod view;

pub(crate) use self::limits::Limits;
pub(crate) use self::snapshot::{ServerState, Snapshot};
pub(crate) use self::view::{Current, View};
