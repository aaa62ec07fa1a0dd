//! The arguments of a tool as a request carries them: in the path, in the query or the body, and in one header. All of it follows from the schema that the
//! tool has on every door, so that no route can say something else.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, web::Payload, web::Query};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use utoipa::openapi::{
    ArrayBuilder, ObjectBuilder, RefOr, Schema,
    schema::{SchemaFormat, Type},
};

use super::{
    dto,
    error::{Code, Problem},
    json::Document,
    openapi::{Doc, flag},
};
use crate::tools::{Tool, Who};

/// Largest body: a thousand tasks with a payload each, or one message of the longest.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The argument that `Idempotency-Key` stands for.
const KEY: &str = "key";
const DEFS: &str = "#/$defs/";
const COMPONENTS: &str = "#/components/schemas/";

/// Arguments by name, each as it was written.
pub(super) type Texts = BTreeMap<String, Box<RawValue>>;

/// Where a tool finds its arguments in a request.
#[derive(Debug)]
pub(super) struct Arguments {
    /// Members of the path, each an argument by its name.
    path: Vec<String>,
    /// Those of the query; `None`: they are in the body.
    query: Option<BTreeMap<String, Kind>>,
    has_key: bool,
}

/// What a text of the query becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Flag,
    /// Texts with commas between them.
    List,
}

impl Arguments {
    /// Of a tool behind a path, that is read or posted to.
    pub(super) fn of(tool: &Tool, path: &str, read: bool) -> Self {
        let schema = (tool.arguments)();
        let path: Vec<String> = members(path).map(str::to_owned).collect();
        let others = || properties(&schema).filter(|(name, _)| !path.contains(name));
        let query = read.then(|| others().map(|(name, schema)| (name.clone(), kind(&schema))).collect());
        let has_key = properties(&schema).any(|(name, _)| name == KEY);
        Self { path, query, has_key }
    }

    /// Reads them, each as it was written: what others say in it is not ours to write anew.
    pub(super) async fn read(&self, request: &HttpRequest, payload: Payload) -> Result<Texts, Problem> {
        let mut arguments = match &self.query {
            Some(known) => query(request, known)?,
            None => {
                let dto::NoQuery {} = dto::query(request)?;
                texts(&dto::long_body::<Box<RawValue>>(request, payload, BODY_BYTES_MAX).await?)?
            }
        };
        for name in &self.path {
            if arguments.contains_key(name) {
                return Err(Problem::new(Code::InvalidBody, format!("{name}: found here, allowed: in the path alone")));
            }
            arguments.insert(name.clone(), text(request.match_info().query(name)));
        }
        if self.has_key
            && let Some(key) = dto::idempotency_key(request)?
        {
            let said = arguments.get(KEY).and_then(|said| serde_json::from_str::<Value>(said.get()).ok());
            if said.as_ref().is_some_and(|said| !said.is_null() && *said != key.as_str()) {
                let detail = format!("idempotency-key is {key:?}, and key is another, allowed: one of them");
                return Err(Problem::new(Code::InvalidRequest, detail));
            }
            arguments.insert(KEY.to_owned(), text(&key));
        }
        Ok(arguments)
    }

    /// Whether an argument stands in the path.
    pub(super) fn in_path(&self, name: &str) -> bool {
        self.path.iter().any(|member| member == name)
    }
}

/// Describes a route that reads: each argument is a parameter of the query.
pub(super) fn describe_query(doc: Doc, tool: &Tool, path: &str) -> Doc {
    let schema = (tool.arguments)();
    let needed = needed(tool, &schema);
    let in_path: Vec<&str> = members(path).collect();
    properties(&schema).filter(|(name, _)| !in_path.contains(&name.as_str())).fold(doc, |doc, (name, schema)| {
        let text = schema["description"].as_str().unwrap_or_default();
        doc.argument(&name, parameter(&schema), text, kind(&schema) == Kind::List, needed.contains(&name))
    })
}

/// Describes a route that is posted to: the arguments that are not in its path are members of the body.
pub(super) fn describe_body(doc: Doc, tool: &Tool, path: &str, example: Value) -> Doc {
    let mut schema = (tool.arguments)();
    let mut needed = needed(tool, &schema);
    schema.as_object_mut().and_then(|members| members.remove("title"));
    for member in members(path) {
        needed.retain(|name| name != member);
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.remove(member);
        }
    }
    schema["required"] = needed.into();
    let forms = schema["$defs"].as_object_mut().into_iter().flat_map(|forms| forms.values_mut());
    forms.for_each(bear_null);
    bear_null(&mut schema);
    let keyed = properties(&schema).any(|(name, _)| name == KEY);
    let doc = doc.body_as_it_is(format!("{}Body", camel(tool.name)), at_home(schema), example);
    if keyed {
        let text = "The same as `key` in the body: the same again changes nothing more and has the same answer.";
        return doc.header("Idempotency-Key", super::openapi::text("^[!-~]{1,255}$"), text);
    }
    doc
}

