//! Contract suite of quantizers.

use half::f16;

use super::random::Random;
use super::traced::{check_instances, check_name};
use super::{Make, make};
use crate::error::{Error, Result};
use crate::kinds::Capability;
use crate::kinds::quantizer::{Affine, AffineMut, Calibration, Lowering, Quantizer, Scales};

/// Runs the whole suite. `steps` says how far an element may come back from where it was: that
/// many times the range of its block (its greatest magnitude doubled).
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Quantizer + 'static>(steps: f32) {
    check_name::<T>();
    suite_of(&make::<dyn Quantizer, T>, steps);
}

/// The same for quantizers that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Quantizer>, steps: f32) {
    let quantizer = check_instances(make);
    let quantizer = &*quantizer;
    check_format(quantizer);
    for blocks in [0, 1, 2, 7, 9] {
        for seed in 0..8 {
            let x = numbers(quantizer, blocks, seed);
            let bytes = encoded(quantizer, &x);
            check_error(quantizer, &x, &decoded(quantizer, &bytes), steps);
            check_unpack(quantizer, &bytes);
            check_settles(quantizer, &bytes);
        }
    }
    check_any_bytes(quantizer);
    check_special_numbers(quantizer);
    check_wrong_sizes(quantizer);
    check_calibration(quantizer);
}

/// `x` as blocks.
///
/// # Panics
///
/// If it does not fill whole blocks.
pub fn encoded(quantizer: &dyn Quantizer, x: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0xAA; quantizer.format().size_bytes(x.len()).expect("whole blocks")];
    quantizer.encode(x, None, &mut bytes).expect("sizes of the format");
    bytes
}

/// Blocks as numbers.
///
/// # Panics
///
/// If `bytes` are not whole blocks.
pub fn decoded(quantizer: &dyn Quantizer, bytes: &[u8]) -> Vec<f32> {
    let format = quantizer.format();
    let mut x = vec![f32::NAN; bytes.len() / format.block_bytes * format.block_len];
    quantizer.decode(bytes, &mut x).expect("sizes of the format");
    x
}

/// Mean square of what is lost by one trip through the format.
///
/// # Panics
///
/// If `x` does not fill whole blocks.
pub fn mean_square_error(quantizer: &dyn Quantizer, x: &[f32]) -> f64 {
    let back = decoded(quantizer, &encoded(quantizer, x));
    let errors = x.iter().zip(back).map(|(x, y)| f64::from(x - y));
    errors.map(|error| error * error).sum::<f64>() / x.len() as f64
}

fn check_format(quantizer: &dyn Quantizer) {
    let format = quantizer.format();
    assert!(!format.name.is_empty() && !format.semantic_id.0.is_empty(), "{format:?}: names");
    assert!(format.block_len > 0 && format.block_bytes > 0, "{format:?}: a block has a size");
    let bits = |bits: u32| (format.block_len * bits as usize).div_ceil(8);
    match quantizer.lowering() {
        Lowering::Affine { bits: code, group, zero_point, scales, .. } => {
            assert!((1..=8).contains(&code), "codes of {code} bits");
            assert!(group % 16 == 0 && group > 0, "a group is a multiple of 16: {group}");
            assert!(format.block_len.is_multiple_of(group), "a block is whole groups");
            assert!(u32::from(zero_point) < 1 << code, "the zero point is a code");
            if let Scales::Product { groups } = scales {
                let of_block = format.block_len / group;
                assert!(groups > 0 && of_block.is_multiple_of(groups), "a block is whole runs");
            }
            // A table of whole numbers is affine, with codes wider than those in the block.
            assert!(bits(code) < 2 * format.block_bytes, "a block holds codes and scales");
        }
        Lowering::Table { bits: code, table, group } => {
            assert_eq!(table.len(), 1 << code, "a value for each code");
            assert!(format.block_len.is_multiple_of(group), "a block is whole groups");
        }
        Lowering::MiniFloat { exponent, mantissa } => {
            assert_eq!(bits(1 + exponent + mantissa), format.block_bytes, "sign and the rest");
        }
        Lowering::Opaque => {}
    }
}

/// Blocks of different ranges (scales stay normal numbers in `f16`), some with an offset, some sparse.
fn numbers(quantizer: &dyn Quantizer, blocks: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut x = Vec::new();
    for _ in 0..blocks {
        let scale = [1.0, 0.1, 100.0][random.below(3)];
        let offset = [0.0, 0.0, scale][random.below(3)];
        let rare = random.below(4) == 0;
        x.extend((0..quantizer.format().block_len).map(|_| {
            if rare && random.below(8) > 0 { 0.0 } else { random.signed() * scale + offset }
        }));
    }
    x
}

