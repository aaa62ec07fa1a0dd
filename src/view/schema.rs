//! Schemas of what is text, or anything, on the wire.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{Type, empty},
    },
};

use super::{
    size::SizeText,
    time::{DurationText, Rfc3339},
};

/// A name of a swarm or an agent: a DNS label.
pub const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// One or more numbers with their units, as `humantime` reads them.
pub const DURATION: &str = "^(0|([0-9]{1,9} ?(nanos|nsec|ns|micros|usec|us|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y) ?)+)$";
/// A number and a unit, as `bytesize` reads them.
const SIZE: &str = "^[0-9]{1,20}(\\.[0-9]{1,9})? ?([kKmMgGtTpPeE]?[iI]?[bB]?)$";

/// Any JSON value: what agents and servers say in their own words.
#[derive(Debug)]
pub struct Anything;

/// JSON's null.
#[derive(Debug)]
pub struct Nothing;

macro_rules! schemas {
    ($($type:ty, $name:literal => $schema:expr;)+) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    RefOr::T($schema.into())
                }
            }

            impl ToSchema for $type {
                fn name() -> Cow<'static, str> {
                    Cow::Borrowed($name)
                }
            }
        )+
    };
}

schemas! {
    Anything, "Anything" => empty();
    Nothing, "Nothing" => ObjectBuilder::new().schema_type(Type::Null);
    Rfc3339, "Time" => text("A point in time: RFC 3339, UTC, with milliseconds.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples(["2026-11-21T04:05:06.789Z"]);
    DurationText, "Duration" => text("A duration: a number and its unit.").pattern(Some(DURATION)).examples(["60s", "10m", "250ms"]);
    SizeText, "Size" => text("A number of bytes: a number and its unit.").pattern(Some(SIZE)).examples(["2GiB", "1536MiB"]);
}

fn text(says: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(says))
}
