//! This engine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{Cost, Engine, Failure, Speed, Task, json, number, output};
use crate::{llama_cpp, setup};

struct Jackfield {
    program: PathBuf,
    name: String,
    /// A configuration file that asks for these activations.
    config: PathBuf,
}

/// Builds the program as a user would.
pub(crate) fn build() -> Result<PathBuf, Failure> {
    eprintln!("peers: building jackfield");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--locked", "--package", "jackfield"]);
    let status = build.current_dir(setup::root()).status()?;
    if !status.success() {
        return Err(Failure(format!("cargo build: {status}")));
    }
    Ok(setup::target().join("release/jackfield"))
}

/// The file of a model: itself, or what the model sources have; after a colon, in another format.
pub(crate) fn model(program: &Path, name: &str) -> Result<PathBuf, Failure> {
    if Path::new(name).is_file() {
        return Ok(PathBuf::from(name));
    }
    if let Some((name, format)) = name.rsplit_once(':') {
        return llama_cpp::requantize(&model(program, name)?, format);
    }
    let printed = output(Command::new(program).args(["model", "pull", name]))?;
    let file = printed.lines().last().unwrap_or_default().trim();
    Ok(PathBuf::from(file))
}

/// The engine with activations of 8 or 16 bits.
pub(crate) fn engine(program: &Path, activations: &str) -> Result<Box<dyn Engine>, Failure> {
    let config = setup::folder()?.join(format!("{activations}.toml"));
    std::fs::write(&config, format!("[plugin.cpu]\nactivations = \"{activations}\"\n"))?;
    let name = format!("jackfield {activations}");
    Ok(Box::new(Jackfield { program: program.to_owned(), name, config }))
}

impl Engine for Jackfield {
    fn name(&self) -> &str {
        &self.name
    }

    fn measure(&self, task: &Task<'_>) -> Result<Speed, Failure> {
        let mut bench = Command::new(&self.program);
        bench.args(["bench", "--json", "--runs", "1"]);
        bench.arg("--config").arg(&self.config).arg("--model").arg(task.file);
        bench.args(["--threads", &task.threads.to_string()]);
        bench.args(["--prefill", &task.prefill.to_string()]);
        bench.args(["--decode", &task.decode.to_string()]);
        let report = json(&output(&mut bench)?)?;
        let cost = Cost {
            decode_bytes: number(&report, "bytes_per_token")?,
            prefill_macs: number(&report, "multiply_adds_per_prompt_token")?,
            bandwidth: number(&report, "read_bandwidth_bytes_per_second")?,
        };
        let prefill = number(&report, "prefill_tokens_per_second")?;
        Ok(Speed {
            prefill: if task.is_context { f64::NAN } else { prefill },
            decode: number(&report, "decode_tokens_per_second")?,
            cost: Some(cost),
        })
    }
}
