//! What a route says of itself.

use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{
        ObjectBuilder, Ref, RefOr, Required, Schema,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{SchemaType, Type, empty},
    },
};

use crate::http::error::Code;

/// Under which heading an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Tag {
    Probes,
    Health,
    Swarms,
    Agents,
    Operations,
    Tasks,
    Locks,
    Messages,
    Events,
    Hive,
    Access,
}

impl Tag {
    pub(super) const ALL: [Self; 11] = [
        Self::Probes,
        Self::Health,
        Self::Swarms,
        Self::Agents,
        Self::Operations,
        Self::Tasks,
        Self::Locks,
        Self::Messages,
        Self::Events,
        Self::Hive,
        Self::Access,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Probes => "probes",
            Self::Health => "health",
            Self::Swarms => "swarms",
            Self::Agents => "agents",
            Self::Operations => "operations",
            Self::Tasks => "tasks",
            Self::Locks => "locks",
            Self::Messages => "messages",
            Self::Events => "events",
            Self::Hive => "hive",
            Self::Access => "access",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Probes => "Alive, ready, measured: for whoever watches the daemon itself.",
            Self::Health => "What was seen of agents, swarms and the hive, by whom and when.",
            Self::Swarms => "Swarms: what is wanted of them, and commands on them.",
            Self::Agents => "Single agents: their siblings' processes are left alone.",
            Self::Operations => "What became of accepted commands.",
            Self::Tasks => {
                "Work that agents share. Here as below, 200 means that it is done and written down; nothing becomes an operation."
            }
            Self::Locks => "Who may touch what, while others wait.",
            Self::Messages => "What agents and clients write to each other, kept until it is acknowledged.",
            Self::Events => "What happens, numbered.",
            Self::Hive => "The hive as a whole.",
            Self::Access => "Tokens and tickets: who else may ask.",
        }
    }
}

const EVENTS: &str = "text/event-stream; charset=utf-8";

/// Gathers the schemas that a type needs by their names.
pub(super) type Collect = fn(&mut Vec<(String, RefOr<Schema>)>);

