//! A real model through swaps: one long answer equals that of a run without any, and memory comes
//! back.
//!
//! Once with plugins that are linked in, once with files of both lanes: shared libraries, among them
//! several builds of the `cpu` backend, and components.
//!
//! Needs SmolLM2-135M-Instruct in the folder that `JACKFIELD_MODELS` names. `JACKFIELD_TOKENS` sets
//! how long the answer is, `JACKFIELD_BUILDS` how many builds of the backend are made.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jackfield::BuildLane;
use jackfield_engine::model::PlanDigest;
use jackfield_engine::{Engine, Output, Request};
use jackfield_loader::{Format, Grants, Loader, LoaderOptions, Services, Trial, seal};
use jackfield_runtime::SwapTarget;
use jackfield_tests::{Setup, real_model, root};
use plugin_api::testing::random::Random;
use plugin_api::{Config, Provided};

/// What is swapped how often: kind, plugin, times.
const SWAPS: [(&str, &str, usize); 4] = [
    ("kv-cache", "paged", 50),
    ("rotary-embedding", "standard", 50),
    ("backend", "cpu", 10),
    ("logits-processor", "top-k", 50),
];

/// Swaps after which everything was swapped in once and its code has been read: it stays.
const FIRST_SWAPS: usize = 40;

/// How far resident memory may be from what it was after those, as a part of it.
const RESIDENT_MAX: f64 = 0.05;

fn request(max_tokens: i64) -> Request {
    let request = Request::new("Tell me about the history of railways.").strategy("greedy");
    request.with("max_tokens", max_tokens).with("ignore_eos", true)
}

/// Resident memory of this process, in KiB; nothing where the system does not tell.
fn resident_kib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn side_request(engine: &mut Engine) {
    let short = Request::new("A word:").with("max_tokens", 2).with("seed", 1);
    engine.submit(short.with("ignore_eos", true)).unwrap();
}

/// One test at a time: what another one takes in memory would count.
static ALONE: Mutex<()> = Mutex::new(());

/// Makes the instance for the swap with this number.
type Make = Box<dyn Fn(usize) -> Box<dyn Any + Send>>;

#[test]
fn one_long_answer_survives_160_swaps() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let setup = Setup::new("cpu");
    let make = |kind: &str, name: &str| -> Make {
        let provided = setup.registry.find(kind, name).unwrap().clone();
        Box::new(move |_| (provided.make)(&Config::new()).unwrap())
    };
    let swaps = SWAPS.map(|(kind, name, times)| (kind, name, times, make(kind, name)));
    survives(swaps.into());
}

#[test]
fn one_long_answer_survives_160_swaps_of_files() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(folder.path());
    let num_builds = std::env::var("JACKFIELD_BUILDS").ok().and_then(|n| n.parse().ok());
    let swaps = SWAPS.map(|(kind, name, times)| {
        let files = match kind {
            "backend" => builds_of_cpu(num_builds.unwrap_or(2), folder.path()),
            _ => vec![build(&format!("plugins/{kind}/{name}"), kind, folder.path())],
        };
        let loaded: Vec<Provided> = files
            .iter()
            .map(|file| loader.load(file, &Config::new()).unwrap().provided.remove(0))
            .collect();
        let make = move |n: usize| (loaded[n % loaded.len()].make)(&Config::new()).unwrap();
        (kind, name, times, Box::new(make) as Make)
    });
    survives(swaps.into());
}

/// The version that is linked in, the one from a file, and the first again: each of the kinds that
/// keep state or numbers in the middle of an answer, a processor between two answers.
#[test]
fn there_and_back_again_leaves_no_trace() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(path) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(folder.path());
    let setup = Setup::new("cpu");
    let mut engine = setup.load(&path).unwrap();
    let (expected, _) = answer(&mut engine, 60, |_, _| {});
    let swapper = engine.swapper();
    for (kind, name, _) in SWAPS {
        let file = match kind {
            "backend" => builds_of_cpu(1, folder.path()).remove(0),
            _ => build(&format!("plugins/{kind}/{name}"), kind, folder.path()),
        };
        let second = loader.load(&file, &Config::new()).unwrap().provided.remove(0);
        let first = setup.registry.find(kind, name).unwrap();
        let swap = |version: &Provided| {
            let made = (version.make)(&Config::new()).unwrap();
            swapper.swap(kind, name, made, Duration::ZERO).unwrap();
        };
        let mut made_by = Vec::new();
        if kind == "logits-processor" {
            for version in [&second, first] {
                swap(version);
                let (tokens, digests) = answer(&mut engine, 60, |_, _| {});
                assert_eq!(tokens, expected, "{kind}");
                made_by.extend(digests);
            }
        } else {
            let (tokens, digests) = answer(&mut engine, 60, |_, num_tokens| match num_tokens {
                20 => swap(&second),
                40 => swap(first),
                _ => {}
            });
            assert_eq!(tokens, expected, "{kind}");
            made_by = digests;
        }
        made_by.dedup();
        assert!(made_by.len() >= 2, "{kind}: the second version made no token");
    }
}

