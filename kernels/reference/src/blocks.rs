//! The bits of GGUF's block formats, and the searches that choose scales.
//!
//! What several formats share: halves and nibbles, the 6-bit scales of the K formats, and how a
//! scale is found for a group of numbers. A format itself is a quantizer plugin.

use half::{bf16, f16};

/// Elements of a block of the K formats.
pub const K_BLOCK: usize = 256;
/// Elements of a sub-block of `Q4_K` and `Q5_K`.
pub const K_GROUP: usize = 32;
/// Bytes of `d`, `dmin` and the packed scales of `Q4_K` and `Q5_K`.
pub const K_HEADER_BYTES: usize = 16;

/// The `f16` at byte `at`.
///
/// # Panics
///
/// If it lies outside of `bytes`.
pub fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The nearest `f16`, as bytes.
pub fn f16_bytes(x: f32) -> [u8; 2] {
    f16::from_f32(x).to_le_bytes()
}

/// The `bf16` at byte `at`.
///
/// # Panics
///
/// If it lies outside of `bytes`.
pub fn bf16_at(bytes: &[u8], at: usize) -> f32 {
    bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The nearest `bf16`, as bytes.
pub fn bf16_bytes(x: f32) -> [u8; 2] {
    bf16::from_f32(x).to_le_bytes()
}

/// Splits `n` bytes into `2n` codes: the low nibbles, then the high ones.
pub fn split_nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// Joins the low four bits of `2n` codes into `n` bytes, as [`split_nibbles`] splits them.
pub fn join_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(bytes.len());
    for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = (low & 15) | (high & 15) << 4;
    }
}

/// Adds 16 to each of up to 32 codes whose bit in `bits` is set.
pub fn add_fifth_bits(bits: [u8; 4], codes: &mut [u8]) {
    let bits = u32::from_le_bytes(bits);
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= ((bits >> i & 1) << 4) as u8;
    }
}

/// The fifth bits of up to 32 codes.
pub fn fifth_bits(codes: &[u8]) -> [u8; 4] {
    let bit = |(i, code): (usize, &u8)| u32::from(code >> 4 & 1) << i;
    codes.iter().enumerate().map(bit).fold(0, |bits, bit| bits | bit).to_le_bytes()
}

/// The element of the largest magnitude, with its sign; 0 if there is none.
pub fn signed_peak(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |peak: f32, &x| if x.abs() > peak.abs() { x } else { peak })
}

/// The smallest and the largest element.
pub fn range(x: &[f32]) -> (f32, f32) {
    let least = x.iter().fold(f32::INFINITY, |least, &x| if x < least { x } else { least });
    let most = x.iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
    (least, most)
}

/// `1 / x`, or 0 for 0.
pub fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// Scale and minimum of each sub-block of `Q4_K` and `Q5_K`: an element is `scale · code + min`.
///
/// The header is `d`, `dmin` as `f16`, then 12 bytes with a 6-bit scale and minimum for each of 8
/// sub-blocks. The minimum is stored with its sign turned.
///
/// # Panics
///
/// If `header` is shorter than [`K_HEADER_BYTES`].
pub fn k_scales(header: &[u8]) -> [(f32, f32); 8] {
    let (d, dmin) = (f16_at(header, 0), f16_at(header, 2));
    let packed = &header[4..K_HEADER_BYTES];
    std::array::from_fn(|j| {
        let (scale, min) = match j {
            0..4 => (packed[j] & 63, packed[j + 4] & 63),
            _ => (
                packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
                packed[j + 4] >> 4 | packed[j] >> 6 << 4,
            ),
        };
        (d * f32::from(scale), -(dmin * f32::from(min)))
    })
}

