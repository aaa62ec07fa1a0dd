//! The API described by its code: what each row of the table says of itself, made into one OpenAPI document.

mod doc;
mod document;

pub(super) use doc::{Doc, Tag, doc, flag, text, whole, words};
pub(super) use document::{Described, openapi};
