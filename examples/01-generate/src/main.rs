//! Loads a model with the builtin plugins and streams an answer.
//!
//! `cargo run --release -p example-01-generate -- MODEL [PROMPT]`

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use jackfield_engine::model::LoadOptions;
use jackfield_engine::{Engine, Output, Request, Wiring};
use jackfield_runtime::{Bus, SystemClock};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().ok_or("expected the path of a model, found no argument")?;
    let prompt = args.next().unwrap_or_else(|| "The capital of France is".to_owned());

    // Who is there, who is chosen, where events go: three values, no globals.
    let registry = jackfield::load_registry()?;
    let wiring = Wiring::default();
    let bus = Bus::new();
    let mut engine = Engine::load(
        Path::new(&model),
        &wiring,
        &registry,
        &bus,
        Arc::new(SystemClock::new()),
        &LoadOptions::default(),
        &mut |_done, _total| {},
    )?;

    engine.submit(Request::new(&*prompt).strategy("greedy").with("max_tokens", 32))?;

    let mut out = std::io::stdout().lock();
    write!(out, "{prompt}")?;
    let mut printed = Ok(());
    engine.run_to_end(&mut |output| {
        let (Output::Token { text, .. } | Output::Finished { text, .. }) = output;
        if printed.is_ok() {
            printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    })?;
    printed?;
    Ok(writeln!(out)?)
}
