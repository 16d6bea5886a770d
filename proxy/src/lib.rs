//! x
pub mod pool;
pub mod route;