fn check_error(quantizer: &dyn Quantizer, x: &[f32], back: &[f32], steps: f32) {
    let format = quantizer.format();
    for (x, back) in x.chunks(format.block_len).zip(back.chunks(format.block_len)) {
        let range = 2.0 * x.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
        for (x, y) in x.iter().zip(back) {
            let error = (x - y).abs();
            let limit = steps * range;
            assert!(error <= limit, "{}: {x} comes back as {y}, limit {limit}", format.name);
        }
    }
}

/// What `unpack` lays open computes to what `decode` gives, to the bit.
fn check_unpack(quantizer: &dyn Quantizer, bytes: &[u8]) {
    let name = quantizer.format().name;
    let expected = decoded(quantizer, bytes);
    let Lowering::Affine { bits, group, zero_point, has_min, scales: form } = quantizer.lowering()
    else {
        let mut out = AffineMut { codes: &mut [], scales: &mut [], mins: &mut [] };
        let refused = quantizer.unpack(&[], &mut out);
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{name}: {refused:?}");
        return;
    };
    let groups = expected.len() / group;
    let (mut codes, mut scales) = (vec![0xAA; expected.len()], vec![f32::NAN; groups]);
    let mut mins = vec![f32::NAN; if has_min { groups } else { 0 }];
    let mut out = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut mins };
    quantizer.unpack(bytes, &mut out).expect("sizes of the format");
    for (i, expected) in expected.iter().enumerate() {
        assert!(u32::from(codes[i]) < 1 << bits, "{name}: code {} of {bits} bits", codes[i]);
        let centered = f32::from(i16::from(codes[i]) - i16::from(zero_point));
        let mut y = scales[i / group] * centered;
        if has_min {
            y += mins[i / group];
        }
        let is_same = y.to_bits() == expected.to_bits() || (y.is_nan() && expected.is_nan());
        assert!(is_same, "{name}: element {i} is {y} unpacked, {expected} decoded");
    }
    assert!(holds(form, &scales) && holds(form, &mins), "{name}: scales are {form:?}");
    check_pack(quantizer, bytes.len(), &Affine { codes: &codes, scales: &scales, mins: &mins });
}

/// What was laid open packs into blocks of the same numbers, if it packs at all.
fn check_pack(quantizer: &dyn Quantizer, num_bytes: usize, parts: &Affine<'_>) {
    let name = quantizer.format().name;
    let mut bytes = vec![0xAA; num_bytes];
    match quantizer.pack(parts, &mut bytes) {
        Err(Error::Unsupported { .. }) => return,
        found => assert_eq!(found, Ok(()), "{name}: pack of what was laid open"),
    }
    let is_number = |x: &&f32| !x.is_nan();
    let (mut codes, mut scales) = (vec![0xAA; parts.codes.len()], vec![0.0; parts.scales.len()]);
    let mut mins = vec![0.0; parts.mins.len()];
    let mut out = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut mins };
    quantizer.unpack(&bytes, &mut out).expect("sizes of the format");
    assert_eq!(codes, parts.codes, "{name}: codes come back");
    for (found, expected) in [(&scales, parts.scales), (&mins, parts.mins)] {
        let pairs = found.iter().filter(is_number).zip(expected.iter().filter(is_number));
        assert!(pairs.clone().all(|(a, b)| a == b), "{name}: scales come back");
    }
    let short = Affine { codes: &parts.codes[..parts.codes.len().saturating_sub(1)], ..*parts };
    if !parts.codes.is_empty() {
        let refused = quantizer.pack(&short, &mut bytes);
        assert!(matches!(refused, Err(Error::ShapeMismatch { .. })), "{name}: {refused:?}");
    }
}

/// Whether each of `values`, one a group, is what `form` says. Infinities and NaN always are.
fn holds(form: Scales, values: &[f32]) -> bool {
    let is_half = |x: f32| !x.is_finite() || f16::from_f32(x).to_f32() == x;
    match form {
        Scales::F32 => true,
        Scales::F16 => values.iter().all(|x| is_half(*x)),
        Scales::Product { groups } => values.chunks(groups.max(1)).all(|run| {
            let peak = run.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
            let is_product = |factor: f32, x: f32| {
                let integer = x / factor;
                integer.fract() == 0.0
                    && (-128.0..=127.0).contains(&integer)
                    && integer * factor == x
            };
            // The largest whole number is one of these.
            peak == 0.0
                || !peak.is_finite()
                || (1..=128).any(|largest| {
                    let factor = peak / largest as f32;
                    let all = |factor: f32| run.iter().all(|x| is_product(factor, *x));
                    is_half(factor) && (all(factor) || all(-factor))
                })
        }),
    }
}

