//! The compatibility matrix: what becomes of a running answer when a part of the engine is replaced by another of its kind, for
//! every pair of plugins that there is, and for every two kinds that change together.
//!
//! `host/engine/docs/compatibility.md` is written from what happens here: `BLESS=1 cargo test -p jackfield-tests --test swap matrix`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use jackfield_engine::{Engine, Request};
use jackfield_runtime::{Reach, SwapError, SwapTarget as _};
use jackfield_tests::{Setup, answer, golden, root, tiny_model};
use plugin_api::Config;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Token, member, of, request, step, swap};

const TOKENS: i64 = 24;
const FILE: &str = "host/engine/docs/compatibility.md";

/// Plugins that are not built everywhere.
const OPTIONAL: [&str; 2] = ["candle", "cuda"];

/// Kinds that all requests share, and the model that a plugin of the kind fills a slot of.
const KINDS: [(&str, &str); 10] = [
    ("backend", "tiny"),
    ("kv-cache", "tiny"),
    ("scheduler", "tiny"),
    ("quantizer", "tiny"),
    ("norm", "tiny"),
    ("residual", "tiny"),
    ("rotary-embedding", "tiny"),
    ("mixer", "tiny"),
    ("feed-forward", "tiny"),
    ("moe-router", "tiny_mixtral"),
];

