//! Turns messages into the text a chat model was trained on, with the template from its files.
//!
//! Templates are Jinja as `transformers` runs it: blocks are trimmed, Python's string and list
//! methods exist, `tojson` writes as Python's `json.dumps` does. They come with the model and are
//! not trusted: instructions, nesting and output are bounded.

mod python;
mod strftime;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::ModelError;
use super::files::{read_bounded, read_json};
use super::gguf::GgufMetadata;

/// One message of a conversation, as templates see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// The text; `null` or a list of parts if the template knows such.
    pub content: Value,
    /// Further fields: `tool_calls`, `tool_call_id`, `name`, `reasoning_content`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: Value::String(content.into()), extra: Map::new() }
    }
}

/// A compiled chat template.
pub struct ChatTemplate {
    path: PathBuf,
    source: String,
    environment: Environment<'static>,
    has_tool_template: bool,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Compiles `source`; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`ModelError::Template`] if it is no template.
    pub fn new(path: &Path, source: &str) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        // As `transformers` sets up Jinja.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", python::raise_exception);
        environment.add_filter("tojson", python::to_json);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        let mut template = Self {
            path: path.to_path_buf(),
            source: source.to_owned(),
            environment,
            has_tool_template: false,
        };
        template.add(MAIN, source)?;
        Ok(template)
    }

    /// The template at `tokenizer.chat_template`, and its variant for tools where there is one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_gguf(metadata: &GgufMetadata) -> Result<Option<Self>, ModelError> {
        let Some(source) = metadata.str("tokenizer.chat_template")? else { return Ok(None) };
        let template = Self::new(metadata.path(), source)?;
        match metadata.str("tokenizer.chat_template.tool_use")? {
            Some(tools) => template.with_tool_template(tools).map(Some),
            None => Ok(Some(template)),
        }
    }

    /// The `chat_template` of a `tokenizer_config.json`: a string, or a list of named ones of
    /// which `default` and `tool_use` count. `path` is for messages.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_tokenizer_config(path: &Path, config: &Value) -> Result<Option<Self>, ModelError> {
        let entry = &config["chat_template"];
        if let Some(source) = entry.as_str() {
            return Self::new(path, source).map(Some);
        }
        let named = |name: &str| {
            let list = entry.as_array()?;
            list.iter().find(|entry| entry["name"] == name)?["template"].as_str()
        };
        let Some(source) = named("default") else { return Ok(None) };
        let template = Self::new(path, source)?;
        match named("tool_use") {
            Some(tools) => template.with_tool_template(tools).map(Some),
            None => Ok(Some(template)),
        }
    }

    /// The template of a Hugging Face folder: `chat_template.jinja` or in `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), or if a file cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>, ModelError> {
        let path = folder.join("chat_template.jinja");
        if path.exists() {
            let bytes = read_bounded(&path, FILE_BYTES_MAX, "chat template")?;
            let source = String::from_utf8(bytes).map_err(|error| {
                ModelError::malformed(&path, "chat template", "UTF-8", error.to_string())
            })?;
            return Self::new(&path, &source).map(Some);
        }
        let path = folder.join("tokenizer_config.json");
        if !path.exists() {
            return Ok(None);
        }
        let config = read_json(&path, FILE_BYTES_MAX, "tokenizer_config.json")?;
        Self::from_tokenizer_config(&path, &config)
    }

    /// Gives templates the time: `now` returns seconds since 1970 in the zone that they should
    /// speak of. Without it `strftime_now` is undefined and templates use their own date.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.environment
            .add_function("strftime_now", move |format: String| strftime::format(&format, now()));
        self
    }

    /// The text of the template, as in the file.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Writes `messages` as the model expects them; with `add_generation_prompt` the beginning of
    /// the assistant's answer follows. `tools` is a list of function schemas; `bos` and `eos` are
    /// token texts.
    ///
    /// # Errors
    ///
    /// [`ModelError::Template`] if the template refuses these messages (its own words are the
    /// source), or exceeds its instructions, nesting or [`OUTPUT_BYTES_MAX`].
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        tools: Option<&Value>,
        bos: &str,
        eos: &str,
    ) -> Result<String, ModelError> {
        let name = if self.has_tool_template && tools.is_some() { WITH_TOOLS } else { MAIN };
        let values = context! {
            messages, add_generation_prompt, tools, bos_token => bos, eos_token => eos,
        };
        let mut output = Bounded { bytes: Vec::new() };
        let template = self.environment.get_template(name).map_err(|e| self.refused(e))?;
        template.render_captured_to(values, &mut output).map_err(|e| self.refused(e))?;
        String::from_utf8(output.bytes).map_err(|error| {
            ModelError::malformed(&self.path, "chat template", "UTF-8 output", error.to_string())
        })
    }

    fn with_tool_template(mut self, source: &str) -> Result<Self, ModelError> {
        self.add(WITH_TOOLS, source)?;
        self.has_tool_template = true;
        Ok(self)
    }

    fn add(&mut self, name: &'static str, source: &str) -> Result<(), ModelError> {
        // The training marks of `transformers` mean nothing when generating.
        let source = GENERATION_MARKS.iter().fold(source.to_owned(), |source, mark| {
            if source.contains(mark) { source.replace(mark, "") } else { source }
        });
        let too_long = source.len() > SOURCE_BYTES_MAX;
        let result = if too_long {
            let detail = format!("{} bytes, more than {SOURCE_BYTES_MAX}", source.len());
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, detail))
        } else {
            self.environment.add_template_owned(name, source)
        };
        result.map_err(|source| ModelError::Template {
            path: self.path.clone(),
            expected: "compiles",
            source,
        })
    }

    fn refused(&self, source: minijinja::Error) -> ModelError {
        let expected = "renders these messages within its limits";
        ModelError::Template { path: self.path.clone(), expected, source }
    }
}

/// Output that ends where it would pass the limit.
struct Bounded {
    bytes: Vec<u8>,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > OUTPUT_BYTES_MAX {
            let text = format!("output of more than {OUTPUT_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The longest text that a template may make, in bytes: some four million tokens.
pub const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Instructions of one rendering: a 1,000-message conversation takes some 100 thousand.
const FUEL: u64 = 10_000_000;
/// Macros in macros; real templates nest four deep.
const RECURSION_MAX: usize = 64;
/// The longest real template has 30 kB.
const SOURCE_BYTES_MAX: usize = 1 << 20;
const FILE_BYTES_MAX: u64 = 16 << 20;
const MAIN: &str = "chat";
const WITH_TOOLS: &str = "chat with tools";
const GENERATION_MARKS: [&str; 4] =
    ["{% generation %}", "{% endgeneration %}", "{%- generation %}", "{%- endgeneration %}"];

#[cfg(test)]
mod tests;
