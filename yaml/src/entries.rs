//! A map whose keys the operator chooses, in the order of the file.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::setting::Setting;
use crate::value::Value;

/// Names and settings, such as header fields; each name stands once.
#[derive(Debug, Clone)]
pub struct Entries<T>(Vec<(String, Setting<T>)>);

impl<T> Entries<T> {
    /// Names and settings, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting<T>)> {
        self.0.iter().map(|(name, setting)| (name.as_str(), setting))
    }
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(PhantomData<T>);

        impl<'de, T> Visitor<'de> for Map<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Map(PhantomData))
    }
}

impl<T: Value> JsonSchema for Entries<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("entries of {}", T::NAME).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<Setting<T>>(),
        })
    }
}