/// Writes a header from which [`k_scales`] reads scales and minima near to these.
fn write_k_scales(groups: &[(f32, f32); 8], header: &mut [u8]) {
    let largest = |x: fn(&(f32, f32)) -> f32| range(&groups.each_ref().map(x)).1.max(0.0);
    let (scale_peak, min_peak) = (largest(|group| group.0), largest(|group| -group.1));
    header.fill(0);
    header[..2].copy_from_slice(&f16_bytes(scale_peak / 63.0));
    header[2..4].copy_from_slice(&f16_bytes(min_peak / 63.0));
    let (by_scale, by_min) = (63.0 * inverse(scale_peak), 63.0 * inverse(min_peak));
    let packed = &mut header[4..K_HEADER_BYTES];
    for (j, &(scale, min)) in groups.iter().enumerate() {
        let scale = nearest(by_scale * scale, 63);
        let min = nearest(by_min * -min, 63);
        if j < 4 {
            packed[j] |= scale;
            packed[j + 4] |= min;
        } else {
            packed[j + 4] = (scale & 15) | (min & 15) << 4;
            packed[j - 4] |= scale >> 4 << 6;
            packed[j] |= min >> 4 << 6;
        }
    }
}

/// Quantizes a block of `Q4_K` (`code_max` 15) or `Q5_K` (31): chooses scales and minima, writes
/// the header, then rounds to what the header really says.
///
/// | argument     | shape                         |
/// |--------------|-------------------------------|
/// | `x`          | `[K_BLOCK]`                   |
/// | `importance` | `[K_BLOCK]`, or empty: all 1  |
/// | `header`     | `[K_HEADER_BYTES]`            |
/// | `codes`      | `[K_BLOCK]`                   |
///
/// # Panics
///
/// If the lengths are others.
///
/// # Source
///
/// `make_qkx2_quants` and `quantize_row_q4_K_ref` in `ggml-quants.c` of llama.cpp.
pub fn quantize_k(
    x: &[f32],
    importance: &[f32],
    code_max: u8,
    header: &mut [u8],
    codes: &mut [u8],
) {
    let mut groups = [(0.0, 0.0); 8];
    for (j, (x, group)) in x.chunks_exact(K_GROUP).zip(&mut groups).enumerate() {
        let mean_square = x.iter().map(|x| x * x).sum::<f32>() / K_GROUP as f32;
        let typical = mean_square.sqrt();
        let weights: [f32; K_GROUP] = std::array::from_fn(|i| {
            let importance = importance.get(j * K_GROUP + i).copied().unwrap_or(1.0);
            importance * (typical + x[i].abs())
        });
        *group = search_affine(x, &weights, code_max);
    }
    write_k_scales(&groups, header);
    let scales = k_scales(header);
    for (j, x) in x.chunks_exact(K_GROUP).enumerate() {
        let (scale, min) = scales[j];
        let by = inverse(scale);
        for (code, x) in codes[j * K_GROUP..][..K_GROUP].iter_mut().zip(x) {
            *code = nearest((x - min) * by, code_max);
        }
    }
}

/// Scale and minimum (at most 0) for which `scale · code + min` comes closest to `x`, by weighted
/// squares, over a number of ranges that are each fitted by least squares.
fn search_affine(x: &[f32], weights: &[f32], code_max: u8) -> (f32, f32) {
    const STEPS: i32 = 20;
    let (least, most) = range(x);
    let least = least.min(0.0);
    let width = most - least;
    if width.is_nan() || width <= 0.0 {
        return (0.0, least);
    }
    let codes_max = f32::from(code_max);
    let error_of = |by: f32, scale: f32, min: f32| -> f32 {
        let codes = x.iter().map(|x| f32::from(nearest(by * (x - least), code_max)));
        let errors = codes.zip(x).map(|(code, x)| scale * code + min - x);
        errors.zip(weights).map(|(error, w)| w * error * error).sum()
    };
    let mut best = (width / codes_max, least);
    let mut best_error = error_of(codes_max / width, best.0, best.1);
    for step in 0..=STEPS {
        let by = (codes_max - 1.0 + 0.1 * step as f32) / width;
        let [mut w1, mut wx, mut wl, mut wl2, mut wxl] = [0.0_f32; 5];
        for (x, w) in x.iter().zip(weights) {
            let code = f32::from(nearest(by * (x - least), code_max));
            w1 += w;
            wx += w * x;
            wl += w * code;
            wl2 += w * code * code;
            wxl += w * x * code;
        }
        let determinant = w1 * wl2 - wl * wl;
        if determinant.is_nan() || determinant <= 0.0 {
            continue;
        }
        let (mut scale, mut min) =
            ((w1 * wxl - wx * wl) / determinant, (wl2 * wx - wl * wxl) / determinant);
        if min > 0.0 {
            (scale, min) = (wxl / wl2, 0.0);
        }
        let error = error_of(by, scale, min);
        if error < best_error {
            (best, best_error) = ((scale, min), error);
        }
    }
    best
}

