//! What a request asks its answer to be.

use llguidance::api::TopLevelGrammar;
use plugin_api::prelude::*;
use serde_json::{Map, Value as Json, json};

/// What the operator chooses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    is_compact: bool,
    bytes_max: usize,
}

impl Settings {
    pub(crate) fn from_config(config: &Config) -> Result<Self> {
        let is_compact = config.one_of("whitespace", &["compact", "any"])? == "compact";
        let bytes_max = config.count_or("grammar_kib", 256, 1..=1 << 14)? as usize * 1024;
        Ok(Self { is_compact, bytes_max })
    }
}

/// A grammar, and the parameter that it came from.
pub(crate) struct Grammar {
    pub(crate) key: &'static str,
    path: String,
    pub(crate) source: TopLevelGrammar,
}

impl Grammar {
    /// The one that a request names, if any.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for several, and for one that is not of the right type, or too long.
    pub(crate) fn of(params: &Config, settings: &Settings) -> Result<Option<Self>> {
        let mut named = KEYS.into_iter().filter(|key| params.has(key));
        let Some(key) = named.next() else { return Ok(None) };
        if let Some(other) = named.next() {
            let expected = format!("one grammar, which `{key}` is");
            return Err(params.wrong(other, &expected, Some(&Value::from("another"))));
        }
        let source = match key {
            "guided_json" => json_schema(params, key, settings)?,
            "guided_json_object" => {
                if !params.flag_or(key, false)? {
                    return Ok(None);
                }
                schema(Map::from_iter([("type".to_owned(), json!("object"))]), settings)
            }
            "guided_regex" => TopLevelGrammar::from_regex(text(params, key, settings)?),
            "guided_choice" => choice(params, key, settings)?,
            _ => TopLevelGrammar::from_lark(text(params, key, settings)?.to_owned()),
        };
        Ok(Some(Self { key, path: params.path().to_owned(), source }))
    }

    /// The error of a grammar that cannot be followed.
    pub(crate) fn wrong(key: &str, path: &str, found: &str) -> Error {
        let dot = if path.is_empty() { "" } else { "." };
        Error::Config {
            key: format!("{path}{dot}{key}"),
            expected: "one that can be followed".to_owned(),
            found: found.lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// What names it in errors: its key and where that stands.
    pub(crate) fn place(&self) -> (&'static str, String) {
        (self.key, self.path.clone())
    }
}

/// Parameters that name a grammar.
const KEYS: [&str; 5] =
    ["guided_json", "guided_json_object", "guided_regex", "guided_choice", "guided_grammar"];

fn text<'a>(params: &'a Config, key: &str, settings: &Settings) -> Result<&'a str> {
    let text = params.text(key)?;
    check_size(params, key, text.len(), settings)?;
    Ok(text)
}

fn check_size(params: &Config, key: &str, bytes: usize, settings: &Settings) -> Result<()> {
    if bytes <= settings.bytes_max {
        return Ok(());
    }
    let expected = format!("at most {} bytes", settings.bytes_max);
    Err(params.wrong(key, &expected, Some(&Value::Int(bytes as i64))))
}

fn json_schema(params: &Config, key: &str, settings: &Settings) -> Result<TopLevelGrammar> {
    let text = text(params, key, settings)?;
    let wrong = |found: &str| Grammar::wrong(key, params.path(), found);
    match serde_json::from_str(text) {
        Ok(Json::Object(map)) => Ok(schema(map, settings)),
        Ok(Json::Bool(true)) => Ok(schema(Map::new(), settings)),
        Ok(Json::Bool(false)) => Err(wrong("false, which allows nothing")),
        Ok(_) => Err(wrong("a schema that is neither an object nor a boolean")),
        Err(error) => Err(wrong(&format!("no JSON: {error}"))),
    }
}

/// A schema with how its answers are to be written.
fn schema(mut map: Map<String, Json>, settings: &Settings) -> TopLevelGrammar {
    if settings.is_compact {
        let layout = json!({
            "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false,
        });
        map.entry("x-guidance").or_insert(layout);
    }
    TopLevelGrammar::from_json_schema(Json::Object(map))
}

fn choice(params: &Config, key: &str, settings: &Settings) -> Result<TopLevelGrammar> {
    let texts = params.list(key)?.iter().map(|text| match text {
        Value::Text(text) if !text.is_empty() => Ok(Json::from(text.as_str()).to_string()),
        other => Err(params.wrong(key, "a list of texts, none empty", Some(other))),
    });
    let texts = texts.collect::<Result<Vec<_>>>()?;
    if texts.is_empty() {
        return Err(params.wrong(key, "at least one text", None));
    }
    check_size(params, key, texts.iter().map(String::len).sum(), settings)?;
    // Texts of this grammar's syntax are those of JSON.
    Ok(TopLevelGrammar::from_lark(format!("start: {}", texts.join(" | "))))
}
