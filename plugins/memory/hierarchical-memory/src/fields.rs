//! Fields with values, as people write them, in one form: JSON with its keys in order.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Fields in order.
pub(crate) type Fields = BTreeMap<String, Value>;

/// Reads a JSON object, a JSON list of pairs, or lines of `name=value` or `name: value`. Numbers, truth values and
/// texts in quotes keep their type; other values are texts.
pub(crate) fn read(body: &str) -> Result<Fields, String> {
    let body = body.trim();
    let fields = match body.chars().next() {
        Some('{') => object(body)?,
        Some('[') => pairs(body)?,
        _ => lines(body)?,
    };
    match fields.len() {
        0 => Err("expected at least one field, found none".to_owned()),
        1..=FIELDS_MAX => Ok(fields),
        n => Err(format!("expected at most {FIELDS_MAX} fields, found {n}")),
    }
}

/// The one text that stands for fields.
pub(crate) fn canonical(fields: &Fields) -> String {
    let sorted = fields.iter().map(|(name, value)| format!("{}:{}", quoted(name), sorted(value)));
    format!("{{{}}}", sorted.collect::<Vec<_>>().join(","))
}

/// Reads what [`canonical`] wrote.
pub(crate) fn of_canonical(text: &str) -> Fields {
    object(text).unwrap_or_default()
}

/// A value as people read it.
pub(crate) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| sorted(value), str::to_owned)
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            canonical(&map.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn object(body: &str) -> Result<Fields, String> {
    let read: Result<Map<String, Value>, _> = serde_json::from_str(body);
    read.map(|map| map.into_iter().collect())
        .map_err(|error| format!("expected a JSON object: {error}"))
}

fn pairs(body: &str) -> Result<Fields, String> {
    let wrong = |error| format!("expected a JSON list of pairs: {error}");
    let pairs: Vec<(String, Value)> = serde_json::from_str(body).map_err(wrong)?;
    let count = pairs.len();
    let fields: Fields = pairs.into_iter().collect();
    if fields.len() == count { Ok(fields) } else { Err("expected each field once".to_owned()) }
}

fn lines(body: &str) -> Result<Fields, String> {
    let mut fields = Fields::new();
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let place = line.find(['=', ':', '：']).filter(|place| *place > 0);
        let place = place
            .ok_or_else(|| format!("expected `name=value` or `name: value`, found `{line}`"))?;
        let mut value = line[place..].chars();
        value.next();
        let (name, value) = (line[..place].trim(), value.as_str().trim());
        let typed = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        if fields.insert(name.to_owned(), typed).is_some() {
            return Err(format!("expected each field once, found `{name}` again"));
        }
    }
    Ok(fields)
}

const FIELDS_MAX: usize = 100;
