//! Weights that files keep otherwise than plans read them: rows of two weights in one tensor, columns in
//! place of rows, codes apart from their scales.
//!
//! A blueprint says it (`[[hf.views]]`); what is read is one matrix at a time, as bytes of the tensor's own
//! format, so that quantizers and backends know nothing of it.

use std::borrow::Cow;
use std::ops::Range;

use plugin_api::Config;
use serde::Deserialize;

use super::files::{ModelFiles, TensorView};
use crate::error::EngineError;

/// A weight as a part of a tensor of a layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Our name, without `layers.N.`.
    pub weight: String,
    /// The tensor, by its name in the file without `layers.N.`: `[matrices, rows, columns]`, or
    /// `[matrices, rows]` for vectors.
    pub of: String,
    /// Exponents of 8 bits (E8M0) for each 32 columns, where `of` holds codes of 4 bits (E2M1):
    /// `[matrices, rows, groups, 16]` and `[matrices, rows, groups]` bytes.
    pub scales: Option<String>,
    /// The hyperparameter that says how many matrices stand one below the other in `of`, which is
    /// `[matrices · rows, columns]` then.
    pub matrices: Option<String>,
    /// Which rows of each matrix.
    #[serde(default)]
    pub rows: Pick,
    /// Which columns of each matrix.
    #[serde(default)]
    pub columns: Pick,
    /// Whether columns become rows.
    #[serde(default)]
    pub turned: bool,
}

/// Some of the rows or columns of a matrix.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// Each of them.
    #[default]
    All,
    /// The first, the third, …
    Even,
    /// The second, the fourth, …
    Odd,
    /// The first half.
    FirstHalf,
    /// The second half.
    SecondHalf,
    /// As many as this hyperparameter says.
    Before(String),
    /// Those after as many as this hyperparameter says.
    After(String),
}

impl Pick {
    /// Where the first is, how far the next, and how many there are, of `n`.
    fn of(&self, n: usize, config: &Config) -> plugin_api::Result<Picked> {
        let count = |key: &str| config.count(key, 1..=n as u64).map(|count| count as usize);
        Ok(match self {
            Self::All => Picked { start: 0, step: 1, len: n },
            Self::Even => Picked { start: 0, step: 2, len: n / 2 },
            Self::Odd => Picked { start: 1, step: 2, len: n / 2 },
            Self::FirstHalf => Picked { start: 0, step: 1, len: n / 2 },
            Self::SecondHalf => Picked { start: n / 2, step: 1, len: n / 2 },
            Self::Before(key) => Picked { start: 0, step: 1, len: count(key)? },
            Self::After(key) => {
                let start = count(key)?;
                Picked { start, step: 1, len: n - start }
            }
        })
    }

