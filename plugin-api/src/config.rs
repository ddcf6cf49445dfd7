//! Reading configuration: one line per key, with its range, so that plugins hold no checks.
//!
//! The same type carries a plugin's table from `jackfield.toml`, the parameters of a request and
//! the hyperparameters of a layer. Every read marks its key; the host then reports keys that
//! nobody read.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// One configured value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// Values in order.
    List(Vec<Self>),
    /// A table of its own.
    Table(Config),
}

/// A table of values that remembers which of its keys were read. Clones share that memory.
#[derive(Debug, Clone, Default)]
pub struct Config {
    path: String,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    value: Value,
    is_read: Arc<AtomicBool>,
}

impl Config {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty table whose error messages start with `path`.
    pub fn at(path: &str) -> Self {
        Self { path: path.to_owned(), entries: BTreeMap::new() }
    }

    /// The path that error messages start with.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Sets `key`, replacing what was there.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let entry = Entry { value: value.into(), is_read: Arc::default() };
        self.entries.insert(key.to_owned(), entry);
    }

    /// The same table with `key` set.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// The same values with nothing read: what is read of the copy says nothing about this one.
    #[must_use]
    pub fn fresh(&self) -> Self {
        let mut copy = Self::at(&self.path);
        self.unmarked().for_each(|(key, value)| copy.set(key, fresh(value)));
        copy
    }

    /// Whether `key` is present.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The raw value of `key`, marked as read.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let entry = self.entries.get(key)?;
        entry.is_read.store(true, Ordering::Relaxed);
        Some(&entry.value)
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Keys and values in order, without marking anything.
    pub fn unmarked(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), &entry.value))
    }

    /// Whether somebody has read `key`.
    pub(crate) fn is_read(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.is_read.load(Ordering::Relaxed))
    }

    /// Remembers that somebody has read `key`.
    pub(crate) fn mark(&self, key: &str) {
        if let Some(entry) = self.entries.get(key) {
            entry.is_read.store(true, Ordering::Relaxed);
        }
    }

    /// Keys that nobody has read: most often a misspelling.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(|(_, entry)| !entry.is_read.load(Ordering::Relaxed))
            .map(|(key, _)| key.as_str())
    }

    /// A probability or ratio in `0..=1`.
    pub fn unit_interval(&self, key: &str) -> Result<f32> {
        Ok(self.number(key, 0.0..=1.0)? as f32)
    }

    /// [`unit_interval`](Self::unit_interval), or `default` where the key is absent.
    pub fn unit_interval_or(&self, key: &str, default: f32) -> Result<f32> {
        self.or(key, default, Self::unit_interval)
    }

    /// A number in `range`.
    pub fn number(&self, key: &str, range: RangeInclusive<f64>) -> Result<f64> {
        let found = match self.get(key) {
            Some(Value::Float(x)) => *x,
            Some(Value::Int(x)) => *x as f64,
            other => return Err(self.wrong(key, &number_in(&range), other)),
        };
        if range.contains(&found) {
            Ok(found)
        } else {
            Err(self.wrong(key, &number_in(&range), Some(&Value::Float(found))))
        }
    }

    /// [`number`](Self::number), or `default` where the key is absent.
    pub fn number_or(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64> {
        self.or(key, default, |config, key| config.number(key, range))
    }

    /// A whole number in `range`.
    pub fn count(&self, key: &str, range: RangeInclusive<u64>) -> Result<u64> {
        let expected = || format!("a whole number in {}..={}", range.start(), range.end());
        match self.get(key) {
            Some(Value::Int(x)) if u64::try_from(*x).is_ok_and(|x| range.contains(&x)) => {
                Ok(x.unsigned_abs())
            }
            other => Err(self.wrong(key, &expected(), other)),
        }
    }

    /// [`count`](Self::count), or `default` where the key is absent.
    pub fn count_or(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> Result<u64> {
        self.or(key, default, |config, key| config.count(key, range))
    }

    /// `true` or `false`, or `default` where the key is absent.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(x)) => Ok(*x),
            other => Err(self.wrong(key, "true or false", other)),
        }
    }

    /// Text.
    pub fn text(&self, key: &str) -> Result<&str> {
        match self.get(key) {
            Some(Value::Text(x)) => Ok(x),
            other => Err(self.wrong(key, "text", other)),
        }
    }

    /// Text, or `default` where the key is absent.
    pub fn text_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        if self.has(key) { self.text(key) } else { Ok(default) }
    }

    /// One of `choices`; the first where the key is absent.
    pub fn one_of<'a>(&self, key: &str, choices: &[&'a str]) -> Result<&'a str> {
        let expected = || format!("one of {}", choices.join(", "));
        match (self.get(key), choices.first()) {
            (None, Some(first)) => Ok(first),
            (Some(Value::Text(x)), _) => choices
                .iter()
                .find(|choice| *choice == x)
                .copied()
                .ok_or_else(|| self.wrong(key, &expected(), self.get(key))),
            (other, _) => Err(self.wrong(key, &expected(), other)),
        }
    }

    /// Values in order; empty where the key is absent.
    pub fn list(&self, key: &str) -> Result<&[Value]> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::List(x)) => Ok(x),
            other => Err(self.wrong(key, "a list", other)),
        }
    }

    /// The table below `key`, if there is one.
    pub fn table(&self, key: &str) -> Result<Option<&Self>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Table(x)) => Ok(Some(x)),
            other => Err(self.wrong(key, "a table", other)),
        }
    }

    /// The error that says what `key` should have been.
    pub fn wrong(&self, key: &str, expected: &str, found: Option<&Value>) -> Error {
        let dot = if self.path.is_empty() { "" } else { "." };
        Error::Config {
            key: format!("{}{dot}{key}", self.path),
            expected: expected.to_owned(),
            found: found.map_or_else(|| "nothing".to_owned(), Value::to_string),
        }
    }

    fn or<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(&Self, &str) -> Result<T>,
    ) -> Result<T> {
        if self.has(key) { read(self, key) } else { Ok(default) }
    }
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.unmarked().eq(other.unmarked())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(x) => write!(f, "{x}"),
            Self::Int(x) => write!(f, "{x}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Text(x) => write!(f, "{x:?}"),
            Self::List(x) if x.len() > SHOWN_MAX => write!(f, "a list of {}", x.len()),
            Self::List(x) => {
                let items: Vec<String> = x.iter().map(Self::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Table(_) => write!(f, "a table"),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for Value {
            fn from(x: $from) -> Self {
                Self::$variant(x.into())
            }
        })*
    };
}
value_from!(bool => Bool, i64 => Int, i32 => Int, u32 => Int, f64 => Float, f32 => Float,
    &str => Text, String => Text, Vec<Value> => List, Config => Table);

