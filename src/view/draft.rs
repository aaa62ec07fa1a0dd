//! The schema of a swarm document as a client sends it: the same keys, most of which may be left out.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr, Schema,
        schema::{ArrayBuilder, Object},
    },
};

use super::{
    document::{AgentDocument, BackoffDocument, SwarmDocument},
    home::MountDocument,
    words::one_of,
};

/// A swarm document with its defaults left out.
#[derive(Debug)]
pub struct SwarmDraft;

#[derive(Debug)]
struct AgentDraft;
#[derive(Debug)]
struct BackoffDraft;
#[derive(Debug)]
struct MountDraft;

/// The schema of the whole document, of which no more than these keys must be there, and some keys are others.
fn loosened<T: PartialSchema>(required: &[&str], others: Vec<(&str, RefOr<Schema>)>) -> RefOr<Schema> {
    let schema = T::schema();
    let RefOr::T(Schema::Object(whole)) = schema else { return schema };
    let mut draft: Object = whole;
    draft.required = required.iter().map(|key| (*key).to_owned()).collect();
    for (key, other) in others {
        draft.properties.insert(key.to_owned(), other);
    }
    RefOr::T(draft.into())
}

fn list_of<T: ToSchema>() -> RefOr<Schema> {
    RefOr::T(ArrayBuilder::new().items(named::<T>()).build().into())
}

fn named<T: ToSchema>() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

impl PartialSchema for SwarmDraft {
    fn schema() -> RefOr<Schema> {
        let runtimes = one_of("What runs commands; `auto` is resolved once.", &["auto", "process", "docker"]);
        let others = vec![
            ("runtime", runtimes),
            ("agent", list_of::<AgentDraft>()),
            ("backoff", named::<BackoffDraft>()),
            ("mounts", list_of::<MountDraft>()),
        ];
        loosened::<SwarmDocument>(&["name", "agent"], others)
    }
}

impl ToSchema for SwarmDraft {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("SwarmDraft")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        SwarmDocument::schemas(schemas);
        schemas.extend([
            (AgentDraft::name().into_owned(), AgentDraft::schema()),
            (BackoffDraft::name().into_owned(), BackoffDraft::schema()),
            (MountDraft::name().into_owned(), MountDraft::schema()),
        ]);
    }
}

macro_rules! drafts {
    ($($draft:ident of $document:ty, $required:expr;)+) => {
        $(
            impl PartialSchema for $draft {
                fn schema() -> RefOr<Schema> {
                    loosened::<$document>($required, Vec::new())
                }
            }

            impl ToSchema for $draft {
                fn name() -> Cow<'static, str> {
                    Cow::Borrowed(stringify!($draft))
                }
            }
        )+
    };
}

drafts! {
    AgentDraft of AgentDocument, &["name", "command"];
    BackoffDraft of BackoffDocument, &[];
    MountDraft of MountDocument, &["source", "target"];
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_draft_needs_little_and_leads_to_schemas_that_are_there() {
        let mut schemas = Vec::new();
        SwarmDraft::schemas(&mut schemas);
        let draft = serde_json::to_value(SwarmDraft::schema()).unwrap();
        assert_eq!(draft["required"], serde_json::json!(["name", "agent"]));
        assert_eq!(draft["properties"]["runtime"]["enum"][0], "auto");
        assert_eq!(draft["additionalProperties"], false);
        for text in draft.to_string().split("#/components/schemas/").skip(1) {
            let name = text.split('"').next().unwrap();
            assert!(schemas.iter().any(|(known, _)| known == name), "{name}");
        }
    }
}
