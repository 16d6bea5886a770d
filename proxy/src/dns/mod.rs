//! Names of RS: resolved without anybody waiting for it, resolved again when their time is over.
//!
//! It decides what addresses a name stands for. It never touches a request: a change becomes another snapshot, in which
//! an RS that stays keeps its state. [`message`] and [`system`] are pure.

mod client;
mod follow;
mod message;
mod system;

pub(crate) use self::follow::{Follower, Known, Names};
