//! Configuration as bytes, and which of its keys were read on the other side.

use super::{Reader, Wire, put_text};
use crate::config::{Config, Value};
use crate::error::{Error, Result};

/// Tables inside tables: what people write goes two or three deep.
const DEPTH_MAX: u32 = 32;

impl Wire for Config {
    const MIN_BYTES: usize = 8;

    fn put(&self, out: &mut Vec<u8>) {
        put_text(self.path(), out);
        (self.keys().count() as u32).put(out);
        for (key, value) in self.unmarked() {
            put_text(key, out);
            value.put(out);
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        table(r, 0)
    }
}

impl Wire for Value {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(x) => {
                out.push(0);
                x.put(out);
            }
            Self::Int(x) => {
                out.push(1);
                x.put(out);
            }
            Self::Float(x) => {
                out.push(2);
                x.put(out);
            }
            Self::Text(x) => {
                out.push(3);
                x.put(out);
            }
            Self::List(x) => {
                out.push(4);
                x.put(out);
            }
            Self::Table(x) => {
                out.push(5);
                x.put(out);
            }
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        value(r, 0)
    }
}

fn table(r: &mut Reader<'_>, depth: u32) -> Result<Config> {
    let mut config = Config::at(r.text()?);
    for _ in 0..r.count(6)? {
        let key = r.text()?;
        config.set(key, value(r, depth)?);
    }
    Ok(config)
}

fn value(r: &mut Reader<'_>, depth: u32) -> Result<Value> {
    if depth > DEPTH_MAX {
        return Err(Error::malformed("configuration", format!("depth to {DEPTH_MAX}"), depth));
    }
    Ok(match u8::take(r)? {
        0 => Value::Bool(Wire::take(r)?),
        1 => Value::Int(Wire::take(r)?),
        2 => Value::Float(Wire::take(r)?),
        3 => Value::Text(Wire::take(r)?),
        4 => {
            let items = (0..r.count(2)?).map(|_| value(r, depth + 1));
            Value::List(items.collect::<Result<_>>()?)
        }
        5 => Value::Table(table(r, depth + 1)?),
        other => return Err(Error::malformed("value", "type 0 to 5", other)),
    })
}

/// One byte for each key, in order and depth first: whether it has been read.
pub fn marks(config: &Config) -> Vec<u8> {
    let mut marks = Vec::new();
    walk(config, &mut |config, key| marks.push(u8::from(config.is_read(key))));
    marks
}

/// Marks the keys that [`marks`] says were read.
pub fn take_marks(config: &Config, marks: &[u8]) {
    let mut marks = marks.iter();
    walk(config, &mut |config, key| {
        if marks.next() == Some(&1) {
            config.mark(key);
        }
    });
}

fn walk(config: &Config, visit: &mut dyn FnMut(&Config, &str)) {
    for (key, value) in config.unmarked() {
        visit(config, key);
        inner(value, visit);
    }
}

fn inner(value: &Value, visit: &mut dyn FnMut(&Config, &str)) {
    match value {
        Value::List(items) => items.iter().for_each(|item| inner(item, visit)),
        Value::Table(table) => walk(table, visit),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{from_bytes, to_bytes};

    fn config() -> Config {
        let inner = Config::at("a.b").with("k", -1).with("x", f64::NEG_INFINITY);
        let list = vec![Value::from(true), Value::Table(Config::new().with("deep", "text"))];
        Config::at("a").with("b", inner).with("list", list).with("other", 1.0)
    }

    #[test]
    fn comes_back_and_keeps_what_was_read_there() {
        let here = config();
        let there: Config = from_bytes(&to_bytes(&here)).unwrap();
        assert_eq!((there.path(), &there), ("a", &here));
        let table = there.table("b").unwrap().unwrap();
        assert_eq!((table.path(), table.get("k")), ("a.b", Some(&Value::Int(-1))));
        take_marks(&here, &marks(&there));
        assert_eq!(here.unread().collect::<Vec<_>>(), ["list", "other"]);
        assert_eq!(here.table("b").unwrap().unwrap().unread().collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn refuses_every_prefix_and_endless_depth() {
        let bytes = to_bytes(&config());
        for len in 0..bytes.len() {
            assert!(from_bytes::<Config>(&bytes[..len]).is_err(), "{len} bytes");
        }
        let mut deep = Vec::new();
        for _ in 0..10_000 {
            deep.extend([4, 1, 0, 0, 0]);
        }
        assert!(matches!(from_bytes::<Value>(&deep), Err(Error::Malformed { .. })));
    }
}
