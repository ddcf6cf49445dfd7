//! `jackfield serve` as operators have it: a process with signals, a configuration that changes, and a
//! listener of their own.
//!
//! Needs the `jackfield` binary beside this test.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use jackfield::BuildLane;
use jackfield_engine::train::{Lora, Parameters};
use jackfield_loader::{Format, seal};
use jackfield_tests::chat::program;
use jackfield_tests::{golden, root, tiny_encoder, tiny_model};
use plugin_api::testing::random::Random;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::browser::{Browser, within};
use crate::client::{Answer, Connection, bytes, json_bytes};
use crate::clients::schemathesis;
use crate::service::completion;

/// A server in a process of its own, ended by hand if the test fails.
pub(crate) struct Process {
    child: Child,
    pub(crate) log: BufReader<ChildStderr>,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    pub(crate) model: String,
    _model: TempDir,
}

impl Process {
    /// Starts one in `folder`, whose `jackfield.toml` it reads.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        Self::start_with(folder, &[])
    }

    /// The same with further arguments.
    fn start_with(folder: &Path, more: &[&OsStr]) -> Option<Self> {
        let model = tiny_model("tiny");
        let mut command = Command::new(program()?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--model"]);
        command.arg(model.path()).env("XDG_RUNTIME_DIR", folder).current_dir(folder);
        std::fs::write(folder.join("admin-keys"), "# for operators\nmaster\n").unwrap();
        command.args(["--admin-key-file", "admin-keys"]).args(more);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let first = line_with(&mut log, "loading");
        let second = line_with(&mut log, "for operators");
        line_with(&mut log, "ready");
        let model_name = first.split(" · ").nth(1).unwrap().to_owned();
        let (address, admin) = (address_in(&first), address_in(&second));
        Some(Self { child, log, address, admin, model: model_name, _model: model })
    }

    fn complete(&self, key: &str) -> Answer {
        let mut request = completion("One, two,", 12);
        request["model"] = json!(self.model);
        request["temperature"] = json!(2);
        let authorization = format!("Bearer {key}");
        let headers = [("content-type", "application/json"), ("authorization", &authorization)];
        let request = bytes("POST", "/v1/completions", &headers, &request.to_string());
        Connection::send(self.address, &request).answer()
    }

    /// Tokens that the likeliest follow one another.
    pub(crate) fn answer(&self) -> Value {
        answer_of(self.address, &self.model)
    }

    /// The same streamed, by a thread that has its first event.
    pub(crate) fn stream(&self) -> std::thread::JoinHandle<Value> {
        let (address, model) = (self.address, self.model.clone());
        let (sender, begun) = std::sync::mpsc::channel();
        let stream = std::thread::spawn(move || {
            let mut connection = Connection::send(address, &greedy(&model, true));
            // The status says that the request has entered.
            let line = connection.line();
            sender.send(()).unwrap();
            assert!(line.contains("200"), "{line}");
            text_of(connection)
        });
        begun.recv().unwrap();
        stream
    }

    fn text(&self) -> Value {
        self.complete("").json()["choices"][0]["text"].clone()
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("x-api-key", "master")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Connection::send(self.admin, &bytes(method, path, &headers, &body)).answer()
    }

    fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        assert!(kill.args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

/// A request for the likeliest tokens.
pub(crate) fn greedy(model: &str, is_streamed: bool) -> Vec<u8> {
    let mut request = completion("One, two,", 120);
    (request["model"], request["temperature"]) = (json!(model), json!(0));
    request["stream"] = json!(is_streamed);
    json_bytes("/v1/completions", &request)
}

fn answer_of(address: SocketAddr, model: &str) -> Value {
    let answer = Connection::send(address, &greedy(model, false)).answer();
    answer.json()["choices"][0]["text"].clone()
}

/// The whole text of a stream of which the status was read.
fn text_of(mut connection: Connection) -> Value {
    let mut text = String::new();
    loop {
        let line = connection.line();
        let Some(event) = line.strip_prefix("data: ") else { continue };
        if event == "[DONE]" {
            return json!(text);
        }
        let event: Value = serde_json::from_str(event).unwrap();
        text += event["choices"][0]["text"].as_str().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads until a line says so.
pub(crate) fn line_with(log: &mut impl std::io::BufRead, words: &str) -> String {
    let mut all = String::new();
    for line in log.lines().map(Result::unwrap) {
        if line.contains(words) {
            return line;
        }
        all = all + &line + "\n";
    }
    panic!("never said {words:?}: {all}");
}

fn address_in(line: &str) -> SocketAddr {
    line.strip_prefix("http://").and_then(|l| l.split(' ').next()?.parse().ok()).expect(line)
}

#[test]
fn operators_swap_the_encoder_beside_the_engine() {
    let (folder, encoder) = (tempfile::tempdir().unwrap(), tiny_encoder());
    let file = folder.path().join("bert.so");
    let more = [OsStr::new("--embedding-model"), encoder.path().as_os_str()];
    let Some(service) = Process::start_with(folder.path(), &more) else { return };
    let source = root().join("plugins/encoder/bert");
    jackfield::build_plugin(&source, BuildLane::Native, Some(&file)).unwrap();
    let name = encoder.path().file_name().unwrap().to_string_lossy().into_owned();
    let vectors = || {
        let body = json!({ "model": name, "input": ["hello", "world"] }).to_string();
        let headers = [("content-type", "application/json"), ("x-jackfield-digest", "1")];
        let asked = bytes("POST", "/v1/embeddings", &headers, &body);
        let answer = Connection::send(service.address, &asked).answer();
        let digest = answer.header("x-jackfield-digest").unwrap().to_owned();
        (answer.json()["data"].clone(), digest)
    };
    let (before, first) = vectors();
    assert_eq!(before[1]["embedding"].as_array().unwrap().len(), 32);
    let swapped = service.ask("POST", "/plugins/swap", &json!({ "file": file }));
    assert_eq!(swapped.json()["active"], "bert#2", "{}", swapped.body);
    let (after, second) = vectors();
    assert_eq!(after, before, "the same plugin from a file makes the same bits");
    assert_ne!(first, second, "and says that it was another");
    let slots = service.ask("GET", "/slots", &Value::Null).body;
    assert!(slots.contains("bert#2") && slots.contains("kv-cache"), "{slots}");
    let slot = json!({ "kind": "encoder", "slot": "encoder" });
    let back = service.ask("POST", "/plugins/rollback", &slot);
    assert_eq!(
        (back.status, back.json()["active"].as_str()),
        (200, Some("bert#3")),
        "{}",
        back.body
    );
    assert_eq!(vectors().0, before);
}

#[test]
fn operators_swap_plugins_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("top-k.so");
    let Some(service) = Process::start(folder.path()) else { return };
    let source = root().join("plugins/logits-processor/top-k");
    jackfield::build_plugin(&source, BuildLane::Native, Some(&file)).unwrap();
    let before = service.text();

    let stranger = Connection::send(service.admin, &bytes("GET", "/plugins", &[], "")).answer();
    assert_eq!(stranger.status, 401);
    let swap = |is_dry: bool| {
        let body = json!({ "file": file, "slot": "temperature", "dry_run": is_dry });
        service.ask("POST", "/plugins/swap", &body)
    };
    let told = swap(true).json();
    assert_eq!(told["changes"]["name"], json!(["temperature", "top-k"]));
    assert_eq!(told["changes"]["lane"], json!(["builtin", "native"]));
    assert_eq!(service.text(), before, "nothing has changed");

    let key = [("x-api-key", "master")];
    let mut events = Connection::send(service.admin, &bytes("GET", "/events", &key, ""));
    assert_eq!(events.head().0, 200);
    let done = swap(false).json();
    assert_eq!(done["active"], "top-k#2", "{done}");
    let event = line_with(&mut events.stream, "after-swap");
    assert!(event.contains("\"name\":\"top-k\""), "{event}");
    assert_ne!(service.text(), before, "no temperature is applied");
    let listed = service.ask("GET", "/plugins", &Value::Null).json();
    let files = listed["files"].as_array().unwrap();
    assert!(files.iter().any(|f| f["path"] == json!(file) && f["lane"] == "native"), "{listed}");

    let slot = json!({ "kind": "logits-processor", "slot": "temperature" });
    assert_eq!(service.ask("POST", "/plugins/rollback", &slot).status, 200);
    assert_eq!(service.text(), before);
    let again = service.ask("POST", "/plugins/rollback", &slot);
    assert_eq!((again.status, again.json()["error"]["code"].as_str()), (409, Some("swap_refused")));
    let none = json!({ "file": "/none.so" });
    assert_eq!(service.ask("POST", "/plugins/load", &none).status, 409);
    let relative = service.ask("POST", "/plugins/load", &json!({ "file": "none.so" }));
    assert_eq!(relative.json()["error"]["param"], "file");
}

/// A copy of a library whose manifest says that it requires something, where its description stood.
fn requiring(file: &Path, description: &str, required: &str) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    // The hash and the mark of its seal.
    let mut bytes = bytes[..bytes.len() - 48].to_vec();
    let old = format!("description = \"{description}\"");
    let new = format!("description = \"\"\nrequires = [\"{required}\"]");
    let new = format!("{new:width$}", width = old.len());
    assert_eq!(new.len(), old.len(), "no room");
    let places: Vec<_> = (0..bytes.len() - old.len())
        .filter(|at| bytes[*at..].starts_with(old.as_bytes()))
        .collect();
    assert!(!places.is_empty(), "no {old:?}");
    for at in places {
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    }
    seal::seal(Format::Elf, bytes)
}

#[test]
fn operators_swap_sets_of_plugins_that_require_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let Some(service) = Process::start(folder.path()) else { return };
    for (kind, name) in [
        ("logits-processor", "occurrence-penalty"),
        ("scheduler", "fcfs"),
        ("scheduler", "continuous"),
    ] {
        let source = root().join("plugins").join(kind).join(name);
        jackfield::build_plugin(&source, BuildLane::Native, Some(&file(name))).unwrap();
    }
    let penalty = file("penalty.so");
    let says = "Makes tokens less likely the more often the answer has them";
    let bytes = requiring(&file("occurrence-penalty"), says, "scheduler/fcfs");
    std::fs::write(&penalty, bytes).unwrap();
    let (fcfs, continuous) = (file("fcfs"), file("continuous"));

    let before = service.text();
    let slots = || service.ask("GET", "/slots", &Value::Null).json();
    let swap = |body: Value| service.ask("POST", "/plugins/swap", &body);
    let first = slots();
    let refused = |answer: Answer, says: &str| {
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 409, "{message}");
        assert!(message.contains(says), "{message}");
    };
    let needs = "`logits-processor/occurrence-penalty` requires `scheduler/fcfs` beside it";
    refused(swap(json!({ "file": penalty })), needs);
    refused(swap(json!({ "file": penalty })), "found `scheduler/continuous`");
    refused(swap(json!({ "files": [penalty, "/none.so"] })), "/none.so");
    let dry = swap(json!({ "files": [penalty, fcfs], "dry_run": true })).json();
    assert_eq!(dry["swapped"][0]["requires"], json!(["scheduler/fcfs"]), "{dry}");
    for (body, param) in [
        (json!({ "files": [] }), "files"),
        (json!({ "files": [penalty], "file": fcfs }), "files"),
        (json!({ "files": [penalty], "slots": [null, null] }), "slots"),
        (json!({}), "file"),
    ] {
        let answer = swap(body);
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["error"]["param"], param);
    }
    assert_eq!(slots(), first, "nothing has changed");

    let done = swap(json!({ "files": [penalty, fcfs], "slots": [null, "scheduler"] })).json();
    let active = |told: &Value| told["active"].as_str().unwrap().to_owned();
    let of = done["swapped"].as_array().unwrap().iter().map(active);
    assert_eq!(of.collect::<Vec<_>>(), ["occurrence-penalty#2", "fcfs#2"]);
    refused(swap(json!({ "file": continuous })), needs);
    let rollback = |kind: &str, slot: &str| {
        service.ask("POST", "/plugins/rollback", &json!({ "kind": kind, "slot": slot }))
    };
    let back = rollback("scheduler", "scheduler").json();
    assert_eq!(active(&back), "continuous#3", "{back}");
    assert_eq!(active(&back["with"][0]), "occurrence-penalty#3", "{back}");
    assert_eq!(rollback("logits-processor", "occurrence-penalty").status, 409, "it is back");

    let mut order = Command::new(program().unwrap());
    order.args(["plugin", "swap"]).args([&penalty, &fcfs]);
    let order = order.env("XDG_RUNTIME_DIR", folder.path()).output().unwrap();
    let told = String::from_utf8(order.stdout).unwrap();
    assert!(order.status.success() && told.lines().count() == 2, "{told}");
    assert!(told.contains("occurrence-penalty#4") && told.contains("fcfs#4"), "{told}");
    assert_eq!(swap(json!({ "file": fcfs })).json()["active"], "fcfs#5");
    let parted = "expected to take it back with scheduler/scheduler";
    refused(rollback("logits-processor", "occurrence-penalty"), parted);
    assert_eq!(service.text(), before);
}

