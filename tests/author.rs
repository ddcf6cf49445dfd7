//! A stranger's way: from `plugin new` to another answer of a conversation that runs, with `lib.rs`
//! as the only file that is edited; and from the *packaged* crates to a plugin file.
//!
//! Needs the `jackfield` binary beside this test, and SmolLM2-135M-Instruct in `JACKFIELD_MODELS`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::process::{Command, Output, Stdio};

use jackfield_tests::chat::{Chat, built, program};
use jackfield_tests::{real_model, root};

fn run(command: &mut Command) -> Output {
    // Kept beside what this test was built into, so that only the first run builds `plugin-api`.
    let target = built().with_file_name("plugin-build");
    let output = command.env("CARGO_TARGET_DIR", target).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}

#[test]
fn a_new_plugin_changes_the_answers_of_a_conversation_that_runs() {
    let Some(program) = program() else { return };
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut chat = Chat::start(&program, &model, here, Stdio::inherit());
    let question = "What is the capital of France?";
    let before = chat.ask(question);
    assert!(before.contains("Paris"), "{before}");

    let new = ["plugin", "new", "calm", "--kind", "logits-processor"];
    run(Command::new(&program).args(new).current_dir(here));
    let source = here.join("calm/src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    // Whatever the request says, the token of " Paris" is never chosen.
    let edited = text.replace("default: tokens(config)?", "default: PARIS.to_vec()");
    assert_ne!(edited, text, "the template has that line");
    let edited = edited + "\nconst PARIS: [u32; 1] = [7042];\n";
    fs::write(&source, edited).unwrap();
    let calm = here.join("calm.so");
    run(Command::new(&program)
        .args(["plugin", "build", "calm", "--out"])
        .arg(&calm)
        .current_dir(here));
    let swap = |args: &[&str]| {
        let mut command = Command::new(&program);
        run(command.args(["plugin"]).args(args).env("XDG_RUNTIME_DIR", here).current_dir(here))
    };
    swap(&["swap", "calm.so", "--slot", "temperature"]);
    let after = chat.ask(question);
    assert!(!after.contains("Paris"), "{after}");
    swap(&["rollback", "logits-processor/temperature"]);
    assert_eq!(chat.ask(question), before);
}

#[test]
fn a_strangers_crate_builds_against_the_packaged_boundary() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let packages = ["plugin-api-abi", "plugin-api-macros", "kernels-reference", "plugin-api"];
    let mut package = Command::new(env!("CARGO"));
    package.current_dir(root()).args(["package", "--quiet", "--allow-dirty", "--no-verify"]);
    package.arg("--exclude-lockfile").arg("--target-dir").arg(here.join("packages"));
    package.args(packages.iter().flat_map(|name| ["-p", name]));
    assert!(package.status().unwrap().success());
    let mut patches = String::from("\n[patch.crates-io]\n");
    for name in packages {
        let archive = here.join(format!("packages/package/{name}-0.0.0.crate"));
        run(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(here));
        patches += &format!("{name} = {{ path = \"../{name}-0.0.0\" }}\n");
    }
    let stranger = here.join("stranger");
    fs::create_dir_all(stranger.join("src")).unwrap();
    let theirs = root().join("examples/out-of-tree/rust");
    for file in ["plugin.toml", "src/lib.rs"] {
        fs::copy(theirs.join(file), stranger.join(file)).unwrap();
    }
    let manifest = fs::read_to_string(theirs.join("Cargo.toml")).unwrap();
    let manifest = manifest.replace("path = \"../../../plugin-api\"", "version = \"0.0.0\"");
    fs::write(stranger.join("Cargo.toml"), manifest + &patches).unwrap();
    let built = run(Command::new(&program).args(["plugin", "build", "stranger"]).current_dir(here));
    assert!(String::from_utf8_lossy(&built.stdout).contains("sha256"));
}
