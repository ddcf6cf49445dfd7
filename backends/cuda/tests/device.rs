//! On a device: the contract suite, quantized products, streams, weights. `REQUIRE_GPU=1` makes a
//! missing device a failure; otherwise these tests say why they were skipped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::thread;

use backend_cuda::Cuda;
use kernels_cuda::{Device, Memory as DeviceMemory, Queue};
use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, Buf, DomainId, Exe, Fence, Memory, MemoryMap, RawRows, RawValues,
    StreamId, WeightDesc, WeightPlace,
};
use plugin_api::plan::{PlanBuilder, Symbol};
use plugin_api::prelude::*;
use plugin_api::testing::random::Random;
use plugin_api::testing::tolerance::of_op;
use plugin_api::testing::traced::ODD_SIZES;
use plugin_api::{TensorMut, TensorRef};
use plugin_q4_1::Q4One;

const STREAMS: u32 = 4;
/// Most rows of a run.
const ROWS_MAX: usize = 257;

/// The device; nothing, with the reason printed, where there is none.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn cuda() -> Option<Cuda> {
    match Cuda::from_config(&Config::new().with("streams", STREAMS)) {
        Ok(cuda) => Some(cuda),
        Err(error) => {
            assert!(std::env::var_os("REQUIRE_GPU").is_none(), "REQUIRE_GPU is set: {error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

#[test]
fn passes_the_contract_suite() {
    let Some(cuda) = cuda() else { return };
    plugin_api::testing::backend::suite(&cuda);
}

#[test]
fn shows_the_host_and_the_device() {
    let Some(cuda) = cuda() else { return };
    let [host, device] = &cuda.domains()[..] else { panic!("two domains: {:?}", cuda.domains()) };
    assert_eq!((host.id, host.name.as_str()), (DomainId::HOST, "host"));
    assert_eq!((device.id, device.name.as_str()), (DomainId(1), "cuda:0"));
    assert!(device.size_bytes > Some(1 << 30), "{device:?}");
}

#[test]
fn the_host_is_told_which_device_there_is_not() {
    if cuda().is_none() {
        return;
    }
    let error = Cuda::from_config(&Config::new().with("device", 63)).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("no CUDA device 63: expected one, found"), "{error}");
}

/// A weight `[rows, cols]` in `Q4_1`, packed for the device.
struct Quantized {
    place: WeightPlace,
    /// What the quantizer decodes, `[rows, cols]`.
    decoded: Vec<f32>,
    packed: Buf,
}

impl Quantized {
    fn new(cuda: &Cuda, rows: usize, cols: usize) -> Self {
        let mut random = Random::new((rows * 10_000 + cols) as u64);
        let values: Vec<f32> = (0..rows * cols).map(|_| random.signed()).collect();
        let (format, lowering) = (Q4One.format(), Q4One.lowering());
        let mut blocks = vec![0; format.size_bytes(values.len()).unwrap()];
        Q4One.encode(&values, None, &mut blocks).unwrap();
        let mut decoded = vec![0.0; values.len()];
        Q4One.decode(&blocks, &mut decoded).unwrap();
        let groups = values.len() / format.block_len;
        let (mut codes, mut scales) = (vec![0; values.len()], vec![0.0; groups]);
        let mut mins = vec![0.0; groups];
        let mut open = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut mins };
        Q4One.unpack(&blocks, &mut open).unwrap();
        let name = "w".to_owned();
        let desc = WeightDesc { name, format: format.name.into_owned(), rows, cols };
        let layout = cuda.layout(&desc, &lowering).unwrap();
        let mut packed = vec![0; layout.size_bytes(rows)];
        // A single row is a vector, which ops want plain.
        let values = if rows == 1 {
            RawValues::Floats(&decoded)
        } else {
            RawValues::Affine { codes: &codes, scales: &scales, mins: &mins }
        };
        let raw = RawRows { desc: &desc, lowering: &lowering, rows, values };
        cuda.pack(&raw, &layout, &mut packed).unwrap();
        let packed = Arc::new(Packed::host(packed));
        Self { place: WeightPlace { desc, lowering, layout }, decoded, packed }
    }

    /// `x [rows, cols]` times its transpose, in doubles.
    fn product(&self, x: &[f32]) -> Vec<f64> {
        let (n, k) = (self.place.desc.rows, self.place.desc.cols);
        let wide: Vec<f64> = self.decoded.iter().map(|&w| f64::from(w)).collect();
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let rows = x.len() / k;
        let mut y = vec![0.0; rows * n];
        kernels_reference::matmul(&x, &wide, [rows, n, k], &mut y);
        y
    }
}

/// A packed weight, here or there.
struct Packed {
    domain: DomainId,
    bytes: Option<Vec<u8>>,
    device: Option<DeviceMemory>,
}

impl Packed {
    fn host(bytes: Vec<u8>) -> Self {
        Self { domain: DomainId::HOST, bytes: Some(bytes), device: None }
    }
}

impl Memory for Packed {
    fn domain(&self) -> DomainId {
        self.domain
    }

    fn host_bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref()
    }

    fn device_address(&self) -> Option<u64> {
        self.device.as_ref().map(DeviceMemory::address)
    }
}

