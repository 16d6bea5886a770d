//! Settings read from YAML: positions, units, `${VAR}`, and problems shown in the source.
//!
//! Both libraries mirror their part of the configuration file with [`Setting`] for every scalar, and turn it
//! into checked values with a [`Reader`], which collects every [`Problem`] instead of stopping at the first.
//! The YAML crate itself is used in [`Document`], [`Setting`] and [`Group`] alone, so that it can be replaced. Pure:
//! variables and files come in through [`Sources`].

mod document;
mod entries;
mod group;
mod interpolate;
mod problem;
mod reader;
mod setting;
mod suggest;
mod value;

pub use self::document::Document;
pub use self::entries::Entries;
pub use self::group::Group;
pub use self::interpolate::Sources;
pub use self::problem::{Position, Problem, Report};
pub use self::reader::Reader;
pub use self::setting::Setting;
pub use self::suggest::nearest;
pub use self::value::{ByteSize, Value};
