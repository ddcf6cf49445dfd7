//! What chat templates expect of Python: `json.dumps` and a way to raise.

use std::io;

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Ends the rendering with the template's own words.
pub(super) fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: unlike Jinja's own filter it escapes no
/// HTML. Other arguments of Python's function are accepted at their usual value.
#[allow(clippy::needless_pass_by_value, reason = "minijinja hands keyword arguments over")]
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut json = Vec::new();
    let result = match indent {
        Some(width) => {
            let indent = vec![b' '; width.min(INDENT_MAX)];
            let formatter = PrettyFormatter::with_indent(&indent);
            value.serialize(&mut Serializer::with_formatter(&mut json, formatter))
        }
        None => {
            value.serialize(&mut Serializer::with_formatter(&mut json, Spaced(CompactFormatter)))
        }
    };
    result.map_err(|error| {
        Error::new(ErrorKind::BadSerialization, "tojson: expected a JSON value").with_source(error)
    })?;
    // JSON is UTF-8; safe strings are not escaped again.
    Ok(Value::from_safe_string(String::from_utf8_lossy(&json).into_owned()))
}

/// Python's separators on one line: `, ` and `: `.
struct Spaced(CompactFormatter);

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)?;
        writer.write_all(b" ")
    }
}

/// Wider is no layout.
const INDENT_MAX: usize = 16;
