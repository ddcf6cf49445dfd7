//! GGUF version 2 and 3, little-endian: metadata and a table of tensors over a mapped file.
//!
//! Nothing of the file is trusted: counts and lengths are checked against the file's size before
//! use, tensors must lie inside the file and apart. A tensor of an unknown ggml type is kept and
//! refused when it is asked for. Source: `ggml/docs/gguf.md`.

mod cursor;
mod formats;
mod metadata;
mod value;
mod write;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::error::ModelError;
use super::mmap::ModelBytes;
use cursor::Cursor;

pub use formats::{GgmlFormat, format, format_name};
pub use metadata::GgufMetadata;
pub use value::{GgufArray, GgufValue, ValueKind};
pub use write::GgufWriter;

/// An open GGUF file.
#[derive(Debug, Clone)]
pub struct Gguf {
    bytes: Arc<ModelBytes>,
    metadata: GgufMetadata,
    tensors: Vec<GgufTensor>,
    index: HashMap<String, usize>,
}

/// One row of the tensor table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Unique in the file.
    pub name: String,
    /// Outermost first, as in Hugging Face files: `[rows (out), cols (in)]`. The file has them
    /// the other way round.
    pub dims: Vec<u64>,
    /// The ggml type, known here or not.
    pub type_id: u32,
    /// Where the values lie in the file, in bytes. For an unknown type: up to the next tensor.
    pub range: Range<usize>,
}

impl Gguf {
    /// Maps and checks the file at `path`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Open`], or as [`parse`](Self::parse).
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::parse(Arc::new(ModelBytes::open(path)?))
    }

    /// Reads header, metadata and tensor table.
    ///
    /// # Errors
    ///
    /// [`ModelError::Malformed`] if the file contradicts the format or itself.
    pub fn parse(bytes: Arc<ModelBytes>) -> Result<Self, ModelError> {
        let mut cursor = Cursor::new(bytes.path(), bytes.as_slice());
        let tensor_count = read_header(&mut cursor)?;
        let (tensor_count, metadata_count) = tensor_count;
        if metadata_count > cursor.remaining() / METADATA_BYTES_MIN {
            return Err(too_many(&cursor, "metadata count", metadata_count));
        }
        let metadata = GgufMetadata::read(&bytes, &mut cursor, metadata_count)?;
        let alignment = read_alignment(&cursor, &metadata)?;
        if tensor_count > cursor.remaining() / TENSOR_BYTES_MIN {
            return Err(too_many(&cursor, "tensor count", tensor_count));
        }
        // Lossless: at most a 24th of the file's length.
        let mut rows = Vec::with_capacity(tensor_count as usize);
        for index in 0..tensor_count {
            rows.push(read_tensor(&mut cursor, index)?);
        }
        let (tensors, index) = place(&cursor, rows, alignment, bytes.as_slice().len() as u64)?;
        Ok(Self { metadata, tensors, index, bytes })
    }

    /// Keys and values.
    pub fn metadata(&self) -> &GgufMetadata {
        &self.metadata
    }

    /// All tensors, in the order of the file's table.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.index.get(name).map(|index| &self.tensors[*index])
    }

    /// The values of a tensor of this file, as stored.
    ///
    /// # Panics
    ///
    /// If `tensor` is of another, longer file.
    pub fn bytes(&self, tensor: &GgufTensor) -> &[u8] {
        &self.bytes.as_slice()[tensor.range.clone()]
    }

    /// Gives pages with bytes of a tensor back to the system, until they are read again.
    pub fn release(&self, tensor: &GgufTensor, part: Range<usize>) {
        self.bytes.release(tensor.range.start + part.start..tensor.range.start + part.end);
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.bytes.path()
    }
}

/// A row of the table before its place is known.
struct Row {
    name: String,
    dims: Vec<u64>,
    type_id: u32,
    offset: u64,
}

/// Checks magic and version; returns the numbers of tensors and of metadata pairs.
fn read_header(cursor: &mut Cursor<'_>) -> Result<(u64, u64), ModelError> {
    let magic = cursor.take(4, "magic")?;
    if magic != b"GGUF" {
        return Err(cursor.malformed("magic", "`GGUF`", format!("{:?}", magic.escape_ascii())));
    }
    let version = cursor.u32("version")?;
    if !(2..=3).contains(&version) {
        let found = match version.swap_bytes() {
            2 | 3 => format!("{} in a big-endian file", version.swap_bytes()),
            _ => version.to_string(),
        };
        return Err(cursor.malformed("version", "2 or 3, little-endian", found));
    }
    Ok((cursor.u64("tensor count")?, cursor.u64("metadata count")?))
}

