//! The encapsulation that replaces a kernel module: inner packets from TUN devices to GRE packets on the
//! network and back.
//!
//! # Life of a packet
//!
//! *Out*: [`device`] reads a TUN frame (virtio header and an IP packet of up to 64 KiB) -> [`engine`] parses
//! it with [`wire`] -> [`segment`] cuts it into packets that fit the tunnel's MTU and finishes their checksums
//! -> the outer headers are written in front of each, in one [`batch`], which keeps the frame where payloads are left in it ->
//! [`socket`] sends the batch. Where the kernel can cut inside of a tunnel's packet, a frame that stands for several packets gets
//! one outer header and leaves as one.
//!
//! *In*: [`socket`] receives a batch, as large as the kernel merged it -> the outer IP and GRE headers are
//! checked -> (peer, key) names the tunnel, or `UnknownPeer` -> the inner source lies inside the tunnel's
//! networks, or `SpoofedInner` -> the inner packet belongs to this tunnel, or `NotOurs` -> [`coalesce`] joins what was
//! not merged -> [`device`] writes it.
//!
//! [`privileged`] makes devices and sockets before the first packet, in a process of its own; [`run`] holds the threads
//! that move packets; [`linux`] wraps what both need from the kernel.
//!
//! Pure modules (no sockets, no clock, no files): [`batch`], [`coalesce`], [`config`], [`engine`], [`fragment`], [`mtu`],
//! [`segment`], [`tunnel`], [`wire`]. A packet never produces an error or a log line: it produces a
//! [`metrics::DropReason`].

pub mod batch;
pub mod coalesce;
pub mod config;
pub mod device;
pub mod engine;
pub mod fragment;
pub mod linux;
pub mod metrics;
pub mod mtu;
pub mod privileged;
pub mod run;
pub mod segment;
pub mod socket;
pub mod tunnel;
pub mod wire;
