//! Every plugin of the tree, as a file for each lane that its kind has, passes `plugin check`.
//!
//! The first plugin of each kind always; all of them, with a table of what each of them took, by
//! `cargo test -p jackfield --test in_tree -- --ignored --nocapture`: a few minutes where nothing
//! is built yet, most of it for the backend `candle`; later runs only build what was edited.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

/// Kinds that have the lanes builtin and native only.
const NATIVE_ONLY: [&str; 3] = ["backend", "compressor", "kv-cache"];

/// Plugins that need a device, which is not there everywhere.
const WITH_A_DEVICE: [&str; 1] = ["cuda"];

/// Plugins with so much below them that they take minutes to build.
const HEAVY: [&str; 3] = ["candle", "cuda", "guided"];

/// Plugins that libraries may not be: their checks run as tests of their own.
const BUILTIN_ONLY: [&str; 1] = ["tiered"];

/// Plugins that cannot do without the tokens of the model, which components are not lent.
const WITH_TOKENS: [&str; 2] = ["chain-of-thought", "self-consistency"];

/// Keys that a plugin cannot do without, or that make it act on a request.
#[rustfmt::skip]
const CONFIG: [(&str, &str); 18] = [
    ("chain-of-thought",   "max_reasoning_tokens=0"),
    ("chain-of-thought",   "answer_trigger=\"\""),
    ("keywords",           "words=[\"a\", \"bc\"]"),
    ("linear",             "rope_scaling={factor = 4.0}"),
    ("llama3",             "rope_scaling={factor = 8.0, low_freq_factor = 1.0, high_freq_factor = 4.0, original_max_position_embeddings = 8192}"),
    ("logit-bias",         "logit_bias={\"3\" = -5.0, \"62\" = 100}"),
    ("longrope",           "rope_scaling={original_max_position_embeddings = 64, factor = 8.0, long_factor = 2.0, short_factor = 1.0}"),
    ("metrics-jsonl",      "path=metrics.jsonl"),
    ("min-p",              "min_p=0.3"),
    ("ntk",                "rope_scaling={factor = 4.0}"),
    ("occurrence-penalty", "presence_penalty=0.5"),
    ("repetition-penalty", "repetition_penalty=1.3"),
    ("speculative",        "draft_cost=0.25"),
    ("stop-words",         "stop=[\"a\", \"bc\"]"),
    ("temperature",        "temperature=0.7"),
    ("top-k",              "top_k=3"),
    ("top-p",              "top_p=0.8"),
    ("yarn",               "rope_scaling={factor = 4.0, original_max_position_embeddings = 64}"),
];

#[test]
fn one_plugin_of_each_kind_passes_its_check_in_each_lane() {
    let mut kinds = BTreeSet::new();
    let light = plugins().into_iter().filter(|plugin| !HEAVY.contains(&plugin.name.as_str()));
    let firsts: Vec<Plugin> = light.filter(|plugin| kinds.insert(plugin.kind.clone())).collect();
    assert_eq!(kinds.len(), 24, "{kinds:?}");
    pass(&firsts);
}

#[test]
#[ignore = "minutes: see the top of the file"]
fn all_in_tree_pass_their_check_in_each_lane() {
    let is_file = |plugin: &Plugin| !BUILTIN_ONLY.contains(&plugin.name.as_str());
    let all: Vec<Plugin> = plugins().into_iter().filter(is_file).collect();
    assert!(all.len() >= 40, "{} plugins", all.len());
    pass(&all);
}

/// A plugin's folder.
struct Plugin {
    folder: PathBuf,
    kind: String,
    name: String,
}

