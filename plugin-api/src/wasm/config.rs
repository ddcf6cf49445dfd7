//! Configuration: copied into the guest, and what was read of it told to the host.

use super::offers::jackfield::plugin::settings::{self, Value as WireValue};
use crate::config::{Config, Value};

/// The table behind `handle`, none of its keys read.
pub(super) fn copied(handle: &settings::Config) -> Config {
    let mut config = Config::at(&handle.path());
    for (key, value) in handle.entries() {
        config.set(&key, value_of(value));
    }
    config
}

fn value_of(value: WireValue) -> Value {
    match value {
        WireValue::Boolean(x) => Value::Bool(x),
        WireValue::Integer(x) => Value::Int(x),
        WireValue::Number(x) => Value::Float(x),
        WireValue::Text(x) => Value::Text(x),
        WireValue::Items(x) => Value::List(x.all().into_iter().map(value_of).collect()),
        WireValue::Table(x) => Value::Table(copied(&x)),
    }
}

/// Marks on the host what was read of a copy.
pub(super) fn mark_read(copy: &Config, handle: &settings::Config) {
    for (key, value) in copy.unmarked().filter(|(key, _)| copy.is_read(key)) {
        match value {
            Value::Table(inner) => {
                if let Some(WireValue::Table(table)) = handle.get(key) {
                    mark_read(inner, &table);
                }
            }
            Value::List(items) if items.iter().any(|item| matches!(item, Value::Table(_))) => {
                if let Some(WireValue::Items(list)) = handle.get(key) {
                    mark_items(items, &list);
                }
            }
            _ => handle.mark(key),
        }
    }
}

fn mark_items(items: &[Value], list: &settings::Values) {
    for (item, there) in items.iter().zip(list.all()) {
        match (item, there) {
            (Value::Table(inner), WireValue::Table(table)) => mark_read(inner, &table),
            (Value::List(inner), WireValue::Items(list)) => mark_items(inner, &list),
            _ => {}
        }
    }
}