#[test]
fn the_page_swaps_plugins_and_takes_them_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("top-k.so");
    let Some(service) = Process::start(folder.path()) else { return };
    let Some(browser) = Browser::start() else { return };
    let source = root().join("plugins/logits-processor/top-k");
    jackfield::build_plugin(&source, BuildLane::Native, Some(&file)).unwrap();
    let socket = "[data-slot='logits-processor/temperature']";
    let name = format!("{socket} .name");

    browser.open(&format!("http://{}/#board", service.address));
    within("anybody sees the board", || browser.text(&name) == "temperature #1");
    assert!(browser.text("#board-note").contains("operators"));

    browser.click("[data-tab=settings]");
    browser.keys("[name=admin_address]", &format!("http://{}", service.admin));
    browser.keys("[name=admin_key]", "master");
    browser.click("[data-tab=board]");
    within("operators see lanes", || browser.text(&format!("{socket} dl")).contains("builtin"));
    browser.keys("#swap-file", &file.display().to_string());
    browser.keys("#swap-slot", "temperature");
    browser.click("#swap [value=dry]");
    within("the difference is told", || browser.text("#swap-answer").contains("\"dry_run\": true"));
    assert_eq!(browser.text(&name), "temperature #1");

    browser.click("#swap [value=swap]");
    within("the plugin is in", || browser.text(&name) == "top-k #2");
    within("the swap is told", || browser.text("#events").contains("top-k #2 plugged in"));
    browser.click(&format!("{socket} .row button:last-child"));
    within("it is taken back", || browser.text(&name).starts_with("temperature #"));
    assert_eq!(browser.errors(), Vec::<String>::new());
}

