//! Joins tensors along an axis.

/// Joins `parts` along the middle axis of `[outer, axis, inner]`.
///
/// | argument       | shape                              |
/// |----------------|------------------------------------|
/// | each of `parts`| `[outer, its own axis, inner]`     |
/// | `out`          | `[outer, sum of the axes, inner]`  |
///
/// # Panics
///
/// If a part is not a multiple of `outer * inner`, or `out` does not hold all of them.
pub fn concat<T: Copy>(parts: &[&[T]], [outer, inner]: [usize; 2], out: &mut [T]) {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    assert_eq!(out.len(), total, "concat: out does not hold the parts");
    if total == 0 {
        return;
    }
    let mut at = 0;
    for row in 0..outer {
        for part in parts {
            assert_eq!(part.len() % (outer * inner), 0, "concat: a part does not fit the axes");
            let len = part.len() / outer;
            out[at..at + len].copy_from_slice(&part[row * len..][..len]);
            at += len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_along_the_middle() {
        let mut out = [0; 6];
        concat(&[&[1, 2], &[3, 4, 5, 6]], [2, 1], &mut out);
        assert_eq!(out, [1, 3, 4, 2, 5, 6]);
        concat(&[&[1, 2], &[3, 4, 5, 6]], [1, 2], &mut out);
        assert_eq!(out, [1, 2, 3, 4, 5, 6]);
        concat::<u8>(&[&[], &[]], [3, 0], &mut []);
    }
}