    fn needs_even(&self) -> bool {
        !matches!(self, Self::All | Self::Before(_) | Self::After(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Picked {
    start: usize,
    step: usize,
    len: usize,
}

impl Picked {
    fn indices(self) -> impl Iterator<Item = usize> + Clone {
        (0..self.len).map(move |i| self.start + i * self.step)
    }
}

/// One matrix of a view, found in its file.
#[derive(Debug, Clone)]
pub(super) struct MatrixView {
    scales: Option<String>,
    /// Which one of the tensor.
    index: usize,
    /// Matrices in the tensor.
    count: usize,
    /// As the tensor has them.
    rows: usize,
    columns: usize,
    picked: [Picked; 2],
    is_turned: bool,
}

impl MatrixView {
    /// The matrices of a view in the layer called `prefix`, and the extents of them all.
    pub(super) fn all(
        view: &View,
        files: &ModelFiles,
        prefix: &str,
        config: &Config,
    ) -> Result<(Vec<Self>, Vec<u64>), EngineError> {
        let name = format!("{prefix}{}", view.of);
        let tensor = files.tensor(&name)?;
        let scales = view.scales.as_ref().map(|scales| format!("{prefix}{scales}"));
        let [count, rows, columns] =
            extents(view, &name, &tensor, scales.as_deref(), files, config)?;
        let is_odd = |pick: &Pick, n: usize| pick.needs_even() && !n.is_multiple_of(2);
        if is_odd(&view.rows, rows) || is_odd(&view.columns, columns) {
            let found = format!("[{rows}, {columns}]");
            return Err(EngineError::inconsistent(name, "matrices that can be halved", found));
        }
        let pick = |pick: &Pick, n| pick.of(n, config).map_err(EngineError::plugin(name.clone()));
        let picked = [pick(&view.rows, rows)?, pick(&view.columns, columns)?];
        let is_turned = view.turned;
        let one = Self { scales, index: 0, count, rows, columns, picked, is_turned };
        if one.element_bytes(tensor.format).is_none() && (is_turned || view.columns != Pick::All) {
            let expected = "a format of single numbers, whose columns can be read";
            return Err(EngineError::inconsistent(name, expected, tensor.format));
        }
        let [mut rows, mut columns] = picked.map(|picked| picked.len as u64);
        if is_turned {
            (rows, columns) = (columns, rows);
        }
        let matrices = (0..count).map(|index| Self { index, ..one.clone() }).collect();
        Ok((matrices, vec![count as u64, rows, columns]))
    }

    /// The format of what is read, where the tensor has `format`.
    pub(super) fn format<'a>(&self, format: &'a str) -> &'a str {
        if self.scales.is_some() { MXFP4 } else { format }
    }

    /// Bytes of what is read.
    pub(super) fn size_bytes(&self, tensor: &TensorView<'_>) -> usize {
        let [rows, columns] = self.picked.map(|picked| picked.len);
        match self.element_bytes(tensor.format) {
            _ if self.scales.is_some() => rows * columns / GROUP * MXFP4_BYTES,
            Some(bytes) => rows * columns * bytes,
            None => tensor.bytes.len() / (self.count * self.rows).max(1) * rows,
        }
    }

    /// The matrix in the bytes of its format, and where in the tensor it lies.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for a scale that is no number.
    pub(super) fn read<'f>(
        &self,
        files: &'f ModelFiles,
        name: &str,
    ) -> Result<(Cow<'f, [u8]>, Range<usize>), EngineError> {
        let tensor = files.tensor(name)?;
        let each = tensor.bytes.len() / self.count;
        let range = self.index * each..(self.index + 1) * each;
        let matrix = &tensor.bytes[range.clone()];
        let row_bytes = each / self.rows.max(1);
        let [rows, columns] = self.picked;
        if let Some(scales) = &self.scales {
            let scales = files.tensor(scales)?.bytes;
            let each = scales.len() / self.count;
            let scales = &scales[self.index * each..][..each];
            return Ok((self.joined(name, matrix, scales)?.into(), range));
        }
        if columns.len == self.columns && !self.is_turned {
            if rows.len == self.rows {
                return Ok((matrix.into(), range));
            }
            let rows = rows.indices().map(|row| &matrix[row * row_bytes..][..row_bytes]);
            return Ok((rows.collect::<Vec<_>>().concat().into(), range));
        }
        let size = self.element_bytes(tensor.format).unwrap_or(1);
        let mut out = Vec::with_capacity(rows.len * columns.len * size);
        let mut push = |row: usize, column: usize| {
            out.extend_from_slice(&matrix[row * row_bytes + column * size..][..size]);
        };
        if self.is_turned {
            columns.indices().for_each(|c| rows.indices().for_each(|r| push(r, c)));
        } else {
            rows.indices().for_each(|r| columns.indices().for_each(|c| push(r, c)));
        }
        Ok((out.into(), range))
    }

    /// Codes and scales as blocks of `MXFP4`: a scale, then the codes of the first half of the columns as low
    /// halves of bytes. Here, bytes hold two columns that stand side by side.
    fn joined(&self, name: &str, codes: &[u8], scales: &[u8]) -> Result<Vec<u8>, EngineError> {
        let groups = self.columns / GROUP;
        let mut out = Vec::with_capacity(self.picked[0].len * groups * MXFP4_BYTES);
        for row in self.picked[0].indices() {
            let blocks = codes[row * groups * CODE_BYTES..].as_chunks::<CODE_BYTES>().0;
            for (codes, &scale) in blocks.iter().zip(&scales[row * groups..][..groups]) {
                if scale == NOT_A_NUMBER {
                    let expected = "scales that are numbers";
                    return Err(EngineError::inconsistent(name, expected, "one that is none"));
                }
                let column = |i: usize| (codes[i / 2] >> (4 * (i % 2))) & 15;
                out.push(scale);
                out.extend((0..CODE_BYTES).map(|i| column(i) | (column(i + CODE_BYTES) << 4)));
            }
        }
        Ok(out)
    }

    fn element_bytes(&self, format: &str) -> Option<usize> {
        match format {
            "F64" => Some(8),
            "F32" => Some(4),
            "F16" | "BF16" => Some(2),
            _ => None,
        }
    }
}

/// Matrices, rows and columns of the tensor of a view.
fn extents(
    view: &View,
    name: &str,
    tensor: &TensorView<'_>,
    scales: Option<&str>,
    files: &ModelFiles,
    config: &Config,
) -> Result<[usize; 3], EngineError> {
    let wrong = |expected: &str, found: &[u64]| {
        EngineError::inconsistent(name, expected, format!("{found:?}"))
    };
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let dims = match (tensor.dims, &view.matrices, scales) {
        (&[count, rows, groups, bytes], None, Some(scales)) => {
            let scales = files.tensor(scales)?;
            let are_bytes = tensor.format == "U8" && scales.format == "U8";
            if !are_bytes || bytes != CODE_BYTES as u64 || scales.dims != [count, rows, groups] {
                let expected =
                    "bytes [matrices, rows, groups, 16], and scales [matrices, rows, groups]";
                return Err(wrong(expected, scales.dims));
            }
            [count, rows, groups.saturating_mul(GROUP as u64)]
        }
        (&[count, rows, columns], None, None) => [count, rows, columns],
        (&[count, rows], None, None) => [count, rows, 1],
        (&[all, columns], Some(key), None) => {
            let count = config.count(key, 1..=1 << 16).map_err(EngineError::plugin(key.clone()))?;
            if !all.is_multiple_of(count) {
                return Err(wrong(&format!("rows for {count} matrices"), tensor.dims));
            }
            [count, all / count, columns]
        }
        (dims, ..) => return Err(wrong("matrices as its blueprint says", dims)),
    };
    if dims.contains(&0) {
        return Err(wrong("matrices of some elements", tensor.dims));
    }
    Ok(dims.map(size))
}

const MXFP4: &str = "MXFP4";
/// Columns that share a scale.
const GROUP: usize = 32;
/// Bytes of their codes.
const CODE_BYTES: usize = GROUP / 2;
/// Bytes of both together.
const MXFP4_BYTES: usize = 1 + CODE_BYTES;
/// The exponent that the standard keeps for what is no number.
const NOT_A_NUMBER: u8 = 255;
