//! `jackfield train` from outside: a run, its resumption, damaged checkpoints and data that is none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
"intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
"head_dim": 16, "vocab_size": 256, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
"rope_theta": 10000.0, "tie_word_embeddings": true}"#;

/// A folder with a model, a text and a run of four steps that keeps each.
fn run_in(folder: &Path, text: &[u8], more: &str) -> PathBuf {
    let file = |name: &str| folder.join(name);
    fs::write(file("config.json"), CONFIG).unwrap();
    fs::write(file("text"), text).unwrap();
    let [config, text, kept] = ["config.json", "text", "kept"].map(file);
    let table = format!(
        "[train]\nconfig = {config:?}\ntext = {text:?}\nfolder = {kept:?}\nsteps = 4\n\
         sequence_length = 16\nsequences = 2\ncheckpoint_every = 1\nkeep_last = 9\n{more}\n\
         [plugins]\nlr-schedule = \"constant\"\n"
    );
    fs::write(file("run.toml"), table).unwrap();
    file("run.toml")
}

fn train(folder: &Path, run: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jackfield"))
        .args(["train", "--json", "--config"])
        .arg(run)
        .args(more)
        .env("XDG_CONFIG_HOME", folder)
        .env("XDG_CACHE_HOME", folder)
        .output()
        .expect("the binary runs")
}

/// The last line of a run that went well, and what it said beside.
fn last(output: &Output) -> (serde_json::Value, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8_lossy(&output.stdout);
    (serde_json::from_str(printed.lines().last().unwrap()).unwrap(), said)
}

fn text() -> Vec<u8> {
    // Bytes are tokens, whether they are UTF-8 or not.
    (0..2000_u32).map(|i| (i * i % 251) as u8).collect()
}

