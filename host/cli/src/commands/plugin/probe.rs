//! `jackfield plugin probe`: the child of a check. Loads the plugin for real, runs one part, and
//! answers on standard output.

use std::any::Any;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail};
use jackfield_loader::{ConfigFile, Format, Loader, LoaderOptions, PluginManifest};
use plugin_api::testing::machine::Machine;
use plugin_api::testing::provided::{TABLES, contract, fuzz_config, fuzz_inputs};
use plugin_api::{Config, Kind as _, LogitsProcessor, Provided, RotaryEmbedding};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::child::{Answer, MARK};
use crate::args::Probe;

/// Runs one part.
pub(super) fn run(args: &Probe) -> Result<()> {
    // A panic becomes part of the answer, not of the terminal.
    std::panic::set_hook(Box::new(|_| ()));
    let faults = Faults::default();
    // A machine in memory: what a plugin asks for is denied, and what is said of it is kept.
    let machine = Machine::new();
    ["files", "network", "processes", "clock"].into_iter().for_each(|it| machine.deny(it));
    let part = AssertUnwindSafe(|| attempt(args, &faults, &machine));
    let result = catch_unwind(part).unwrap_or_else(|payload| bail!("{}", message_of(&*payload)));
    let (passed, message) = match result {
        Ok(message) => (true, message),
        Err(error) => (false, with_hint(crate::sentence(&error))),
    };
    let mut faults = std::mem::take(&mut *faults.lock().unwrap_or_else(PoisonError::into_inner));
    // The sandbox tells the plugin's own log when it has stopped an instance.
    let log = machine.log();
    let stopped = log.iter().filter_map(|line| Some(line.split_once(": stopped: ")?.1.to_owned()));
    faults.extend(stopped.take(FAULTS_MAX));
    let answer = serde_json::to_string(&Answer { passed, message, faults })?;
    let mut out = std::io::stdout().lock();
    write!(out, "{MARK}{answer}")?;
    out.flush()?;
    Ok(())
}

/// What the plugin did that a plugin must not.
type Faults = Arc<Mutex<Vec<String>>>;

fn note(faults: &Faults, error: &plugin_api::Error) {
    let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
    if faults.len() < FAULTS_MAX {
        faults.push(error.to_string());
    }
}

fn attempt(args: &Probe, faults: &Faults, machine: &Machine) -> Result<String> {
    let config = config_of("--config", &args.set)?;
    let (told, machine) = (Arc::clone(faults), machine.clone());
    let loader = Loader::new(LoaderOptions {
        folder: args.folder.clone(),
        trial: None, // this is one
        native_quota: 8,
        wasm: None,
        hashes: Default::default(),
        trusted: Vec::new(),
        unload: Vec::new(),
        host: Arc::new(move |manifest: &PluginManifest| machine.host(&manifest.name)),
        on_fault: Arc::new(move |_, error| note(&told, error)),
    })?;
    let artifact = super::check::read(&args.file)?;
    // The sandbox reserves address space without end, and limits memory itself.
    if artifact.format == Format::Elf {
        limit_memory();
    }
    let loaded = loader.load_artifact(&artifact, &config)?;
    let plugin = loaded.provided.first().context("it provides nothing")?;
    let plugin = &watched(plugin, faults);
    match args.part.as_str() {
        "layout" => Ok(format!("lane {}: opens, and its tables are this host's", loaded.lane)),
        "init" => init(plugin, &config),
        "create-drop" => create_and_drop(plugin, &config),
        "contract" => keep_promises(plugin, &config),
        "config-fuzz" => {
            let (taken, keys) = fuzz_config(plugin, &config, args.seed);
            Ok(match keys.as_slice() {
                [] => format!("reads none of the keys that were tried: {NAME_OTHERS}"),
                keys => format!(
                    "{TABLES} random tables of {}: {taken} taken, the others refused",
                    keys.join(", ")
                ),
            })
        }
        "input-fuzz" => {
            let keys = fuzz_inputs(plugin, &config, args.seed)?;
            let asked = match (plugin.kind, keys.as_slice()) {
                (<dyn LogitsProcessor>::NAME, []) => {
                    format!("; reads none of the parameters that were tried: {NAME_OTHERS}")
                }
                (_, []) => String::new(),
                (_, keys) => format!(", with odd values of {}", keys.join(", ")),
            };
            Ok(format!("random inputs gave answers or errors{asked}"))
        }
        other => bail!("probe `{other}`: no such part"),
    }
}