/// Every request finds a plugin that fails: it is told so, and the next one finds the plugin started
/// again.
#[test]
fn what_fails_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostile.wasm");
    let source = root().join("host/loader/tests/guests/hostile");
    jackfield::build_plugin(&source, BuildLane::Wasm, Some(&file)).unwrap();
    let config = "[plugins]\nlogits-processor = [\"temperature\", \"hostile\"]\n\
        [load]\nfiles = [\"hostile.wasm\"]\n[plugin.hostile]\ndeed = \"panic\"\n";
    std::fs::write(folder.path().join("jackfield.toml"), config).unwrap();
    let Some(service) = Process::start(folder.path()) else { return };
    let is_filled_by = |active: &str| {
        let slots = service.ask("GET", "/slots", &Value::Null).json();
        slots["slots"].as_array().unwrap().iter().any(|slot| slot["active"] == active)
    };
    for active in ["hostile#1", "hostile#2", "hostile#3"] {
        within(&format!("{active} fills its slot"), || is_filled_by(active));
        let answer = service.complete("");
        assert_eq!(answer.status, 500, "{answer:?}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("hostile"), "{message}");
    }
}

/// A plugin that runs and loops is ended at the deadline that was set after it had been made.
#[test]
fn quotas_change_while_plugins_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostile.wasm");
    let source = root().join("host/loader/tests/guests/hostile");
    jackfield::build_plugin(&source, BuildLane::Wasm, Some(&file)).unwrap();
    let plugins = "[plugins]\nlogits-processor = [\"temperature\", \"hostile\"]\n\
        [plugin.hostile]\ndeed = \"loop\"\n";
    let load = "[load]\nwatch = false\nfiles = [\"hostile.wasm\"]\n";
    let config = folder.path().join("jackfield.toml");
    std::fs::write(&config, format!("{plugins}{load}wasm_call_ms = 3600000\n")).unwrap();
    let Some(mut service) = Process::start(folder.path()) else { return };
    let quotas = || service.ask("GET", "/quotas", &Value::Null).json();
    assert_eq!((&quotas()["call_ms"], &quotas()["memory_mib"]), (&json!(3600000), &json!(256)));
    let changed = service.ask("POST", "/quotas", &json!({ "call_ms": 50, "native_mapped": 7 }));
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!((&quotas()["call_ms"], &quotas()["native_mapped"]), (&json!(50), &json!(7)));
    let failed = service.complete("");
    assert!(failed.body.contains("deadline of 50 ms"), "{}", failed.body);
    let refused = service.ask("POST", "/quotas", &json!({ "instances": 129, "call_ms": 60 }));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("instances")));
    assert_eq!(quotas()["call_ms"], 50, "all of it or nothing");

    std::fs::write(&config, format!("{plugins}{load}wasm_call_ms = 70\n")).unwrap();
    service.signal("-HUP");
    line_with(&mut service.log, "the configuration was read again");
    let quotas = service.ask("GET", "/quotas", &Value::Null).json();
    assert_eq!((&quotas["call_ms"], &quotas["native_mapped"]), (&json!(70), &json!(256)));
}

