//! The layer-7 proxy: an HTTP request from a client to a real server (RS) and the answer back.

pub mod forward;
pub mod h1;
pub mod message;
