//! Numbers of elements that are known when a plan runs.

use plugin_api::plan::{Dim, Spec, Symbol};
use plugin_api::{Error, Result};

/// A product of a number and of sizes of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Size {
    fixed: usize,
    /// Indices of symbols, in order.
    symbols: Vec<usize>,
}

impl Size {
    /// The value in a run with these sizes, which are at most those of the bucket.
    pub(crate) fn of(&self, sizes: &[usize]) -> usize {
        self.symbols.iter().fold(self.fixed, |size, &i| size * sizes[i])
    }

    /// The product of both.
    pub(crate) fn times(&self, other: &Self) -> Self {
        let mut symbols = [&self.symbols[..], &other.symbols].concat();
        symbols.sort_unstable();
        Self { fixed: self.fixed.saturating_mul(other.fixed), symbols }
    }

    /// The number itself.
    pub(crate) fn fixed(n: usize) -> Self {
        Self { fixed: n, symbols: Vec::new() }
    }
}

/// The symbols of a plan, each with its largest value.
#[derive(Debug)]
pub(crate) struct Symbols(pub(crate) Vec<(Symbol, usize)>);

impl Symbols {
    /// Elements of a value.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if their largest number cannot be counted.
    pub(crate) fn len(&self, spec: &Spec) -> Result<Size> {
        self.product(spec, &spec.dims)
    }

    /// Rows of a value: all extents but the last.
    pub(crate) fn rows(&self, spec: &Spec) -> Result<Size> {
        self.product(spec, spec.dims.split_last().map_or(&[], |(_, rows)| rows))
    }

    /// Elements of a row of a value: the last extent.
    pub(crate) fn width(&self, spec: &Spec) -> Result<Size> {
        self.product(spec, &spec.dims[spec.dims.len().saturating_sub(1)..])
    }

    /// The largest value of a size that one of the above has given.
    pub(crate) fn max(&self, size: &Size) -> usize {
        size.symbols.iter().fold(size.fixed, |n, &i| n.saturating_mul(self.0[i].1))
    }

    fn product(&self, spec: &Spec, dims: &[Dim]) -> Result<Size> {
        let unfit = || Error::shape("value", "sizes that fit into memory", spec);
        let (mut fixed, mut symbols, mut max) = (1_usize, Vec::new(), 1_usize);
        for dim in dims {
            let largest = match dim {
                Dim::Fixed(n) => {
                    let n = usize::try_from(*n).map_err(|_| unfit())?;
                    fixed = fixed.checked_mul(n).ok_or_else(unfit)?;
                    n
                }
                Dim::Symbol(symbol) => {
                    let index = self.0.iter().position(|(known, _)| known == symbol);
                    let index = index.ok_or_else(unfit)?;
                    symbols.push(index);
                    self.0[index].1
                }
            };
            // An extent of 0 must not hide others that overflow before it is multiplied in.
            max = max.checked_mul(largest.max(1)).ok_or_else(unfit)?;
        }
        if max > isize::MAX as usize / 64 {
            return Err(unfit());
        }
        symbols.sort_unstable();
        Ok(Size { fixed, symbols })
    }
}