/// Whatever operators ask is answered as the description of their listener says.
#[test]
fn operators_are_answered_as_described() {
    let folder = tempfile::tempdir().unwrap();
    let Some(service) = Process::start(folder.path()) else { return };
    assert_eq!(
        Connection::send(service.admin, &bytes("GET", "/openapi.json", &[], "")).answer().status,
        401
    );
    let document = service.ask("GET", "/openapi.json", &Value::Null).json();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    let all = [
        "/adapter",
        "/events",
        "/mask",
        "/plugins",
        "/plugins/load",
        "/plugins/rollback",
        "/plugins/swap",
        "/quotas",
        "/slots",
    ];
    assert_eq!(paths, all);
    // One of them goes on until the client leaves.
    schemathesis(service.admin, 25, &["--header", "Authorization: Bearer master"], &["/events"]);
    assert_eq!(service.complete("").status, 200);
}

#[test]
fn signals_apply_the_configuration_and_end_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("jackfield.toml");
    // Read again at a signal, not when it is saved.
    let watch = "[load]\nwatch = false\n";
    std::fs::write(&config, watch).unwrap();
    let Some(mut service) = Process::start(folder.path()) else { return };
    assert_eq!(service.complete("").status, 200);
    std::fs::write(&config, format!("{watch}[server]\napi_keys = [\"k\"]\n")).unwrap();
    service.signal("-HUP");
    line_with(&mut service.log, "the configuration was read again");
    assert_eq!(service.complete("").status, 401);
    assert_eq!(service.complete("k").status, 200);
    std::fs::write(&config, format!("{watch}[server]\napi_keys = 3\n")).unwrap();
    service.signal("-HUP");
    line_with(&mut service.log, "[server] stays as it was");
    assert_eq!(service.complete("k").status, 200);

    service.signal("-TERM");
    assert!(service.child.wait().unwrap().success());
    let mut rest = String::new();
    service.log.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("panicked"), "{rest}");
}

