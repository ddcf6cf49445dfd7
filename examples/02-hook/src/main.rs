//! Registers a hook in process: it counts tokens and ends every answer after ten.
//!
//! `cargo run --release -p example-02-hook -- MODEL [PROMPT]`

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jackfield_engine::model::LoadOptions;
use jackfield_engine::{Engine, Output, Request, Wiring};
use jackfield_loader::{Grants, Services};
use jackfield_runtime::{Bus, SystemClock};
use plugin_api::prelude::*;

const TOKENS_MAX: usize = 10;

/// A hook that counts into `seen` and ends an answer at [`TOKENS_MAX`] tokens.
fn count_tokens(seen: Arc<AtomicUsize>) -> Subscriptions {
    let mut on = Subscriptions::new();
    on.order(Phase::Normal, 0).after_token(move |event, _host| {
        seen.fetch_add(1, Ordering::Relaxed);
        let is_last = event.index + 1 >= TOKENS_MAX;
        if is_last { Flow::Finish(FinishReason::Length) } else { Flow::Continue }
    });
    on
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().ok_or("expected the path of a model, found no argument")?;
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".to_owned());

    // Whoever subscribes has a name and grants: this one may count, and nothing else.
    let bus = Bus::new();
    let services = Services::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let host = services.host("count-tokens", Grants::none());
    bus.subscribe(&host, count_tokens(Arc::clone(&seen)));

    let mut engine = Engine::load(
        Path::new(&model),
        &Wiring::default(),
        &jackfield::load_registry()?,
        &bus,
        Arc::new(SystemClock::new()),
        &LoadOptions::default(),
        &mut |_done, _total| {},
    )?;
    engine.submit(Request::new(&*prompt).strategy("greedy").with("max_tokens", 100))?;

    let (mut answer, mut why) = (String::new(), None);
    engine.run_to_end(&mut |output| {
        if let Output::Finished { answer: whole, reason, .. } = output {
            whole.clone_into(&mut answer);
            why = Some(reason);
        }
    })?;
    let seen = seen.load(Ordering::Relaxed);
    Ok(writeln!(std::io::stdout(), "{prompt}{answer}\n[{seen} tokens, {why:?}]")?)
}