/// Encoding what was decoded loses at most as much again as encoding once did.
fn check_settles(quantizer: &dyn Quantizer, bytes: &[u8]) {
    let once = decoded(quantizer, bytes);
    let twice = decoded(quantizer, &encoded(quantizer, &once));
    let format = quantizer.format();
    let steps = match quantizer.lowering() {
        Lowering::Affine { bits, .. } => 1.0 / (1 << bits) as f32,
        Lowering::Table { .. } => 0.25,
        _ => 0.0,
    };
    check_error(quantizer, &once, &twice, steps);
    assert_eq!(once.len(), twice.len(), "{}", format.name);
}

/// No byte makes a quantizer panic, and unpacking agrees on all of them.
fn check_any_bytes(quantizer: &dyn Quantizer) {
    let (format, mut random) = (quantizer.format(), Random::new(5));
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..format.block_bytes).map(|_| random.bits() as u8).collect();
        check_unpack(quantizer, &bytes);
    }
    for byte in [0, 0x7C, 0x7F, 0x80, 0xFF] {
        check_unpack(quantizer, &vec![byte; format.block_bytes]);
    }
}

/// Zeros come back as zeros; NaN and infinity do not make a quantizer panic, and stay in their
/// block.
fn check_special_numbers(quantizer: &dyn Quantizer) {
    let format = quantizer.format();
    let zeros = vec![0.0; 2 * format.block_len];
    let back = decoded(quantizer, &encoded(quantizer, &zeros));
    assert!(back.iter().all(|&y| y == 0.0), "{}: zeros come back as {back:?}", format.name);
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
        for i in [0, format.block_len / 2, format.block_len - 1] {
            let mut x = numbers(quantizer, 2, 1);
            let expected = decoded(quantizer, &encoded(quantizer, &x));
            x[i] = special;
            let back = decoded(quantizer, &encoded(quantizer, &x));
            let mate = format.block_len..;
            assert_eq!(back[mate.clone()], expected[mate], "{}: {special} leaks", format.name);
        }
        let _ = encoded(quantizer, &vec![special; format.block_len]);
    }
}

fn check_wrong_sizes(quantizer: &dyn Quantizer) {
    let format = quantizer.format();
    let (len, bytes) = (format.block_len, format.block_bytes);
    let is_refused = |result: Result<()>| matches!(result, Err(Error::ShapeMismatch { .. }));
    for (num_bytes, num_elements) in [
        (bytes - 1, len),
        (bytes + 1, len),
        (bytes, 2 * len),
        (2 * bytes, len),
        (0, len),
        (bytes, 0),
        (bytes, len + 1),
    ] {
        let (mut out, mut blocks) = (vec![7.0; num_elements], vec![7; num_bytes]);
        let what = format!("{}: {num_bytes} bytes, {num_elements} elements", format.name);
        assert!(is_refused(quantizer.decode(&vec![1; num_bytes], &mut out)), "{what}: decode");
        assert!(out.iter().all(|&x| x == 7.0), "{what}: decode wrote before it refused");
        let refused = quantizer.encode(&vec![1.0; num_elements], None, &mut blocks);
        assert!(is_refused(refused), "{what}: encode");
        assert!(blocks.iter().all(|&x| x == 7), "{what}: encode wrote before it refused");
    }
    let Lowering::Affine { group, has_min, .. } = quantizer.lowering() else { return };
    let groups = len / group;
    let mins = if has_min { groups } else { 0 };
    for (num_codes, num_scales, num_mins) in [
        (len - 1, groups, mins),
        (len, groups - 1, mins),
        (len, groups, mins + 1),
        (0, 0, mins + 1),
    ] {
        let mut codes = vec![7; num_codes];
        let (mut scales, mut mins) = (vec![7.0; num_scales], vec![7.0; num_mins]);
        let mut out = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut mins };
        let refused = quantizer.unpack(&vec![1; bytes], &mut out);
        assert!(is_refused(refused), "{}: unpack into {num_codes}", format.name);
        assert!(codes.iter().all(|&x| x == 7), "{}: unpack wrote", format.name);
    }
}

/// Calibration is taken, and equal importance is no importance.
fn check_calibration(quantizer: &dyn Quantizer) {
    let x = numbers(quantizer, 4, 3);
    let mut bytes = encoded(quantizer, &x);
    let plain = bytes.clone();
    let ones = vec![1.0; x.len() / 2];
    let calibration = Calibration { mean_square: &ones };
    quantizer.encode(&x, Some(&calibration), &mut bytes).expect("two rows with calibration");
    assert_eq!(bytes, plain, "{}: equal importance changes bytes", quantizer.format().name);
}