/// The scale for which `scale · code`, code in `-half..half`, comes closest to `x` by squares
/// weighted with `weights`; it is signed so that the largest element takes the code `-half`.
///
/// # Source
///
/// `make_qx_quants` in `ggml-quants.c` of llama.cpp.
pub fn search_symmetric(x: &[f32], weights: &[f32], half: i8) -> f32 {
    let (peak, half_wide) = (signed_peak(x), f32::from(half));
    if peak == 0.0 || !peak.is_finite() {
        return 0.0;
    }
    let (mut best, mut best_gain) = (0.0, 0.0);
    for step in -9_i8..=9 {
        let by = -(half_wide + 0.1 * f32::from(step)) / peak;
        let (mut wxl, mut wl2) = (0.0, 0.0);
        for (x, w) in x.iter().zip(weights) {
            let code = (by * x).round_ties_even().clamp(-half_wide, half_wide - 1.0);
            wxl += w * x * code;
            wl2 += w * code * code;
        }
        // Least squares gives the scale wxl / wl2, and takes wxl² / wl2 off the error.
        if wl2 > 0.0 && wxl * wxl > best_gain * wl2 {
            (best, best_gain) = (wxl / wl2, wxl * wxl / wl2);
        }
    }
    best
}

/// The nearest whole number in `0..=max`, ties to even; 0 for NaN.
pub fn nearest(x: f32, max: u8) -> u8 {
    x.round_ties_even().clamp(0.0, f32::from(max)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_and_fifth_bits_come_back() {
        let codes: [u8; 32] = std::array::from_fn(|i| (i * 11 % 32) as u8);
        let (mut bytes, mut back) = ([0; 16], [0; 32]);
        join_nibbles(&codes, &mut bytes);
        split_nibbles(&bytes, &mut back);
        add_fifth_bits(fifth_bits(&codes), &mut back);
        assert_eq!(back, codes);
    }

    #[test]
    fn six_bit_scales_come_back() {
        // d = 1 and dmin = 2 are exact, so every 6-bit number is.
        let numbers: [(u8, u8); 8] =
            [(63, 63), (0, 1), (1, 0), (33, 47), (62, 5), (17, 63), (48, 16), (15, 32)];
        let groups = numbers.map(|(scale, min)| (f32::from(scale), -2.0 * f32::from(min)));
        let mut header = [0xFF; K_HEADER_BYTES];
        write_k_scales(&groups, &mut header);
        assert_eq!(k_scales(&header), groups);
    }

    #[test]
    fn numbers_on_a_grid_are_found_exactly() {
        let x: [f32; 32] = std::array::from_fn(|i| (i % 16) as f32 * 0.25 - 1.0);
        let (scale, min) = search_affine(&x, &[1.0; 32], 15);
        assert!((scale - 0.25).abs() < 1e-6 && (min + 1.0).abs() < 1e-6, "{scale} {min}");
        let x: [f32; 16] = std::array::from_fn(|i| i as f32 * 0.5 - 4.0);
        assert!((search_symmetric(&x, &[1.0; 16], 8).abs() - 0.5).abs() < 1e-6);
    }

    #[test]
    fn rounds_to_even_and_stays_in_range() {
        let cases = [(0.5, 0), (1.5, 2), (2.4, 2), (99.0, 15), (-3.0, 0), (f32::NAN, 0)];
        for (x, expected) in cases {
            assert_eq!(nearest(x, 15), expected, "{x}");
        }
    }
}
