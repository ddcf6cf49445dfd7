//! PyTorch, as a script of its own.

use std::process::Command;

use serde_json::json;

use super::{
    CLIP, EPS, LEARNING_RATE, LENGTH, ROPE_THETA, SEQUENCES, STEPS, Shape, THREADS, VOCAB,
};
use crate::engine::{Failure, output};

/// Seconds of the later steps.
pub(super) fn steps(shape: &Shape) -> Result<Vec<f64>, Failure> {
    let task = json!({
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
        "clip": CLIP,
        "steps": STEPS,
    });
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "/usr/bin/python3".into());
    let mut script = Command::new(python);
    script.env("OMP_NUM_THREADS", THREADS.to_string());
    script.env("OPENBLAS_NUM_THREADS", THREADS.to_string());
    let printed = output(script.args(["-c", include_str!("pytorch.py"), &task.to_string()]))?;
    let steps: Vec<f64> = printed.lines().filter_map(|line| line.parse().ok()).collect();
    match steps.get(STEPS / 4..) {
        Some(steps) if !steps.is_empty() => Ok(steps.to_vec()),
        _ => Err(Failure(format!("expected the seconds of {STEPS} steps, found {printed:?}"))),
    }
}
