//! `jackfield plugin`: what is written, built, sealed and found wrong.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn jackfield(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jackfield"))
        .args(args)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target_folder())
        .env_remove("RUSTFLAGS")
        .output()
        .expect("the binary runs")
}

/// Kept beside what this test was built into, so that only the first run builds `plugin-api`.
fn target_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join("plugin-build")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// The findings of `plugin check`, by name.
fn check(folder: &Path, args: &[&str]) -> (Output, serde_json::Value) {
    let output = jackfield(folder, &[&["plugin", "check", "--json"], args].concat());
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    let verdict = serde_json::from_str(printed.lines().next().unwrap_or_default());
    let verdict = verdict.unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
    (output, verdict)
}

fn finding<'a>(verdict: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let checks = verdict["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{verdict}"))
}

const KINDS: [&str; 24] = [
    "adapter",
    "backend",
    "compressor",
    "curriculum",
    "decoding-strategy",
    "encoder",
    "feed-forward",
    "hook",
    "kv-cache",
    "logits-processor",
    "lr-schedule",
    "memory",
    "mixer",
    "model-source",
    "moe-router",
    "norm",
    "objective",
    "optimizer",
    "output-parser",
    "quantizer",
    "residual",
    "reward",
    "rotary-embedding",
    "scheduler",
];

#[test]
fn every_kind_has_a_template_that_passes_its_suite() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut members = Vec::new();
    for kind in KINDS {
        let name = format!("my-{kind}");
        let output = jackfield(folder.path(), &["plugin", "new", &name, "--kind", kind]);
        assert!(output.status.success(), "{}", text(&output));
        // One workspace for all: they are compiled once, together.
        let manifest = folder.path().join(&name).join("Cargo.toml");
        let alone = fs::read_to_string(&manifest).unwrap();
        assert!(alone.ends_with("[workspace]\n"), "{alone}");
        let member = alone.split("# Contract suites").next().unwrap();
        fs::write(&manifest, member).unwrap();
        members.push(format!("{name:?}"));
    }
    let workspace = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n[profile.dev]\nopt-level = 1\n",
        members.join(", ")
    );
    fs::write(folder.path().join("Cargo.toml"), workspace).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--workspace", "--no-fail-fast"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", target_folder())
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(!text(&output).contains("warning:"), "{}", text(&output));
}

