//! As much of JSON Schema as `docs/asyncapi.yaml` uses, walked by hand: the crate for all of it brings eighty others. A keyword that is not
//! known here fails the test, so nothing in a schema goes unchecked.

use serde_json::{Map, Value};

/// Resolves references within one document.
pub(super) struct Schemas<'a>(pub(super) &'a Value);

impl<'a> Schemas<'a> {
    /// What a `$ref` (or the thing itself) stands for.
    #[track_caller]
    pub(super) fn resolve(&self, at: &'a Value) -> &'a Value {
        match at.get("$ref").and_then(Value::as_str) {
            None => at,
            Some(path) => {
                let pointer = path.strip_prefix('#').unwrap_or_else(|| panic!("{path} leads out of the document"));
                self.resolve(self.0.pointer(pointer).unwrap_or_else(|| panic!("{path} leads nowhere")))
            }
        }
    }

    /// What is wrong with a value, each with its place; nothing when it fits.
    pub(super) fn judge(&self, schema: &'a Value, value: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        self.walk(schema, value, "", &mut wrong);
        wrong
    }

    fn walk(&self, schema: &'a Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let mut object = |text: String| wrong.push(format!("{at}: {text}"));
        let rules = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return object("must not be there".to_owned()),
            Value::Object(rules) => rules,
            other => panic!("{other} is no schema"),
        };
        let number = |limit: &Value| limit.as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap();
        for (rule, limit) in rules {
            let ok = match rule.as_str() {
                "description" | "default" | "additionalProperties" => true,
                "const" => value == limit,
                "enum" => limit.as_array().unwrap().contains(value),
                "type" => match limit {
                    Value::Array(kinds) => kinds.iter().any(|kind| is(value, kind.as_str().unwrap())),
                    kind => is(value, kind.as_str().unwrap()),
                },
                "minimum" => value.as_f64().is_none_or(|value| value >= limit.as_f64().unwrap()),
                "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= number(limit)),
                "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= number(limit)),
                "pattern" => value.as_str().is_none_or(|text| fits(text, limit.as_str().unwrap())),
                "format" => value.as_str().is_none_or(|text| formatted(text, limit.as_str().unwrap())),
                "required" => {
                    let names = limit.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                    let missing: Vec<&str> =
                        names.filter(|name| is(value, "object") && value.get(name).is_none()).collect();
                    missing.is_empty()
                }
                "oneOf" => {
                    let alternatives = limit.as_array().unwrap();
                    alternatives.iter().filter(|one| self.judge(one, value).is_empty()).count() == 1
                }
                "properties" => {
                    self.members(rules, limit, value, at, wrong);
                    continue;
                }
                "items" => {
                    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.walk(limit, item, &format!("{at}/{n}"), wrong);
                    }
                    continue;
                }
                other => panic!("{other} is a keyword that this walk does not know"),
            };
            if !ok {
                wrong.push(format!("{at}: {value} does not fit {rule} {limit}"));
            }
        }
        if !rules.contains_key("properties") {
            self.members(rules, &Value::Object(Map::new()), value, at, wrong);
        }
    }

    fn members(&self, rules: &'a Map<String, Value>, known: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let closed = match rules.get("additionalProperties") {
            None => false,
            Some(Value::Bool(open)) => !open,
            Some(other) => panic!("additionalProperties {other} is not walked"),
        };
        for (name, member) in value.as_object().into_iter().flatten() {
            // Looked up again in the rules, which live as long as the document.
            match rules.get("properties").and_then(|known| known.get(name)) {
                Some(schema) => self.walk(schema, member, &format!("{at}/{name}"), wrong),
                None if closed => wrong.push(format!("{at}: {name} is not described")),
                None => assert!(known.get(name).is_none()),
            }
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

fn formatted(text: &str, format: &str) -> bool {
    match format {
        "uuid" => text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'),
        "date-time" => text.contains('T'),
        other => panic!("{other} is a format that this walk does not know"),
    }
}

/// Patterns of the form `^…$` with plain characters, classes in brackets, and `+` or `{n}` behind them.
fn fits(text: &str, pattern: &str) -> bool {
    let mut rest =
        pattern.strip_prefix('^').and_then(|p| p.strip_suffix('$')).unwrap_or_else(|| panic!("{pattern} is open"));
    let mut text = text;
    while let Some(first) = rest.chars().next() {
        let class = if first == '[' {
            let (inside, behind) = rest[1..].split_once(']').unwrap();
            rest = behind;
            inside
        } else {
            let (one, behind) = rest.split_at(first.len_utf8());
            rest = behind;
            one
        };
        let wants = if let Some(behind) = rest.strip_prefix('+') {
            rest = behind;
            None
        } else if let Some(behind) = rest.strip_prefix('{') {
            let (n, behind) = behind.split_once('}').unwrap();
            rest = behind;
            Some(n.parse().unwrap())
        } else {
            Some(1)
        };
        let has = text.chars().take_while(|c| in_class(*c, class)).count();
        let taken = wants.unwrap_or(has);
        if taken == 0 || has < taken {
            return false;
        }
        text = &text[text.char_indices().nth(taken).map_or(text.len(), |(at, _)| at)..];
    }
    text.is_empty()
}

fn in_class(c: char, class: &str) -> bool {
    let class: Vec<char> = class.chars().collect();
    let mut at = 0;
    while at < class.len() {
        if class.get(at + 1) == Some(&'-') && at + 2 < class.len() {
            if (class[at]..=class[at + 2]).contains(&c) {
                return true;
            }
            at += 3;
        } else {
            if class[at] == c {
                return true;
            }
            at += 1;
        }
    }
    false
}

#[test]
fn the_walk_finds_what_does_not_fit() {
    use serde_json::json;
    let document = json!({"n": {"type": "integer", "minimum": 0}});
    let schemas = Schemas(&document);
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["a", "t"],
        "properties": {
            "a": {"type": ["array", "null"], "items": {"enum": ["x", "y"]}},
            "t": {"type": "string", "pattern": "^hk-[0-9]{2}[.]$"},
            "m": {"oneOf": [{"type": "null"}, {"type": "object", "required": ["v"], "properties": {"v": {"const": 1}}}]},
            "gone": false,
            "s": {"type": "string", "maxLength": 2, "minLength": 1},
        },
    });
    let judge = |value: Value| schemas_judge(&schema, &value);
    for (good, value) in [
        (true, json!({"a": ["x", "y"], "t": "hk-07."})),
        (true, json!({"a": null, "t": "hk-07.", "m": {"v": 1}, "s": "ab"})),
        (false, json!({"t": "hk-07."})),
        (false, json!({"a": ["z"], "t": "hk-07."})),
        (false, json!({"a": [], "t": "hk-7."})),
        (false, json!({"a": [], "t": "hk-077."})),
        (false, json!({"a": [], "t": "hk-07."  , "b": 1})),
        (false, json!({"a": [], "t": "hk-07.", "m": {"v": 2}})),
        (false, json!({"a": [], "t": "hk-07.", "m": 3})),
        (false, json!({"a": [], "t": "hk-07.", "gone": null})),
        (false, json!({"a": [], "t": "hk-07.", "s": ""})),
        (false, json!({"a": [], "t": "hk-07.", "s": "abc"})),
        (false, json!([])),
    ] {
        assert_eq!(judge(value.clone()).is_empty(), good, "{value}: {:?}", judge(value.clone()));
    }
    assert!(
        !schemas.judge(&document["n"], &json!(-1)).is_empty() && !schemas.judge(&document["n"], &json!(1.5)).is_empty()
    );

    fn schemas_judge(schema: &Value, value: &Value) -> Vec<String> {
        Schemas(schema).judge(schema, value)
    }
}
