//! Jackfield beside other engines: the same files, threads and lengths in one run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program prints its tables")]

mod args;
mod engine;
mod jackfield;
mod limits;
mod llama_cpp;
mod mistral_rs;
mod report;
mod setup;

use std::process::ExitCode;

use self::args::Args;
use self::engine::{Engine, Failure, Task};
use self::report::Report;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("peers: {message}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    match compare(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("peers: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<(), Failure> {
    let jackfield = jackfield::build()?;
    let engines = engines(args, &jackfield);
    for model in &args.models {
        let file = jackfield::model(&jackfield, model)?;
        for &threads in &args.threads {
            let task = Task { file: &file, threads, prefill: args.prefill, decode: args.decode };
            let mut report = Report::new(model, &task);
            for run in 0..args.runs {
                for engine in &engines {
                    eprintln!("{model}, {threads} threads, run {run}: {}", engine.name());
                    match engine.measure(&task) {
                        Ok(speed) => report.add(engine.name(), &speed),
                        Err(failure) => report.fail(engine.name(), &failure),
                    }
                }
            }
            println!("{report}");
        }
    }
    Ok(())
}

/// The engines that can be had here; what is missing is said and left out.
fn engines(args: &Args, jackfield: &std::path::Path) -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = Vec::new();
    let mut add = |name: &str, engine: Result<Box<dyn Engine>, Failure>| match engine {
        Ok(engine) => engines.push(engine),
        Err(failure) => eprintln!("peers: without {name}: {failure}"),
    };
    for name in &args.engines {
        match &**name {
            "llama.cpp" => add(name, llama_cpp::find()),
            "mistral.rs" => add(name, mistral_rs::install()),
            _ => {
                for activations in ["int8", "int16"] {
                    add(name, jackfield::engine(jackfield, activations));
                }
            }
        }
    }
    engines
}
