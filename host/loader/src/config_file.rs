//! `jackfield.toml` as the tree that plugins read, with the lines that its keys stand in.
//!
//! Which layer wins (flag, environment, file, default) is decided by the command line.

use std::collections::BTreeMap;
use std::path::Path;

use plugin_api::{Config, Error, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::error::{LoadError, line_at, syntax};

/// A configuration file, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFile {
    file: String,
    config: Config,
    /// Line of each key, by dotted path.
    lines: BTreeMap<String, usize>,
}

impl ConfigFile {
    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    ///
    /// [`LoadError::Read`], and what [`parse`](Self::parse) returns.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Parses `text`. `file` only names it in errors.
    ///
    /// # Errors
    ///
    /// [`LoadError`] with the line, for what is not TOML and for dates, which no key takes.
    pub fn parse(file: &str, text: &str) -> Result<Self, LoadError> {
        let document = DeTable::parse(text).map_err(|error| syntax(file, text, &error))?;
        let mut reader = Reader { file, text, lines: BTreeMap::new() };
        let config = reader.table("", document.get_ref())?;
        Ok(Self { file: file.to_owned(), config, lines: reader.lines })
    }

    /// The values. Each table knows its dotted path.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The line that the key with this dotted path stands in.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    /// Puts file and line in front of an error about one of this file's values.
    ///
    /// # Errors
    ///
    /// The error itself, if it is about something else.
    pub fn locate(&self, error: Error) -> Result<LoadError, Error> {
        match error {
            Error::Config { key, expected, found } => {
                let file = self.file.clone();
                Ok(LoadError::Value { file, line: self.nearest_line(&key), key, expected, found })
            }
            other => Err(other),
        }
    }

    /// Keys that nobody has read, with their lines: most often misspelt.
    pub fn unread(&self) -> Vec<(String, usize)> {
        let mut keys = Vec::new();
        collect_unread(&self.config, &mut keys);
        keys.into_iter().map(|key| (key.clone(), self.nearest_line(&key))).collect()
    }

    /// The line of a key, or of the table that it is missing from.
    fn nearest_line(&self, key: &str) -> usize {
        let mut path = key;
        loop {
            match (self.line_of(path), path.rsplit_once('.')) {
                (Some(line), _) => return line,
                (None, Some((table, _))) => path = table,
                (None, None) => return 1,
            }
        }
    }
}

fn collect_unread(config: &Config, keys: &mut Vec<String>) {
    let own: Vec<&str> = config.unread().collect();
    for key in config.keys() {
        if own.contains(&key) {
            keys.push(join(config.path(), key));
        } else if let Some(Value::Table(table)) = config.get(key) {
            collect_unread(table, keys);
        }
    }
}

/// The file while it is read.
struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    lines: BTreeMap<String, usize>,
}

impl Reader<'_> {
    fn table(&mut self, path: &str, entries: &DeTable<'_>) -> Result<Config, LoadError> {
        let mut config = Config::at(path);
        for (key, value) in entries {
            let path = join(path, key.get_ref());
            self.lines.insert(path.clone(), line_at(self.text, key.span().start));
            config.set(key.get_ref(), self.value(&path, value)?);
        }
        Ok(config)
    }

    fn list(&mut self, path: &str, items: &DeArray<'_>) -> Result<Value, LoadError> {
        let items = items.iter().enumerate();
        let values = items.map(|(index, item)| self.value(&join(path, &index.to_string()), item));
        Ok(Value::List(values.collect::<Result<_, _>>()?))
    }

    fn value(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Result<Value, LoadError> {
        let expected = match value.get_ref() {
            DeValue::String(text) => return Ok(Value::Text(text.to_string())),
            DeValue::Boolean(flag) => return Ok(Value::Bool(*flag)),
            DeValue::Array(items) => return self.list(path, items),
            DeValue::Table(entries) => return Ok(Value::Table(self.table(path, entries)?)),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => return Ok(Value::Int(number)),
                    Err(_) => "a whole number of at most 64 bits",
                }
            }
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => return Ok(Value::Float(number)),
                _ => "a finite number",
            },
            DeValue::Datetime(_) => "text, a number, true, false, a list or a table",
        };
        Err(LoadError::Value {
            file: self.file.to_owned(),
            line: line_at(self.text, value.span().start),
            key: path.to_owned(),
            expected: expected.to_owned(),
            found: self.text.get(value.span()).unwrap_or("something else").to_owned(),
        })
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
model = "smollm2"
threads = 0x10

[plugins.min-p]
min_p = 1.5
stop = ["a", 2]

[grants.pypi]
process = ["python3"]
"#;

    #[test]
    fn becomes_the_tree_that_plugins_read() {
        let file = ConfigFile::parse("jackfield.toml", TEXT).unwrap();
        let config = file.config();
        assert_eq!(config.text("model"), Ok("smollm2"));
        assert_eq!(config.count("threads", 1..=64), Ok(16));
        let min_p = config.table("plugins").unwrap().unwrap().table("min-p").unwrap().unwrap();
        assert_eq!(min_p.list("stop").unwrap(), [Value::from("a"), Value::from(2)]);
        let error = file.locate(min_p.unit_interval("min_p").unwrap_err()).unwrap();
        assert_eq!(
            error.to_string(),
            "jackfield.toml:6: plugins.min-p.min_p: expected a number in 0..=1, found 1.5"
        );
        let error = file.locate(min_p.text("absent").unwrap_err()).unwrap();
        assert!(error.to_string().starts_with("jackfield.toml:5: plugins.min-p.absent"), "{error}");
        assert_eq!(file.unread(), [("grants".to_owned(), 9)]);
    }

    #[test]
    fn names_the_line_of_what_cannot_be_read() {
        #[rustfmt::skip]
        let cases = [
            ("a = 1\nb = 1979-05-27", "f:2: b: expected text, a number, true, false, a list or a table, found 1979-05-27"),
            ("a = [1,\n  nan]",       "f:2: a.1: expected a finite number, found nan"),
            ("a = 9223372036854775808", "f:1: a: expected a whole number of at most 64 bits, found 9223372036854775808"),
            ("a = 1\na = 2",          "f:2: expected TOML: duplicate key"),
        ];
        for (text, expected) in cases {
            assert_eq!(ConfigFile::parse("f", text).unwrap_err().to_string(), expected);
        }
    }
}