fn fresh(value: &Value) -> Value {
    match value {
        Value::List(items) => Value::List(items.iter().map(fresh).collect()),
        Value::Table(table) => Value::Table(table.fresh()),
        other => other.clone(),
    }
}

/// Longest list that is printed item by item.
const SHOWN_MAX: usize = 16;

fn number_in(range: &RangeInclusive<f64>) -> String {
    format!("a number in {}..={}", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_expected_and_found() {
        let config = Config::at("min-p").with("p", 1.5).with("k", -1).with("mode", "fast");
        #[rustfmt::skip]
        let cases = [
            (config.unit_interval("p").unwrap_err(),    "min-p.p: expected a number in 0..=1, found 1.5"),
            (config.count("k", 1..=9).unwrap_err(),     "min-p.k: expected a whole number in 1..=9, found -1"),
            (config.text("k").unwrap_err(),             "min-p.k: expected text, found -1"),
            (config.text("none").unwrap_err(),          "min-p.none: expected text, found nothing"),
            (config.one_of("mode", &["a", "b"]).unwrap_err(), "min-p.mode: expected one of a, b, found \"fast\""),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn remembers_what_was_read() {
        let config = Config::new().with("p", 0.5).with("q", 0.5);
        assert_eq!(config.unit_interval("p"), Ok(0.5));
        assert_eq!(config.unread().collect::<Vec<_>>(), ["q"]);
    }

    #[test]
    fn absent_keys_take_their_default_but_wrong_ones_do_not() {
        let config = Config::new().with("flag", 3);
        assert_eq!(config.unit_interval_or("p", 0.25), Ok(0.25));
        assert!(config.flag_or("flag", true).is_err());
        assert_eq!(config.one_of("mode", &["a", "b"]), Ok("a"));
    }
}
