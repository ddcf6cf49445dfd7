//! The typed metadata of a GGUF file: values stay in the map and are read when asked for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::cursor::Cursor;
use super::value::{GgufArray, GgufValue, ValueKind};
use crate::model::error::ModelError;
use crate::model::mmap::ModelBytes;

/// Keys and values of a GGUF file. Cloning shares the map.
#[derive(Debug, Clone)]
pub struct GgufMetadata {
    bytes: Arc<ModelBytes>,
    entries: Arc<BTreeMap<String, Entry>>,
}

/// Where a value lies: for an array `span` holds its elements only.
#[derive(Debug, Clone)]
struct Entry {
    kind: ValueKind,
    /// Kind and number of the elements of an array.
    array: Option<(ValueKind, u64)>,
    span: Range<usize>,
}

impl GgufMetadata {
    /// Reads `count` pairs at the cursor. String arrays are walked, not copied.
    pub(super) fn read(
        bytes: &Arc<ModelBytes>,
        cursor: &mut Cursor<'_>,
        count: u64,
    ) -> Result<Self, ModelError> {
        let mut entries = BTreeMap::new();
        for index in 0..count {
            let key = cursor.utf8(&format!("metadata key {index}"))?;
            let entry = read_entry(cursor, key)?;
            if entries.insert(key.to_owned(), entry).is_some() {
                return Err(cursor.malformed(key, "a key that occurs once", "it twice"));
            }
        }
        Ok(Self { bytes: Arc::clone(bytes), entries: Arc::new(entries) })
    }

    /// The value of `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<GgufValue<'_>> {
        let entry = self.entries.get(key)?;
        let bytes = &self.bytes.as_slice()[entry.span.clone()];
        match entry.array {
            Some((kind, len)) => Some(GgufValue::Array(GgufArray::new(kind, len, bytes))),
            None => GgufValue::decode(entry.kind, bytes),
        }
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.bytes.path()
    }

    /// The string at `key`, or `None` if the key is absent.
    ///
    /// # Errors
    ///
    /// [`ModelError::Malformed`] if the value has another kind; so for all typed readers.
    pub fn str(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.typed(key, "a string", |value| match value {
            GgufValue::Str(text) => Some(text),
            _ => None,
        })
    }

    /// The non-negative integer at `key`, of whatever width.
    ///
    /// # Errors
    ///
    /// As [`str`](Self::str).
    pub fn u64(&self, key: &str) -> Result<Option<u64>, ModelError> {
        self.typed(key, "a non-negative integer", |value| value.as_u64())
    }

    /// The float at `key`; integers are converted.
    ///
    /// # Errors
    ///
    /// As [`str`](Self::str).
    pub fn f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.typed(key, "a number", |value| value.as_f64())
    }

    /// The truth value at `key`.
    ///
    /// # Errors
    ///
    /// As [`str`](Self::str).
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "true or false", |value| match value {
            GgufValue::Bool(truth) => Some(truth),
            _ => None,
        })
    }

    /// The array at `key`.
    ///
    /// # Errors
    ///
    /// As [`str`](Self::str).
    pub fn array(&self, key: &str) -> Result<Option<GgufArray<'_>>, ModelError> {
        self.typed(key, "an array", |value| match value {
            GgufValue::Array(array) => Some(array),
            _ => None,
        })
    }

    /// The error that says `key` is absent although `expected` is needed.
    pub fn missing(&self, key: &str, expected: &str) -> ModelError {
        ModelError::malformed(self.path(), key, expected, "no such key")
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(GgufValue<'a>) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let found = value.kind();
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(ModelError::malformed(self.path(), key, expected, found.name())),
        }
    }
}

fn read_entry(cursor: &mut Cursor<'_>, key: &str) -> Result<Entry, ModelError> {
    let kind = ValueKind::read(cursor, key)?;
    if kind != ValueKind::Array {
        let start = cursor.position();
        kind.skip(cursor, key)?;
        return Ok(Entry { kind, array: None, span: start..cursor.position() });
    }
    let (element, len) = ValueKind::read_array_header(cursor, key)?;
    let start = cursor.position();
    element.skip_many(cursor, len, key, ARRAY_DEPTH_MAX)?;
    Ok(Entry { kind, array: Some((element, len)), span: start..cursor.position() })
}

/// Arrays in arrays: the format allows any depth, files in the wild use one or two.
const ARRAY_DEPTH_MAX: u32 = 4;