/// Those of the tree, by kind and name.
fn plugins() -> Vec<Plugin> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).unwrap();
    let within = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let kinds = within(&root.join("plugins"));
    let folders = kinds.iter().flat_map(|kind| within(kind)).chain(within(&root.join("backends")));
    let with_manifest = folders.filter(|folder| folder.join("plugin.toml").is_file());
    let plugin = |folder: PathBuf| {
        let manifest = std::fs::read_to_string(folder.join("plugin.toml")).unwrap();
        let value = |key: &str| {
            let mut lines = manifest.lines();
            let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.unwrap().trim_matches('"').to_owned()
        };
        Plugin { kind: value("kind"), name: value("name"), folder }
    };
    with_manifest.map(plugin).collect()
}

/// Builds and checks each in its lanes, prints what came of it, and fails if one did not pass.
#[allow(clippy::print_stdout, reason = "the table is what the run is for")]
fn pass(plugins: &[Plugin]) {
    let folder = tempfile::tempdir().unwrap();
    let (mut mistakes, mut num_passed) = (Vec::new(), 0);
    println!("{:44} {:>8} {:>8}", "kind/name, lane", "build s", "check s");
    for plugin in plugins {
        for lane in ["native", "wasm"] {
            let label = format!("{}/{} {lane}", plugin.kind, plugin.name);
            let start = Instant::now();
            let built = build(plugin, lane, folder.path());
            if lane == "wasm" && NATIVE_ONLY.contains(&plugin.kind.as_str()) {
                let said = built.err().unwrap_or_default();
                assert!(said.contains("lanes builtin and native only"), "{label}: {said}");
                continue;
            }
            let file = built.unwrap_or_else(|said| panic!("{label}: {said}"));
            let built_s = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let failed = failed(plugin, &file);
            let checked_s = start.elapsed().as_secs_f64();
            let name = plugin.name.as_str();
            let may_lack =
                WITH_A_DEVICE.contains(&name) || (lane == "wasm" && WITH_TOKENS.contains(&name));
            let verdict = match &failed[..] {
                [] => "passed".to_owned(),
                failed if may_lack && failed[0].starts_with("init:") => {
                    format!("SKIP {}", failed[0])
                }
                failed => failed.join("; "),
            };
            println!("{label:44} {built_s:8.1} {checked_s:8.1} {verdict}");
            num_passed += usize::from(failed.is_empty());
            if !["passed", "SKIP"].iter().any(|fine| verdict.starts_with(fine)) {
                mistakes.push(format!("{label}: {verdict}"));
            }
        }
    }
    println!("{num_passed} passed");
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

/// The file, or what the command said.
fn build(plugin: &Plugin, lane: &str, folder: &Path) -> Result<PathBuf, String> {
    let file = folder.join(format!("{}.{lane}", plugin.name));
    let mut command = jackfield(&["plugin", "build", "--lane", lane, "--out"]);
    let output = command.arg(&file).arg(&plugin.folder).output().unwrap();
    if output.status.success() { Ok(file) } else { Err(text(&output)) }
}

/// The checks that failed, each with its message.
fn failed(plugin: &Plugin, file: &Path) -> Vec<String> {
    let mut command = jackfield(&["--json", "plugin", "check"]);
    let config = CONFIG.iter().filter(|(name, _)| *name == plugin.name);
    command.args(config.flat_map(|(_, config)| ["--config", config])).arg(file);
    let output = command.output().unwrap();
    let said = text(&output);
    let verdict: Value = serde_json::from_str(said.lines().next().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{}: {error}: {said}", file.display()));
    let checks = verdict["checks"].as_array().unwrap();
    assert!(!checks.is_empty());
    let failed = checks.iter().filter(|check| check["passed"] == false);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let failed: Vec<_> = failed
        .map(|check| format!("{}: {}", text(&check["name"]), text(&check["message"])))
        .collect();
    assert_eq!(output.status.success(), failed.is_empty(), "{said}");
    failed
}

/// All are built into one folder, so that what they share is compiled once.
fn jackfield(args: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackfield"));
    command.args(args).env_remove("RUSTFLAGS");
    command.env("CARGO_TARGET_DIR", test.ancestors().nth(3).unwrap().join("plugin-build"));
    command
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}