/// Every kind in every language that `plugin new` offers for it. What lacks its tools is skipped.
#[test]
#[ignore = "builds 27 plugins: minutes, unless most of it was built before"]
#[allow(clippy::print_stdout, reason = "the table is what the run is for")]
fn every_template_is_built_and_passes_its_check() {
    let folder = tempfile::TempDir::new().unwrap();
    let here = folder.path();
    let (mut num_passed, mut mistakes) = (0, Vec::new());
    for lang in ["rust", "rust-wasm", "c", "python", "js"] {
        for kind in KINDS {
            let name = format!("new-{kind}-{lang}");
            let args = ["plugin", "new", &name, "--kind", kind, "--lang", lang];
            let output = jackfield(here, &args);
            if !output.status.success() {
                let said = text(&output);
                assert!(said.contains("--lang rust") || said.contains("Rust only"), "{said}");
                continue;
            }
            // What its README names: the packages of its package.json, or one that it needs.
            let packages: Option<&[&str]> = match lang {
                "js" => Some(&[]),
                "c" => Some(&["@bytecodealliance/jco@1"]),
                _ => None,
            };
            if let Some(packages) = packages {
                let _ = Command::new("npm")
                    .args(["install", "--no-audit"])
                    .args(packages)
                    .current_dir(here.join(&name))
                    .output();
            }
            let lane = if lang == "rust" { "native" } else { "wasm" };
            let file = format!("{name}.plugin");
            let output =
                jackfield(here, &["plugin", "build", &name, "--lane", lane, "--out", &file]);
            if !output.status.success() && !lang.starts_with("rust") {
                println!("{kind:20} {lang:10} SKIP: {}", text(&output).trim());
                continue;
            }
            assert!(output.status.success(), "{name}: {}", text(&output));
            let config = if kind == "logits-processor" { "never=1" } else { "" };
            let config = [config].into_iter().filter(|config| !config.is_empty());
            let args: Vec<&str> =
                [file.as_str()].into_iter().chain(config.flat_map(|c| ["--config", c])).collect();
            let (_, verdict) = check(here, &args);
            let checks = verdict["checks"].as_array().unwrap();
            let failed: Vec<_> =
                checks.iter().filter(|c| c["passed"] == false).map(|c| &c["name"]).collect();
            println!("{kind:20} {lang:10} {failed:?}");
            num_passed += usize::from(failed.is_empty());
            // A backend that answers with zeros, to start from.
            let expected: &[&str] = if kind == "backend" { &["contract"] } else { &[] };
            if failed != expected || verdict["warnings"] != serde_json::json!([]) {
                mistakes.push(format!("{name}: {verdict}"));
            }
        }
    }
    println!("{num_passed} passed");
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

#[test]
fn a_new_plugin_is_built_checked_and_only_then_taken() {
    let folder = tempfile::TempDir::new().unwrap();
    let (here, file) = (folder.path(), folder.path().join("calm.so"));
    let output = jackfield(here, &["plugin", "new", "calm", "--kind", "logits-processor"]);
    assert!(output.status.success(), "{}", text(&output));
    let output = jackfield(here, &["plugin", "build", "calm", "--out", "calm.so", "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let built: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(built["capability"], "logits-processor/calm");
    assert_eq!(built["size_bytes"], fs::metadata(&file).unwrap().len());

    let (output, verdict) = check(here, &["calm.so", "--config", "never=[0, 8]"]);
    assert!(output.status.success(), "{verdict}");
    assert_eq!((&verdict["passed"], &verdict["sha256"]), (&true.into(), &built["sha256"]));
    let names: Vec<_> = verdict["checks"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    let expected = [
        "seal",
        "manifest",
        "architecture",
        "exports",
        "layout",
        "init",
        "panic",
        "hang",
        "exit",
        "memory",
        "create-drop",
        "contract",
        "config-fuzz",
        "input-fuzz",
    ];
    assert_eq!(names, expected);

    // The same seed finds the same.
    let without_times = |verdict: &serde_json::Value| {
        let mut verdict = verdict.clone();
        for check in verdict["checks"].as_array_mut().unwrap() {
            check["ms"] = 0.into();
        }
        verdict
    };
    let (_, again) = check(here, &["calm.so", "--config", "never=[0, 8]"]);
    assert_eq!(without_times(&verdict), without_times(&again));

    let (output, verdict) = check(here, &["calm.so", "--config", "nevr=[0, 8]"]);
    assert!(!output.status.success());
    let says = "--config nevr: expected a key that the plugin reads";
    assert_eq!(finding(&verdict, "contract")["message"], says, "{verdict}");

    let mut bytes = fs::read(&file).unwrap();
    bytes[5_000] ^= 1;
    fs::write(here.join("damaged.so"), &bytes).unwrap();
    let (output, verdict) = check(here, &["damaged.so"]);
    assert!(!output.status.success());
    assert_eq!(finding(&verdict, "seal")["passed"], false, "{verdict}");
    assert!(verdict["checks"].as_array().unwrap().len() < expected.len(), "it was run: {verdict}");
}

#[test]
fn a_check_survives_whatever_a_plugin_does_and_says_what() {
    let folder = tempfile::TempDir::new().unwrap();
    let here = folder.path();
    let output = jackfield(here, &["plugin", "new", "bad", "--kind", "logits-processor"]);
    assert!(output.status.success(), "{}", text(&output));
    let source = here.join("bad/src/lib.rs");
    let good = fs::read_to_string(&source).unwrap();
    let start = "Ok(Self { default: tokens(config)?, never: RowMap::new() })";
    let edit = "let vocab_size = logits.vocab_size();";
    assert!(good.contains(start) && good.contains(edit), "{good}");
    #[rustfmt::skip]
    let cases = [
        // place, what the plugin does there, findings that fail, what one of them says
        (start, "panic!(\"first {config:?}\")",                      &["init", "panic"][..],      "it panicked: first"),
        (start, "loop { std::hint::spin_loop(); }",                  &["init", "hang"],           "it hangs"),
        (start, "std::process::abort()",                             &["init", "exit"],           "it aborted the process"),
        (start, "loop { std::hint::black_box(Vec::<u8>::with_capacity(1 << 40)); }", &["init", "memory"], "out of memory"),
        (start, "{ std::mem::forget(std::thread::spawn(std::thread::park)); Ok(Self { default: tokens(config)?, never: RowMap::new() }) }", &["create-drop"], "100 threads"),
        (edit,  "let vocab_size = logits.vocab_size(); assert!(vocab_size != 63, \"no 63\");", &["contract", "panic"], "no 63"),
    ];
    for (place, bad, failing, says) in cases {
        fs::write(&source, good.replace(place, bad)).unwrap();
        let output = jackfield(here, &["plugin", "build", "bad", "--out", "bad.so"]);
        assert!(output.status.success(), "{bad}: {}", text(&output));
        let args = ["bad.so", "--config", "never=62", "--seconds", "4"];
        let (output, verdict) = check(here, &args);
        assert!(!output.status.success(), "{bad}: {verdict}");
        for name in failing {
            assert_eq!(finding(&verdict, name)["passed"], false, "{bad}: {name}: {verdict}");
        }
        assert!(text(&output).contains(says), "{bad}: {verdict}");
    }
}

#[test]
fn mistakes_say_what_to_do() {
    let folder = tempfile::TempDir::new().unwrap();
    let here = folder.path();
    fs::create_dir_all(here.join("empty")).unwrap();
    fs::create_dir_all(here.join("sourceless")).unwrap();
    let manifest = "name = \"a\"\nkind = \"norm\"\napi = \"0.0\"\ndescription = \"\"\n\
                    reload = \"stateless\"\npermissions = []\n";
    fs::write(here.join("sourceless/plugin.toml"), manifest).unwrap();
    fs::write(here.join("text.so"), "no library").unwrap();
    fs::create_dir_all(here.join("places")).unwrap();
    fs::write(here.join("places/plugin.toml"), manifest.replace("norm", "kv-cache")).unwrap();
    fs::write(here.join("places/Cargo.toml"), "").unwrap();
    fs::create_dir_all(here.join("computes")).unwrap();
    fs::write(here.join("computes/plugin.toml"), manifest.replace("norm", "backend")).unwrap();
    fs::write(here.join("computes/plugin.c"), "").unwrap();
    #[rustfmt::skip]
    let cases = [
        (&["plugin", "build", "none"][..],                     "none: expected the folder of a plugin"),
        (&["plugin", "build", "empty"],                        "`jackfield plugin new` writes one"),
        (&["plugin", "build", "sourceless"],                   "expected one of the files Cargo.toml, plugin.c, plugin.py, plugin.js"),
        (&["plugin", "build", "places", "--lane", "wasm"],    "one that errs lets a request read another's text"),
        (&["plugin", "build", "places", "--lane", "wasm"],    "build it with `--lane native`"),
        (&["plugin", "build", "computes"],                     "in memory of the host, which no component sees"),
        (&["plugin", "seal", "text.so"],                       "expected a shared library or a WASM component"),
        (&["plugin", "new", "a", "--kind", "flux"],            "kind `flux`: expected one of adapter, backend, compressor, curriculum, decoding-strategy"),
        (&["plugin", "new", "Min P", "--kind", "norm"],        "expected kebab-case"),
        (&["plugin", "new", "norm", "--kind", "norm"],         "expected another word than the name of a kind"),
        (&["plugin", "new", "a", "--kind", "backend", "--lang", "c"], "use --lang rust"),
        (&["plugin", "new", "a", "--kind", "norm", "--lang", "js"],   "expected --kind logits-processor"),
    ];
    for (args, expected) in cases {
        let output = jackfield(here, args);
        assert!(!output.status.success(), "{args:?}");
        assert!(text(&output).contains(expected), "{args:?}\n{}", text(&output));
    }
}

#[test]
fn other_languages_start_with_their_interface() {
    let folder = tempfile::TempDir::new().unwrap();
    for (lang, source) in [("c", "plugin.c"), ("python", "plugin.py"), ("js", "plugin.js")] {
        let args = ["plugin", "new", lang, "--kind", "logits-processor", "--lang", lang];
        let output = jackfield(folder.path(), &args);
        assert!(output.status.success(), "{}", text(&output));
        for file in [source, "plugin.toml", "README.md", "wit/logits-processor.wit"] {
            assert!(folder.path().join(lang).join(file).is_file(), "{lang}: {file}");
        }
        assert!(text(&output).contains(source), "{}", text(&output));
    }
}
