//! Query strings, read so that every refusal names its field.

use std::fmt;

use actix_web::{HttpRequest, web::Query};
use serde::{
    de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor, value::StringDeserializer},
    forward_to_deserialize_any,
};

use super::error::{Code, Problem};

/// Reads a query string.
pub(super) fn query<T: de::DeserializeOwned>(request: &HttpRequest) -> Result<T, Problem> {
    let refused = |detail: String| Problem::new(Code::InvalidQuery, detail);
    let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|error| refused(error.to_string()))?
        .into_inner();
    T::deserialize(Fields { pairs: pairs.into_iter(), value: None }).map_err(|Refused(detail)| refused(detail))
}

/// What is wrong, and where.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The fields of a query, in order.
struct Fields {
    pairs: std::vec::IntoIter<(String, String)>,
    value: Option<(String, String)>,
}

impl<'de> de::Deserializer<'de> for Fields {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some((key, value)) = self.pairs.next() else { return Ok(None) };
        let known = seed.deserialize(IntoDeserializer::<Refused>::into_deserializer(key.as_str()))?;
        self.value = Some((key, value));
        Ok(Some(known))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let (key, value) = self.value.take().unwrap_or_default();
        seed.deserialize(Value(value)).map_err(|Refused(why)| Refused(format!("{key}: {why}")))
    }
}

/// One value: text, whatever is to become of it.
struct Value(String);

impl<'de> de::Deserializer<'de> for Value {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        StringDeserializer::new(self.0).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}
