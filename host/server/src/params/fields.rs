//! From the bytes of a body to a struct, with errors that name the field.

use std::collections::BTreeSet;

use axum::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::PartialSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, Object, Schema};

use super::unsupported::refuse_unsupported;
use crate::error::ApiError;

/// The fields of an object, as its schema has them.
#[derive(Debug)]
pub(crate) struct Fields {
    known: BTreeSet<String>,
    required: Vec<String>,
}

impl Fields {
    /// Of a struct.
    pub(crate) fn of<T: PartialSchema>() -> Self {
        let object = object_of::<T>();
        Self { known: object.properties.into_keys().collect(), required: object.required }
    }

    /// The fields of `map` that are known here.
    fn take(&self, map: &mut Map<String, Value>) -> Map<String, Value> {
        self.known.iter().filter_map(|key| map.remove_entry(key)).collect()
    }

    fn check(&self, map: &Map<String, Value>) -> Result<(), ApiError> {
        let missing = self.required.iter().find(|key| !map.contains_key(*key));
        missing.map_or(Ok(()), |key| Err(ApiError::missing(key)))
    }
}

/// The object of a body; nulls are fields that are not there.
pub(crate) fn object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| ApiError::not_json(&error.to_string()))?;
    match value {
        Value::Object(mut map) => {
            map.retain(|_, value| !value.is_null());
            Ok(map)
        }
        other => {
            let message = format!("body: expected an object, found {}", kind_of(&other));
            Err(ApiError::wrong_type(None, &message))
        }
    }
}

/// Reads two structs whose fields lie side by side in one object, and nothing else.
pub(crate) fn read<A, B>(body: &Bytes, fields: &(Fields, Fields)) -> Result<(A, B), ApiError>
where
    A: DeserializeOwned,
    B: DeserializeOwned,
{
    let mut map = object(body)?;
    let (a, b) = (fields.0.take(&mut map), fields.1.take(&mut map));
    refuse_unsupported(&map)?;
    if let Some(unknown) = map.keys().next() {
        return Err(ApiError::unknown_field(unknown));
    }
    fields.0.check(&a)?;
    fields.1.check(&b)?;
    Ok((typed(a)?, typed(b)?))
}

/// A struct of an object.
pub(crate) fn typed<T: DeserializeOwned>(map: Map<String, Value>) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(Value::Object(map)).map_err(|error| {
        let path = error.path().to_string();
        let path = (path != ".").then_some(path);
        ApiError::wrong_type(path.as_deref(), &error.inner().to_string())
    })
}

/// The object that the schema of a struct is.
pub(crate) fn object_of<T: PartialSchema>() -> Object {
    match T::schema() {
        RefOr::T(Schema::Object(object)) => object,
        _ => unreachable!("the schema of a struct with fields is an object"),
    }
}

/// The schema of two structs whose fields lie side by side in one object, and nothing else.
pub(crate) fn side_by_side<A: PartialSchema, B: PartialSchema>() -> RefOr<Schema> {
    let (mut object, other) = (object_of::<A>(), object_of::<B>());
    object.properties.extend(other.properties);
    object.required.extend(other.required);
    object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    RefOr::T(Schema::Object(object))
}

/// What a value is, in a word.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Reads one struct and nothing else.
pub(crate) fn read_one<T: DeserializeOwned>(body: &Bytes, fields: &Fields) -> Result<T, ApiError> {
    let mut map = object(body)?;
    let known = fields.take(&mut map);
    if let Some(unknown) = map.keys().next() {
        return Err(ApiError::unknown_field(unknown));
    }
    fields.check(&known)?;
    typed(known)
}
