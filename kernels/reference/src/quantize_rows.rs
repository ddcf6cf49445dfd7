//! Activations as signed bytes: what a quantized matrix product multiplies with.

/// Consecutive elements that share a scale.
pub const ACT_BLOCK: usize = 32;

/// Rounds each block of [`ACT_BLOCK`] elements to `-127..=127` steps of `scale = amax / 127`.
///
/// A code is `x * (1 / scale)` rounded to nearest, ties to even, all in `f32`. A block whose scale
/// is below the least normal `f32` becomes zeros. A block with a NaN or an infinity gets a NaN
/// scale and zero codes: the products show it instead of hiding it.
///
/// | argument | shape                  | dtype  |
/// |----------|------------------------|--------|
/// | `x`      | `[rows, k]`            | `f32`  |
/// | `codes`  | `[rows, k]`            | `i8`   |
/// | `scales` | `[rows, ceil(k / 32)]` | `f32`  |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn quantize_rows(x: &[f32], k: usize, codes: &mut [i8], scales: &mut [f32]) {
    assert_eq!(x.len(), codes.len(), "quantize_rows: x and codes differ in length");
    if x.is_empty() {
        return;
    }
    assert!(k > 0 && x.len().is_multiple_of(k), "quantize_rows: x is not [rows, k]");
    let blocks = k.div_ceil(ACT_BLOCK);
    assert_eq!(scales.len(), x.len() / k * blocks, "quantize_rows: scales are not [rows, blocks]");
    for (row, scales) in scales.chunks_exact_mut(blocks).enumerate() {
        for (block, scale) in scales.iter_mut().enumerate() {
            let start = row * k + block * ACT_BLOCK;
            let end = (start + ACT_BLOCK).min((row + 1) * k);
            *scale = quantize_block(&x[start..end], &mut codes[start..end]);
        }
    }
}

fn quantize_block(x: &[f32], codes: &mut [i8]) -> f32 {
    let mut amax = 0.0_f32;
    for x in x {
        amax = amax.max(x.abs());
    }
    if x.iter().any(|x| !x.is_finite()) {
        codes.fill(0);
        return f32::NAN;
    }
    let scale = amax / 127.0;
    if scale < f32::MIN_POSITIVE {
        codes.fill(0);
        return 0.0;
    }
    let inverse = 1.0 / scale;
    for (x, code) in x.iter().zip(codes) {
        *code = (x * inverse).round_ties_even() as i8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_becomes_127_and_ties_round_to_even() {
        let x = [127.0, -127.0, 1.5, 2.5, -0.5, 0.49, 0.0];
        let (mut codes, mut scales) = ([0; 7], [0.0]);
        quantize_rows(&x, 7, &mut codes, &mut scales);
        assert_eq!(scales, [1.0]);
        assert_eq!(codes, [127, -127, 2, 2, 0, 0, 0]);
    }

    #[test]
    fn each_block_of_each_row_has_its_scale() {
        let mut x = vec![0.0_f32; 2 * 33];
        (x[0], x[32], x[33]) = (254.0, 127.0, f32::NAN);
        let (mut codes, mut scales) = (vec![9; 66], [9.0; 4]);
        quantize_rows(&x, 33, &mut codes, &mut scales);
        assert_eq!((scales[0], scales[1], scales[3]), (2.0, 1.0, 0.0));
        assert!(scales[2].is_nan());
        assert_eq!((codes[0], codes[1], codes[32], codes[33]), (127, 0, 127, 0));
    }
}
