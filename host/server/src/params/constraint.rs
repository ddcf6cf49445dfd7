//! What the answer has to be: `response_format` of the OpenAI interface, and the names that vLLM has
//! for grammars of other kinds.

use plugin_api::Value as Param;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::fields::kind_of;
use super::sampling::Sampling;
use crate::error::ApiError;

/// What the answer looks like, as a schema: values are read by hand, for the sake of their errors.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that a schema allows.
    JsonSchema {
        /// The schema, with a name.
        json_schema: NamedSchema,
    },
}

/// A schema with its name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "a schema")]
pub(crate) struct NamedSchema {
    /// What it is called; without effect.
    #[schema(min_length = 1)]
    name: String,
    /// What it is for; without effect.
    description: Option<String>,
    /// The schema; any JSON object without one.
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    /// Without effect: schemas are always kept to.
    strict: Option<bool>,
}

/// One of several ways to say what the answer is, as a schema.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1, max_properties = 1)]
#[allow(dead_code, reason = "a schema")]
pub(crate) struct StructuredOutputs {
    /// A JSON Schema, as an object or as text.
    #[schema(value_type = Option<Object>)]
    json: Option<Value>,
    /// Only `true`: any JSON object.
    json_object: Option<bool>,
    /// A regular expression that matches the whole answer.
    regex: Option<String>,
    /// The answer is one of these.
    choice: Option<Vec<String>>,
    /// A grammar in the syntax of Lark.
    grammar: Option<String>,
}

/// A grammar: the field that names it, and the parameter that the plugin reads.
pub(crate) struct Constraint {
    /// Where the client wrote it.
    pub(crate) place: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: Param,
}

impl Constraint {
    fn new(place: &'static str, key: &'static str, value: Param) -> Self {
        Self { place, key, value }
    }

    /// The one of a request, if there is one.
    pub(crate) fn of(sampling: &Sampling) -> Result<Option<Self>, ApiError> {
        let format = sampling.response_format.as_ref().map_or(Ok(None), response_format);
        let outputs = sampling.structured_outputs.as_ref().map_or(Ok(None), structured_outputs);
        let mut all = vec![format?, outputs?];
        for (place, key, value) in [
            ("guided_json", "guided_json", &sampling.guided_json),
            ("guided_regex", "guided_regex", &sampling.guided_regex),
            ("guided_choice", "guided_choice", &sampling.guided_choice),
            ("guided_grammar", "guided_grammar", &sampling.guided_grammar),
        ] {
            all.push(value.as_ref().map(|value| one(place, key, value)).transpose()?);
        }
        let mut all = all.into_iter().flatten();
        let first = all.next();
        match (&first, all.next()) {
            (Some(first), Some(second)) => {
                let expected = format!("one grammar, which {} is", first.place);
                Err(ApiError::invalid(second.place, &expected, "another"))
            }
            _ => Ok(first),
        }
    }

    /// An error of the plugin's parameter as one of the field that the client wrote.
    pub(crate) fn placed(&self, error: ApiError) -> ApiError {
        error.moved(self.key, self.place)
    }
}

fn response_format(format: &Value) -> Result<Option<Constraint>, ApiError> {
    const AT: &str = "response_format";
    let Value::Object(map) = format else {
        return Err(ApiError::invalid(AT, "an object", kind_of(format)));
    };
    let kind = map.get("type").and_then(Value::as_str).unwrap_or("nothing");
    let fields: &[&str] = match kind {
        "text" | "json_object" => &["type"],
        "json_schema" => &["type", "json_schema"],
        other => {
            let expected = "text, json_object or json_schema";
            return Err(ApiError::invalid("response_format.type", expected, other));
        }
    };
    only(map, AT, fields)?;
    match kind {
        "text" => Ok(None),
        "json_object" => Ok(Some(object(AT))),
        _ => named_schema(map.get("json_schema").unwrap_or(&Value::Null)).map(Some),
    }
}

fn object(place: &'static str) -> Constraint {
    Constraint::new(place, "guided_json_object", Param::Bool(true))
}

fn named_schema(named: &Value) -> Result<Constraint, ApiError> {
    const AT: &str = "response_format.json_schema";
    let Value::Object(map) = named else {
        return Err(ApiError::invalid(AT, "an object", kind_of(named)));
    };
    only(map, AT, &["name", "description", "schema", "strict"])?;
    match map.get("name") {
        Some(Value::String(name)) if !name.is_empty() => {}
        other => {
            let found = other.map_or("nothing", kind_of);
            return Err(ApiError::invalid("response_format.json_schema.name", "a name", found));
        }
    }
    if let Some(other) =
        map.get("strict").filter(|strict| !strict.is_boolean() && !strict.is_null())
    {
        let at = "response_format.json_schema.strict";
        return Err(ApiError::invalid(at, "true or false", kind_of(other)));
    }
    if let Some(other) = map.get("description").filter(|it| !it.is_string() && !it.is_null()) {
        let at = "response_format.json_schema.description";
        return Err(ApiError::invalid(at, "a text", kind_of(other)));
    }
    let at = "response_format.json_schema.schema";
    match map.get("schema") {
        None | Some(Value::Null) => Ok(object(AT)),
        Some(schema @ Value::Object(_)) => one(at, "guided_json", schema),
        Some(other) => Err(ApiError::invalid(at, "an object", kind_of(other))),
    }
}

