//! A server over the tiny model, in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use jackfield_engine::encode::Reply;
use jackfield_engine::{Embedder, EncoderModel, EncoderOptions, EngineError, Memories};
use jackfield_loader::{Grants, Services, StoreOptions};
use jackfield_server::{EngineFacts, Server, ServerConfig};
use jackfield_tests::{Setup, tiny_encoder, tiny_model};
use plugin_api::events::{Flow, Subscriptions};
use plugin_api::kinds::logits_processor::LogitsProcessor;
use plugin_api::testing::machine::Machine;
use plugin_api::{Config, Hook, Kind, OutputParser};
use serde_json::{Value, json};

use crate::client::{Answer, Connection, bytes, json_bytes};

/// What every request names.
pub(crate) const MODEL: &str = "tiny";
/// What requests for embeddings name, where there is a model for them.
pub(crate) const EMBEDDING_MODEL: &str = "tiny-bert";

/// Messages with marks of their own, as chat models have them.
const TEMPLATE: &str =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>";

/// Steps happen while it is open.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar, AtomicBool)>);

impl Gate {
    pub(crate) fn set(&self, is_open: bool) {
        *self.0.0.lock().unwrap() = is_open;
        self.0.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let is_open = self.0.0.lock().unwrap();
        self.0.2.store(true, Ordering::Release);
        drop(self.0.1.wait_while(is_open, |is_open| !*is_open).unwrap());
    }
}

/// Models that are not the usual ones.
#[derive(Default)]
pub(crate) struct Models {
    /// What generates; the tiny model where none is named.
    pub(crate) decoder: Option<PathBuf>,
    /// What makes embeddings, if anything.
    pub(crate) encoder: Option<PathBuf>,
    /// While it is shut, as much as may wait for the encoder does.
    pub(crate) encoder_gate: Option<Gate>,
    /// Where memories keep their rows; there are none without.
    pub(crate) store: Option<PathBuf>,
    /// Most bytes of a session there.
    pub(crate) session_bytes: Option<u64>,
}

/// Holds the encoder up until the gate is open.
impl Reply for Gate {
    fn is_unwanted(&self) -> bool {
        false
    }

    fn answer(self: Box<Self>, _: Result<Vec<f32>, EngineError>) {
        self.wait();
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) gate: Gate,
    encoder_gate: Gate,
    stop: Box<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// With the defaults.
    pub(crate) fn new() -> Self {
        Self::with(Config::at("server"), |_| {})
    }

    /// With this table `server`, and an engine of one's own.
    pub(crate) fn with(table: Config, edit: impl FnOnce(&mut Setup) + Send + 'static) -> Self {
        Self::of(Models::default(), table, edit)
    }

    /// With a model for embeddings, the tiny one.
    pub(crate) fn encoding() -> Self {
        let folder = tiny_encoder();
        let models = Models { encoder: Some(folder.path().to_owned()), ..Models::default() };
        Self::of(models, Config::at("server"), |_| {})
    }

    /// The same over other models.
    pub(crate) fn of(
        models: Models,
        table: Config,
        edit: impl FnOnce(&mut Setup) + Send + 'static,
    ) -> Self {
        let mut setup = Setup::new("cpu");
        edit(&mut setup);
        if let Some(store) = &models.store {
            let mut options = StoreOptions::new(store);
            options.session_bytes_max = models.session_bytes.unwrap_or(options.session_bytes_max);
            let services = Services::with_store(options);
            setup.wiring.lend(move |plugin, vocabulary| {
                services.host_beside(plugin, Grants::for_builtin(), vocabulary)
            });
        }
        let table = table.with("address", "127.0.0.1:0");
        let config = Config::new().with("server", table);
        let mut config = ServerConfig::read(&config, "".as_ref()).unwrap();
        config.model_names.insert(0, MODEL.to_owned());
        config.embedding_model = models.encoder.is_some().then(|| EMBEDDING_MODEL.to_owned());
        let kinds = [<dyn LogitsProcessor>::NAME, <dyn Hook>::NAME, <dyn OutputParser>::NAME];
        let readers = kinds.into_iter().flat_map(|kind| setup.wiring.names(kind)).collect();
        let facts = EngineFacts { readers, num_seqs_max: setup.options.num_seqs_max, board: None };
        let server = Server::start(config, facts).unwrap();
        let (address, stop) = (server.address(), Box::new(server.stopper()));
        let gate = Gate::default();
        gate.set(true);
        let mut on = Subscriptions::new();
        let before = gate.clone();
        on.before_step(move |_, _| {
            before.wait();
            Flow::Continue
        });
        setup.subscribe_hooks(|plugin| Machine::new().host(plugin));
        setup.bus.subscribe(&Machine::new().host("gate"), on);
        let encoder_gate = models.encoder_gate.clone().unwrap_or_default();
        let run = move || {
            let folder = tiny_model(MODEL);
            std::fs::write(folder.path().join("chat_template.jinja"), TEMPLATE).unwrap();
            if let Some(path) = models.encoder {
                let (wiring, registry) = (&setup.wiring, &setup.registry);
                let options = EncoderOptions::default();
                let model = EncoderModel::load(&path, wiring, registry, &options, &mut |_, _| {});
                let jobs_max = if models.encoder_gate.is_some() { 1 } else { 64 };
                let embedder = Embedder::start(model.unwrap(), jobs_max).unwrap();
                while let Some(gate) = &models.encoder_gate {
                    // Once it waits there, it takes nothing from the queue.
                    let is_waiting = gate.0.2.load(Ordering::Acquire);
                    let taken = embedder.submit(vec![vec![1]], Box::new(gate.clone()));
                    if is_waiting && taken.is_err() {
                        break;
                    }
                }
                server.embed_with(embedder);
            }
            let engine = setup.load(models.decoder.as_deref().unwrap_or(folder.path())).unwrap();
            if models.store.is_some() {
                let (wiring, registry) = (&setup.wiring, &setup.registry);
                let tokenizer = &engine.model().tokenizer;
                server.remember_with(Memories::load(wiring, registry, tokenizer, 300).unwrap());
            }
            server.run(engine, || {});
        };
        let thread = Some(std::thread::spawn(run));
        let service = Self { address, gate, encoder_gate, stop, thread };
        while service.get("/health").status != 200 {
            std::thread::yield_now();
        }
        service
    }

    pub(crate) fn stop(&self) {
        (self.stop)();
    }

    /// Waits until everything is answered and the server has ended.
    pub(crate) fn join(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        Connection::send(self.address, &bytes("GET", path, &[], "")).answer()
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        Connection::send(self.address, &bytes("DELETE", path, &[], "")).answer()
    }

    pub(crate) fn open(&self, path: &str, body: &Value) -> Connection {
        Connection::send(self.address, &json_bytes(path, body))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.open(path, body).answer()
    }

    /// The value of a metric without labels of its own.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find(|line| line.starts_with(&format!("jackfield:{name}{{")));
        let line = line.unwrap_or_else(|| panic!("{name} is not among {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) fn wait_for(&self, name: &str, value: f64) {
        while self.metric(name) != value {
            std::thread::yield_now();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.gate.set(true);
        self.encoder_gate.set(true);
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A completion of the tiny model that draws tokens.
pub(crate) fn completion(prompt: &str, max_tokens: u32) -> Value {
    json!({ "model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "seed": 7, "ignore_eos": true })
}
