//! Who a client is: passwords (RFC 7617), tokens (RFC 7519). Pure: times are said by the caller, and whoever calls keeps
//! slow checks away from other requests.

mod basic;
mod jwt;

pub use self::basic::{Credentials, Users, UsersError};
pub use self::jwt::{Jwt, JwtError, TokenSource};
