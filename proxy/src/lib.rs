//! The layer-7 proxy: an HTTP request from a client to a real server (RS) and the answer back.

pub mod message;