/// `x [tokens, k]` times `w [n, k]`, compiled.
fn product_of(cuda: &Cuda, place: &WeightPlace) -> Exe {
    let (n, k) = (place.desc.rows as u64, place.desc.cols as u64);
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::f32([Dim::TOKENS, k.into()])).unwrap();
    let w = b.declare_weight("w", Spec::f32([Dim::Fixed(n), Dim::Fixed(k)])).unwrap();
    let y = b.matmul(x, w).unwrap();
    b.output("y", y).unwrap();
    let memory = MemoryMap { weights: vec![place.clone()], ..MemoryMap::default() };
    cuda.compile(&b.finish(), &bucket(), &memory).unwrap()
}

fn bucket() -> Bucket {
    Bucket { sizes: vec![(Symbol::of("tokens"), ROWS_MAX)] }
}

/// Runs `x [rows, k]` on a stream to `y [rows, n]` and waits.
fn run(
    cuda: &Cuda,
    exe: &Exe,
    stream: u32,
    weight: &Buf,
    x: &[f32],
    rows: usize,
    n: usize,
) -> Vec<f32> {
    let mut y = vec![f32::NAN; rows * n];
    let mut bind = Bindings {
        sizes: &[rows],
        inputs: &[TensorRef::F32(x)],
        weights: std::slice::from_ref(weight),
        state: &mut [],
        scratch: &mut [],
        outputs: &mut [TensorMut::F32(&mut y)],
    };
    let fence = cuda.run(exe, StreamId(stream), &mut bind).unwrap();
    assert_eq!(fence, Fence::Pending(u64::from(stream)));
    cuda.wait(exe, fence, &mut bind).unwrap();
    y
}

fn random_rows(seed: usize, len: usize) -> Vec<f32> {
    let mut random = Random::new(seed as u64);
    (0..len).map(|_| random.signed()).collect()
}

/// Compares a product with the one in doubles, relative to the scale of its sums.
fn assert_near(what: &str, found: &[f32], expected: &[f64], k: usize) {
    let found: Vec<f64> = found.iter().map(|&y| f64::from(y)).collect();
    // Both factors are uniform in -1..1, whose mean square is 1 / 3.
    of_op(ops::MATMUL).assert(what, &found, expected, (k as f64).sqrt() / 3.0);
}

#[test]
fn multiplies_with_quantized_weights_as_the_quantizer_decodes_them() {
    let Some(cuda) = cuda() else { return };
    for (n, k) in [(1, 32), (7, 32), (8, 64), (9, 96), (63, 576), (257, 288), (9, 8224)] {
        let weight = Quantized::new(&cuda, n, k);
        let exe = product_of(&cuda, &weight.place);
        for rows in ODD_SIZES {
            let x = random_rows(rows, rows * k);
            let y = run(&cuda, &exe, 0, &weight.packed, &x, rows, n);
            assert_near(&format!("{rows} rows, {n} by {k}"), &y, &weight.product(&x), k);
        }
    }
}

#[test]
fn the_bits_of_a_row_do_not_depend_on_its_mates() {
    let Some(cuda) = cuda() else { return };
    let (n, k) = (70, 1536);
    let weight = Quantized::new(&cuda, n, k);
    let exe = product_of(&cuda, &weight.place);
    let x = random_rows(5, ROWS_MAX * k);
    let all = run(&cuda, &exe, 0, &weight.packed, &x, ROWS_MAX, n);
    for rows in [0..1, 3..4, 2..9, 100..257, 256..257] {
        let part = &x[rows.start * k..rows.end * k];
        let found = run(&cuda, &exe, 1, &weight.packed, part, rows.len(), n);
        assert!(found == all[rows.start * n..rows.end * n], "rows {rows:?}");
    }
}

