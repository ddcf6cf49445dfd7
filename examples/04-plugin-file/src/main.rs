//! Builds a plugin, loads its file and swaps it in while an answer grows. A shared library or a
//! component: only the file differs.
//!
//! `cargo run --release -p example-04-plugin-file -- MODEL FOLDER [native|wasm]`
//!
//! FOLDER is that of a logits processor, such as `plugins/logits-processor/top-k`.

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jackfield::BuildLane;
use jackfield_engine::model::LoadOptions;
use jackfield_engine::{Engine, Output, Request, Wiring};
use jackfield_loader::{Grants, Loader, LoaderOptions, Services, Trial};
use jackfield_runtime::{Bus, SwapTarget, SystemClock};
use plugin_api::Config;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // A native plugin is tried in a child first: this program again, with these arguments.
    if args.first().is_some_and(|arg| arg == "trial") {
        let _ = jackfield_loader::trial::main(&args[1..]);
        return Ok(());
    }
    let [model, folder, lane @ ..] = &args[..] else {
        return Err("expected a model and the folder of a plugin".into());
    };
    let is_wasm = lane.first().is_some_and(|lane| lane == "wasm");
    let lane = if is_wasm { BuildLane::Wasm } else { BuildLane::Native };
    let file = jackfield::build_plugin(Path::new(folder), lane, None)?;

    let services = Services::new();
    let loader = Loader::new(LoaderOptions {
        folder: std::env::temp_dir().join("example-04"),
        trial: Some(Trial::new(vec![std::env::current_exe()?.into(), "trial".into()])),
        native_quota: 8,
        wasm: None,
        hashes: Default::default(),
        trusted: Vec::new(),
        unload: Vec::new(),
        host: Arc::new(move |manifest| services.host(&manifest.name, Grants::none())),
        on_fault: Arc::new(|_generation, _error| {}),
    })?;
    let plugin = loader.load(&file, &Config::new())?;

    let mut engine = Engine::load(
        Path::new(model),
        &Wiring::default(),
        &jackfield::load_registry()?,
        &Bus::new(),
        Arc::new(SystemClock::new()),
        &LoadOptions::default(),
        &mut |_done, _total| {},
    )?;
    let instance = (plugin.provided[0].make)(&Config::new())?;
    let (kind, name) = (&plugin.manifest.kind, &plugin.manifest.name);
    let swapped = engine.swapper().swap(kind, name, instance, Duration::ZERO)?;
    let mut out = std::io::stdout();
    writeln!(out, "{} from {}, {} lane", swapped.active, file.display(), plugin.lane)?;
    engine.submit(Request::new("Once upon a time").with("max_tokens", 20))?;
    engine.run_to_end(&mut |output| {
        if let Output::Finished { answer, .. } = output {
            let _ = writeln!(out, "{answer}");
        }
    })?;
    Ok(())
}
