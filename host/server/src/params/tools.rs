//! Tools that a conversation offers, and which of them the answer has to call.

use plugin_api::{Config, Value as Param};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::fields::kind_of;
use crate::error::ApiError;

/// A tool, as a schema: values are read by hand, for the sake of their errors.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum Tool {
    /// A function of the client's.
    Function {
        /// What it is called and takes.
        function: FunctionTool,
    },
}

/// A function that the client can call.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "a schema")]
pub(crate) struct FunctionTool {
    /// Its name: letters, digits, `_`, `-` and `.`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_.-]+$")]
    name: String,
    /// What it does, for the model.
    description: Option<String>,
    /// What it takes, as a JSON Schema; an object of anything without one.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// Without effect: calls that are asked for keep to the schema always, others as well as the model can.
    strict: Option<bool>,
}

/// Which tool the answer calls, as a schema.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum ToolChoice {
    /// `none`, `auto` or `required`.
    Mode(ToolMode),
    /// This one.
    Named(NamedTool),
}

/// Whether the answer calls a tool.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum ToolMode {
    None,
    Auto,
    Required,
}

/// One of the tools.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum NamedTool {
    /// A function of the client's.
    Function {
        /// Which.
        function: ToolName,
    },
}

/// The name of a tool.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "a schema")]
pub(crate) struct ToolName {
    name: String,
}

/// The tools of a request.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// As the model's template takes them.
    pub(crate) list: Value,
    /// Name and parameters of each.
    functions: Vec<(String, Value)>,
    pub(crate) choice: Choice,
    is_parallel: bool,
}

/// What the answer calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// What the model likes.
    Auto,
    /// One of the tools.
    Required,
    /// This tool.
    Named(String),
}

impl Tools {
    /// Those of a request; nothing where none are offered, or none may be called.
    pub(crate) fn read(
        tools: Option<&Value>,
        choice: Option<&Value>,
        is_parallel: bool,
    ) -> Result<Option<Self>, ApiError> {
        let list = match tools {
            None => &Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(ApiError::invalid("tools", "a list", kind_of(other))),
        };
        if list.len() > TOOLS_MAX {
            let expected = format!("at most {TOOLS_MAX} tools");
            return Err(ApiError::invalid("tools", &expected, &list.len().to_string()));
        }
        let functions = list.iter().enumerate().map(|(i, tool)| function(i, tool));
        let functions = functions.collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&str> = functions.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(twice) = (1..names.len()).find(|i| names[..*i].contains(&names[*i])) {
            let at = format!("tools[{twice}].function.name");
            return Err(ApiError::invalid(&at, "a name of its own", names[twice]));
        }
        let choice = match choice {
            None => Some(Choice::Auto),
            Some(Value::String(mode)) => match mode.as_str() {
                "none" => None,
                "auto" => Some(Choice::Auto),
                "required" => Some(Choice::Required),
                other => {
                    let expected = "none, auto, required or one of the tools";
                    return Err(ApiError::invalid("tool_choice", expected, other));
                }
            },
            Some(named) => Some(Choice::Named(chosen(named, &names)?)),
        };
        if names.is_empty() && !matches!(choice, None | Some(Choice::Auto)) {
            return Err(ApiError::invalid("tool_choice", "tools to choose of", "none"));
        }
        let list = Value::Array(list.clone());
        let offered = choice.filter(|_| !functions.is_empty());
        Ok(offered.map(|choice| Self { list, functions, choice, is_parallel }))
    }

    /// Sets what the plugins read.
    pub(crate) fn set(&self, params: &mut Config) {
        let names = self.functions.iter().map(|(name, _)| Param::from(name.as_str()));
        params.set("tools", Param::List(names.collect()));
        if !self.is_parallel {
            params.set("tool_calls_max", 1);
        }
        match &self.choice {
            Choice::Auto => {}
            Choice::Required => {
                params.set("tool_choice", "required");
                params.set("guided_json", self.any_call().to_string());
            }
            Choice::Named(name) => {
                let mut functions = self.functions.iter();
                let parameters = functions.find(|(other, _)| other == name).map(|(_, p)| p);
                params.set("tool_named", name.as_str());
                params.set("guided_json", parameters.unwrap_or(&Value::Null).to_string());
            }
        }
    }

    /// Whether the answer has to be a call.
    pub(crate) fn is_guided(&self) -> bool {
        self.choice != Choice::Auto
    }

    /// The schema of a call of any of the tools.
    fn any_call(&self) -> Value {
        let calls = self.functions.iter().enumerate().map(|(i, (name, parameters))| {
            let mut parameters = parameters.clone();
            moved(&mut parameters, &format!("#/anyOf/{i}/properties/arguments"));
            json!({
                "type": "object",
                "properties": { "name": { "const": name }, "arguments": parameters },
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        });
        json!({ "anyOf": calls.collect::<Vec<_>>() })
    }
}

/// References within a schema, once it stands at another place.
fn moved(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(to) if key == "$ref" => {
                        if let Some(rest) = to.strip_prefix('#') {
                            *to = format!("{place}{rest}");
                        }
                    }
                    other => moved(other, place),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| moved(item, place)),
        _ => {}
    }
}