#[test]
fn streams_run_side_by_side() {
    let Some(cuda) = cuda() else { return };
    let (n, k) = (64, 512);
    let weight = Quantized::new(&cuda, n, k);
    let exe = product_of(&cuda, &weight.place);
    thread::scope(|threads| {
        // Twice as many threads as streams: two of them share one.
        for thread in 0..2 * STREAMS {
            let (cuda, exe, weight) = (&cuda, &exe, &weight);
            threads.spawn(move || {
                for round in 0..20 {
                    let rows = 1 + (thread as usize * 7 + round) % 9;
                    let x = random_rows(thread as usize * 100 + round, rows * k);
                    let y = run(cuda, exe, thread % STREAMS, &weight.packed, &x, rows, n);
                    let what = format!("thread {thread}, round {round}");
                    assert_near(&what, &y, &weight.product(&x), k);
                }
            });
        }
    });
}

#[test]
fn streams_and_fences_that_do_not_exist_are_named() {
    let Some(cuda) = cuda() else { return };
    let weight = Quantized::new(&cuda, 2, 32);
    let exe = product_of(&cuda, &weight.place);
    let mut bind = Bindings {
        sizes: &[0],
        inputs: &[TensorRef::F32(&[])],
        weights: &[Arc::clone(&weight.packed)],
        state: &mut [],
        scratch: &mut [],
        outputs: &mut [TensorMut::F32(&mut [])],
    };
    let error = cuda.run(&exe, StreamId(STREAMS), &mut bind).unwrap_err();
    assert_eq!(error.to_string(), "stream 4 is unsupported: `streams` is 4");
    let error = cuda.wait(&exe, Fence::Pending(99), &mut bind).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    assert_eq!(cuda.wait(&exe, Fence::Done, &mut bind), Ok(()));
}

#[test]
fn other_weight_buffers_are_other_weights_wherever_they_lie() {
    let Some(cuda) = cuda() else { return };
    let (n, k) = (3, 64);
    let first = Quantized::new(&cuda, n, k);
    let exe = product_of(&cuda, &first.place);
    // The same layout, every byte of the codes turned over.
    let mut turned = first.packed.host_bytes().unwrap().to_vec();
    turned
        .chunks_exact_mut(k / 2 + 16)
        .for_each(|row| row[..k / 2].iter_mut().for_each(|x| *x = !*x));
    let device = Device::open(0).unwrap();
    let there = DeviceMemory::new(&device, turned.len()).unwrap();
    let queue = Queue::new(&device).unwrap();
    queue.scope(|scope| scope.upload(&turned, there.span(0, turned.len()))).unwrap();
    let lent: Buf = Arc::new(Packed { domain: DomainId(1), bytes: None, device: Some(there) });
    let here: Buf = Arc::new(Packed::host(turned));
    let x = random_rows(1, k);
    let y = |buf: &Buf| run(&cuda, &exe, 0, buf, &x, 1, n);
    let expected = y(&first.packed);
    assert_near("the first", &expected, &first.product(&x), k);
    assert_ne!(y(&here), expected);
    assert_eq!(y(&here), y(&lent));
    assert_eq!(y(&first.packed), expected);
    let nowhere: Buf = Arc::new(Packed { domain: DomainId(9), bytes: None, device: None });
    let mut out = [0.0; 3];
    let mut bind = Bindings {
        sizes: &[1],
        inputs: &[TensorRef::F32(&x)],
        weights: &[nowhere],
        state: &mut [],
        scratch: &mut [],
        outputs: &mut [TensorMut::F32(&mut out)],
    };
    let error = cuda.run(&exe, StreamId(0), &mut bind).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
}

#[test]
fn a_hundred_instances_come_and_go() {
    let Some(held) = cuda() else { return };
    let weight = Quantized::new(&held, 2, 32);
    for _ in 0..100 {
        let cuda = Cuda::from_config(&Config::new()).unwrap();
        let exe = product_of(&cuda, &weight.place);
        let x = random_rows(3, 32);
        let y = run(&cuda, &exe, 0, &weight.packed, &x, 1, 2);
        assert_near("again", &y, &weight.product(&x), 32);
    }
}
