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
mod streams;
mod train;

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
    busy_neighbours(args.neighbours);
    if !args.streams.is_empty() {
        let files = args.models.iter().map(|model| jackfield::model(&jackfield, model));
        return streams::compare(args, &jackfield, &files.collect::<Result<Vec<_>, _>>()?);
    }
    if let Some(text) = &args.learn {
        return train::learn::compare(text, args.runs, args.steps, &jackfield);
    }
    if !args.train.is_empty() {
        return train::compare(&args.train, &args.engines, args.runs, &jackfield);
    }
    let engines = engines(args, &jackfield);
    for model in &args.models {
        let file = jackfield::model(&jackfield, model)?;
        for &threads in &args.threads {
            let is_context = !args.contexts.is_empty();
            let prompt = [args.prefill];
            for &prefill in if is_context { &args.contexts[..] } else { &prompt } {
                let decode = args.decode;
                let task = Task { file: &file, threads, prefill, decode, is_context };
                println!("{}", measure(model, &task, args.runs, &engines));
            }
        }
    }
    Ok(())
}

/// Each engine in its turn, several times over.
fn measure(model: &str, task: &Task<'_>, runs: usize, engines: &[Box<dyn Engine>]) -> Report {
    let mut report = Report::new(model, task);
    for run in 0..runs {
        for engine in engines {
            eprintln!("{}, run {run}: {}", report.title(), engine.name());
            match engine.measure(task) {
                Ok(speed) => report.add(engine.name(), &speed),
                Err(failure) => report.fail(engine.name(), &failure),
            }
        }
    }
    report
}

/// Threads that compute for nobody until the process ends.
fn busy_neighbours(num: usize) {
    for _ in 0..num {
        std::thread::spawn(|| {
            let mut sum = 0_u64;
            loop {
                sum = std::hint::black_box(sum.wrapping_mul(6_364_136_223_846_793_005) + 1);
            }
        });
    }
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
            "pytorch" | "candle-nn" => {} // They train.
            _ => {
                for activations in ["int8", "int16"] {
                    add(name, jackfield::engine(jackfield, activations));
                }
            }
        }
    }
    engines
}
