//! JSON Schemas that stand alone: what a form refers to lies in its own `$defs`.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::list::Who;
use crate::view::schema::NAME;

const COMPONENTS: &str = "#/components/schemas/";

/// The schema of a form.
pub(super) fn of<T: ToSchema>() -> Value {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    let mut whole = serde_json::to_value(T::schema()).unwrap_or_default();
    whole["title"] = T::name().into();
    let parts: Map<String, Value> =
        parts.into_iter().map(|(name, part)| (name, serde_json::to_value(part).unwrap_or_default())).collect();
    if !parts.is_empty() {
        whole["$defs"] = Value::Object(parts);
    }
    at_home(&mut whole);
    whole
}

/// The schema of a tool's arguments: the tool's own, and who asks.
pub(super) fn arguments<T: ToSchema>(who: Who) -> Value {
    let mut whole = of::<T>();
    if !whole["properties"].is_object() {
        whole["properties"] = json!({});
    }
    let agent = "For whom, unless this is the session of an agent: a name. Where it is that of an agent, `incarnation` goes with it.";
    let own = [
        (
            "swarm",
            json!({ "type": "string", "pattern": NAME, "description": "Whose work, unless this is the session of an agent." }),
        ),
        ("agent", json!({ "type": "string", "pattern": NAME, "description": agent })),
        ("incarnation", json!({ "type": "integer", "minimum": 1, "description": "Which start of that agent." })),
    ];
    for (name, schema) in own.into_iter().take(if who == Who::Anyone { 1 } else { 3 }) {
        whole["properties"][name] = schema;
    }
    whole
}

fn at_home(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(to) if name == "$ref" => {
                        if let Some(part) = to.strip_prefix(COMPONENTS) {
                            *to = format!("#/$defs/{part}");
                        }
                    }
                    other => at_home(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(at_home),
        _ => {}
    }
}
