//! Each kernel on a device, against the same op of the reference in doubles, at odd sizes.
//! `REQUIRE_GPU=1` makes a missing device a failure; otherwise they say why they were skipped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use kernels_cuda::{BinaryOp, Device, Memory, Queue, Rhs, Span, UnaryOp};
use kernels_reference as reference;
use plugin_api::plan::{OpId, ops};
use plugin_api::testing::random::Random;
use plugin_api::testing::tolerance::{of_op, peak};
use plugin_api::testing::traced::ODD_SIZES;

/// A queue; nothing, with the reason printed, where there is no device.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn queue() -> Option<Queue> {
    match Device::open(0) {
        Ok(device) => Some(Queue::new(&device).unwrap()),
        Err(fault) => {
            assert!(std::env::var_os("REQUIRE_GPU").is_none(), "REQUIRE_GPU is set: {fault}");
            eprintln!("skipped: {fault}");
            None
        }
    }
}

/// What `work` makes of `args`, each an array, in `len` numbers.
fn on_device(
    queue: &Queue,
    args: &[&[f32]],
    len: usize,
    work: impl FnOnce(&[Span<'_, f32>], Span<'_, f32>) -> Result<(), kernels_cuda::Fault>,
) -> Vec<f64> {
    let device: &Arc<Device> = queue.device();
    let memory = |len: usize| Memory::new(device, len * size_of::<f32>()).unwrap();
    let homes: Vec<Memory> = args.iter().map(|arg| memory(arg.len())).collect();
    let (mut out, result) = (vec![f32::NAN; len], memory(len));
    let spans: Vec<Span<'_, f32>> =
        homes.iter().zip(args).map(|(home, arg)| home.span(0, arg.len())).collect();
    let done = queue.scope(|scope| {
        for (arg, span) in args.iter().zip(&spans) {
            scope.upload(arg, *span)?;
        }
        work(&spans, result.span(0, len))?;
        scope.download(result.span(0, len), &mut out)
    });
    done.unwrap();
    out.into_iter().map(f64::from).collect()
}

fn numbers(seed: usize, len: usize) -> Vec<f32> {
    let mut random = Random::new(seed as u64);
    (0..len).map(|_| 2.0 * random.signed()).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn compare(op: OpId, what: &str, found: &[f64], expected: &[f64]) {
    of_op(op).assert(&format!("{op} {what}"), found, expected, peak(expected));
}

#[test]
fn elementwise() {
    let Some(queue) = queue() else { return };
    #[rustfmt::skip]
    let cases = [
        (ops::ADD, BinaryOp::Add, reference::BinaryOp::Add),
        (ops::SUB, BinaryOp::Sub, reference::BinaryOp::Sub),
        (ops::MUL, BinaryOp::Mul, reference::BinaryOp::Mul),
        (ops::DIV, BinaryOp::Div, reference::BinaryOp::Div),
        (ops::MAX, BinaryOp::Max, reference::BinaryOp::Max),
        (ops::MIN, BinaryOp::Min, reference::BinaryOp::Min),
    ];
    let layouts = [
        (Rhs::Same, reference::Rhs::Same),
        (Rhs::Row, reference::Rhs::Row),
        (Rhs::Column, reference::Rhs::Column),
    ];
    for (op, mine, theirs) in cases {
        for (layout, their_layout) in layouts {
            for (rows, width) in pairs() {
                let rhs_len = match layout {
                    Rhs::Same => rows * width,
                    Rhs::Row => width,
                    Rhs::Column => rows,
                };
                let l = numbers(1, rows * width);
                let r: Vec<f32> = numbers(2, rhs_len).iter().map(|x| x.abs() + 0.1).collect();
                let sizes = [rows, width];
                let found = on_device(&queue, &[&l, &r], l.len(), |args, out| {
                    kernels_cuda::elementwise(&queue, mine, args[0], args[1], layout, sizes, out)
                });
                let mut expected = vec![0.0; l.len()];
                let (l, r) = (wide(&l), wide(&r));
                reference::elementwise(theirs, &l, &r, their_layout, sizes, &mut expected);
                compare(op, &format!("{layout:?} {sizes:?}"), &found, &expected);
            }
        }
    }
}

#[test]
fn unary() {
    let Some(queue) = queue() else { return };
    #[rustfmt::skip]
    let cases = [
        (ops::NEG,       UnaryOp::Neg,      reference::UnaryOp::Neg),
        (ops::EXP,       UnaryOp::Exp,      reference::UnaryOp::Exp),
        (ops::LOG,       UnaryOp::Log,      reference::UnaryOp::Log),
        (ops::SQRT,      UnaryOp::Sqrt,     reference::UnaryOp::Sqrt),
        (ops::RSQRT,     UnaryOp::Rsqrt,    reference::UnaryOp::Rsqrt),
        (ops::TANH,      UnaryOp::Tanh,     reference::UnaryOp::Tanh),
        (ops::SIGMOID,   UnaryOp::Sigmoid,  reference::UnaryOp::Sigmoid),
        (ops::SILU,      UnaryOp::Silu,     reference::UnaryOp::Silu),
        (ops::GELU_TANH, UnaryOp::GeluTanh, reference::UnaryOp::GeluTanh),
    ];
    for (op, mine, theirs) in cases {
        for len in ODD_SIZES {
            let mut x = numbers(len, len);
            if matches!(op, ops::LOG | ops::SQRT | ops::RSQRT) {
                x.iter_mut().for_each(|x| *x = x.abs() + 0.01);
            }
            let found = on_device(&queue, &[&x], len, |args, out| {
                kernels_cuda::unary(&queue, mine, args[0], out)
            });
            let mut expected = vec![0.0; len];
            reference::unary(theirs, &wide(&x), &mut expected);
            compare(op, &format!("of {len}"), &found, &expected);
        }
    }
}

#[test]
fn matmul() {
    let Some(queue) = queue() else { return };
    for (rows, n) in pairs() {
        for k in [0, 1, 9, 63, 257] {
            let (x, w) = (numbers(rows, rows * k), numbers(n + k, n * k));
            let sizes = [rows, n, k];
            let found = on_device(&queue, &[&x, &w], rows * n, |args, out| {
                kernels_cuda::matmul(&queue, args[0], args[1], sizes, out)
            });
            let mut expected = vec![0.0; rows * n];
            reference::matmul(&wide(&x), &wide(&w), sizes, &mut expected);
            // Both are uniform in -2..2, whose mean square is 4 / 3.
            let scale = (k as f64).sqrt() * 4.0 / 3.0;
            of_op(ops::MATMUL).assert(&format!("matmul {sizes:?}"), &found, &expected, scale);
        }
    }
}

#[test]
fn rms_norm() {
    let Some(queue) = queue() else { return };
    for (rows, width) in pairs() {
        for offset in [0.0, 1.0] {
            let (x, w) = (numbers(rows, rows * width), numbers(width, width));
            let found = on_device(&queue, &[&x, &w], x.len(), |args, out| {
                kernels_cuda::rms_norm(&queue, args[0], args[1], [1e-5, offset], out)
            });
            let mut expected = vec![0.0; x.len()];
            let eps = f64::from(1e-5_f32);
            reference::rms_norm(&wide(&x), &wide(&w), eps, f64::from(offset), &mut expected);
            compare(ops::RMS_NORM, &format!("[{rows}, {width}]"), &found, &expected);
        }
    }
}

#[test]
fn swiglu() {
    let Some(queue) = queue() else { return };
    for len in ODD_SIZES {
        let (gate, up) = (numbers(1, len), numbers(2, len));
        let found = on_device(&queue, &[&gate, &up], len, |args, out| {
            kernels_cuda::swiglu(&queue, args[0], args[1], out)
        });
        let mut expected = vec![0.0; len];
        reference::swiglu(&wide(&gate), &wide(&up), &mut expected);
        compare(ops::SWIGLU, &format!("of {len}"), &found, &expected);
    }
}

#[test]
fn ids_beyond_the_table_give_nan() {
    let Some(queue) = queue() else { return };
    let (table, ids) = (numbers(1, 3 * 5), [2, 3, 0, u32::MAX]);
    let home = Memory::new(queue.device(), size_of_val(&ids)).unwrap();
    queue.scope(|scope| scope.upload(&ids, home.span(0, ids.len()))).unwrap();
    let found = on_device(&queue, &[&table], ids.len() * 5, |args, out| {
        kernels_cuda::embed(&queue, args[0], [3, 5], home.span(0, ids.len()), out)
    });
    assert_eq!(found[..5], wide(&table[10..])[..]);
    assert_eq!(found[10..15], wide(&table[..5])[..]);
    let outside = found[5..10].iter().chain(&found[15..]);
    assert!(outside.into_iter().all(|x| x.is_nan()), "{found:?}");
}

#[test]
fn grids_end_before_numbers_do() {
    let Some(queue) = queue() else { return };
    // More elements than a launch has threads: 2^20 blocks of 256.
    let len = (1 << 28) + 3;
    let memory = Memory::new(queue.device(), len * size_of::<f32>()).unwrap();
    let span = memory.span::<f32>(0, len);
    let ends = [1.0_f32, 2.0, 3.0];
    let at = (len - ends.len()) * size_of::<f32>();
    let tail = memory.span(at, ends.len());
    let mut found = [0.0_f32; 3];
    let done = queue.scope(|scope| {
        scope.upload(&ends, tail)?;
        kernels_cuda::unary(&queue, UnaryOp::Scale(-2.0), span, span)?;
        scope.download(tail, &mut found)
    });
    done.unwrap();
    assert_eq!(found, [-2.0, -4.0, -6.0]);
}

/// Every odd size beside some others.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    let seconds = [1, 8, 63, 0, 257, 9, 7];
    ODD_SIZES.into_iter().zip(seconds).chain(seconds.into_iter().zip(ODD_SIZES))
}
