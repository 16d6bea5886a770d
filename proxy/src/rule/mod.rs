//! What a rule asks of a request and does to it, beyond its URL: compiled when the configuration is read, so that
//! a request pays for what its own rule uses and for nothing else.
//!
//! Pure: it decides and edits, and never waits, dials or reads a clock. [`route`](crate::route) finds the rules of a
//! URL, [`Conditions`] choose among them; `forward` applies the rest.

mod compress;
mod conditions;
mod cors;
mod edits;
mod error_page;
mod redirect;
mod rewrite;
mod template;

pub use self::compress::{Algorithm, Compress};
pub use self::conditions::{Conditions, Field, Test, Unmet};
pub use self::cors::{Cors, CorsAnswer, Origin};
pub use self::edits::{Edits, Values};
pub use self::error_page::{ErrorPage, ErrorPages, Shown, Statuses};
pub use self::redirect::{Fixed, Redirect};
pub use self::rewrite::Rewrite;
pub use self::template::{Answered, Escape, Facts, Template, TemplateError, cookie};
