//! What is done with a trained model, from outside: listed, verified, written for others, evaluated, merged with an adapter.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use jackfield_engine::train::{Lora, Parameters};
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
"intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
"head_dim": 16, "vocab_size": 256, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
"rope_theta": 10000.0, "tie_word_embeddings": true}"#;

const TEXT: &str =
    "The studio was quiet when the engineer came in. She moved one cable, and listened.\n";

fn jackfield(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jackfield"))
        .args(args)
        .current_dir(folder)
        .env("XDG_CONFIG_HOME", folder)
        .env("XDG_CACHE_HOME", folder)
        .env_remove("JACKFIELD_MODEL")
        .env_remove("JACKFIELD_CONFIG")
        .output()
        .expect("the binary runs")
}

/// What went well and printed.
fn printed(folder: &Path, args: &[&str]) -> String {
    let output = jackfield(folder, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let printed = printed(folder, args);
    serde_json::from_str(printed.lines().last().unwrap()).unwrap()
}

/// What was refused, and why.
fn refused(folder: &Path, args: &[&str]) -> String {
    let output = jackfield(folder, args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with a run of three steps in `kept`.
fn trained() -> TempDir {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("config.json"), CONFIG).unwrap();
    fs::write(at("text"), TEXT.repeat(30)).unwrap();
    let run = "[train]\nconfig = \"config.json\"\ntext = \"text\"\nfolder = \"kept\"\nsteps = 3\n\
               sequence_length = 32\nsequences = 4\ncheckpoint_every = 1\nkeep_last = 9\n\
               learning_rate = 3e-3\n[plugins]\nlr-schedule = \"constant\"\n";
    fs::write(at("run.toml"), run).unwrap();
    fs::write(at("held-out.txt"), TEXT.repeat(4)).unwrap();
    printed(folder.path(), &["train", "--json", "--config", "run.toml"]);
    folder
}

#[test]
fn checkpoints_are_listed_verified_and_written_for_others() {
    let folder = trained();
    let folder = folder.path();
    let listed = printed(folder, &["checkpoint", "ls", "kept"]);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.contains("whole") && !listed.contains("damaged"), "{listed}");
    let last = json(folder, &["checkpoint", "ls", "kept", "--json"]);
    assert_eq!((&last["step"], &last["is_whole"]), (&3.into(), &true.into()));
    assert!(last["loss"].as_f64().unwrap() > 3.0 && last["size_bytes"].as_u64().unwrap() > 10_000);
    let said = printed(folder, &["checkpoint", "verify", "kept"]);
    assert!(said.contains("files are as they were written"), "{said}");

    let text = ["generate", "--greedy", "--raw", "--max-tokens", "12", "The studio", "--model"];
    let of = |model: &str| printed(folder, &[&text[..], &[model]].concat());
    let expected = of("./kept/step-00000003");
    for (to, out) in [("hf", "./folder"), ("gguf", "file.gguf")] {
        let args = ["checkpoint", "export", "kept", "--to", to, "--out", out, "--json"];
        let written = json(folder, &args);
        assert!(written["size_bytes"].as_u64().unwrap() > 50_000, "{written}");
        assert!(written["from"].as_str().unwrap().ends_with("step-00000003"));
        assert_eq!(of(out), expected, "{to}");
        let said = refused(folder, &args);
        assert!(said.contains("expected a path at which nothing is"), "{said}");
    }

    let file = folder.join("kept/step-00000003/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&file, bytes).unwrap();
    let said = refused(folder, &["checkpoint", "verify", "kept"]);
    assert!(said.contains("step-00000003: `model.safetensors`: expected"), "{said}");
    let listed = printed(folder, &["checkpoint", "ls", "kept"]);
    assert!(listed.lines().any(|line| line.contains("damaged")), "{listed}");
    let export = ["checkpoint", "export", "--to", "hf", "--out", "older"];
    let said = refused(folder, &[&export[..], &["kept/step-00000003"]].concat());
    assert!(said.contains("`model.safetensors`"), "{said}");
    let written = json(folder, &[&export[..], &["kept", "--json"]].concat());
    assert!(
        written["from"].as_str().unwrap().ends_with("step-00000002"),
        "the newest that is whole"
    );
    let said = refused(folder, &["checkpoint", "ls", "."]);
    assert!(said.contains("expected folders `step-N` of a run, found none"), "{said}");
}

#[test]
fn a_model_is_evaluated_on_a_text_and_on_lines_of_json() {
    let folder = trained();
    let folder = folder.path();
    let evaluate = |more: &[&str]| {
        let args = ["evaluate", "held-out.txt", "--model", "kept", "--window", "64", "--json"];
        json(folder, &[&args[..], more].concat())
    };
    let found = evaluate(&[]);
    let tokens = TEXT.len() as u64 * 4;
    // The first token of each window is predicted by nothing.
    assert_eq!(found["tokens"], tokens - found["windows"].as_u64().unwrap());
    let loss = found["loss"].as_f64().unwrap();
    assert!(loss > 2.0 && loss < 6.0, "{found}");
    assert!((found["perplexity"].as_f64().unwrap() - loss.exp()).abs() < 1e-9);
    let overlapping = evaluate(&["--stride", "16"]);
    assert_eq!(overlapping["tokens"], tokens - 1, "every token but the first");
    let halves = evaluate(&["--cut", "halves"]);
    assert_eq!(halves["tokens"], (tokens / 64) * 31);
    assert_eq!(evaluate(&["--windows-max", "2"])["windows"], 2);

    let line = |text: &str| format!("{}\n", serde_json::json!({ "text": text, "n": 1 }));
    fs::write(folder.join("held-out.jsonl"), line(TEXT) + "\n" + &line(TEXT)).unwrap();
    let args = ["evaluate", "held-out.jsonl", "--model", "kept", "--window", "64", "--json"];
    let lines = json(folder, &args);
    assert_eq!((&lines["texts"], &lines["windows"]), (&2.into(), &4.into()));
    let printed =
        printed(folder, &["evaluate", "held-out.txt", "--model", "kept", "--window", "64"]);
    assert!(printed.contains("perplexity") && printed.contains("+/-"), "{printed}");

    #[rustfmt::skip]
    let cases: [(&[&str], &str); 7] = [
        (&["none.txt"],                              "none.txt: expected a file to read"),
        (&["held-out.txt", "--window", "1"],         "window: expected 2"),
        (&["held-out.txt", "--window", "65"],        "window: expected 2 to 64"),
        (&["held-out.txt", "--stride", "600"],       "stride: expected 1 to"),
        (&["held-out.txt", "--cut", "halves", "--stride", "3"], "--stride: expected none"),
        (&["held-out.jsonl", "--field", "body"],     "line 1: expected a text `body`"),
        (&["held-out.txt", "--adapter", "nowhere"],  "adapter_config.json"),
    ];
    for (args, expected) in cases {
        let window: &[&str] = if args.contains(&"--window") { &[] } else { &["--window", "64"] };
        let said = refused(folder, &[&["evaluate", "--model", "kept"], window, args].concat());
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    fs::write(folder.join("short.txt"), "x").unwrap();
    let said = refused(folder, &["evaluate", "short.txt", "--model", "kept", "--window", "64"]);
    assert!(said.contains("found 1 tokens"), "{said}");
}

#[test]
fn an_adapter_is_merged_and_what_that_changes_is_said() {
    let folder = trained();
    let folder = folder.path();
    let bytes = fs::read(folder.join("kept/step-00000003/model.safetensors")).unwrap();
    let base = Parameters::from_safetensors(&bytes).unwrap();
    let mut lora = Lora::random(&base, &["q_proj", "down_proj"], 2, 8.0, 1).unwrap();
    for (name, parameter) in &mut lora.parameters.0 {
        if name.contains("lora_B") {
            let numbers = parameter.values.iter_mut().enumerate();
            numbers.for_each(|(i, value)| *value = (i as f32 * 1.7).sin());
        }
    }
    lora.save(&folder.join("adapter"), "tiny").unwrap();
    let merge = ["adapter", "merge", "adapter", "--model", "kept"];
    let found = json(folder, &[&merge[..], &["--out", "merged", "--json"]].concat());
    assert_eq!((&found["is_lossy"], &found["error_rms"]), (&false.into(), &0.0.into()));
    assert_eq!(found["weights"].as_object().unwrap().len(), 2);
    assert!(found["change_rms"].as_f64().unwrap() > 1e-3 && found["bits_changed"] != 0);
    assert!(found["logits"]["max"].as_f64().unwrap() < 1e-2, "{found}");
    let said = printed(folder, &[&merge[..], &["--out", "again"]].concat());
    assert!(said.contains("2 weights merged") && said.contains("logits"), "{said}");

    let loss = |model: &str, more: &[&str]| {
        let args = ["evaluate", "held-out.txt", "--window", "64", "--json", "--model", model];
        json(folder, &[&args[..], more].concat())["loss"].as_f64().unwrap()
    };
    let (plain, beside) = (loss("kept", &[]), loss("kept", &["--adapter", "adapter"]));
    let merged = loss("merged", &[]);
    assert!((plain - beside).abs() > 1e-3, "the adapter says something: {plain} {beside}");
    assert!((merged / beside - 1.0).abs() < 1e-3, "{merged} {beside}");
    let said = refused(folder, &[&merge[..], &["--out", "merged"]].concat());
    assert!(said.contains("expected a path at which nothing is"), "{said}");
}

#[test]
fn a_run_serves_its_page_until_it_is_over() {
    let folder = trained();
    let mut child = Command::new(env!("CARGO_BIN_EXE_jackfield"))
        .args(["train", "--config", "run.toml", "--steps", "400", "--listen", "127.0.0.1:0"])
        .current_dir(folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .env("XDG_CACHE_HOME", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // All is read, or the run would wait for a reader.
    let mut answer = None;
    for line in lines.map(Result::unwrap) {
        if let Some(address) =
            line.strip_suffix(" · the run").and_then(|l| l.strip_prefix("http://"))
        {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /run/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            answer = Some(std::thread::spawn(move || {
                let mut all = String::new();
                stream.read_to_string(&mut all).unwrap();
                all
            }));
        }
    }
    assert!(child.wait().unwrap().success());
    let told = answer.expect("the address was told").join().unwrap();
    assert!(told.contains(r#""topic":"restore","step":3"#), "{told:.500}");
    assert!(
        told.contains(r#""topic":"end","step":400"#),
        "the end is told before the process ends"
    );
    let steps = told.matches(r#""topic":"step""#).count();
    assert_eq!(steps, 397);
}
