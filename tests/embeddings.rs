//! Vectors of texts: those of sentence-transformers, on every backend, alone and in company.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use jackfield_engine::encode::Reply;
use jackfield_engine::{Embedder, EncoderModel, EncoderOptions, EngineError};
use jackfield_runtime::{Reach, SwapError, SwapTarget, SystemClock};
use jackfield_tests::{Setup, golden, real_model, tiny_encoder};
use plugin_api::events::{Flow, Subscriptions};
use plugin_api::plan::{Dim, OpSink, OpSinkExt, Spec, Val};
use plugin_api::testing::machine::Machine;
use plugin_api::{Config, Encoder, LayerRef, Result, SemanticId, Traced};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize};
use serde_json::Value;

/// Largest distance of a number: vectors of length one, F32 sums in another order, six layers deep
/// (sentence-transformers in a batch and alone lie 2e-7 apart).
const TOLERANCE: f64 = 2e-6;
/// Least cosine of a vector with the expected one.
const COSINE: f64 = 0.999_999;

fn load(setup: &Setup, path: &Path, options: &EncoderOptions) -> EncoderModel {
    EncoderModel::load(path, &setup.wiring, &setup.registry, options, &mut |_, _| {}).unwrap()
}

fn entries(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(golden(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The ids of each text, which have to be those of the `tokenizers` of Python.
fn ids_of(model: &EncoderModel, entries: &[Value]) -> Vec<Vec<u32>> {
    let ids = |entry: &Value| {
        let text = entry["text"].as_str().unwrap();
        let found = model.tokenizer().encode_framed(text);
        let expected: Vec<u32> = numbers(&entry["ids"]).iter().map(|id| *id as u32).collect();
        assert_eq!(found, expected, "{text:?}");
        found
    };
    entries.iter().map(ids).collect()
}

/// One batch has the expected vectors; alone, in pairs and backwards the bits are the same.
fn check(model: &mut EncoderModel, ids: &[Vec<u32>], expected: &[Vec<f64>], what: &str) {
    let width = model.width();
    let together = model.encode(ids.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(together.len(), ids.len() * width);
    for (i, (found, expected)) in together.chunks_exact(width).zip(expected).enumerate() {
        let pairs = || found.iter().map(|x| f64::from(*x)).zip(expected.iter().copied());
        let farthest = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let cosine: f64 = pairs().map(|(a, b)| a * b).sum();
        assert!(farthest <= TOLERANCE, "{what}, text {i}: a number lies {farthest:e} off");
        assert!(cosine >= COSINE, "{what}, text {i}: cosine {cosine}");
    }
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for (i, one) in ids.iter().enumerate() {
        let row = bits(&together[i * width..][..width]);
        let alone = model.encode([&one[..]]).unwrap();
        assert_eq!(bits(&alone), row, "{what}, text {i} alone");
        let next = &ids[(i + 1) % ids.len()];
        let pair = model.encode([&next[..], one]).unwrap();
        assert_eq!(bits(&pair[width..]), row, "{what}, text {i} after another");
    }
    let backwards = model.encode(ids.iter().rev().map(Vec::as_slice)).unwrap();
    for (a, b) in backwards.chunks_exact(width).zip(together.chunks_exact(width).rev()) {
        assert_eq!(bits(a), bits(b), "{what}, backwards");
    }
}

#[test]
fn a_tiny_bert_has_the_vectors_of_the_reference_with_either_pooling() {
    let folder = tiny_encoder();
    let entries = entries("tiny_bert_expected.json");
    for backend in ["reference", "cpu"] {
        for pooling in ["mean", "cls"] {
            let setup = Setup::new(backend).set("bert", "pooling", pooling);
            let mut model = load(&setup, folder.path(), &EncoderOptions::default());
            assert_eq!((model.width(), model.tokens_max(), model.vocab_size()), (32, 64, 120));
            let ids = ids_of(&model, &entries);
            let expected: Vec<Vec<f64>> = entries.iter().map(|e| numbers(&e[pooling])).collect();
            check(&mut model, &ids, &expected, &format!("{backend}, {pooling}"));
        }
    }
}

#[test]
fn what_cannot_be_encoded_is_refused_and_leaves_the_model_as_it_was() {
    let folder = tiny_encoder();
    let mut model = load(&Setup::new("cpu"), folder.path(), &EncoderOptions::default());
    let before = model.encode([&[2, 18, 3][..]]).unwrap();
    #[rustfmt::skip]
    let cases = [
        (vec![],        "input: expected 1 to 64 tokens, found 0"),
        (vec![5; 65],   "input: expected 1 to 64 tokens, found 65"),
        (vec![2, 120],  "input: expected ids below 120, found 120"),
    ];
    for (ids, expected) in cases {
        assert_eq!(model.encode([&ids[..]]).unwrap_err().to_string(), expected);
    }
    assert_eq!(model.encode([&[2, 18, 3][..]]).unwrap(), before);
    assert!(model.encode([]).unwrap().is_empty());
}

#[test]
fn all_minilm_l6_v2_has_the_vectors_of_sentence_transformers() {
    let Some(path) = real_model("all-MiniLM-L6-v2", "model.safetensors") else { return };
    let entries = entries("embeddings.json");
    let bytes = std::fs::read(golden("embeddings.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("embeddings").unwrap();
    let (chunks, _) = tensor.data().as_chunks::<4>();
    let values: Vec<f64> = chunks.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
    let expected: Vec<Vec<f64>> = values.chunks_exact(384).map(<[f64]>::to_vec).collect();
    for (backend, few) in [("cpu", entries.len()), ("reference", 3)] {
        let mut model = load(&Setup::new(backend), &path, &EncoderOptions::default());
        assert_eq!((model.width(), model.tokens_max()), (384, 256));
        let ids = ids_of(&model, &entries);
        check(&mut model, &ids[..few], &expected[..few], backend);
    }
}

/// The same model, its matrices written in a format and read back.
fn rounded(folder: &Path, format: &str, setup: &Setup) -> tempfile::TempDir {
    let quantizers = setup.wiring.quantizers(&setup.registry).unwrap();
    let (_, quantizer) = &quantizers[format];
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (mut data, mut num_rounded) = (Vec::new(), 0);
    for (name, tensor) in tensors.tensors() {
        let mut content = tensor.data().to_vec();
        let cols = tensor.shape().last().copied().unwrap_or(0);
        let is_matrix = tensor.dtype() == Dtype::F32 && tensor.shape().len() == 2;
        if is_matrix && cols.is_multiple_of(quantizer.format().block_len) {
            let (chunks, _) = content.as_chunks::<4>();
            let mut values: Vec<f32> = chunks.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let mut blocks = vec![0; quantizer.format().size_bytes(values.len()).unwrap()];
            quantizer.encode(&values, None, &mut blocks).unwrap();
            quantizer.decode(&blocks, &mut values).unwrap();
            content = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            num_rounded += 1;
        }
        data.push((name, tensor.dtype(), tensor.shape().to_vec(), content));
    }
    assert!(num_rounded > 0, "{format}");
    let views = data.iter().map(|(name, dtype, shape, content)| {
        (name, TensorView::new(*dtype, shape.clone(), content).unwrap())
    });
    let to = tempfile::tempdir().unwrap();
    std::fs::write(to.path().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_file() && entry.file_name() != "model.safetensors" {
            std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
    }
    to
}

/// Formats, and the least cosine of a vector with that of the whole model: what quantizers lose on real weights.
#[rustfmt::skip]
const FORMATS: [(&str, f64); 13] = [
    ("BF16",           0.9998),
    ("Q8_0",           0.9998),
    ("INT8_B128",      0.9998),
    ("FP8_E4M3_B128",  0.998),
    ("Q6_K",           0.999),
    ("Q5_1",           0.995),
    ("Q5_0",           0.995),
    ("Q5_K",           0.995),
    ("Q4_1",           0.97),
    ("Q4_K",           0.97),
    ("Q4_0",           0.97),
    ("INT4_G128",      0.95),
    ("MXFP4",          0.95),
];

#[test]
#[allow(clippy::print_stdout, reason = "what was measured is worth reading")]
fn vectors_of_a_quantized_encoder_point_where_they_did() {
    let Some(path) = real_model("all-MiniLM-L6-v2", "model.safetensors") else { return };
    let folder = path.parent().unwrap();
    let (setup, entries) = (Setup::new("cpu"), entries("embeddings.json"));
    let vectors = |path: &Path| {
        let mut model = load(&setup, path, &EncoderOptions::default());
        let ids = ids_of(&model, &entries);
        (model.encode(ids.iter().map(Vec::as_slice)).unwrap(), model.width())
    };
    let (whole, width) = vectors(&path);
    for (format, least) in FORMATS {
        let to = rounded(folder, format, &setup);
        let (found, _) = vectors(&to.path().join("model.safetensors"));
        let cosines: Vec<f64> = found
            .chunks_exact(width)
            .zip(whole.chunks_exact(width))
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum())
            .collect();
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let worst = cosines.iter().copied().fold(1.0, f64::min);
        println!("{format:14} cosine {mean:.5}, at worst {worst:.5}");
        assert!(worst >= least, "{format}: {worst}, expected {least}");
    }
}

/// A reply that a test waits for.
struct Sent {
    to: SyncSender<Vectors>,
    is_unwanted: bool,
}

impl Reply for Sent {
    fn is_unwanted(&self) -> bool {
        self.is_unwanted
    }

    fn answer(self: Box<Self>, vectors: Vectors) {
        let _ = self.to.send(vectors);
    }
}

fn submit(embedder: &Embedder, sequences: Vec<Vec<u32>>, is_unwanted: bool) -> Waited {
    let (to, from) = sync_channel(1);
    assert!(embedder.submit(sequences, Box::new(Sent { to, is_unwanted })).is_ok());
    from
}

type Waited = Receiver<Vectors>;
type Vectors = std::result::Result<Vec<f32>, EngineError>;

#[test]
fn the_thread_answers_every_job_with_the_vectors_that_it_has_alone() {
    let folder = tiny_encoder();
    let options = EncoderOptions { tokens_per_step_max: 64, num_seqs_max: 5, threads: 1 };
    let ids = |seed: usize| -> Vec<u32> {
        (0..1 + seed % 60).map(|i| ((seed * 7 + i) % 120) as u32).collect()
    };
    let jobs: Vec<Vec<Vec<u32>>> =
        (0..40).map(|j| (0..j % 9).map(|i| ids(j * 31 + i)).collect()).collect();
    let mut model = load(&Setup::new("cpu"), folder.path(), &options);
    let expected: Vec<Vec<f32>> =
        jobs.iter().map(|job| model.encode(job.iter().map(Vec::as_slice)).unwrap()).collect();
    let embedder = Embedder::start(model, jobs.len() * 2).unwrap();
    let mut waited = Vec::new();
    for job in &jobs {
        waited.push(submit(&embedder, job.clone(), false));
        let unwanted = submit(&embedder, vec![vec![1]; 50], true);
        drop(unwanted);
    }
    for (found, expected) in waited.into_iter().zip(expected) {
        assert_eq!(found.recv().unwrap().unwrap(), expected);
    }
    // What was submitted is answered before the thread ends.
    let last = submit(&embedder, vec![vec![2, 18, 3]], false);
    drop(embedder);
    assert_eq!(last.recv().unwrap().unwrap().len(), 32);
}

/// A job that keeps the thread waiting until somebody takes its vectors.
fn hold(embedder: &Embedder) -> Waited {
    let (to, from) = sync_channel(0);
    let reply = Box::new(Sent { to, is_unwanted: false });
    assert!(embedder.submit(vec![vec![1]], reply).is_ok());
    from
}

fn bert(setup: &Setup, pooling: &str) -> Box<dyn Any + Send> {
    let table = Config::new().with("pooling", pooling);
    Box::new(setup.registry.make::<dyn Encoder>("bert", &table).unwrap())
}

#[test]
fn a_swap_serves_the_requests_that_come_after_it() {
    let (folder, setup) = (tiny_encoder(), Setup::new("cpu"));
    let entries = entries("tiny_bert_expected.json");
    let model = load(&setup, folder.path(), &EncoderOptions::default());
    let ids = ids_of(&model, &entries);
    let embedder = Embedder::start(model, 64).unwrap();
    let swapper = embedder.swapper(&setup.bus, Arc::new(SystemClock::new()));
    let check = |waited: Waited, pooling: &str| {
        let found = waited.recv().unwrap().unwrap();
        let expected: Vec<f64> = entries.iter().flat_map(|e| numbers(&e[pooling])).collect();
        let near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= TOLERANCE;
        assert!(found.iter().zip(&expected).all(near), "{pooling}");
    };
    let held = hold(&embedder);
    let mut waited = vec![(submit(&embedder, ids.clone(), false), "mean")];
    for (pooling, generation) in [("cls", 2), ("mean", 3), ("cls", 4)] {
        let limit = Duration::ZERO;
        let swapped = swapper.swap("encoder", "bert", bert(&setup, pooling), limit).unwrap();
        assert_eq!((swapped.active.generation, swapped.reach), (generation, Reach::NewRequests));
        assert_eq!(swapped.retired, None, "a job of the one before waits");
        // One job for each generation.
        waited.push((submit(&embedder, ids.clone(), false), pooling));
    }
    let status = swapper.slots().remove(0);
    assert_eq!(status.active.to_string(), "bert#4");
    let draining = status.draining.iter().map(|(label, _)| label.generation).collect::<Vec<_>>();
    assert_eq!(draining, [1, 2, 3]);
    let refused = swapper.swap("encoder", "bert", bert(&setup, "mean"), Duration::ZERO);
    assert!(matches!(refused, Err(SwapError::TooManyDraining { draining: 4, .. })), "{refused:?}");
    held.recv().unwrap().unwrap();
    waited.into_iter().for_each(|(waited, pooling)| check(waited, pooling));
    while !swapper.slots()[0].draining.is_empty() {
        std::thread::yield_now();
    }
    swapper.swap("encoder/encoder", "bert", bert(&setup, "mean"), Duration::ZERO).unwrap();
    drop(embedder);
    assert!(swapper.slots().is_empty());
    let ended = swapper.swap("encoder", "bert", bert(&setup, "mean"), Duration::ZERO);
    assert!(matches!(ended, Err(SwapError::Ended { .. })), "{ended:?}");
}

/// Describes something that the model's weights do not give.
struct Other(&'static str);

impl Traced for Other {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("other/1")
    }

    fn trace(&self, g: &mut dyn OpSink, _x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let starts = g.input("sequence_starts", Spec::u32([Dim::SEQS]))?;
        let table = g.weight(self.0)?;
        let rows = g.embed(table, starts)?;
        Ok(vec![if self.0.starts_with("embed") { g.slice(rows, 1, 0, 16)? } else { rows }])
    }
}

impl Encoder for Other {}

#[test]
fn a_swap_that_does_not_fit_leaves_everything_as_it_was() {
    let (folder, setup) = (tiny_encoder(), Setup::new("cpu"));
    let model = load(&setup, folder.path(), &EncoderOptions::default());
    let embedder = Embedder::start(model, 64).unwrap();
    let swapper = embedder.swapper(&setup.bus, Arc::new(SystemClock::new()));
    let other = |weight| -> Box<dyn Any + Send> {
        let other: Box<dyn Encoder> = Box::new(Other(weight));
        Box::new(other)
    };
    let bits = || submit(&embedder, vec![vec![2, 18, 3]], false).recv().unwrap().unwrap();
    let before = bits();
    let swap = |slot: &str, instance| {
        let error = swapper.swap(slot, "other", instance, Duration::ZERO).unwrap_err();
        assert_eq!(swapper.slots()[0].active.to_string(), "bert#1");
        assert_eq!(bits(), before, "{error}");
        error.to_string()
    };
    #[rustfmt::skip]
    let cases: [(&str, Box<dyn Any + Send>, &str); 5] = [
        ("norm",    bert(&setup, "cls"),  "norm `norm`: no slot: expected one of encoder"),
        ("encoder", Box::new(3),          "encoder `other`: expected an instance of the kind"),
        ("encoder", other("none"),        "slot `encoder`: trace: weight `none`"),
        ("encoder", other("pooler.dense.weight"), "slot `encoder`: weight `pooler.dense.weight`: expected one that was packed"),
        ("encoder", other("embeddings.position_embeddings.weight"), "slot `encoder`: vectors: expected 32 numbers, found 16"),
    ];
    for (slot, instance, expected) in cases {
        let error = swap(slot, instance);
        assert!(error.starts_with(expected), "{error}");
    }
    let mut on = Subscriptions::new();
    on.before_swap(|_, _| Flow::Refuse);
    setup.bus.subscribe(&Machine::new().host("guard"), on);
    assert_eq!(
        swap("encoder", bert(&setup, "cls")),
        "slot `encoder`: a hook of before-swap refused"
    );
}

#[test]
fn a_full_queue_gives_a_job_back() {
    let folder = tiny_encoder();
    let model = load(&Setup::new("cpu"), folder.path(), &EncoderOptions::default());
    let embedder = Embedder::start(model, 1).unwrap();
    // The thread waits in the first answer until somebody takes it.
    let (to, from) = sync_channel(0);
    let reply = |to: &SyncSender<_>| Box::new(Sent { to: to.clone(), is_unwanted: false });
    let mut refused = 0;
    let mut taken = 0;
    while refused == 0 {
        match embedder.submit(vec![vec![1]], reply(&to)) {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
        assert!(taken < 100, "a queue of one is full before that");
    }
    for _ in 0..taken {
        from.recv().unwrap().unwrap();
    }
}
