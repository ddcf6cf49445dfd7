//! mistral.rs, as its Python package has it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{Engine, Failure, Speed, Task, json, number, output};
use crate::setup;

const PACKAGE: &str = "mistralrs==0.9.5";

struct MistralRs {
    python: PathBuf,
    script: PathBuf,
}

/// Installs the wheel into an environment of its own.
pub(crate) fn install() -> Result<Box<dyn Engine>, Failure> {
    let python = setup::python(&setup::folder()?, &[PACKAGE])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("mistral_rs.py");
    Ok(Box::new(MistralRs { python, script }))
}

impl Engine for MistralRs {
    fn name(&self) -> &str {
        "mistral.rs"
    }

    fn measure(&self, task: &Task<'_>) -> Result<Speed, Failure> {
        let mut bench = Command::new(&self.python);
        bench.arg(&self.script).arg(task.file);
        bench.args([task.prefill.to_string(), task.decode.to_string(), "1".to_owned()]);
        for variable in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS"] {
            bench.env(variable, task.threads.to_string());
        }
        let printed = output(&mut bench)?;
        let last = json(printed.lines().last().unwrap_or_default())?;
        let (prefill, decode) = (number(&last, "prefill")?, number(&last, "decode")?);
        Ok(Speed { prefill, decode, cost: None })
    }
}
