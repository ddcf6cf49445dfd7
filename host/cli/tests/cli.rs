//! The command line from outside: what it prints, what it refuses, how it exits.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn jackfield(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jackfield"))
        .args(args)
        .current_dir(folder)
        .env("XDG_CONFIG_HOME", folder)
        .env("XDG_CACHE_HOME", folder)
        .env_remove("JACKFIELD_MODEL")
        .env_remove("JACKFIELD_MODELS")
        .env_remove("JACKFIELD_CONFIG")
        .output()
        .expect("the binary runs")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[test]
fn every_listed_builtin_is_linked() {
    let folder = tempfile::TempDir::new().unwrap();
    let output = jackfield(folder.path(), &["plugin", "ls", "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    let source = include_str!("../src/builtins.rs");
    let optional = source.lines().filter(|line| line.starts_with("#[cfg(")).count();
    let listed = source.lines().filter(|line| line.starts_with("use ")).count() - optional;
    assert!(printed.lines().count() >= listed, "{listed} listed:\n{printed}");
    for line in printed.lines() {
        let plugin: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(plugin["lane"], "builtin");
    }
}

#[test]
fn config_check_explains_mistakes_with_file_and_line() {
    let folder = tempfile::TempDir::new().unwrap();
    #[rustfmt::skip]
    let cases = [
        ("model = \"x\"\n",                                        true,  "no mistakes"),
        ("precise_model = \"x\"\n[engine]\nmask = [\"layers.0.*\"]\nfallback = true\n", true, "no mistakes"),
        ("[engine]\nmask = [\"layers.0.*\"]\n",                false, "engine.mask: expected the key `precise_model`"),
        ("precise_model = \"x\"\n[engine]\nmask = [3]\n",     false, "mask: expected a list of patterns of names"),
        ("model = \"x\"\nmodle = \"y\"\n",                         false, "line 2: modle: expected a key that something reads"),
        ("[plugins]\nbackend = \"quantum\"\n",                     false, "backend `quantum`: no plugin provides it; expected one of"),
        ("[plugins]\nflux = \"x\"\n",                              false, "plugins.flux: expected a kind that a plugin provides"),
        ("[engine]\n\nnum_seqs = 0\n",                             false, "jackfield.toml:3: engine.num_seqs: expected a whole number in 1..="),
        ("[plugin.top-p]\ntop_p = 2.0\n",                          false, "jackfield.toml:2: plugin.top-p.top_p: expected"),
        ("model = \n",                                             false, "jackfield.toml:1"),
    ];
    for (config, is_right, expected) in cases {
        fs::write(folder.path().join("jackfield.toml"), config).unwrap();
        let output = jackfield(folder.path(), &["config", "check"]);
        let printed = text(&output);
        assert_eq!(output.status.success(), is_right, "{config}\n{printed}");
        assert!(printed.contains(expected), "{config}\n{printed}");
    }
}

#[test]
fn flags_come_before_the_environment_before_the_file() {
    let folder = tempfile::TempDir::new().unwrap();
    fs::write(folder.path().join("jackfield.toml"), "model = \"from-file\"\n").unwrap();
    let show = |args: &[&str], environment: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jackfield"));
        command.args(["config", "show"]).args(args).current_dir(folder.path());
        command.env_remove("JACKFIELD_MODEL").env("XDG_CACHE_HOME", folder.path());
        if let Some(model) = environment {
            command.env("JACKFIELD_MODEL", model);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    #[rustfmt::skip]
    let cases = [
        (show(&[], None),                                               "model = \"from-file\""),
        (show(&[], Some("from-environment")),                           "model = \"from-environment\""),
        (show(&["--model", "from-flag"], Some("from-environment")),     "model = \"from-flag\""),
    ];
    for (printed, expected) in cases {
        assert!(printed.contains(expected), "{printed}");
    }
}

#[test]
fn mistakes_exit_with_failure_and_say_what_to_do() {
    let folder = tempfile::TempDir::new().unwrap();
    #[rustfmt::skip]
    let cases = [
        (&["generate", "--model", "no-such-model", "x"][..],  "model `no-such-model`: expected a file, a user/repo of a hub, or one of"),
        (&["generate", "--plugin", "backend", "x"][..],       "expected KIND=NAME"),
        (&["config", "check", "--config", "none.toml"][..],   "none.toml"),
        (&["bench", "--decode", "1"][..],                     "--sequences from 1, --decode from 2"),
    ];
    for (args, expected) in cases {
        let output = jackfield(folder.path(), args);
        assert!(!output.status.success(), "{args:?}");
        assert!(text(&output).contains(expected), "{args:?}\n{}", text(&output));
    }
}

#[test]
fn doctor_never_fails() {
    let folder = tempfile::TempDir::new().unwrap();
    let output = jackfield(folder.path(), &["doctor"]);
    assert!(output.status.success(), "{}", text(&output));
    for word in ["cores", "cpu", "backend", "pip", "model"] {
        assert!(text(&output).contains(word), "{word}");
    }
}
