//! Sizes that are products of a number and symbols, such as `tokens * 576`.

use plugin_api::plan::{Dim, Spec, Symbol};
use plugin_api::{Error, Result};

/// A size that is known when a step is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Size {
    factor: usize,
    /// Indices into the sizes of a run.
    symbols: [Option<u8>; SYMBOLS_MAX],
}

/// Symbols in one product.
const SYMBOLS_MAX: usize = 4;

impl Size {
    /// The same in every step.
    pub(crate) const fn fixed(factor: usize) -> Self {
        Self { factor, symbols: [None; SYMBOLS_MAX] }
    }

    /// The value in a run; sizes of a run have passed the check against the bucket, for which
    /// [`Symbols::size`] made sure that products do not overflow.
    #[inline]
    pub(crate) fn of(&self, sizes: &[usize]) -> usize {
        self.symbols.iter().flatten().fold(self.factor, |n, &i| n * sizes[usize::from(i)])
    }

    /// The value, if it is the same in every step.
    pub(crate) fn as_fixed(&self) -> Option<usize> {
        self.symbols.iter().all(Option::is_none).then_some(self.factor)
    }

    /// The product with a number.
    pub(crate) fn times(&self, factor: usize) -> Self {
        Self { factor: self.factor.saturating_mul(factor), ..*self }
    }
}

/// The symbols of a plan with their largest values.
#[derive(Debug, Clone)]
pub(crate) struct Symbols(pub(crate) Vec<(Symbol, usize)>);

impl Symbols {
    /// The product of extents.
    pub(crate) fn size(&self, dims: &[Dim]) -> Result<Size> {
        let mut size = Size::fixed(1);
        let mut count = 0;
        for dim in dims {
            match dim {
                Dim::Fixed(n) => {
                    let n = usize::try_from(*n).ok();
                    let factor = n.and_then(|n| size.factor.checked_mul(n));
                    size.factor = factor
                        .ok_or_else(|| Error::unsupported("plan", "a size of this machine"))?;
                }
                Dim::Symbol(symbol) => {
                    let index = self.0.iter().position(|(known, _)| known == symbol);
                    let index = index.and_then(|i| u8::try_from(i).ok());
                    let place = size.symbols.get_mut(count);
                    let (Some(index), Some(place)) = (index, place) else {
                        return Err(Error::unsupported(
                            symbol,
                            "a symbol of the plan, four at most",
                        ));
                    };
                    *place = Some(index);
                    count += 1;
                }
            }
        }
        // Four bytes an element and some padding have to fit, too.
        match self.max(&size) {
            Some(max) if max <= isize::MAX as usize / 64 => Ok(size),
            _ => Err(Error::unsupported("plan", "sizes that fit into memory")),
        }
    }

    /// Elements of a value.
    pub(crate) fn len(&self, spec: &Spec) -> Result<Size> {
        self.size(&spec.dims)
    }

    /// Rows and width of a value: all extents but the last, and the last.
    pub(crate) fn rows_width(&self, spec: &Spec) -> Result<[Size; 2]> {
        match spec.dims.split_last() {
            Some((last, outer)) => Ok([self.size(outer)?, self.size(&[*last])?]),
            None => Ok([Size::fixed(1), Size::fixed(1)]),
        }
    }

    /// The largest value; `None` if it overflows.
    pub(crate) fn max(&self, size: &Size) -> Option<usize> {
        let mut symbols = size.symbols.iter().flatten();
        symbols.try_fold(size.factor, |n, &i| n.checked_mul(self.0[usize::from(i)].1))
    }
}
