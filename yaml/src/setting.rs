//! One scalar of the file: its text, where it stands, and what it is to become.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use crate::problem::Position;
use crate::value::Value;

/// A scalar as written, to be read as a `T` by a [`Reader`](crate::Reader), which replaces `${VAR}` first.
#[derive(Debug, Clone)]
pub struct Setting<T> {
    pub(crate) text: String,
    at: Position,
    becomes: PhantomData<fn() -> T>,
}

impl<T> Setting<T> {
    pub(crate) fn written(text: String, at: Position) -> Self {
        Self { text, at, becomes: PhantomData }
    }

    /// Where the scalar stands in the file.
    pub fn at(&self) -> Position {
        self.at
    }
}

impl<'de, T> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<String>::deserialize(deserializer)?;
        Ok(Self::written(spanned.value, Position::from(spanned.referenced)))
    }
}

impl<T: Value> JsonSchema for Setting<T> {
    fn schema_name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A plain value, or text with something to replace in it.
        schemars::json_schema!({
            "description": T::WHAT,
            "anyOf": [T::schema(), { "type": "string", "pattern": r"\$\{.+\}" }],
        })
    }
}
