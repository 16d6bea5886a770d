//! The TUN edge: where inner packets leave and enter the kernel.
//!
//! Frames cross it whole, each with its virtio header; nothing here looks into them.

mod outlet;
mod tun;

pub use outlet::create_outlet;
pub use tun::{MAX_FRAME_BYTES, Tun, TunError, is_available, takes_datagrams};
