//! What every engine is asked.

use std::fmt;
use std::path::Path;
use std::process::Command;

/// What is measured.
pub(crate) struct Task<'a> {
    pub(crate) file: &'a Path,
    pub(crate) threads: usize,
    /// Tokens of the prompt, and of the context that is decoded after.
    pub(crate) prefill: usize,
    pub(crate) decode: usize,
    /// Whether only decoding counts.
    pub(crate) is_context: bool,
}

/// What was measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Speed {
    /// Tokens per second; NaN where nobody asked.
    pub(crate) prefill: f64,
    /// Tokens per second.
    pub(crate) decode: f64,
    /// Where the engine tells.
    pub(crate) cost: Option<Cost>,
}

/// What a token costs, whoever computes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Bytes that a decoded token reads.
    pub(crate) decode_bytes: f64,
    /// Multiply-adds of a token of the prompt.
    pub(crate) prefill_macs: f64,
    /// Bytes a second at which so many bytes are read.
    pub(crate) bandwidth: f64,
}

/// One engine.
pub(crate) trait Engine {
    /// As the table calls it.
    fn name(&self) -> &str;
    /// Runs the task once.
    fn measure(&self, task: &Task<'_>) -> Result<Speed, Failure>;
}

/// Why something could not be had or measured.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| Failure(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut last: Vec<&str> = said.lines().rev().take(5).collect();
    last.reverse();
    Err(Failure(format!("{program}: {}: {}", output.status, last.join(" / "))))
}

/// A number in a JSON object.
pub(crate) fn number(object: &serde_json::Value, key: &str) -> Result<f64, Failure> {
    let found = object.get(key).and_then(serde_json::Value::as_f64);
    found.ok_or_else(|| Failure(format!("expected a number `{key}`, found {object}")))
}

/// JSON that an engine printed.
pub(crate) fn json(text: &str) -> Result<serde_json::Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure(format!("expected JSON: {error}: {text}")))
}
