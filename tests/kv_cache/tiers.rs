//! Pools that are larger than their memory: the same answers, whatever becomes of the files.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jackfield_engine::{Engine, Output, Request, RequestId};
use jackfield_loader::{Grants, Services};
use jackfield_tests::{Setup, golden, real_model};
use plugin_api::host::{Change, Command, Ended, HostServices, HttpPiece, Level, ReadSeek, Row};
use plugin_api::{Config, Error, Host, Result, Vocabulary};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

/// The tiny model with its two layers four times over, and a longer context.
pub(crate) fn deep_model() -> TempDir {
    let folder = TempDir::new().unwrap();
    let bytes = fs::read(golden("tiny.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<(String, TensorView<'_>)> = Vec::new();
    for (name, tensor) in tensors.tensors() {
        match name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
            Some((layer, rest)) => {
                let layer: usize = layer.parse().unwrap();
                let copies = (0..4).map(|n| format!("model.layers.{}.{rest}", 2 * n + layer));
                all.extend(copies.map(|name| (name, tensor.clone())));
            }
            None => all.push((name, tensor)),
        }
    }
    let written = safetensors::serialize(all, None).unwrap();
    fs::write(folder.path().join("model.safetensors"), written).unwrap();
    let config = fs::read_to_string(golden("tiny.config.json")).unwrap();
    let config = config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 8");
    let config =
        config.replace("\"max_position_embeddings\": 256", "\"max_position_embeddings\": 2048");
    fs::write(folder.path().join("config.json"), config).unwrap();
    fs::copy(golden("tiny.tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    folder
}

/// Services of the host, but that only so many bytes can be written.
struct Disk {
    inner: Host,
    room: Arc<AtomicI64>,
}

impl HostServices for Disk {
    fn log(&self, _: &str, _: Level, _: fmt::Arguments<'_>) {}

    fn monotonic_us(&self) -> u64 {
        self.inner.services().monotonic_us()
    }

    fn unix_seconds(&self) -> Result<f64> {
        self.inner.services().unix_seconds()
    }

    fn vocabulary(&self) -> Result<Arc<Vocabulary>> {
        self.inner.services().vocabulary()
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.inner.services().encode(text)
    }

    fn store_rows(&self, session: &str, prefix: &str) -> Result<Vec<Row>> {
        self.inner.services().store_rows(session, prefix)
    }

    fn store_change(&self, session: &str, changes: &[Change]) -> Result<bool> {
        self.inner.services().store_change(session, changes)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>> {
        self.inner.services().open(path)
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        self.inner.services().list(folder)
    }

    fn size_bytes(&self, path: &Path) -> Result<Option<u64>> {
        self.inner.services().size_bytes(path)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let left = self.room.fetch_sub(bytes.len() as i64, Ordering::Relaxed) - bytes.len() as i64;
        if left < 0 {
            // As a full disk does it: part of the bytes are there.
            self.inner.services().append(path, &bytes[..bytes.len() / 2])?;
            return Err(Error::outside(path.display(), "no space left on device"));
        }
        self.inner.services().append(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.services().rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.inner.services().remove(path)
    }

    fn run(&self, command: &Command, tick: &mut dyn FnMut()) -> Result<Ended> {
        self.inner.services().run(command, tick)
    }

    fn http_get(
        &self,
        url: &str,
        offset: u64,
        piece: &mut dyn FnMut(HttpPiece<'_>) -> Result<()>,
    ) -> Result<()> {
        self.inner.services().http_get(url, offset, piece)
    }
}

/// A cache with tiers: pool and memory in KiB, files in a folder.
pub(crate) struct Tiers {
    pub(crate) folder: TempDir,
    pub(crate) setup: Setup,
    /// Bytes that can still be written.
    room: Arc<AtomicI64>,
}

impl Tiers {
    pub(crate) fn new(pool_kib: u64, memory_kib: i64, chunk_kib: i64) -> Self {
        let (folder, room) = (TempDir::new().unwrap(), Arc::new(AtomicI64::new(i64::MAX / 2)));
        let path = folder.path().to_str().unwrap().to_owned();
        let mut setup =
            Setup::new("cpu").with("kv-cache", "tiered").set("tiered", "folder", &*path);
        setup = setup.set("tiered", "memory_kib", memory_kib).set("tiered", "chunk_kib", chunk_kib);
        setup.options.state_bytes_max = pool_kib << 10;
        setup.options.context_length_max = 2048;
        setup.options.num_seqs_max = 4;
        let paths = || plugin_api::Value::List(vec![(&*path).into()]);
        let table = Config::new().with("read", paths()).with("write", paths());
        let (services, grants, left) =
            (Services::new(), Grants::from_config(&table).unwrap(), Arc::clone(&room));
        setup.wiring.lend(move |name, _| {
            let inner = services.host(name, grants.clone());
            Host::new(name, Arc::new(Disk { inner, room: Arc::clone(&left) }))
        });
        Self { folder, setup, room }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn plain(pool_kib: u64) -> Setup {
    let mut setup = Setup::new("cpu");
    setup.options.state_bytes_max = pool_kib << 10;
    setup.options.context_length_max = 2048;
    setup.options.num_seqs_max = 4;
    setup
}

fn request(num_tokens: u32, seed: u32, answer: i64) -> Request {
    let tokens: Vec<u32> = (0..num_tokens).map(|i| (i * 31 + seed * 17 + i / 7) % 510).collect();
    let request = Request::new(tokens).with("max_tokens", answer).with("ignore_eos", true);
    request.strategy("greedy")
}

/// Tokens and error of a request.
type Answered = (Vec<u32>, Option<Error>);

fn answers(
    engine: &mut Engine,
    requests: impl IntoIterator<Item = Request>,
    mut each_step: impl FnMut(usize),
) -> Vec<Answered> {
    let ids: Vec<RequestId> =
        requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let mut ended: Vec<Answered> = vec![(Vec::new(), None); ids.len()];
    for n in 0.. {
        if engine.num_running() == 0 {
            break;
        }
        assert!(n < 20_000, "it ends");
        each_step(n);
        let of = |id: RequestId| ids.iter().position(|other| *other == id).unwrap();
        let sink = &mut |output: Output<'_>| match output {
            Output::Token { request, token, .. } => ended[of(request)].0.push(token),
            Output::Finished { request, error, .. } => ended[of(request)].1 = error.cloned(),
        };
        engine.step(sink).unwrap();
    }
    ended
}

#[test]
fn a_context_of_four_times_the_memory_answers_alike() {
    let model = deep_model();
    let expected =
        answers(&mut plain(2048).load(model.path()).unwrap(), [request(900, 1, 60)], |_| {});
    for (policy, prefetch) in [("lru", false), ("bimodal", false), ("bimodal", true)] {
        // 960 tokens in 16 bits, of 8 layers: 960 KiB.
        let tiers = Tiers::new(2048, 240, 4);
        let setup = tiers.setup.set("tiered", "policy", policy).set("tiered", "prefetch", prefetch);
        let mut engine = setup.load(model.path()).unwrap();
        let found = answers(&mut engine, [request(900, 1, 60)], |_| {});
        assert_eq!(found, expected, "{policy}, prefetch {prefetch}");
        let stats = engine.tier_stats().unwrap();
        println!("{policy}, prefetch {prefetch}: {stats:?}");
        assert!(stats.resident_peak <= 60 && stats.writes >= 150, "{stats:?}");
        let hits = stats.hits as f64 / stats.uses as f64;
        match (policy, prefetch) {
            ("lru", _) => assert!(hits < 0.02, "a cycle leaves nothing: {stats:?}"),
            (_, false) => assert!(hits > 0.08, "a part stays: {stats:?}"),
            _ => assert!(stats.prefetched > stats.uses / 4, "most are fetched ahead: {stats:?}"),
        }
        assert!(fs::read_dir(tiers.folder.path()).unwrap().next().is_some());
        drop(engine);
        assert!(
            fs::read_dir(tiers.folder.path()).unwrap().next().is_none(),
            "files go with the engine"
        );
    }
}

#[test]
fn conversations_that_wait_in_files_are_not_computed_again() {
    let model = deep_model();
    let mut first = plain(8192).load(model.path()).unwrap();
    // Four conversations of 400 tokens, one after the other and again: each comes back to its own.
    let turns = || (0..8).map(|n| request(400 + 20 * (n / 4), n % 4, 8));
    let expected: Vec<_> =
        turns().map(|turn| answers(&mut first, [turn], |_| {}).remove(0)).collect();
    let tiers = Tiers::new(8192, 400, 4);
    let mut engine = tiers.setup.load(model.path()).unwrap();
    let found: Vec<_> =
        turns().map(|turn| answers(&mut engine, [turn], |_| {}).remove(0)).collect();
    assert_eq!(found, expected);
    let load = engine.gauge().read();
    assert!(load.cached_tokens >= 4 * 380, "{} tokens came from the cache", load.cached_tokens);
    assert!(engine.tier_stats().unwrap().reads > 100, "{:?}", engine.tier_stats());
}

#[test]
fn what_was_lost_in_files_is_computed_again() {
    let model = deep_model();
    let requests = || [request(500, 1, 40), request(420, 2, 40)];
    let expected = answers(&mut plain(4096).load(model.path()).unwrap(), requests(), |_| {});
    for harm in ["missing", "truncated", "damaged"] {
        let tiers = Tiers::new(4096, 240, 4);
        let mut engine = tiers.setup.load(model.path()).unwrap();
        let mut done = 0;
        let found = answers(&mut engine, requests(), |n| {
            if n == 12 {
                for file in tiers.files() {
                    let mut bytes = fs::read(&file).unwrap();
                    match harm {
                        "missing" => fs::remove_file(&file).unwrap(),
                        "truncated" => fs::write(&file, &bytes[..bytes.len() / 3]).unwrap(),
                        _ => {
                            bytes.iter_mut().skip(40).step_by(700).for_each(|byte| *byte ^= 0x10);
                            fs::write(&file, bytes).unwrap();
                        }
                    }
                    done += 1;
                }
            }
        });
        assert!(done > 0, "there were files to harm");
        for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
            match &found.1 {
                None => assert_eq!(found, expected, "{harm}, request {n}"),
                Some(error) if harm != "damaged" => panic!("{harm}, request {n}: {error}"),
                // Lost too often: it fails with what it found, and gave nothing wrong before.
                Some(error) => {
                    assert!(matches!(error, Error::Outside { .. }), "{harm}: {error:?}");
                    assert_eq!(found.0, expected.0[..found.0.len()], "{harm}, request {n}");
                }
            }
        }
        let again = answers(&mut engine, requests(), |_| {});
        assert_eq!(again, expected, "{harm}: whoever comes after sees nothing of it");
        assert_eq!(engine.cache_usage().used, 0, "{harm}");
    }
}

#[test]
fn a_full_disk_ends_who_came_last_and_nobody_else() {
    let model = deep_model();
    let requests = || [request(150, 1, 30), request(600, 2, 30)];
    let expected = answers(&mut plain(4096).load(model.path()).unwrap(), requests(), |_| {});
    let tiers = Tiers::new(4096, 320, 4);
    let mut engine = tiers.setup.load(model.path()).unwrap();
    tiers.room.store(64 << 10, Ordering::Relaxed);
    let found = answers(&mut engine, requests(), |_| {});
    assert_eq!(found[0], expected[0], "what fits into memory goes on");
    let error = found[1].1.clone().expect("there is no room for the other");
    assert!(error.to_string().contains("no space left on device"), "{error}");
    tiers.room.store(i64::MAX / 2, Ordering::Relaxed);
    assert_eq!(answers(&mut engine, requests(), |_| {}), expected, "with room, both");
}

#[test]
fn what_cannot_work_is_refused_before_anything_runs() {
    let model = deep_model();
    // No grant for the folder.
    let mut tiers = Tiers::new(2048, 240, 4);
    let services = Services::new();
    tiers.setup.wiring.lend(move |name, _| services.host(name, Grants::none()));
    let mut engine = tiers.setup.load(model.path()).unwrap();
    let found = answers(&mut engine, [request(900, 1, 4)], |_| {});
    assert!(matches!(found[0].1, Some(Error::Denied { .. })), "{:?}", found[0].1);
    // A backend that wants all of it.
    let mut tiers = Tiers::new(2048, 240, 4);
    tiers.setup.wiring.choose("backend", "reference");
    let refused = tiers.setup.load(model.path()).err().unwrap();
    assert!(refused.to_string().contains("all of it in memory"), "{refused}");
    // Less memory than one layer of the context takes.
    let tiers = Tiers::new(2048, 64, 4);
    let mut engine = tiers.setup.load(model.path()).unwrap();
    let found = answers(&mut engine, [request(900, 1, 4), request(40, 2, 4)], |_| {});
    assert!(matches!(found[0].1, Some(Error::NoSpace { .. })), "{:?}", found[0].1);
    assert_eq!((found[1].0.len(), &found[1].1), (4, &None), "a short one fits");
}

#[test]
fn a_real_model_reads_four_times_its_memory() {
    let Some(path) = real_model("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let text = fs::read_to_string(jackfield_tests::root().join("README.md")).unwrap();
    let mut first = plain(1 << 17).load(&path).unwrap();
    let mut tokens = first.model().tokenizer.encode(&text, false);
    tokens.truncate(1500);
    let request = || {
        let request = Request::new(tokens.clone()).with("max_tokens", 36_i64);
        request.with("ignore_eos", true).strategy("greedy")
    };
    let expected = answers(&mut first, [request()], |_| {});
    // 1,536 tokens of 23,040 bytes: 35,389,440 bytes.
    let tiers = Tiers::new(1 << 17, 8640, 64);
    let mut engine = tiers.setup.load(&path).unwrap();
    assert_eq!(answers(&mut engine, [request()], |_| {}), expected);
    println!("{:?}", engine.tier_stats().unwrap());
}
