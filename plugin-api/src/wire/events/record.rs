//! Records for observers as bytes.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

#[cfg(not(target_family = "wasm"))]
use crate::error::Result;
#[cfg(not(target_family = "wasm"))]
use crate::events::Record;
#[cfg(not(target_family = "wasm"))]
use crate::wire::{Reader, Wire, put_text};

/// Appends a record. [host]
#[cfg(not(target_family = "wasm"))]
pub(crate) fn put_record(record: &Record, out: &mut Vec<u8>) {
    put_text(record.topic, out);
    record.request.put(out);
    (record.iter().count() as u32).put(out);
    for (name, value) in record.iter() {
        put_text(name, out);
        value.put(out);
    }
}

/// Reads a record. [plugin]
#[cfg(not(target_family = "wasm"))]
pub(crate) fn take_record(bytes: &[u8]) -> Result<Record> {
    let mut r = Reader::new(bytes);
    let (topic, request) = (known(r.text()?), u64::take(&mut r)?);
    let mut values = Vec::new();
    for _ in 0..r.count(4 + 8)? {
        values.push((known(r.text()?), f64::take(&mut r)?));
    }
    r.end()?;
    Ok(Record::new(topic, request, &values))
}

/// Names in records are literals of the host, and so few; here they are kept for good.
pub fn known(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    match names.get(name) {
        Some(known) => known,
        None if names.len() == NAMES_MAX => "other",
        None => {
            let kept: &'static str = Box::leak(name.into());
            names.insert(kept);
            kept
        }
    }
}

/// Most names that are kept.
const NAMES_MAX: usize = 1024;