/// Describes the answer.
pub(super) fn describe_answer(doc: Doc, tool: &Tool) -> Doc {
    let mut schema = (tool.answer)();
    // Its name among the components says it.
    let title = schema.as_object_mut().and_then(|members| members.remove("title"));
    let name = title.as_ref().and_then(Value::as_str).unwrap_or(tool.name).to_owned();
    doc.json_as_it_is(name, at_home(schema), "What the tool answers.")
}

/// The names in the braces of a path.
fn members(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The arguments by name, each with its own schema.
fn properties(schema: &Value) -> impl Iterator<Item = (String, Value)> {
    let all = schema["properties"].as_object().into_iter().flatten();
    all.map(|(name, property)| (name.clone(), resolved(property, &schema["$defs"])))
}

/// Those that must be said. Whoever comes by this door is no agent's session, so he says for whom he asks.
fn needed(tool: &Tool, schema: &Value) -> Vec<String> {
    let own = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let who: &[&str] = match tool.who {
        Who::Party => &["swarm", "agent"],
        Who::Swarm => &["swarm"],
        Who::Anyone => &[],
    };
    own.chain(who.iter().copied()).map(str::to_owned).collect()
}

/// A property with the form that it refers to in its place, and without the null that stands for leaving it out.
fn resolved(property: &Value, defs: &Value) -> Value {
    let either = ["oneOf", "anyOf", "allOf"].into_iter().find_map(|word| property[word].as_array());
    let one = either.and_then(|all| all.iter().find(|one| one["type"] != "null")).unwrap_or(property);
    let form = one["$ref"].as_str().and_then(|to| defs.get(to.strip_prefix(DEFS)?)).unwrap_or(one);
    let mut form = form.clone();
    if let (Some(text), true) = (property.get("description"), form.is_object()) {
        form["description"] = text.clone();
    }
    form
}

fn is(schema: &Value, word: &str) -> bool {
    match &schema["type"] {
        Value::Array(all) => all.iter().any(|one| one == word),
        one => one == word,
    }
}

fn kind(schema: &Value) -> Kind {
    match schema {
        schema if is(schema, "integer") => Kind::Whole,
        schema if is(schema, "boolean") => Kind::Flag,
        schema if is(schema, "array") => Kind::List,
        _ => Kind::Text,
    }
}

/// Lets a form say that what may be left out may be null as well, as every tool takes it.
fn bear_null(form: &mut Value) {
    let needed = form["required"].clone();
    let members = form.get_mut("properties").and_then(Value::as_object_mut);
    for (name, member) in members.into_iter().flatten() {
        if needed.as_array().is_some_and(|needed| needed.iter().any(|one| one == name)) || is(member, "null") {
            continue;
        }
        if let Some(to) = member.as_object_mut().and_then(|member| member.remove("$ref")) {
            // Both may hold, where anything may be said.
            member["anyOf"] = json!([{ "$ref": to }, { "type": "null" }]);
        } else if member["type"].is_string() {
            member["type"] = json!([member["type"], "null"]);
            if let Some(words) = member.get_mut("enum").and_then(Value::as_array_mut) {
                words.push(Value::Null);
            }
        }
    }
}

/// What the document says of a parameter of the query.
fn parameter(schema: &Value) -> Schema {
    let whole = |name: &str| schema[name].as_u64().and_then(|number| usize::try_from(number).ok());
    let text = |name: &str| schema[name].as_str();
    match kind(schema) {
        Kind::Whole => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(whole("minimum").unwrap_or(0)))
            .maximum(whole("maximum"))
            .build()
            .into(),
        Kind::Flag => flag(),
        Kind::List => {
            ArrayBuilder::new().items(RefOr::T(parameter(&schema["items"]))).max_items(whole("maxItems")).build().into()
        }
        Kind::Text => ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(text("pattern"))
            .format(text("format").map(|format| SchemaFormat::Custom(format.to_owned())))
            .min_length(whole("minLength"))
            .max_length(whole("maxLength"))
            .enum_values(schema["enum"].as_array().cloned())
            .build()
            .into(),
    }
}

/// A schema whose parts lie among the document's components, and those parts.
fn at_home(mut schema: Value) -> Vec<(Option<String>, Value)> {
    fn led_home(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member {
                        Value::String(to) if name == "$ref" => {
                            if let Some(part) = to.strip_prefix(DEFS) {
                                *to = format!("{COMPONENTS}{part}");
                            }
                        }
                        other => led_home(other),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(led_home),
            _ => {}
        }
    }
    led_home(&mut schema);
    let parts = schema.as_object_mut().and_then(|members| members.remove("$defs"));
    let parts = match parts {
        Some(Value::Object(parts)) => parts,
        _ => Map::new(),
    };
    std::iter::once((None, schema)).chain(parts.into_iter().map(|(name, part)| (Some(name), part))).collect()
}

/// `task_claim` as `TaskClaim`.
fn camel(name: &str) -> String {
    let capital = |word: &str| {
        let (head, tail) = word.split_at(word.len().min(1));
        head.to_ascii_uppercase() + tail
    };
    name.split('_').map(capital).collect()
}

