//! Programs that we did not write: the official client of the OpenAI interface drives the server, and
//! `schemathesis` asks it everything that its own description allows, and what it does not.
//!
//! Packages are installed once, beside what this test was built into.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use jackfield_tests::chat::built;
use jackfield_tests::{real_model, root, tiny_encoder};
use plugin_api::{Config, Value as Param};

use crate::service::{EMBEDDING_MODEL, MODEL, Models, Service};

/// What is installed, so that a run means the same tomorrow.
const PACKAGES: [&str; 2] = ["openai==3.54.0", "schemathesis==4.32.5"];

/// The folder of programs with the packages; nothing, with the reason printed, if they cannot be had.
fn python() -> Option<PathBuf> {
    let environment = built().with_file_name("python-clients");
    let (programs, done) = (environment.join("bin"), environment.join(PACKAGES.join(" ")));
    if done.is_file() {
        return Some(programs);
    }
    let make = Command::new("python3").args(["-m", "venv"]).arg(&environment).status();
    let mut install = Command::new(programs.join("pip"));
    install.args(["install", "--quiet", "--only-binary", ":all:"]).args(PACKAGES);
    if !make.is_ok_and(|s| s.success()) || !install.status().is_ok_and(|s| s.success()) {
        eprintln!("SKIP clients in Python: {} could not be installed", PACKAGES.join(", "));
        return None;
    }
    std::fs::write(done, "").unwrap();
    Some(programs)
}

#[test]
fn the_official_client_is_served() {
    let Some(programs) = python() else { return };
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let table = Config::at("server").with("api_keys", vec![Param::from("secret")]);
    // Without the real one, vectors of the tiny one have to do.
    let real = real_model("all-MiniLM-L6-v2", "model.safetensors");
    let (is_real, tiny) = (real.is_some(), tiny_encoder());
    let encoder = Some(real.unwrap_or_else(|| tiny.path().to_owned()));
    let service =
        Service::of(Models { decoder: Some(model), encoder, ..Models::default() }, table, |_| {});
    let mut client = Command::new(programs.join("python"));
    client.arg(root().join("tests/server/openai_client.py"));
    client.arg(format!("http://{}", service.address)).args([MODEL, EMBEDDING_MODEL]);
    let status = client.arg(if is_real { "real" } else { "tiny" }).status();
    assert!(status.unwrap().success());
}

/// Operations that answer 501 by design.
const NOT_THERE: [&str; 2] = ["/train", "/checkpoint"];

/// Asks a server everything that its description allows, except for these paths.
pub(crate) fn schemathesis(address: SocketAddr, examples: u32, more: &[&str], without: &[&str]) {
    let Some(programs) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new(programs.join("st"));
    run.arg("run").arg(format!("http://{address}/openapi.json")).current_dir(&folder);
    run.args(["--checks", "all", "--workers", "1", "--seed", "1", "--continue-on-failure"]);
    // What a schema allows may still be too long for the model, or no file of this machine.
    run.args(["--exclude-checks", "positive_data_acceptance", "--suppress-health-check", "all"]);
    run.args(["--max-examples", &examples.to_string(), "--generation-database", "none"]);
    run.args(without.iter().flat_map(|path| ["--exclude-path", path])).args(more);
    assert!(run.status().unwrap().success());
}

#[test]
fn schemathesis_finds_nothing() {
    schemathesis(Service::encoding().address, 40, &[], &NOT_THERE);
}

/// 2,000 cases and more: `cargo test -p jackfield-tests --test server -- --ignored`.
#[test]
#[ignore = "minutes"]
fn schemathesis_finds_nothing_in_thousands_of_cases() {
    schemathesis(Service::encoding().address, 400, &[], &NOT_THERE);
}
