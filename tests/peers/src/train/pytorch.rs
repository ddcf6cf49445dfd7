//! PyTorch, as a script of its own.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{
    CLIP, EPS, LEARNING_RATE, LENGTH, ROPE_THETA, SEQUENCES, STEPS, Shape, THREADS, VOCAB,
};
use crate::engine::{Failure, output};

/// Seconds of the later steps.
pub(super) fn steps(shape: &Shape) -> Result<Vec<f64>, Failure> {
    let steps = numbers(&task(shape, json!({ "clip": CLIP, "steps": STEPS })), STEPS)?;
    Ok(steps[STEPS / 4..].to_vec())
}

/// Losses of `steps` steps on the file `text` in `folder`, and of `held-out` after them. The weights at first
/// are left in the folder.
pub(super) fn losses(
    shape: &Shape,
    folder: &Path,
    seed: usize,
    steps: usize,
) -> Result<Vec<f64>, Failure> {
    numbers(&task(shape, json!({ "folder": folder, "seed": seed, "steps": steps })), steps + 1)
}

/// What the script is told, `more` beside the model.
fn task(shape: &Shape, more: Value) -> Value {
    let mut task = json!({
        "hidden": shape.hidden,
        "inner": shape.inner,
        "layers": shape.layers,
        "heads": shape.heads,
        "vocab": VOCAB,
        "sequences": SEQUENCES,
        "length": LENGTH,
        "threads": THREADS,
        "learning_rate": LEARNING_RATE,
        "eps": EPS,
        "rope_theta": ROPE_THETA,
    });
    if let (Value::Object(task), Value::Object(more)) = (&mut task, more) {
        task.extend(more);
    }
    task
}

/// So many lines of the script, each a number.
fn numbers(task: &Value, count: usize) -> Result<Vec<f64>, Failure> {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "/usr/bin/python3".into());
    let mut script = Command::new(python);
    script.env("OMP_NUM_THREADS", THREADS.to_string());
    script.env("OPENBLAS_NUM_THREADS", THREADS.to_string());
    let printed = output(script.args(["-c", include_str!("pytorch.py"), &task.to_string()]))?;
    let numbers: Vec<f64> = printed.lines().filter_map(|line| line.parse().ok()).collect();
    if numbers.len() == count {
        return Ok(numbers);
    }
    Err(Failure(format!("expected {count} numbers, found {printed:?}")))
}
