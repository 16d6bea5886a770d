//! OCSP: asking whether a certificate was revoked, and believing the answer (RFC 6960; RFC 5019 for its form).
//!
//! Pure. An answer counts when it is about this certificate, signed by who issued it or by somebody that they have
//! named for that, and of today. It never decides what becomes of a certificate that was revoked.

mod answer;
mod der;
mod question;
mod signature;
#[cfg(test)]
mod tests;

pub(crate) use self::answer::{Answer, Status};
pub(crate) use self::question::Question;