/// What a route answers when it does what it was asked for.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: &'static str,
    /// Media types with what they hold.
    pub(super) content: Vec<(&'static str, RefOr<Schema>)>,
    /// Headers with what they say.
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

/// What a route does.
pub(in crate::http) struct Doc {
    /// The operation's name, which generated clients use.
    pub(in crate::http) id: String,
    pub(super) tag: Tag,
    pub(super) summary: String,
    pub(super) text: Option<&'static str>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<(RefOr<Schema>, Value)>,
    pub(super) answers: Vec<Answer>,
    /// What it refuses with, beside what every route may.
    pub(super) problems: Vec<Code>,
    pub(super) schemas: Vec<Collect>,
    /// Schemas that are JSON already, by their names.
    pub(super) ready_made: Vec<(String, Value)>,
}

/// Describes a route: a name that is unique among all, a heading, and one line.
pub(in crate::http) fn doc(id: impl Into<String>, tag: Tag, summary: impl Into<String>) -> Doc {
    Doc {
        id: id.into(),
        tag,
        summary: summary.into(),
        text: None,
        parameters: Vec::new(),
        body: None,
        answers: Vec::new(),
        problems: Vec::new(),
        schemas: Vec::new(),
        ready_made: Vec::new(),
    }
}

impl Doc {
    /// More than one line.
    pub(in crate::http) fn text(self, text: &'static str) -> Self {
        Self { text: Some(text), ..self }
    }

    /// A parameter of the query, which may be left out.
    pub(in crate::http) fn query(self, name: &str, schema: impl Into<Schema>, text: &str) -> Self {
        self.parameter(ParameterIn::Query, name, schema, text)
    }

    /// A parameter of the query that is a tool's argument.
    pub(in crate::http) fn argument(
        mut self,
        name: &str,
        schema: Schema,
        text: &str,
        list: bool,
        needed: bool,
    ) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(if needed { Required::True } else { Required::False })
            .description(Some(text))
            // A list is one text with commas.
            .explode(list.then_some(false))
            .schema(Some(schema));
        self.parameters.push(parameter.build());
        self
    }

    /// A header of the request, which may be left out.
    pub(in crate::http) fn header(self, name: &str, schema: impl Into<Schema>, text: &str) -> Self {
        self.parameter(ParameterIn::Header, name, schema, text)
    }

    fn parameter(mut self, place: ParameterIn, name: &str, schema: impl Into<Schema>, text: &str) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(Required::False)
            .description(Some(text))
            .schema(Some(schema.into()));
        self.parameters.push(parameter.build());
        self
    }

    /// What it takes, as JSON, with an example.
    pub(in crate::http) fn body<T: ToSchema>(mut self, example: Value) -> Self {
        self.schemas.push(collect::<T>);
        self.body = Some((named::<T>(), example));
        self
    }

    /// What it takes, by a schema and its parts that are JSON already; the first is the whole and has no name of its own.
    pub(in crate::http) fn body_as_it_is(
        mut self,
        name: String,
        schema: Vec<(Option<String>, Value)>,
        example: Value,
    ) -> Self {
        self.body = Some((self.keep(&name, schema), example));
        self
    }

    /// It answers with JSON of such a schema.
    pub(in crate::http) fn json_as_it_is(
        mut self,
        name: String,
        schema: Vec<(Option<String>, Value)>,
        text: &'static str,
    ) -> Self {
        let named = self.keep(&name, schema);
        self.answer(200, text, vec![("application/json", named)])
    }

    fn keep(&mut self, name: &str, schema: Vec<(Option<String>, Value)>) -> RefOr<Schema> {
        let parts = schema.into_iter().map(|(part, schema)| (part.unwrap_or_else(|| name.to_owned()), schema));
        self.ready_made.extend(parts);
        RefOr::Ref(Ref::from_schema_name(name))
    }

    /// The answer before is text for people where the client asks for that.
    pub(in crate::http) fn or_text(mut self, media_type: &'static str) -> Self {
        let schema = ObjectBuilder::new().schema_type(Type::String).build();
        if let Some(answer) = self.answers.last_mut() {
            answer.content.push((media_type, RefOr::T(schema.into())));
        }
        self
    }

    /// It answers with JSON.
    pub(in crate::http) fn json<T: ToSchema>(mut self, status: u16, text: &'static str) -> Self {
        self.schemas.push(collect::<T>);
        self.answer(status, text, vec![("application/json", named::<T>())])
    }

    /// It answers with text of a media type.
    pub(in crate::http) fn plain(self, status: u16, media_type: &'static str, text: &'static str) -> Self {
        let schema = ObjectBuilder::new().schema_type(Type::String).build();
        self.answer(status, text, vec![(media_type, RefOr::T(schema.into()))])
    }

    /// It answers without a body.
    pub(in crate::http) fn bare(self, status: u16, text: &'static str) -> Self {
        self.answer(status, text, Vec::new())
    }

    fn answer(mut self, status: u16, text: &'static str, content: Vec<(&'static str, RefOr<Schema>)>) -> Self {
        self.answers.push(Answer { status, text, content, headers: Vec::new() });
        self
    }

    /// It answers with events without end. OpenAPI 3.1 has no word for what one of them holds.
    pub(in crate::http) fn events(self, text: &'static str) -> Self {
        self.answer(200, text, vec![(EVENTS, RefOr::T(empty()))])
    }

    /// The answer before is an endless one where the client asks for events.
    pub(in crate::http) fn or_events(mut self, text: &str) -> Self {
        let schema = ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(text)).build();
        if let Some(answer) = self.answers.last_mut() {
            answer.content.push((EVENTS, RefOr::T(schema.into())));
        }
        self
    }

    /// The answer before has a header.
    pub(in crate::http) fn sends(mut self, header: &'static str, text: &'static str) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push((header, text));
        }
        self
    }

    /// The schemas that are JSON already, by their names.
    #[cfg(test)]
    pub(in crate::http) fn ready_made(&self) -> &[(String, Value)] {
        &self.ready_made
    }

    /// Codes with which it refuses, beside those of every route.
    pub(in crate::http) fn refuses(mut self, problems: &[Code]) -> Self {
        self.problems.extend_from_slice(problems);
        self
    }
}

fn collect<T: ToSchema>(into: &mut Vec<(String, RefOr<Schema>)>) {
    into.push((T::name().into_owned(), T::schema()));
    T::schemas(into);
}

/// A reference to the schema of a type.
fn named<T: ToSchema>() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

/// A whole number.
pub(in crate::http) fn whole(least: usize, most: usize) -> Schema {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(Some(most)).build().into()
}

/// Text of a form.
pub(in crate::http) fn text(pattern: &str) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build().into()
}

/// One of some words.
pub(in crate::http) fn words(words: &[&str]) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.to_vec())).build().into()
}

/// A switch, as a query has it.
pub(in crate::http) fn flag() -> Schema {
    words(&["true", "false", "1", "0", ""])
}