#[test]
fn a_run_goes_on_where_its_last_whole_checkpoint_stands() {
    let (folder, other) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let run = run_in(folder.path(), &text(), "");
    let (line, said) = last(&train(folder.path(), &run, &[]));
    assert_eq!(line["step"], 3);
    assert!(!said.contains("goes on"), "{said}");
    let file = |step: u64, name: &str| folder.path().join(format!("kept/step-{step:08}/{name}"));
    // The newest is damaged: the one before is taken, and the run goes on from there.
    fs::write(file(4, "model.safetensors"), "short").unwrap();
    let (resumed, said) = last(&train(folder.path(), &run, &["--steps", "6"]));
    assert!(said.contains("passed over") && said.contains("`model.safetensors` of"), "{said}");
    assert!(said.contains("goes on after step 3 "), "{said}");
    let whole = run_in(other.path(), &text(), "");
    let (whole, _) = last(&train(other.path(), &whole, &["--steps", "6"]));
    for key in ["step", "loss", "grad_norm"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    let model = fs::read(file(6, "model.safetensors")).unwrap();
    assert_eq!(model, fs::read(other.path().join("kept/step-00000006/model.safetensors")).unwrap());
    let (_, said) = last(&train(folder.path(), &run, &["--fresh"]));
    assert!(!said.contains("goes on"), "{said}");
}

#[test]
fn what_cannot_be_trained_on_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    #[rustfmt::skip]
    let cases: [(&[u8], &str, &str); 4] = [
        (b"",          "",                    "expected 17 bytes for a sequence of 16 tokens, found 0"),
        (&[b'a'; 16],  "",                    "expected 17 bytes for a sequence of 16 tokens, found 16"),
        (&[b'a'; 40],  "sequence_lenght = 4", "sequence_lenght"),
        (&[b'a'; 40],  "learning_rate = -1",  "learning_rate"),
    ];
    for (text, more, expected) in cases {
        let run = run_in(folder.path(), text, more);
        let output = train(folder.path(), &run, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{more}: {said}");
        let is_named =
            !more.is_empty() || said.contains(folder.path().join("text").to_str().unwrap());
        assert!(is_named, "{said}");
    }
    let run = run_in(folder.path(), &[b'a'; 40], "");
    fs::remove_file(folder.path().join("text")).unwrap();
    let output = train(folder.path(), &run, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("text"), "{said}");
}

/// The same with lines of examples and the tokenizer of the tiny model, which has 512 tokens.
fn run_on(folder: &Path, lines: &str, more: &str) -> PathBuf {
    let run = run_in(folder, b"", "");
    let file = |name: &str| folder.join(name);
    fs::write(file("config.json"), CONFIG.replace("256", "512")).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    fs::create_dir_all(file("tokenizer")).unwrap();
    fs::copy(golden.join("tiny.tokenizer.json"), file("tokenizer/tokenizer.json")).unwrap();
    fs::write(file("lines.jsonl"), lines).unwrap();
    let data =
        format!("data = {:?}\ntokenizer = {:?}\n{more}\n", file("lines.jsonl"), file("tokenizer"));
    let table = fs::read_to_string(&run).unwrap();
    let is_text = |line: &&str| line.starts_with("text = ");
    let text = table.lines().find(is_text).unwrap();
    fs::write(&run, table.replace(&format!("{text}\n"), &data)).unwrap();
    run
}

/// Every line of a run that went well.
fn printed(output: &Output) -> Vec<serde_json::Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8_lossy(&output.stdout);
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// After how many steps held-out data had which loss.
fn evaluations(output: &Output) -> Vec<(u64, f64)> {
    let lines = printed(output).into_iter().filter(|line| line["evaluation_loss"].is_number());
    lines
        .map(|line| {
            assert!(line["evaluation_tokens"].as_f64().unwrap() > 0.0);
            (line["steps_done"].as_u64().unwrap(), line["evaluation_loss"].as_f64().unwrap())
        })
        .collect()
}

fn manifest(folder: &Path, step: u64) -> serde_json::Value {
    let path = folder.join(format!("kept/step-{step:08}/manifest.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn held_out_data_are_evaluated_on_a_schedule_and_the_best_checkpoint_stays() {
    let folder = tempfile::TempDir::new().unwrap();
    // What is held out is unlike the rest: learning the rest makes it worse.
    let text = [vec![b'a'; 900], (0..100_u32).map(|n| (100 + n * 7 % 90) as u8).collect()].concat();
    let more = "validation = 0.1\nevaluate_every = 2\nlearning_rate = 0.05";
    let run = run_in(folder.path(), &text, more);
    let run_text = fs::read_to_string(&run).unwrap().replace("keep_last = 9", "keep_last = 1");
    fs::write(&run, run_text).unwrap();
    let output = train(folder.path(), &run, &["--steps", "7"]);
    let found = evaluations(&output);
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 2, 4, 6, 7]);
    assert!(found[1].1 < found[4].1, "it gets worse: {found:?}");
    let line = printed(&output).into_iter().rfind(|line| line["loss"].is_number()).unwrap();
    assert!(line["mfu"].as_f64().unwrap() > 0.0, "{line}");
    // The last and the best of those that were evaluated.
    let best = found[1..].iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let mut kept: Vec<u64> = fs::read_dir(folder.path().join("kept"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy()[5..].parse().unwrap())
        .collect();
    kept.sort_unstable();
    assert_eq!(kept, [best.0, 7], "{found:?}");
    let said: f64 =
        manifest(folder.path(), best.0)["evaluation"].as_str().unwrap().parse().unwrap();
    assert_eq!(said, best.1);
    // A hook that watches evaluations ends the run, and what there is then is kept.
    let hook = "[plugin.early-stop]\nwatches = \"evaluations\"\npatience = 1\n";
    let table = fs::read_to_string(&run).unwrap();
    let table = table.replace("[plugins]\n", "[plugins]\nhook = [\"early-stop\"]\n") + hook;
    fs::write(&run, table).unwrap();
    let stopped = train(folder.path(), &run, &["--fresh", "--steps", "40"]);
    let said = String::from_utf8_lossy(&stopped.stderr);
    let end = evaluations(&stopped).last().unwrap().0;
    assert!(said.contains("a hook ended the run") && end < 40, "{said}");
    assert!(said.contains(&format!("step-{end:08}")), "{said}");
    // A file instead of a share; and what cannot be.
    let other = folder.path().join("other");
    fs::write(&other, &text[900..]).unwrap();
    let run = run_in(folder.path(), &text, &format!("validation = {other:?}"));
    let by_file = evaluations(&train(folder.path(), &run, &["--fresh"]));
    assert_eq!((by_file[0].1, by_file.len()), (found[0].1, 5), "{by_file:?}");
    for (more, expected) in [
        ("validation = 1.5", "train.validation: expected a path, or the share"),
        ("validation = 0.001", "held out of"),
        ("evaluate_every = 2", "train.evaluate_every: no such key here"),
    ] {
        let run = run_in(folder.path(), &text, more);
        let output = train(folder.path(), &run, &["--fresh"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{more}: {said}");
    }
}

#[test]
fn a_run_on_examples_goes_on_with_the_same_bits() {
    let line = |n: usize| {
        let prompt = "to be ".repeat(1 + n % 3);
        format!("{{\"prompt\": \"{prompt}\", \"completion\": \" or not {n}\"}}\n")
    };
    let lines: String = (0..17).map(line).collect();
    let (folder, other) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let more = "shuffle = 5\nmicro_batches = 2";
    let run = run_on(folder.path(), &lines, more);
    let (line, said) = last(&train(folder.path(), &run, &["--steps", "5"]));
    assert_eq!(line["step"], 4);
    assert!(said.contains("17 examples of the columns `prompt`, `completion`"), "{said}");
    let (resumed, said) = last(&train(folder.path(), &run, &["--steps", "9"]));
    assert!(said.contains("goes on after step 5 "), "{said}");
    let whole = run_on(other.path(), &lines, more);
    let (whole, _) = last(&train(other.path(), &whole, &["--steps", "9"]));
    for key in ["step", "loss", "grad_norm"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    let model = |folder: &Path| fs::read(folder.join("kept/step-00000009/model.safetensors"));
    assert_eq!(model(folder.path()).unwrap(), model(other.path()).unwrap());
    // Another line is another run.
    let run = run_on(folder.path(), &lines.replace(" 16", " 61"), more);
    let (_, said) = last(&train(folder.path(), &run, &[]));
    assert!(said.contains("its configuration is another"), "{said}");
}

/// The tiny model as a folder, and lines of text, every fourth of which is held out.
fn tiny_in(folder: &Path) -> (PathBuf, String, String) {
    let model = folder.join("tiny");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::create_dir_all(&model).unwrap();
    for name in ["config.json", "safetensors", "tokenizer.json"] {
        let to = if name == "safetensors" { "model.safetensors" } else { name };
        fs::copy(root.join(format!("tests/golden/tiny.{name}")), model.join(to)).unwrap();
    }
    let text = fs::read_to_string(root.join("plugin-api/tests/training/text.txt")).unwrap();
    let (mut learnt, mut held_out) = (String::new(), String::new());
    let words: Vec<&str> = text.split_whitespace().collect();
    for (n, words) in words.chunks(8).enumerate() {
        let to = if n % 4 == 3 { &mut held_out } else { &mut learnt };
        to.push_str(&serde_json::json!({"text": words.join(" ")}).to_string());
        to.push('\n');
    }
    (model, learnt, held_out)
}

/// A run of twelve steps from that model.
fn run_from(folder: &Path, lines: &str, held_out: &str, more: &str, plugins: &str) -> PathBuf {
    let (model, ..) = tiny_in(folder);
    let file = |name: &str| folder.join(name);
    fs::write(file("lines.jsonl"), lines).unwrap();
    fs::write(file("held_out.jsonl"), held_out).unwrap();
    let [data, held_out, kept] = ["lines.jsonl", "held_out.jsonl", "kept"].map(file);
    let table = format!(
        "[train]\nmodel = {model:?}\ndata = {data:?}\nvalidation = {held_out:?}\nfolder = {kept:?}\n\
         steps = 12\nsequence_length = 32\nsequences = 4\ncheckpoint_every = 6\nlearning_rate = 3e-3\n\
         {more}\n[plugins]\nlr-schedule = \"constant\"\n{plugins}\n"
    );
    fs::write(file("run.toml"), table).unwrap();
    file("run.toml")
}

#[test]
fn an_adapter_is_trained_beside_a_model_resumed_and_served() {
    let (folder, other) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let (_, learnt, held_out) = tiny_in(folder.path());
    let more = "adapter = { r = 4, alpha = 16, targets = [\"q_proj\", \"v_proj\", \"down_proj\"] }";
    let run = run_from(folder.path(), &learnt, &held_out, more, "");
    let output = train(folder.path(), &run, &[]);
    let losses = evaluations(&output);
    assert_eq!(losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 6, 12]);
    assert!(losses[2].1 < losses[0].1 - 0.05, "{losses:?}");
    let kept = folder.path().join("kept/step-00000012");
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(kept.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&4.into(), &16.0.into()));
    assert!(!kept.join("model.safetensors").exists());
    // Resumed from the sixth step it has the same bits.
    let weights =
        |folder: &Path| fs::read(folder.join("kept/step-00000012/adapter_model.safetensors"));
    let run_again = run_from(other.path(), &learnt, &held_out, more, "");
    train(other.path(), &run_again, &["--steps", "6"]);
    // Another run if it is named after another folder: the model is the same, so it is not.
    let resumed = train(other.path(), &run_again, &[]);
    assert!(last(&resumed).1.contains("goes on after step 6"), "{:?}", last(&resumed).1);
    assert_eq!(weights(folder.path()).unwrap(), weights(other.path()).unwrap());
    // Served beside the model it says something else than the model alone.
    let served = |adapter: &str| {
        let config = folder.path().join("serve.toml");
        fs::write(&config, format!("[engine]\n{adapter}\n")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_jackfield"))
            .args(["generate", "--raw", "--greedy", "--max-tokens", "12", "--config"])
            .arg(&config)
            .arg("--model")
            .arg(folder.path().join("tiny"))
            .arg("First Citizen")
            .env("XDG_CONFIG_HOME", folder.path())
            .env("XDG_CACHE_HOME", folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert!(served("") != served(&format!("adapter = {kept:?}")), "the adapter says something");
}

#[test]
fn all_parameters_of_a_model_are_trained_and_its_checkpoint_is_a_model() {
    let folder = tempfile::TempDir::new().unwrap();
    let (_, learnt, held_out) = tiny_in(folder.path());
    let run = run_from(folder.path(), &learnt, &held_out, "", "");
    let losses = evaluations(&train(folder.path(), &run, &[]));
    assert!(losses[2].1 < losses[0].1 - 0.2, "{losses:?}");
    let kept = folder.path().join("kept/step-00000012");
    let table = fs::read_to_string(&run).unwrap();
    let model = format!("{:?}", folder.path().join("tiny"));
    let again = table.replace(&model, &format!("{kept:?}")).replace("kept\"", "again\"");
    fs::write(&run, again).unwrap();
    let again = evaluations(&train(folder.path(), &run, &["--steps", "1"]));
    assert!((again[0].1 - losses[2].1).abs() < 1e-6, "it begins where the other ended: {again:?}");
    #[rustfmt::skip]
    let cases = [
        ("adapter = { rank = 4 }",             "train.adapter.rank: expected one of r, alpha"),
        ("adapter = { targets = [\"x_proj\"] }", "target `x_proj` of the adapter"),
        ("config = \"config.json\"",           "expected one of the keys `config` and `model`, found both"),
    ];
    for (more, expected) in cases {
        let run = run_from(folder.path(), &learnt, &held_out, more, "");
        let output = train(folder.path(), &run, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{more}: {said}");
    }
}

#[test]
fn preferences_are_learnt_against_the_model_that_the_run_began_with() {
    let folder = tempfile::TempDir::new().unwrap();
    let line = |n: usize| {
        let (good, bad) = (["lord", "king"][n % 2], ["thief", "knave"][n / 2 % 2]);
        serde_json::json!({"prompt": "My ", "chosen": format!("{good} {n}"), "rejected": bad})
    };
    let lines =
        |from: usize| (from..from + 8).map(|n| format!("{}\n", line(n))).collect::<String>();
    for (objective, more) in
        [("dpo", "adapter = { r = 4 }\nlearning_rate = 0.01"), ("dpo", ""), ("reward-model", "")]
    {
        let plugins = format!("objective = \"{objective}\"");
        let mut run = run_from(folder.path(), &lines(0), &lines(8), more, &plugins);
        if more.contains("learning_rate") {
            let table = fs::read_to_string(&run).unwrap();
            fs::write(&run, table.replace("learning_rate = 3e-3\n", "")).unwrap();
            run = folder.path().join("run.toml");
        }
        let losses = evaluations(&train(folder.path(), &run, &["--fresh"]));
        if objective == "dpo" {
            let undecided = std::f64::consts::LN_2;
            assert!((losses[0].1 - undecided).abs() < 1e-5, "it begins undecided: {losses:?}");
        }
        assert!(losses[2].1 < losses[0].1 - 0.05, "{objective}, {more}: {losses:?}");
    }
    #[rustfmt::skip]
    let cases = [
        (lines(0),                      "objective = \"causal-lm\"", "expected an objective that compares two answers"),
        ("{\"text\": \"a b c\"}\n".into(), "objective = \"dpo\"",       "expected preferences, for an objective"),
    ];
    for (lines, plugins, expected) in cases {
        let run = run_from(folder.path(), &lines, &lines, "", plugins);
        let output = train(folder.path(), &run, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{plugins}: {said}");
    }
}

#[test]
fn examples_that_cannot_be_trained_on_are_named() {
    let folder = tempfile::TempDir::new().unwrap();
    #[rustfmt::skip]
    let cases = [
        ("{\"text\": \"a\"}\n{\"text\": 1}\n", "",                   "lines.jsonl:2: expected text in `text`, found a number"),
        ("",                                     "",                   "lines.jsonl: expected a line with an example, found an empty file"),
        ("{\"text\": \"a\"}\n",                  "shuffle = 0",        "train.shuffle"),
        ("{\"text\": \"a\"}\n",                  "too_long = \"no\"",  "train.too_long: expected one of cut, refuse"),
        ("{\"text\": \"a\"}\n",                  "text = \"also\"",    "expected one of the keys `text` and `data`, found both"),
        ("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}\n", "", "lines.jsonl:1: expected text: the model has no chat template"),
    ];
    for (lines, more, expected) in cases {
        let run = run_on(folder.path(), lines, more);
        let output = train(folder.path(), &run, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{expected}: {said}");
    }
    // A tokenizer with more tokens than the model.
    let run = run_on(folder.path(), "{\"text\": \"a\"}\n", "");
    fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    let output = train(folder.path(), &run, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("expected at most the 256 tokens of the model, found 512"), "{said}");
}

#[test]
fn config_check_reads_the_table_train() {
    let folder = tempfile::TempDir::new().unwrap();
    for (more, expected) in [("", "no mistakes"), ("shufle = 4", "train.shufle: no such key here")]
    {
        let run = run_on(folder.path(), "{\"text\": \"a\"}\n", more);
        let output = Command::new(env!("CARGO_BIN_EXE_jackfield"))
            .args(["config", "check", "--config"])
            .arg(&run)
            .env("XDG_CONFIG_HOME", folder.path())
            .env("XDG_CACHE_HOME", folder.path())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(expected), "{said}");
        assert_eq!(output.status.success(), more.is_empty(), "{said}");
    }
}

/// A minute or two, and 2 GiB: a real model, its own tokenizer and chat template, the README of this project.
#[test]
#[ignore = "minutes, and a model that has to be in JACKFIELD_MODELS: an adapter of SmolLM2-135M"]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the losses are what the run is for")]
fn an_adapter_of_a_real_model_lowers_the_loss_of_held_out_conversations() {
    let name = "SmolLM2-135M-Instruct";
    let folder = std::env::var_os("JACKFIELD_MODELS").map(PathBuf::from).unwrap_or_default();
    let model = folder.join(name).join(format!("{name}.Q4_1.gguf"));
    if !model.is_file() {
        return eprintln!("SKIP {}: `jackfield model pull {name}`", model.display());
    }
    let folder = tempfile::TempDir::new().unwrap();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let paragraphs = readme.split("\n\n").filter(|text| text.len() > 120 && !text.contains("```"));
    let (mut learnt, mut held_out) = (String::new(), String::new());
    for (n, text) in paragraphs.enumerate() {
        let words: Vec<&str> = text.split_whitespace().take(60).collect();
        let (begin, rest) = words.split_at(words.len() / 3);
        let messages = serde_json::json!([
            {"role": "user", "content": format!("Go on: {}", begin.join(" "))},
            {"role": "assistant", "content": rest.join(" ")},
        ]);
        let to = if n % 4 == 3 { &mut held_out } else { &mut learnt };
        to.push_str(&format!("{}\n", serde_json::json!({"messages": messages})));
    }
    let file = |name: &str| folder.path().join(name);
    fs::write(file("learnt.jsonl"), learnt).unwrap();
    fs::write(file("held_out.jsonl"), held_out).unwrap();
    let table = format!(
        "[train]\nmodel = {model:?}\ndata = {:?}\nvalidation = {:?}\nfolder = {:?}\nsteps = 16\n\
         sequence_length = 128\nsequences = 2\nlearning_rate = 1e-3\n\
         adapter = {{ r = 8, alpha = 16, targets = [\"q_proj\", \"v_proj\"] }}\n\
         [plugins]\nlr-schedule = \"constant\"\n",
        file("learnt.jsonl"),
        file("held_out.jsonl"),
        file("kept"),
    );
    fs::write(file("run.toml"), table).unwrap();
    let output = train(folder.path(), &file("run.toml"), &[]);
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    let losses = evaluations(&output);
    assert!(losses.last().unwrap().1 < losses[0].1 - 0.05, "{losses:?}");
    assert!(file("kept/step-00000016/adapter_model.safetensors").exists());
}

const PROMPTS: &str = "{\"prompt\": \"the sea\"}\n{\"prompt\": \"my lord\"}\n{\"prompt\": \"a\"}\n";

/// A run whose model answers prompts itself.
fn rated_in(folder: &Path) -> PathBuf {
    let run = run_on(folder, PROMPTS, "micro_batches = 2\nlearning_rate = 0.01");
    let table = fs::read_to_string(&run).unwrap();
    let plugins = "[plugins]\nobjective = \"grpo\"\nreward = [\"keywords\", \"length\"]\n";
    let tables =
        "\n[plugin.keywords]\nwords = [\"e\", \"a\"]\n[plugin.length]\ntarget_tokens = 9\n";
    fs::write(&run, table.replace("[plugins]\n", plugins) + tables).unwrap();
    run
}

#[test]
fn a_model_learns_from_answers_of_its_own() {
    let (folder, other) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let run = rated_in(folder.path());
    let (line, _) = last(&train(folder.path(), &run, &[]));
    assert!(line["reward"].is_f64() && line["answer_tokens"].as_f64().unwrap() >= 1.0, "{line}");
    let (resumed, said) = last(&train(folder.path(), &run, &["--steps", "6"]));
    assert!(said.contains("goes on after step 4"), "{said}");
    let whole = rated_in(other.path());
    let (whole, _) = last(&train(other.path(), &whole, &["--steps", "6"]));
    for key in ["step", "loss", "reward", "answer_tokens"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    // A checkpoint is a model that is served.
    assert!(folder.path().join("kept/step-00000006/tokenizer.json").exists());
}

#[test]
fn prompts_and_what_learns_from_rewards_belong_together() {
    let folder = tempfile::TempDir::new().unwrap();
    let said = |run: &Path| {
        let output = train(folder.path(), run, &[]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let run = run_on(folder.path(), PROMPTS, "");
    let none = said(&run);
    assert!(none.contains("plugins.reward: expected at least one plugin"), "{none}");
    let run = rated_in(folder.path());
    let table = fs::read_to_string(&run).unwrap();
    fs::write(&run, table.replace("objective = \"grpo\"\n", "")).unwrap();
    let other = said(&run);
    assert!(other.contains("an objective that learns from rewards, for prompts"), "{other}");
    fs::write(&run, table.replace("[train]\n", "[train]\nvalidation = \"lines.jsonl\"\n")).unwrap();
    let held_out = said(&run);
    assert!(held_out.contains("train.validation: expected none beside prompts"), "{held_out}");
    let run = run_on(folder.path(), "{\"text\": \"a\"}\n", "");
    let table = fs::read_to_string(&run).unwrap();
    fs::write(&run, table.replace("[plugins]\n", "[plugins]\nobjective = \"grpo\"\n")).unwrap();
    let text = said(&run);
    assert!(text.contains("prompts, for an objective that learns from rewards"), "{text}");
}
