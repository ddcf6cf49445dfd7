//! This engine: `jackfield train`, in steps as its report has them.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{
    CLIP, EPS, LEARNING_RATE, LENGTH, ROPE_THETA, SEQUENCES, STEPS, Shape, THREADS, VOCAB,
};
use crate::engine::{Failure, json, number, output};
use crate::setup;

/// Seconds of some steps.
pub(super) fn steps(shape: &Shape, program: &Path) -> Result<Vec<f64>, Failure> {
    let folder = setup::folder()?.join("train");
    std::fs::create_dir_all(&folder)?;
    let [model, text, run, kept] =
        ["config.json", "text", "run.toml", "checkpoints"].map(|name| folder.join(name));
    std::fs::write(&model, config(shape).to_string())?;
    std::fs::write(&text, super::text())?;
    let table = format!(
        "[train]\nconfig = {model:?}\ntext = {text:?}\nfolder = {kept:?}\nsteps = {STEPS}\n\
         learning_rate = {LEARNING_RATE}\nsequence_length = {LENGTH}\nsequences = {SEQUENCES}\n\
         [plugins]\nlr-schedule = \"constant\"\nhook = [\"grad-clip\"]\n\
         [plugin.grad-clip]\nmax_norm = {CLIP:?}\n[plugin.cpu]\nthreads = {THREADS}\n"
    );
    std::fs::write(&run, table)?;
    let mut train = Command::new(program);
    let printed = output(train.args(["train", "--fresh", "--json", "--config"]).arg(&run))?;
    let steps: Result<Vec<f64>, Failure> = printed
        .lines()
        .map(|line| Ok((SEQUENCES * LENGTH) as f64 / number(&json(line)?, "tokens_per_second")?))
        .collect();
    steps
}

/// Losses of every tenth of `steps` steps on the file `text` in `folder`, from the model that lies there, and of
/// `held-out` after them.
pub(super) fn losses(
    folder: &Path,
    seed: usize,
    steps: usize,
    program: &Path,
) -> Result<(Vec<(usize, f64)>, f64), Failure> {
    let [text, held_out, run, kept] =
        ["text", "held-out", "run.toml", "checkpoints"].map(|name| folder.join(name));
    let table = format!(
        "[train]\nmodel = {folder:?}\ntext = {text:?}\nvalidation = {held_out:?}\nfolder = {kept:?}\n\
         steps = {steps}\nevaluate_every = {steps}\nvalidation_batches = 65536\n\
         checkpoint_every = {steps}\nlearning_rate = {LEARNING_RATE}\nseed = {seed}\n\
         sequence_length = {LENGTH}\nsequences = {SEQUENCES}\n\
         [plugins]\nlr-schedule = \"constant\"\n[plugin.cpu]\nthreads = {THREADS}\n"
    );
    std::fs::write(&run, table)?;
    let mut train = Command::new(program);
    let printed = output(train.args(["train", "--fresh", "--json", "--config"]).arg(&run))?;
    let (mut losses, mut last) = (Vec::new(), f64::NAN);
    for line in printed.lines() {
        let line = json(line)?;
        match line.get("evaluation_loss") {
            Some(_) => last = number(&line, "evaluation_loss")?,
            None => losses.push((number(&line, "step")? as usize, number(&line, "loss")?)),
        }
    }
    Ok((losses, last))
}

/// `config.json` of the model.
pub(super) fn config(shape: &Shape) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head_dim(),
        "vocab_size": VOCAB,
        "max_position_embeddings": LENGTH,
        "rms_norm_eps": EPS,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": false,
    })
}