/// A loader that tries shared libraries in the command line's process, where it has been built.
#[allow(clippy::print_stderr, reason = "what is left out says so")]
fn loader(folder: &Path) -> Loader {
    let here = std::env::current_exe().unwrap();
    let program = here.ancestors().nth(2).unwrap().join("jackfield");
    let trial = if program.is_file() {
        Some(Trial::new(vec![program.into(), "plugin".into(), "trial".into()]))
    } else {
        eprintln!("SKIP trials: {} has not been built", program.display());
        None
    };
    let services = Services::new();
    let options = LoaderOptions {
        folder: folder.to_owned(),
        trial,
        native_quota: 64,
        wasm: None,
        hashes: Default::default(),
        trusted: vec!["standard".to_owned(), "top-k".to_owned()],
        unload: Vec::new(),
        host: Arc::new(move |manifest| services.host(&manifest.name, Grants::none())),
        on_fault: Arc::new(|generation, error| panic!("{}: {error}", generation.label())),
    };
    Loader::new(options).unwrap()
}

/// A shared library for the cache, components for what may be one.
fn build(plugin: &str, kind: &str, folder: &Path) -> PathBuf {
    let (lane, ending) = match kind {
        "kv-cache" => (BuildLane::Native, "so"),
        _ => (BuildLane::Wasm, "wasm"),
    };
    let out = folder.join(format!("{kind}.{ending}"));
    jackfield::build_plugin(&root().join(plugin), lane, Some(&out)).unwrap()
}

/// Builds of the `cpu` backend that differ in their code.
fn builds_of_cpu(num_builds: usize, folder: &Path) -> Vec<PathBuf> {
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let build = |n: usize| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args(["rustc", "--quiet", "--release", "-p", "backend-cpu"]);
        cargo.arg("--target-dir").arg(&target).args(["--lib", "--crate-type", "cdylib", "--"]);
        let units = format!("codegen-units={}", n + 1);
        cargo.args(["-C", "strip=symbols", "-C", &units]);
        assert!(cargo.status().unwrap().success());
        let library = fs::read(target.join("release/libbackend_cpu.so")).unwrap();
        let path = folder.join(format!("cpu-{n}.so"));
        fs::write(&path, seal::seal(Format::Elf, library)).unwrap();
        path
    };
    (0..num_builds).map(build).collect()
}

/// The tokens of the long answer and the digest of each; `before_step` is told how many there are.
fn answer(
    engine: &mut Engine,
    num_tokens: i64,
    mut before_step: impl FnMut(&mut Engine, usize),
) -> (Vec<u32>, Vec<PlanDigest>) {
    let id = engine.submit(request(num_tokens)).unwrap();
    let (mut tokens, mut digests) = (Vec::new(), Vec::new());
    while engine.num_running() > 0 {
        before_step(engine, tokens.len());
        let sink = &mut |output: Output<'_>| match output {
            Output::Token { request, token, digest, .. } if request == id => {
                tokens.push(token);
                digests.push(*digest);
            }
            Output::Finished { error, .. } => assert_eq!(error, None),
            Output::Token { .. } => {}
        };
        engine.step(sink).unwrap();
    }
    (tokens, digests)
}

/// Swaps as often as each entry says while one long answer grows.
fn survives(mut left: Vec<(&str, &str, usize, Make)>) {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(path) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let num_tokens = std::env::var("JACKFIELD_TOKENS").ok().and_then(|n| n.parse().ok());
    let num_tokens: i64 = num_tokens.unwrap_or(220);
    let mut setup = Setup::new("cpu");
    setup.options.context_length_max = 4096;
    let mut engine = setup.load(&path).unwrap();
    let steps_per_swap = (num_tokens as usize / 200).max(1);
    // Whatever memory such answers take is taken before the first swap.
    let (expected, _) = answer(&mut engine, num_tokens, |engine, num_tokens| {
        if num_tokens % (4 * steps_per_swap) == 1 {
            side_request(engine);
        }
    });
    assert!(expected.len() == num_tokens as usize);

    let (mut random, mut swapped) = (Random::new(3), false);
    let id = engine.submit(request(num_tokens)).unwrap();
    let (mut tokens, mut last) = (Vec::new(), None);
    let (mut num_swaps, mut resident) = (0, None);
    let swapper = engine.swapper();
    while engine.num_running() > 0 {
        let is_due = !left.is_empty() && tokens.len() > 10 && random.below(steps_per_swap) == 0;
        if is_due {
            num_swaps += 1;
            if num_swaps == FIRST_SWAPS {
                resident = resident_kib();
            }
            let place = random.below(left.len());
            let (kind, name, times, make) = &mut left[place];
            let made = make(*times);
            swapper.swap(kind, name, made, Duration::ZERO).unwrap();
            swapped = *kind != "logits-processor";
            if !swapped {
                engine.boundary();
                side_request(&mut engine);
            }
            *times -= 1;
            left.retain(|(_, _, times, _)| *times > 0);
        }
        let sink = &mut |output: Output<'_>| match output {
            Output::Token { request, token, digest, .. } if request == id => {
                let is_other = last.replace(*digest).is_some_and(|last| last != *digest);
                assert_eq!(is_other, swapped, "token {} has its swap's digest", tokens.len());
                swapped = false;
                tokens.push(token);
            }
            Output::Finished { error, .. } => assert_eq!(error, None),
            Output::Token { .. } => {}
        };
        engine.step(sink).unwrap();
    }
    let missed: Vec<_> = left.iter().map(|(kind, ..)| kind).collect();
    assert!(missed.is_empty(), "{missed:?} did not happen");
    assert_eq!(tokens, expected);
    swapper.flush();
    if let (Some(before), Some(after)) = (resident, resident_kib()) {
        let change = (after - before).abs() / before;
        assert!(change <= RESIDENT_MAX, "resident: {before} KiB before, {after} KiB after");
    }
}
