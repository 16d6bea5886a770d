//! What the workers work from: a [`Snapshot`] of the configuration, swapped whole at a reload, and each
//! worker's own [`View`] of it.

mod balancer;
mod limits;
mod queue;
mod slots;
mod snapshot;
mod sticky;
mod upstream_tls;
mod view;

pub(crate) use self::balancer::{Ask, Balancer, Grant, Outcome, Picked};
pub(crate) use self::limits::Limits;
pub(crate) use self::snapshot::{ListenerState, ServerState, Snapshot};
pub(crate) use self::upstream_tls::UpstreamTls;
pub(crate) use self::view::{Current, View};