/// Name and parameters of a tool.
fn function(index: usize, tool: &Value) -> Result<(String, Value), ApiError> {
    let at = |field: &str| format!("tools[{index}]{field}");
    let Value::Object(map) = tool else {
        return Err(ApiError::invalid(&at(""), "an object", kind_of(tool)));
    };
    match map.get("type").and_then(Value::as_str) {
        Some("function") => {}
        other => {
            let found = other.unwrap_or("nothing");
            return Err(ApiError::invalid(&at(".type"), "function", found));
        }
    }
    only(map, &at(""), &["type", "function"])?;
    let Some(Value::Object(function)) = map.get("function") else {
        return Err(ApiError::missing(&at(".function")));
    };
    only(function, &at(".function"), &["name", "description", "parameters", "strict"])?;
    let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
        let expected = "1 to 64 letters, digits, `_`, `-` and `.`";
        return Err(ApiError::invalid(&at(".function.name"), expected, name));
    }
    let is_wrong = |key: &str, is_fair: fn(&Value) -> bool| {
        function.get(key).is_some_and(|value| !value.is_null() && !is_fair(value))
    };
    if is_wrong("description", Value::is_string) {
        return Err(ApiError::invalid(&at(".function.description"), "a text", "something else"));
    }
    if is_wrong("strict", Value::is_boolean) {
        return Err(ApiError::invalid(&at(".function.strict"), "true or false", "something else"));
    }
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => json!({ "type": "object" }),
        Some(Value::Object(map)) if map.is_empty() => json!({ "type": "object" }),
        Some(Value::Object(map)) => {
            // Arguments are an object, whether or not the schema says so.
            let mut map = map.clone();
            map.entry("type").or_insert_with(|| json!("object"));
            Value::Object(map)
        }
        Some(other) => {
            let at = at(".function.parameters");
            return Err(ApiError::invalid(&at, "a JSON Schema", kind_of(other)));
        }
    };
    Ok((name.to_owned(), parameters))
}

/// The name of the tool that was chosen.
fn chosen(named: &Value, names: &[&str]) -> Result<String, ApiError> {
    let expected = "none, auto, required or {\"type\": \"function\", \"function\": {\"name\": …}}";
    let name = named.get("function").and_then(|function| function.get("name"));
    let is_function = named.get("type").is_some_and(|kind| kind == "function");
    let Some(Value::String(name)) = name.filter(|_| is_function) else {
        return Err(ApiError::invalid("tool_choice", expected, &named.to_string()));
    };
    if !names.contains(&name.as_str()) {
        let expected = format!("one of {}", names.join(", "));
        return Err(ApiError::invalid("tool_choice.function.name", &expected, name));
    }
    Ok(name.clone())
}

fn only(map: &Map<String, Value>, at: &str, known: &[&str]) -> Result<(), ApiError> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(ApiError::unknown_field(&format!("{at}.{key}"))),
        None => Ok(()),
    }
}

/// As the OpenAI interface has it.
const TOOLS_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, parameters: impl Into<Value>) -> Value {
        let parameters = parameters.into();
        json!({ "type": "function", "function": { "name": name, "parameters": parameters } })
    }

    #[test]
    fn a_call_of_any_tool_has_its_parameters_whole() {
        let parameters = json!({
            "properties": { "a": { "$ref": "#/$defs/A" }, "self": { "$ref": "#" } },
            "$defs": { "A": { "type": "integer" } },
        });
        let list = json!([tool("f", json!({})), tool("g", parameters)]);
        let tools = Tools::read(Some(&list), Some(&json!("required")), true).unwrap().unwrap();
        let schema = tools.any_call();
        assert_eq!(schema["anyOf"][0]["properties"]["arguments"], json!({ "type": "object" }));
        let second = &schema["anyOf"][1]["properties"]["arguments"];
        let place = "#/anyOf/1/properties/arguments";
        assert_eq!(second["properties"]["a"]["$ref"], format!("{place}/$defs/A"));
        assert_eq!(second["properties"]["self"]["$ref"], place);
        let pointer = format!("{}/$defs/A", &place[1..]);
        assert_eq!(schema.pointer(&pointer).unwrap(), &json!({ "type": "integer" }));
    }

    #[test]
    fn mistakes_name_the_field() {
        let f = json!([tool("f", Value::Null)]);
        #[rustfmt::skip]
        let cases = [
            (json!("x"), json!("auto"), "tools: expected a list, found a text"),
            (json!([{ "type": "code" }]), json!("auto"), "tools[0].type: expected function, found code"),
            (json!([tool("a b", json!({}))]), json!("auto"), "tools[0].function.name: expected 1 to 64 letters, digits, `_`, `-` and `.`, found a b"),
            (json!([tool("f", json!(3))]), json!("auto"), "tools[0].function.parameters: expected a JSON Schema, found a number"),
            (json!([tool("f", json!({})), tool("f", json!({}))]), json!("auto"), "tools[1].function.name: expected a name of its own, found f"),
            (f.clone(), json!("maybe"), "tool_choice: expected none, auto, required or one of the tools, found maybe"),
            (f.clone(), json!({ "type": "function", "function": { "name": "g" } }), "tool_choice.function.name: expected one of f, found g"),
            (json!([]), json!("required"), "tool_choice: expected tools to choose of, found none"),
        ];
        for (tools, choice, expected) in cases {
            let error = Tools::read(Some(&tools), Some(&choice), true).unwrap_err();
            assert_eq!(error.object().error.message, expected);
        }
        assert!(Tools::read(Some(&f), Some(&json!("none")), true).unwrap().is_none());
        assert!(Tools::read(None, None, true).unwrap().is_none());
    }
}
