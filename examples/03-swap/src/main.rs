//! Swaps the cache and the rotary embedding while an answer grows: the text stays what it is, the
//! digest beside each token tells them apart.
//!
//! `cargo run --release -p example-03-swap -- MODEL [PROMPT]`

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jackfield_engine::model::LoadOptions;
use jackfield_engine::{Engine, Output, Request, Wiring};
use jackfield_runtime::{Bus, SwapTarget, SystemClock};
use plugin_api::Config;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().ok_or("expected the path of a model, found no argument")?;
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".to_owned());
    let registry = jackfield::load_registry()?;
    let mut engine = Engine::load(
        Path::new(&model),
        &Wiring::default(),
        &registry,
        &Bus::new(),
        Arc::new(SystemClock::new()),
        &LoadOptions::default(),
        &mut |_done, _total| {},
    )?;
    engine.submit(Request::new(&*prompt).strategy("greedy").with("max_tokens", 40))?;

    // A swapper works from any thread; here it offers between two steps, and does not wait.
    let swapper = engine.swapper();
    let parts = [("kv-cache", "paged"), ("rotary-embedding", "standard")];
    let mut out = std::io::stdout();
    let (mut last, mut step) = (String::new(), 0);
    while engine.num_running() > 0 {
        if step % 10 == 5 {
            let (kind, name) = parts[step / 10 % parts.len()];
            let provided = registry.find(kind, name).ok_or("a builtin plugin is missing")?;
            let instance = (provided.make)(&Config::new())?;
            let swapped = swapper.swap(kind, name, instance, Duration::ZERO)?;
            write!(out, "\n[{kind}: {}] ", swapped.active)?;
        }
        step += 1;
        let mut written = Ok(());
        engine.step(&mut |output| {
            if let Output::Token { text, digest, .. } = output {
                let digest = digest.to_string();
                let mark = if digest == last { "" } else { &digest[..8] };
                written = write!(out, "{mark}{text}");
                last = digest;
            }
        })?;
        written?;
    }
    Ok(writeln!(out)?)
}
