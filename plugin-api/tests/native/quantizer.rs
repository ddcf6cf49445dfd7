//! Quantizers over the boundary.

use plugin_api::prelude::*;

use crate::rig::{both, check, import, told};

#[test]
fn behaves_as_the_original() {
    let [direct, foreign] = both::<dyn Quantizer>();
    assert_eq!((direct.format(), direct.lowering()), (foreign.format(), foreign.lowering()));
    let numbers: Vec<f32> = (0..32).map(|i| i as f32).collect();
    let mean_square = [2.0; 16];
    let calibration = Calibration { mean_square: &mean_square };
    let run = |quantizer: &dyn Quantizer| {
        let (mut plain, mut weighed) = (vec![0; 40], vec![0; 40]);
        quantizer.encode(&numbers, None, &mut plain).unwrap();
        quantizer.encode(&numbers, Some(&calibration), &mut weighed).unwrap();
        let mut decoded = vec![0.0; 32];
        quantizer.decode(&weighed, &mut decoded).unwrap();
        let (mut codes, mut scales) = (vec![0; 32], vec![0.0; 2]);
        let mut out = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut [] };
        quantizer.unpack(&weighed, &mut out).unwrap();
        let wrong = quantizer.decode(&weighed, &mut decoded[..3]).unwrap_err();
        (plain, weighed, decoded, codes, scales, wrong)
    };
    let found = run(&*foreign);
    assert_eq!(found, run(&*direct));
    assert_ne!(found.0, found.1);
}

#[test]
fn sizes_that_nobody_can_compute_with_are_errors() {
    let lies = ["block_len", "block_bytes", "huge", "group", "odd group", "bits", "table", "run"];
    for lie in lies.into_iter().chain(["long run"]) {
        let (quantizer, watch) = import::<dyn Quantizer>(&told("lies", lie));
        watch.expect("Q: malformed");
        let format = quantizer.format();
        assert_eq!(format.size_bytes(7), Ok(7), "{lie}");
        assert_eq!(quantizer.lowering(), Lowering::Opaque, "{lie}");
        let error = quantizer.decode(&[0; 20], &mut [0.0; 16]).unwrap_err();
        assert_eq!(error, watch.faults()[0], "{lie}");
        assert!(quantizer.encode(&[0.0; 16], None, &mut [0; 20]).is_err(), "{lie}");
    }
}

#[test]
fn panics_and_errors_are_contained() {
    check::<dyn Quantizer>(&[
        ("format", &|_| None),
        ("decode", &|q| q.decode(&[0; 20], &mut [0.0; 16]).err()),
        ("encode", &|q| q.encode(&[0.0; 16], None, &mut [0; 20]).err()),
        ("unpack", &|q| {
            let (codes, scales) = (&mut [0; 16], &mut [0.0]);
            q.unpack(&[0; 20], &mut AffineMut { codes, scales, mins: &mut [] }).err()
        }),
    ]);
}