fn read_alignment(cursor: &Cursor<'_>, metadata: &GgufMetadata) -> Result<u64, ModelError> {
    let alignment = metadata.u64(ALIGNMENT_KEY)?.unwrap_or(ALIGNMENT_BYTES);
    if !alignment.is_power_of_two() || alignment > ALIGNMENT_BYTES_MAX {
        let expected = format!("a power of two up to {ALIGNMENT_BYTES_MAX}");
        return Err(cursor.malformed(ALIGNMENT_KEY, expected, alignment.to_string()));
    }
    Ok(alignment)
}

fn read_tensor(cursor: &mut Cursor<'_>, index: u64) -> Result<Row, ModelError> {
    let name = cursor.utf8(&format!("name of tensor {index}"))?;
    let rank = cursor.u32(name)?;
    if rank > RANK_MAX {
        let expected = format!("at most {RANK_MAX} dimensions");
        return Err(cursor.malformed(name, expected, rank.to_string()));
    }
    let mut dims = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        let dim = cursor.u64(name)?;
        if dim == 0 {
            return Err(cursor.malformed(name, "dimensions of at least 1", "0"));
        }
        dims.push(dim);
    }
    dims.reverse();
    let (type_id, offset) = (cursor.u32(name)?, cursor.u64(name)?);
    Ok(Row { name: name.to_owned(), dims, type_id, offset })
}

/// Gives every tensor its range; checks names, sizes, alignment, bounds and overlaps.
fn place(
    cursor: &Cursor<'_>,
    rows: Vec<Row>,
    alignment: u64,
    file_bytes: u64,
) -> Result<(Vec<GgufTensor>, HashMap<String, usize>), ModelError> {
    let data_start = (cursor.position() as u64).next_multiple_of(alignment);
    let mut index = HashMap::with_capacity(rows.len());
    let mut tensors = Vec::with_capacity(rows.len());
    for row in rows {
        let range = range_of(cursor, &row, data_start, alignment, file_bytes)?;
        if index.insert(row.name.clone(), tensors.len()).is_some() {
            return Err(cursor.malformed(&row.name, "a tensor name that occurs once", "it twice"));
        }
        tensors.push(GgufTensor { name: row.name, dims: row.dims, type_id: row.type_id, range });
    }
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|at| (tensors[*at].range.start, tensors[*at].range.end));
    for pair in order.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let next_start = tensors[second].range.start;
        if format(tensors[first].type_id).is_none() && tensors[first].range.start < next_start {
            tensors[first].range.end = next_start;
        }
        if tensors[first].range.end > next_start {
            let found = format!("an overlap with `{}`", tensors[second].name);
            return Err(cursor.malformed(&tensors[first].name, "bytes of its own", found));
        }
    }
    Ok((tensors, index))
}

/// Bytes of one tensor in the file; up to the file's end if its type is unknown.
fn range_of(
    cursor: &Cursor<'_>,
    row: &Row,
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<Range<usize>, ModelError> {
    if !row.offset.is_multiple_of(alignment) {
        let expected = format!("an offset that is a multiple of {alignment}");
        return Err(cursor.malformed(&row.name, expected, row.offset.to_string()));
    }
    let outside = |size: &str| {
        let expected = format!("{size} bytes inside the file of {file_bytes}");
        let found = format!("them at {data_start} + {}", row.offset);
        cursor.malformed(&row.name, expected, found)
    };
    let start = data_start.checked_add(row.offset).ok_or_else(|| outside("its"))?;
    let Some(format) = format(row.type_id) else {
        if start > file_bytes {
            return Err(outside("its"));
        }
        return Ok(start as usize..file_bytes as usize);
    };
    let Some(size) = format.size_bytes(&row.dims) else {
        let expected = format!("rows of whole {} blocks ({})", format.name, format.block_len);
        return Err(cursor.malformed(&row.name, expected, format!("dimensions {:?}", row.dims)));
    };
    let end = start.checked_add(size).filter(|end| *end <= file_bytes);
    let end = end.ok_or_else(|| outside(&size.to_string()))?;
    // Lossless: both are at most the length of the mapped slice.
    Ok(start as usize..end as usize)
}

fn too_many(cursor: &Cursor<'_>, item: &str, found: u64) -> ModelError {
    let expected = format!("a count that fits {} bytes", cursor.remaining());
    cursor.malformed(item, expected, found.to_string())
}

const ALIGNMENT_KEY: &str = "general.alignment";
/// When the file does not say, in bytes.
const ALIGNMENT_BYTES: u64 = 32;
/// Above this the padding is no alignment but an attack: no device asks for more than huge pages.
const ALIGNMENT_BYTES_MAX: u64 = 1 << 21;
/// `GGML_MAX_DIMS`.
const RANK_MAX: u32 = 4;
/// An empty key, a kind and the smallest value.
const METADATA_BYTES_MIN: u64 = 8 + 4 + 1;
/// An empty name, rank 0, a type and an offset.
const TENSOR_BYTES_MIN: u64 = 8 + 4 + 4 + 8;

#[cfg(test)]
pub(crate) mod writer;

#[cfg(test)]
mod tests;
