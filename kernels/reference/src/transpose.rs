//! Reorders the axes of a tensor.

/// Writes `x` with its axes reordered: axis `i` of `out` is axis `order[i]` of `x`.
///
/// A tensor of fewer than four axes has leading axes of 1, which `order` leaves in place.
///
/// | argument | shape                     |
/// |----------|---------------------------|
/// | `x`      | `shape`                   |
/// | `out`    | `shape[order[i]]` for `i` |
///
/// # Panics
///
/// If the lengths do not fit `shape`, or `order` does not name each axis once.
pub fn transpose<T: Copy>(x: &[T], shape: [usize; 4], order: [usize; 4], out: &mut [T]) {
    let len: usize = shape.iter().product();
    assert_eq!(x.len(), len, "transpose: x does not fit its shape");
    assert_eq!(out.len(), len, "transpose: out does not fit the shape");
    assert!((0..4).all(|axis| order.contains(&axis)), "transpose: order is no permutation");
    let strides = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1];
    let size = order.map(|axis| shape[axis]);
    let stride = order.map(|axis| strides[axis]);
    let mut at = 0;
    for a in 0..size[0] {
        for b in 0..size[1] {
            for c in 0..size[2] {
                for d in 0..size[3] {
                    out[at] = x[a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3]];
                    at += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reorders_axes() {
        let x = [1, 2, 3, 4, 5, 6];
        let mut out = [0; 6];
        transpose(&x, [1, 1, 2, 3], [0, 1, 3, 2], &mut out);
        assert_eq!(out, [1, 4, 2, 5, 3, 6]);
        transpose(&x, [3, 1, 2, 1], [2, 1, 0, 3], &mut out);
        assert_eq!(out, [1, 3, 5, 2, 4, 6]);
    }

    #[test]
    fn the_inverse_order_gives_the_tensor_back() {
        let x: Vec<u32> = (0..7 * 8 * 9 * 3).collect();
        let (mut there, mut back) = (vec![0; x.len()], vec![0; x.len()]);
        transpose(&x, [7, 8, 9, 3], [2, 0, 3, 1], &mut there);
        transpose(&there, [9, 7, 3, 8], [1, 3, 0, 2], &mut back);
        assert_eq!(back, x);
    }
}
