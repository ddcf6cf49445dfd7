//! Registers a logits processor of its own: whoever embeds the host needs no file for a plugin.
//!
//! `cargo run --release -p example-05-own-plugin -- MODEL [PROMPT]`

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use jackfield_engine::model::LoadOptions;
use jackfield_engine::{Engine, Output, Request, Wiring};
use jackfield_runtime::{Bus, Lane, PluginInfo, SystemClock};
use plugin_api::Registrar;
use plugin_api::prelude::*;

/// Lets no token follow itself.
struct NoEcho {
    last: RowMap<Option<u32>>,
}

impl Capability for NoEcho {
    const NAME: &'static str = "no-echo";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self { last: RowMap::new() })
    }
}

impl LogitsProcessor for NoEcho {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        if let BatchChange::Advanced { row, token } = *change
            && let Some(last) = self.last.get_mut(row)
        {
            *last = Some(token);
        }
        self.last.follow(change, |_params, history| Ok(history.last().copied()))
    }

    fn need(&self) -> Need {
        Need::Nothing
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        logits.for_each(|row| {
            if let Some(Some(token)) = self.last.get(row.id()) {
                row.set(*token, f32::NEG_INFINITY);
            }
            Ok(())
        })
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().ok_or("expected the path of a model, found no argument")?;
    let prompt = args.next().unwrap_or_else(|| "no no no no no".to_owned());
    let mut registry = jackfield::load_registry()?;
    let mut registrar = Registrar::new();
    registrar.provide::<dyn LogitsProcessor, NoEcho>();
    let (name, description) = ("no-echo".to_owned(), "Lets no token follow itself".to_owned());
    let (api, lane) = ("0.0".to_owned(), Lane::Builtin);
    let info = PluginInfo { name, description, api, lane, origin: None };
    registry.add(info, registrar.into_provided())?;

    let mut wiring = Wiring::default();
    wiring.choose("logits-processor", "no-echo");
    let clock = Arc::new(SystemClock::new());
    let options = LoadOptions::default();
    let quiet = &mut |_done, _total| {};
    let path = Path::new(&model);
    let mut engine = Engine::load(path, &wiring, &registry, &Bus::new(), clock, &options, quiet)?;
    engine.submit(Request::new(&*prompt).strategy("greedy").with("max_tokens", 20))?;
    let mut answer = String::new();
    engine.run_to_end(&mut |output| {
        if let Output::Finished { answer: whole, .. } = output {
            whole.clone_into(&mut answer);
        }
    })?;
    Ok(writeln!(std::io::stdout(), "{prompt}{answer}")?)
}