fn structured_outputs(outputs: &Value) -> Result<Option<Constraint>, ApiError> {
    const AT: &str = "structured_outputs";
    let Value::Object(map) = outputs else {
        return Err(ApiError::invalid(AT, "an object", kind_of(outputs)));
    };
    only(map, AT, &["json", "json_object", "regex", "choice", "grammar"])?;
    let mut named = map.iter().filter(|(_, value)| !value.is_null());
    let (Some((name, value)), None) = (named.next(), named.next()) else {
        let found = format!("{} of them", map.len());
        return Err(ApiError::invalid(
            AT,
            "one of json, json_object, regex, choice, grammar",
            &found,
        ));
    };
    match name.as_str() {
        "json" => one("structured_outputs.json", "guided_json", value).map(Some),
        "regex" => one("structured_outputs.regex", "guided_regex", value).map(Some),
        "choice" => one("structured_outputs.choice", "guided_choice", value).map(Some),
        "grammar" => one("structured_outputs.grammar", "guided_grammar", value).map(Some),
        _ if *value == Value::Bool(true) => Ok(Some(object("structured_outputs.json_object"))),
        _ => {
            let found = value.to_string();
            Err(ApiError::invalid("structured_outputs.json_object", "true", &found))
        }
    }
}

/// A grammar of one kind.
fn one(place: &'static str, key: &'static str, value: &Value) -> Result<Constraint, ApiError> {
    let param = match (key, value) {
        ("guided_json", Value::Object(_)) => Param::Text(value.to_string()),
        ("guided_json" | "guided_regex" | "guided_grammar", Value::String(text)) => {
            Param::Text(text.clone())
        }
        ("guided_choice", Value::Array(texts)) if texts.iter().all(Value::is_string) => {
            let texts = texts.iter().filter_map(Value::as_str);
            Param::List(texts.map(Param::from).collect())
        }
        _ => {
            let expected = match key {
                "guided_json" => "a JSON Schema, as an object or as text",
                "guided_choice" => "a list of texts",
                _ => "a text",
            };
            return Err(ApiError::invalid(place, expected, kind_of(value)));
        }
    };
    Ok(Constraint::new(place, key, param))
}

/// Refuses fields that nobody knows.
fn only(map: &Map<String, Value>, at: &str, known: &[&str]) -> Result<(), ApiError> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(ApiError::unknown_field(&format!("{at}.{key}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<Option<(&'static str, &'static str, String)>, String> {
        let Value::Object(mut map) = body else { unreachable!("a body is an object") };
        map.insert("model".to_owned(), json!("m"));
        let sampling: Sampling = serde_json::from_value(Value::Object(map)).unwrap();
        let constraint = Constraint::of(&sampling).map_err(|e| e.object().error.message)?;
        Ok(constraint.map(|c| (c.place, c.key, c.value.to_string())))
    }

    #[test]
    fn every_way_to_name_a_grammar() {
        let schema = json!({ "type": "integer" });
        let named = json!({ "name": "n", "schema": schema, "strict": true });
        let text = Param::Text(schema.to_string()).to_string();
        let long = "response_format.json_schema.schema";
        #[rustfmt::skip]
        let cases = [
            (json!({}), None),
            (json!({ "response_format": { "type": "text" } }), None),
            (json!({ "response_format": { "type": "json_object" } }), Some(("response_format", "guided_json_object", "true".to_owned()))),
            (json!({ "response_format": { "type": "json_schema", "json_schema": named } }), Some((long, "guided_json", text.clone()))),
            (json!({ "structured_outputs": { "json": schema } }), Some(("structured_outputs.json", "guided_json", text.clone()))),
            (json!({ "guided_json": schema.to_string() }), Some(("guided_json", "guided_json", text))),
            (json!({ "structured_outputs": { "regex": "a+" } }), Some(("structured_outputs.regex", "guided_regex", Param::from("a+").to_string()))),
        ];
        for (body, expected) in cases {
            assert_eq!(read(body.clone()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn mistakes_name_the_field() {
        #[rustfmt::skip]
        let cases = [
            (json!({ "response_format": { "type": "yaml" } }), "response_format.type: expected text, json_object or json_schema, found yaml"),
            (json!({ "response_format": { "type": "text", "more": 1 } }), "response_format.more: no such parameter; see /docs"),
            (json!({ "response_format": { "type": "json_schema" } }), "response_format.json_schema: expected an object, found null"),
            (json!({ "response_format": { "type": "json_schema", "json_schema": {} } }), "response_format.json_schema.name: expected a name, found nothing"),
            (json!({ "structured_outputs": {} }), "structured_outputs: expected one of json, json_object, regex, choice, grammar, found 0 of them"),
            (json!({ "guided_choice": [1] }), "guided_choice: expected a list of texts, found a list"),
            (json!({ "guided_regex": "a", "guided_choice": ["a"] }), "guided_choice: expected one grammar, which guided_regex is, found another"),
        ];
        for (body, expected) in cases {
            assert_eq!(read(body.clone()), Err(expected.to_owned()), "{body}");
        }
    }
}
