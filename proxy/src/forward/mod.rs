//! From a request to the answer of an RS.

pub mod headers;
