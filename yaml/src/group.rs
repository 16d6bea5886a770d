//! A scalar, or a list of scalars that belong together.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::problem::Position;
use crate::setting::Setting;
use crate::value::Value;

/// One setting, or several in brackets: at least one.
#[derive(Debug, Clone)]
pub struct Group<T>(Vec<Setting<T>>);

impl<T> Group<T> {
    /// The settings, in the order of the file.
    pub fn settings(&self) -> &[Setting<T>] {
        &self.0
    }

    /// Where the first one stands in the file.
    pub fn at(&self) -> Option<Position> {
        self.0.first().map(Setting::at)
    }
}

/// What stands there, before it is known where.
enum Written<T> {
    One(String),
    Several(Vec<Setting<T>>),
}

impl<'de, T> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T> Visitor<'de> for Either<T> {
            type Value = Written<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Written::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut settings = Vec::new();
                while let Some(setting) = items.next_element()? {
                    settings.push(setting);
                }
                if settings.is_empty() {
                    return Err(A::Error::custom("an empty list: name one at least"));
                }
                Ok(Written::Several(settings))
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<'de, T> Deserialize<'de> for Group<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<Written<T>>::deserialize(deserializer)?;
        Ok(Self(match spanned.value {
            Written::One(text) => vec![Setting::written(text, Position::from(spanned.referenced))],
            Written::Several(settings) => settings,
        }))
    }
}

impl<T: Value> JsonSchema for Group<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("one or several of {}", T::NAME).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Setting<T>>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "minItems": 1, "items": one }] })
    }
}