/// The same plugin; a panic while it starts, which has no owner to be told yet, is a fault as well.
fn watched(plugin: &Provided, faults: &Faults) -> Provided {
    let (make, faults) = (Arc::clone(&plugin.make), Arc::clone(faults));
    let make = move |config: &Config| {
        make(config).inspect_err(|error| {
            let is_panic = matches!(error, plugin_api::Error::Outside { message, .. }
                if message.starts_with("it panicked"));
            if is_panic {
                note(&faults, error);
            }
        })
    };
    Provided { make: Arc::new(make), ..plugin.clone() }
}

/// The second start finds what the first left behind.
fn init(plugin: &Provided, config: &Config) -> Result<String> {
    for _ in 0..2 {
        drop((plugin.make)(config)?);
    }
    Ok("starts and ends, twice".to_owned())
}

/// By its end every key was read by whoever may read it: the plugin, a request or a layer.
fn keep_promises(plugin: &Provided, config: &Config) -> Result<String> {
    contract(plugin, config)?;
    let unread: Vec<&str> = config.unread().collect();
    // Which hyperparameters were read is not told across every lane.
    if !unread.is_empty() && plugin.kind != <dyn RotaryEmbedding>::NAME {
        bail!("--config {}: expected a key that the plugin reads", unread.join(", "));
    }
    let is_seen_idle = plugin.kind == <dyn LogitsProcessor>::NAME && config.keys().next().is_none();
    let note = if is_seen_idle {
        ": seen doing nothing only; let it act with --config KEY=VALUE"
    } else {
        ""
    };
    Ok(format!("keeps every promise of the kind {}{note}", plugin.kind))
}

/// What the plugin cannot do without may be given to the check.
fn with_hint(message: String) -> String {
    let hint = if message.ends_with(", found nothing") {
        " (what it cannot do without goes with --config KEY=VALUE)"
    } else {
        ""
    };
    message + hint
}

fn create_and_drop(plugin: &Provided, config: &Config) -> Result<String> {
    // What is made once for all instances is made by the first ones.
    for _ in 0..10 {
        drop((plugin.make)(config)?);
    }
    let before = Usage::now()?;
    for _ in 0..CYCLES {
        drop((plugin.make)(config)?);
    }
    let after = Usage::now()?;
    let [threads, files] =
        [after.threads.saturating_sub(before.threads), after.files.saturating_sub(before.files)];
    let memory = after.rss_kib.saturating_sub(before.rss_kib);
    if threads > 0 || files > 0 || memory > MEMORY_KIB_MAX {
        bail!(
            "{CYCLES} instances left behind {threads} threads, {files} file descriptors and \
             {memory} KiB: expected 0, 0 and at most {MEMORY_KIB_MAX}"
        );
    }
    Ok(format!(
        "{CYCLES} instances came and went: +0 threads, +0 file descriptors, memory within \
         {MEMORY_KIB_MAX} KiB"
    ))
}

/// What the process holds.
struct Usage {
    threads: u64,
    files: u64,
    rss_kib: u64,
}

impl Usage {
    fn now() -> Result<Self> {
        let files = std::fs::read_dir("/proc/self/fd")?.count() as u64;
        Ok(Self { threads: status("Threads:")?, files, rss_kib: status("VmRSS:")? })
    }
}

/// A number of `/proc/self/status`.
fn status(key: &str) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    let value = value.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    value.ok_or_else(|| anyhow!("/proc/self/status: expected {key}"))
}

/// Four gibibytes beyond what is mapped so far. A limit that the system refuses leaves the clock.
fn limit_memory() {
    let most = status("VmSize:").unwrap_or(0) * 1024 + MEMORY_BYTES_MAX;
    for (resource, most) in [(Resource::As, most), (Resource::Core, 0)] {
        let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    }
}

/// The table that `KEY=VALUE` make: a value of TOML, else text.
pub(crate) fn config_of(flag: &str, pairs: &[String]) -> Result<Config> {
    let mut lines = String::new();
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .with_context(|| format!("{flag} {pair}: expected KEY=VALUE such as min_p=0.1"))?;
        let line = format!("{key} = {value}\n");
        match ConfigFile::parse(flag, &line) {
            Ok(_) => lines.push_str(&line),
            Err(_) => lines.push_str(&format!("{key} = {value:?}\n")),
        }
    }
    Ok(ConfigFile::parse(flag, &lines)?.config().fresh())
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or("a panic".to_owned())
}

/// What to do where the usual names of keys do not meet the plugin's own.
const NAME_OTHERS: &str = "name others with --config KEY=VALUE";

const CYCLES: usize = 100;
const FAULTS_MAX: usize = 16;
const MEMORY_KIB_MAX: u64 = 1024;
const MEMORY_BYTES_MAX: u64 = 4 << 30;