/// An adapter of the tiny model, other numbers for each seed.
fn adapter(seed: u64) -> TempDir {
    let base = Parameters::from_safetensors(&std::fs::read(golden("tiny.safetensors")).unwrap());
    let mut lora = Lora::random(&base.unwrap(), &["q_proj", "down_proj"], 4, 64.0, seed).unwrap();
    let mut random = Random::new(seed);
    for (name, parameter) in &mut lora.parameters.0 {
        if name.contains("lora_B") {
            parameter.values.iter_mut().for_each(|x| *x = 0.1 * random.signed());
        }
    }
    let folder = TempDir::new().unwrap();
    lora.save(folder.path(), "tiny").unwrap();
    folder
}

#[test]
fn operators_exchange_the_adapter_while_answers_are_streamed() {
    let (folder, adapters) = (tempfile::tempdir().unwrap(), [adapter(1), adapter(2)]);
    let config = folder.path().join("jackfield.toml");
    let write = |adapter: Option<&Path>| {
        let line = adapter.map(|path| format!("adapter = {path:?}\n")).unwrap_or_default();
        let draft = folder.path().join("draft");
        std::fs::write(&draft, format!("[engine]\nnum_seqs = 8\n{line}")).unwrap();
        std::fs::rename(&draft, &config).unwrap();
    };
    // What servers answer that were started with each.
    let [one, two] = adapters.each_ref().map(TempDir::path);
    let mut expected = Vec::new();
    for adapter in [None, Some(one), Some(two)] {
        write(adapter);
        let Some(service) = Process::start(folder.path()) else { return };
        expected.push(service.answer());
    }
    assert!(expected[0] != expected[1] && expected[1] != expected[2]);

    write(None);
    let Some(mut service) = Process::start(folder.path()) else { return };
    let stream = service.stream();
    let exchange = |folder: Value| service.ask("POST", "/adapter", &json!({ "folder": folder }));
    let done = exchange(json!(one));
    assert_eq!(
        (done.status, done.json()["reach"].as_str()),
        (200, Some("new-requests")),
        "{}",
        done.body
    );
    assert!(done.json()["active"].as_str().unwrap().ends_with("#2"), "{}", done.body);
    assert_eq!(service.answer(), expected[1]);
    assert_eq!(stream.join().unwrap(), expected[0], "the stream goes on as it began");
    let slots = service.ask("GET", "/slots", &Value::Null).body;
    assert!(slots.contains("\"weights\""), "{slots}");
    for (folder, status, words) in [
        (json!("relative"), 400, "an absolute path"),
        (json!("/nowhere"), 409, "adapter_config.json"),
        (json!(3), 400, "folder"),
    ] {
        let refused = exchange(folder);
        assert_eq!(refused.status, status, "{}", refused.body);
        assert!(refused.body.contains(words), "{}", refused.body);
    }
    assert_eq!(service.answer(), expected[1], "what is refused changes nothing");
    write(Some(two));
    line_with(&mut service.log, "new requests have the adapter");
    assert_eq!(service.answer(), expected[2]);
    let done = service.ask("POST", "/adapter", &json!({ "folder": null }));
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(service.answer(), expected[0]);
}
