//! As much of JSON Schema as the tools use, walked by hand. A keyword that is not known here fails the test, so nothing in a schema goes unchecked.

use serde_json::Value;

/// What is wrong with a value, each with its place; nothing when it fits.
pub(super) fn judge(schema: &Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    walk(schema, schema, value, "", &mut wrong);
    wrong
}

fn walk(root: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let rules = schema.as_object().unwrap_or_else(|| panic!("{schema} is no schema"));
    let fits = |schema: &Value, value: &Value| {
        let mut wrong = Vec::new();
        walk(root, schema, value, at, &mut wrong);
        wrong.is_empty()
    };
    let len = |limit: &Value| usize::try_from(limit.as_u64().unwrap()).unwrap();
    for (rule, limit) in rules {
        let ok = match rule.as_str() {
            "description" | "default" | "$defs" | "title" | "examples" => true,
            "$ref" => {
                let pointer = limit.as_str().unwrap().strip_prefix('#').unwrap();
                walk(root, root.pointer(pointer).unwrap_or_else(|| panic!("{limit} leads nowhere")), value, at, wrong);
                true
            }
            "enum" => limit.as_array().unwrap().contains(value),
            "type" => match limit {
                Value::Array(kinds) => kinds.iter().any(|kind| is(value, kind.as_str().unwrap())),
                kind => is(value, kind.as_str().unwrap()),
            },
            "minimum" => value.as_f64().is_none_or(|value| value >= limit.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|value| value <= limit.as_f64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| text.len() >= len(limit)),
            "maxLength" => value.as_str().is_none_or(|text| text.len() <= len(limit)),
            "minItems" => value.as_array().is_none_or(|items| items.len() >= len(limit)),
            "maxItems" => value.as_array().is_none_or(|items| items.len() <= len(limit)),
            "pattern" => {
                assert_eq!(limit, crate::view::schema::NAME, "the only pattern");
                value.as_str().is_none_or(|text| text.parse::<crate::model::AgentName>().is_ok())
            }
            "format" => value.as_str().is_none_or(|text| match limit.as_str().unwrap() {
                "uuid" => text.parse::<uuid::Uuid>().is_ok(),
                "date-time" => crate::view::parse_rfc3339(text).is_some(),
                other => panic!("{other} is a format that this walk does not know"),
            }),
            "required" => {
                let names = limit.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                !value.is_object() || names.into_iter().all(|name| value.get(name).is_some())
            }
            "oneOf" => limit.as_array().unwrap().iter().filter(|one| fits(one, value)).count() == 1,
            "properties" => {
                for (name, schema) in limit.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        walk(root, schema, member, &format!("{at}.{name}"), wrong);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = rules.get("properties").and_then(Value::as_object);
                let others = value.as_object().into_iter().flatten();
                let mut others = others.filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)));
                match limit {
                    Value::Bool(open) => *open || others.next().is_none(),
                    schema => others.all(|(_, value)| fits(schema, value)),
                }
            }
            "propertyNames" => {
                value.as_object().into_iter().flatten().all(|(name, _)| fits(limit, &Value::from(name.as_str())))
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    walk(root, limit, item, &format!("{at}[{n}]"), wrong);
                }
                true
            }
            other => panic!("{other} is a keyword that this walk does not know"),
        };
        if !ok {
            wrong.push(format!("{at}: {value} does not fit {rule} {limit}"));
        }
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}

/// Everything in a schema at which no value that fits can arrive by chance: each property of each object.
pub(super) fn properties<'a>(schema: &'a Value, found: &mut Vec<(&'a str, &'a Value)>) {
    match schema {
        Value::Object(rules) => {
            for (name, property) in rules.get("properties").and_then(Value::as_object).into_iter().flatten() {
                found.push((name, property));
            }
            rules.values().for_each(|rule| properties(rule, found));
        }
        Value::Array(all) => all.iter().for_each(|one| properties(one, found)),
        _ => {}
    }
}
