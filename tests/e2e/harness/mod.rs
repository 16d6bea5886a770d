//! What the cases have in common: the program, real servers, clients, certificates, and what a case needs.

pub(crate) mod case;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod credulous;
pub(crate) mod curl;
pub(crate) mod digest;
pub(crate) mod dns;
pub(crate) mod frames;
pub(crate) mod h2;
pub(crate) mod h2_origin;
pub(crate) mod h3;
pub(crate) mod http1;
pub(crate) mod keys;
pub(crate) mod network;
pub(crate) mod origin;
pub(crate) mod pebble;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod relay;
pub(crate) mod requirements;
pub(crate) mod scratch;
pub(crate) mod site;
pub(crate) mod vm;
pub(crate) mod wait;

pub(crate) use self::case::Case;
pub(crate) use self::client::{Client, Tls};
pub(crate) use self::http1::Request;
pub(crate) use self::network::Host;
pub(crate) use self::origin::Origin;
pub(crate) use self::program::{Program, Setup};
pub(crate) use self::requirements::Need;
pub(crate) use self::site::Site;
pub(crate) use self::wait::{uninterrupted, until, within};
