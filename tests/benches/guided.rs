//! What a grammar costs a token: telling the plugin `guided` the token and computing the mask of the next one,
//! over answers in the tokens of real models.
//!
//! Run as `cargo bench -p jackfield-tests --bench guided`. Compiling a grammar is measured apart: once a request.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

use std::sync::Arc;
use std::time::Instant;

use jackfield_engine::model::{ModelFiles, Tokenizer};
use jackfield_loader::{Grants, Services};
use jackfield_tests::{Setup, quantile, real_model};
use plugin_api::kinds::logits_processor::{BatchChange, RowId};
use plugin_api::{Config, LogitsProcessor, Tokens, Vocabulary};

/// Times that each answer is followed.
const ROUNDS: usize = 40;

const MODELS: [(&str, &str); 2] = [
    ("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ("qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
];

/// A name, a parameter with a grammar, and an answer that it allows.
const CASES: [(&str, &str, &str, &str); 3] = [
    (
        "JSON Schema",
        "guided_json",
        r#"{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0,
            "maximum": 150}, "address": {"type": "object", "properties": {"street": {"type": "string"}, "city":
            {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required": ["street", "city", "zip"]},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}}}, "required": ["name", "age", "address",
            "tags"], "additionalProperties": false}"#,
        r#"{"name": "Grace Brewster Murray Hopper, rear admiral", "age": 85, "address": {"street": "12 Long Lane, behind the old mill", "city": "Arlington", "zip": "22202"}, "tags": ["red", "blue", "green"]}"#,
    ),
    (
        "any JSON",
        "guided_json",
        "{}",
        r#"{"kind": "list", "items": [{"id": 1, "text": "One fine day in the middle of the night"}, {"id": 2, "ok": false, "score": -1.5e3}], "next": null}"#,
    ),
    (
        "regular expression",
        "guided_regex",
        r"[A-Z][a-z]+( [A-Za-z]+)*: (\+\d{1,3} )?\d{3}-\d{4}",
        "Grace Brewster Murray Hopper: +44 555-0199",
    ),
];

/// A model of which there is only this.
struct Lent(Tokenizer);

impl Tokens for Lent {
    fn vocabulary(&self) -> Arc<Vocabulary> {
        Arc::new(self.0.vocabulary())
    }

    fn encode(&self, text: &str) -> plugin_api::Result<Vec<u32>> {
        Ok(self.0.encode_within(text))
    }
}

fn main() {
    println!(
        "model, grammar                                   tokens   compile ms   mask us p50     p90     p99     max"
    );
    for (name, file) in MODELS {
        let Some(path) = real_model(name, file) else { continue };
        let lent = Arc::new(Lent(ModelFiles::open(&path).unwrap().tokenizer().unwrap()));
        let setup = Setup::new("null");
        let mut guided =
            setup.registry.make::<dyn LogitsProcessor>("guided", &Config::new()).unwrap();
        let tokens: Arc<dyn Tokens> = Arc::clone(&lent) as _;
        let services = Services::new();
        let before = Instant::now();
        guided.open(&services.host_beside("guided", Grants::for_builtin(), &tokens)).unwrap();
        println!("{name}: {} tokens, opened in {:.0} ms", lent.0.vocab_size(), ms(before));
        for (grammar, key, source, answer) in CASES {
            let params = Config::new().with(key, source);
            let label = format!("{name}, {grammar}");
            run(&mut *guided, &lent.0, &params, answer, &label);
        }
    }
}

fn run(
    guided: &mut dyn LogitsProcessor,
    tokenizer: &Tokenizer,
    params: &Config,
    answer: &str,
    label: &str,
) {
    let (row, tokens) = (RowId(0), tokenizer.encode(answer, false));
    let (mut compile, mut masks) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = Instant::now();
        guided.batch(&BatchChange::Added { row, params, history: &[1] }).unwrap();
        compile.push(ms(before));
        for &token in &tokens {
            let before = Instant::now();
            guided.batch(&BatchChange::Advanced { row, token }).unwrap();
            masks.push(ms(before) * 1e3);
        }
        guided.batch(&BatchChange::Removed { row }).unwrap();
    }
    let at = |q| quantile(&masks, q);
    println!(
        "{label:<48} {:>6} {:>12.2} {:>13.1} {:>7.1} {:>7.1} {:>7.1}",
        tokens.len(),
        quantile(&compile, 0.5),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
    );
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