/// The members of a body. No object in it says anything twice: whoever looked at the one would be wrong about the other.
fn texts(body: &RawValue) -> Result<Texts, Problem> {
    let invalid = |error: serde_json::Error| Problem::new(Code::InvalidBody, error.to_string());
    let Document(whole) = serde_json::from_str(body.get()).map_err(invalid)?;
    if !whole.is_object() {
        return Err(Problem::new(Code::InvalidBody, format!("found {}, allowed: an object", word(&whole))));
    }
    serde_json::from_str(body.get()).map_err(invalid)
}

fn text(of: impl serde::Serialize) -> Box<RawValue> {
    // Texts, numbers and lists of them can always be written.
    to_raw_value(&of).unwrap_or_default()
}

fn query(request: &HttpRequest, known: &BTreeMap<String, Kind>) -> Result<Texts, Problem> {
    let refused = |detail: String| Problem::new(Code::InvalidQuery, detail);
    let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|error| refused(error.to_string()))?
        .into_inner();
    let mut arguments = Texts::new();
    for (name, said) in pairs {
        let Some(kind) = known.get(&name) else {
            let allowed = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(refused(format!("{name:?} is unknown, allowed: {allowed}")));
        };
        let value =
            value(*kind, &said).map_err(|allowed| refused(format!("{name}: found {said:?}, allowed: {allowed}")))?;
        if arguments.insert(name.clone(), text(value)).is_some() {
            return Err(refused(format!("{name} is there twice, allowed: once")));
        }
    }
    Ok(arguments)
}

/// What a text of the query stands for, or what is allowed.
fn value(kind: Kind, text: &str) -> Result<Value, &'static str> {
    match kind {
        Kind::Text => Ok(text.into()),
        Kind::List if text.is_empty() => Ok(Value::Array(Vec::new())),
        Kind::List => Ok(text.split(',').collect()),
        Kind::Whole => {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u64>().ok().filter(|_| digits);
            number.map(Value::from).ok_or("a whole number from 0 to 2^64 - 1")
        }
        Kind::Flag => match text {
            "" | "true" | "1" => Ok(true.into()),
            "false" | "0" => Ok(false.into()),
            _ => Err("true or false"),
        },
    }
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_the_query_becomes_what_the_schema_says() {
        let schema = json!({
            "properties": {
                "a": { "type": ["integer", "null"], "minimum": 1 },
                "b": { "type": "boolean" },
                "c": { "type": "array", "items": { "type": "string" } },
                "d": { "oneOf": [{ "type": "null" }, { "$ref": "#/$defs/Word" }], "description": "Of them." },
                "e": { "type": "string" }
            },
            "$defs": { "Word": { "type": "string", "enum": ["x", "y"] } }
        });
        let kinds: Vec<(String, Kind)> = properties(&schema).map(|(name, schema)| (name, kind(&schema))).collect();
        let words: Vec<(&str, Kind)> = kinds.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        assert_eq!(
            words,
            [("a", Kind::Whole), ("b", Kind::Flag), ("c", Kind::List), ("d", Kind::Text), ("e", Kind::Text)]
        );
        let described =
            serde_json::to_value(parameter(&resolved(&schema["properties"]["d"], &schema["$defs"]))).unwrap();
        assert_eq!(described["enum"], json!(["x", "y"]));
        for (kind, text, becomes) in [
            (Kind::Whole, "7", Some(json!(7))),
            (Kind::Whole, "+7", None),
            (Kind::Whole, "", None),
            (Kind::Whole, "-1", None),
            (Kind::Flag, "", Some(json!(true))),
            (Kind::Flag, "0", Some(json!(false))),
            (Kind::Flag, "no", None),
            (Kind::List, "", Some(json!([]))),
            (Kind::List, "a,b", Some(json!(["a", "b"]))),
            (Kind::Text, "a,b", Some(json!("a,b"))),
        ] {
            assert_eq!(value(kind, text).ok(), becomes, "{kind:?} {text:?}");
        }
    }

    #[test]
    fn what_may_be_left_out_may_be_null() {
        let mut form = json!({
            "required": ["a"],
            "properties": {
                "a": { "type": "string" },
                "b": { "type": "string", "enum": ["x"] },
                "c": { "type": ["integer", "null"] },
                "d": { "$ref": "#/$defs/Word", "description": "One." },
                "e": { "type": "integer" }
            }
        });
        bear_null(&mut form);
        let expected = json!({
            "a": { "type": "string" },
            "b": { "type": ["string", "null"], "enum": ["x", null] },
            "c": { "type": ["integer", "null"] },
            "d": { "anyOf": [{ "$ref": "#/$defs/Word" }, { "type": "null" }], "description": "One." },
            "e": { "type": ["integer", "null"] }
        });
        assert_eq!(form["properties"], expected);
    }

    #[test]
    fn parts_of_a_schema_lie_among_the_components() {
        let home =
            at_home(json!({ "items": { "$ref": "#/$defs/Task" }, "$defs": { "Task": { "$ref": "#/$defs/Party" } } }));
        assert_eq!(
            home,
            [
                (None, json!({ "items": { "$ref": "#/components/schemas/Task" } })),
                (Some("Task".to_owned()), json!({ "$ref": "#/components/schemas/Party" }))
            ]
        );
    }
}