/// The model, with everything in its files that any rotary embedding asks for.
fn folder_of(kind: &str, model: &str) -> TempDir {
    let folder = tiny_model(model);
    if kind == "rotary-embedding" {
        let read = |path: &Path| -> Value {
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let path = folder.path().join("config.json");
        let mut config = read(&path);
        let mut scaling = read(&golden("tiny_longrope.config.json"))["rope_scaling"].clone();
        for (key, value) in [("factor", 4.0), ("low_freq_factor", 1.0), ("high_freq_factor", 4.0)] {
            scaling[key] = json!(value);
        }
        scaling["original_max_position_embeddings"] = json!(64);
        config["rope_scaling"] = scaling;
        std::fs::write(&path, config.to_string()).unwrap();
    }
    folder
}

/// The default engine with `name` of a kind.
fn setup(kind: &str, name: &str) -> Setup {
    let setup = Setup::new("cpu").set("cpu", "threads", 1);
    if kind == "quantizer" { setup } else { setup.with(kind, name) }
}

fn prompt() -> Request {
    request(TOKENS)
}

/// What a cell says.
fn cell(kind: &str, model: &str, from: &str, to: &str) -> String {
    let (here, folder) = (setup(kind, from), folder_of(kind, model));
    let load = || here.load(folder.path());
    let mut engine = match load() {
        Ok(engine) => engine,
        Err(error) => {
            // Files stand in another folder in every run.
            let here = folder.path().display().to_string();
            let error = error.to_string().replace(&here, "the model");
            return format!("no engine with `{from}`: {}", first_line(&error));
        }
    };
    let expected = answer(&mut engine, prompt()).1;
    let mut engine = load().unwrap();
    let id = engine.submit(prompt()).unwrap();
    let mut tokens = Vec::<Token>::new();
    while tokens.len() < TOKENS as usize / 3 {
        step(&mut engine, &mut tokens);
    }
    let swapped = swap(&engine, &here, kind, to);
    let reach = match swapped {
        Ok(_) => settled(&mut engine, &mut tokens, kind),
        Err(error) => {
            finish(&mut engine, &mut tokens);
            assert_eq!(of(&tokens, id), expected, "{kind} {from} to {to}: refused, and seen");
            return refusal(&error);
        }
    };
    let later = engine.submit(prompt()).unwrap();
    finish(&mut engine, &mut tokens);
    let same = of(&tokens, id) == expected;
    match reach {
        Reach::NewRequests => {
            assert!(same, "{kind} {from} to {to}: a running answer has changed");
            let other = setup(kind, to).load(folder.path());
            if let Ok(mut other) = other {
                let alone = answer(&mut other, prompt()).1;
                assert_eq!(of(&tokens, later), alone, "{kind} {from} to {to}: of a new request");
            }
            "new requests".to_owned()
        }
        _ if same => "at once, same text".to_owned(),
        _ => "at once, other rounding".to_owned(),
    }
}

/// Steps until the swap has been taken in, and from when on it counts.
fn settled(engine: &mut Engine, tokens: &mut Vec<Token>, kind: &str) -> Reach {
    step(engine, tokens);
    let statuses = engine.swapper().slots();
    let is_draining = statuses.iter().any(|s| s.kind == kind && !s.draining.is_empty());
    if is_draining { Reach::NewRequests } else { Reach::MidStream }
}

fn finish(engine: &mut Engine, tokens: &mut Vec<Token>) {
    while engine.num_running() > 0 {
        step(engine, tokens);
    }
}

/// Why, without what stands for this model only.
fn refusal(error: &SwapError) -> String {
    let why = match error {
        SwapError::Differs { what, .. } => what.clone(),
        SwapError::Plugin { source, .. } => first_line(&source.to_string()),
        SwapError::UnknownSlot { .. } => "no slot is filled with it".to_owned(),
        other => first_line(&other.to_string()),
    };
    format!("refused: {why}")
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().replace('|', "/");
    match line.char_indices().nth(90) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Plugins of a kind that the page knows, and all of them where it is written again: a new plugin is no edit elsewhere.
fn names(kind: &str, written: &str) -> Vec<String> {
    let setup = Setup::new("cpu");
    let section = written.split("\n### ").find(|section| section.starts_with(kind));
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words: BTreeSet<&str> = section.unwrap_or_default().split(|c| !is_word(c)).collect();
    let is_told = |name: &&str| !OPTIONAL.contains(name) && (is_blessed() || words.contains(name));
    setup.registry.names(kind).filter(is_told).map(str::to_owned).collect()
}

fn is_blessed() -> bool {
    std::env::var_os("BLESS").is_some()
}

fn matrix_of(kind: &str, model: &str, written: &str) -> String {
    let names = names(kind, written);
    let mut text = format!("\n### {kind}\n\n| from | to | a running answer |\n|---|---|---|\n");
    // A model has the formats that its files have.
    for from in names.iter().filter(|name| kind != "quantizer" || *name == "f32") {
        // Cells that say the same stand together.
        let mut told = BTreeMap::<String, Vec<&str>>::new();
        for to in &names {
            told.entry(cell(kind, model, from, to)).or_default().push(to);
        }
        for (what, to) in told {
            writeln!(text, "| {from} | {} | {what} |", to.join(", ")).unwrap();
        }
    }
    text
}

/// Two kinds that change at one boundary, each for another generation of the plugin that there was.
fn together(first: &str, second: &str) -> String {
    let (setup, folder) = (Setup::new("cpu").set("cpu", "threads", 1), tiny_model("tiny"));
    let mut engine = setup.load(folder.path()).unwrap();
    let expected = answer(&mut engine, prompt()).1;
    let id = engine.submit(prompt()).unwrap();
    let mut tokens = Vec::<Token>::new();
    while tokens.len() < TOKENS as usize / 3 {
        step(&mut engine, &mut tokens);
    }
    let active = |kind: &str| {
        let statuses = engine.swapper().slots();
        statuses.into_iter().find(|s| s.kind == kind).map(|s| s.active.name)
    };
    let set =
        [first, second].map(|kind| member(&setup, kind, &active(kind).unwrap(), &Config::new()));
    let swapped = engine.swapper().swap_all(set.into(), std::time::Duration::ZERO);
    let said = match swapped {
        Ok(_) => "at once, same text".to_owned(),
        Err(error) => refusal(&error),
    };
    finish(&mut engine, &mut tokens);
    assert_eq!(of(&tokens, id), expected, "{first} and {second}");
    said
}

fn pairs() -> String {
    let setup = Setup::new("cpu");
    let engine = setup.load(tiny_model("tiny").path()).unwrap();
    let mut kinds: Vec<String> = engine.swapper().slots().into_iter().map(|s| s.kind).collect();
    kinds.sort();
    kinds.dedup();
    let of_requests = ["decoding-strategy", "logits-processor"];
    let is_told = |kind: &str| KINDS.iter().any(|(known, _)| *known == kind);
    kinds.retain(|kind| is_told(kind) || of_requests.contains(&kind.as_str()));
    let mut told = BTreeMap::<String, Vec<String>>::new();
    for (i, first) in kinds.iter().enumerate() {
        for second in &kinds[i + 1..] {
            told.entry(together(first, second)).or_default().push(format!("{first} with {second}"));
        }
    }
    let mut text = String::new();
    for (what, pairs) in told {
        writeln!(text, "* **{what}**: {}.", pairs.join(", ")).unwrap();
    }
    text
}

#[test]
fn the_matrix_is_what_happens() {
    let path = root().join(FILE);
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let mut text = HEAD.to_owned();
    for (kind, model) in KINDS {
        text += &matrix_of(kind, model, &written);
    }
    text += TOGETHER;
    text += &pairs();
    if is_blessed() {
        std::fs::write(&path, &text).unwrap();
        return;
    }
    let other = text.lines().zip(written.lines()).find(|(found, written)| found != written);
    assert!(text == written, "{FILE}: write it again with BLESS=1: {other:?}");
}

const HEAD: &str = "# What may be swapped for what

Written by a test, from what happens when a plugin is replaced while an answer of a tiny model is running: `BLESS=1 cargo test -p
jackfield-tests --test swap matrix`. A refused swap changes nothing: the answer is compared with one that nobody disturbed.

* **at once, same text**: the next token is made by the new plugin, and the answer is bit for bit what it would have been.
* **at once, other rounding**: likewise, but it sums in another order; a choice between two tokens that are nearly as likely may differ.
* **new requests**: running answers keep what they began with, bit for bit; new ones are those of an engine that was loaded with the new
  plugin.
* **refused**: with what does not fit. Load the model again.

A plugin that is newer than the page is told of when the page is written again. Logits processors and decoding strategies always count for new requests. Adapters are exchanged by folder, for new requests.

## One kind
";

const TOGETHER: &str = "
## Two kinds at one boundary

Each for another generation of its own plugin, in one set.

";
