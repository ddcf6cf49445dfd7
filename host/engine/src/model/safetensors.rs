//! Safetensors files over a map: one file, or the shards that an index names.
//!
//! The `safetensors` crate checks a header against its file (sizes, bounds, no holes, no overlap);
//! here its tensors become views, and shards one table.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;

use super::error::ModelError;
use super::files::read_json;
use super::mmap::ModelBytes;

/// Tensors of one or more open safetensors files.
#[derive(Debug)]
pub struct Safetensors {
    shards: Vec<ModelBytes>,
    tensors: Vec<SafetensorsTensor>,
    index: HashMap<String, usize>,
}

/// One tensor of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsTensor {
    /// Unique in the model.
    pub name: String,
    /// Outermost first, as in the file.
    pub dims: Vec<u64>,
    /// The dtype as in the header: `"BF16"`; of blocks that `config.json` tells of, theirs.
    pub format: Cow<'static, str>,
    /// Which file.
    shard: usize,
    /// Bytes in that file.
    range: Range<usize>,
}

impl SafetensorsTensor {
    /// Size in the file, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.range.len() as u64
    }
}

impl Safetensors {
    /// Maps and checks one file.
    ///
    /// # Errors
    ///
    /// [`ModelError::Open`], or as [`parse`](Self::parse).
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::parse(ModelBytes::open(path)?)
    }

    /// Reads the header of one file.
    ///
    /// # Errors
    ///
    /// [`ModelError::Safetensors`] if the header contradicts the format or the file's size.
    pub fn parse(bytes: ModelBytes) -> Result<Self, ModelError> {
        let tensors = read_table(&bytes, 0)?;
        Ok(Self::new(vec![bytes], tensors))
    }

    /// Opens every shard that the index at `path` (`model.safetensors.index.json`) names; its
    /// `weight_map` decides which tensors there are.
    ///
    /// # Errors
    ///
    /// [`ModelError::Json`] or [`ModelError::Malformed`] if the index is not one, names files
    /// outside its folder, or names a tensor that its shard lacks; else as [`open`](Self::open).
    pub fn open_index(path: &Path) -> Result<Self, ModelError> {
        let index = read_json(path, INDEX_BYTES_MAX, "safetensors index")?;
        let weight_map = weight_map(path, &index)?;
        let names: BTreeSet<&str> = weight_map.iter().map(|(_, file)| *file).collect();
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut shards = Vec::with_capacity(names.len());
        let mut found = HashMap::new();
        for (shard, name) in names.into_iter().enumerate() {
            let bytes = ModelBytes::open(&folder.join(name))?;
            for tensor in read_table(&bytes, shard)? {
                found.insert((name, tensor.name.clone()), tensor);
            }
            shards.push(bytes);
        }
        let mut tensors = Vec::with_capacity(weight_map.len());
        for (tensor, file) in weight_map {
            let found = found.remove(&(file, tensor.to_owned())).ok_or_else(|| {
                ModelError::malformed(path, tensor, format!("it in {file}"), "no such tensor there")
            })?;
            tensors.push(found);
        }
        Ok(Self::new(shards, tensors))
    }

    /// All tensors, by place in the files (or in the index).
    pub fn tensors(&self) -> &[SafetensorsTensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&SafetensorsTensor> {
        self.index.get(name).map(|index| &self.tensors[*index])
    }

    /// The values of a tensor of this model, as stored: little-endian, row-major.
    ///
    /// # Panics
    ///
    /// If `tensor` is of another model.
    pub fn bytes(&self, tensor: &SafetensorsTensor) -> &[u8] {
        &self.shards[tensor.shard].as_slice()[tensor.range.clone()]
    }

    /// Gives pages with bytes of a tensor back to the system, until they are read again.
    pub fn release(&self, tensor: &SafetensorsTensor, part: Range<usize>) {
        self.shards[tensor.shard]
            .release(tensor.range.start + part.start..tensor.range.start + part.end);
    }

    /// Takes bytes of a tensor for rows of `cols` elements in blocks of `format`. `None` if there is no such
    /// tensor of bytes.
    pub(super) fn say_blocks(&mut self, name: &str, format: &str, cols: u64) -> Option<()> {
        let tensor = &mut self.tensors[*self.index.get(name)?];
        let last = tensor.dims.last_mut().filter(|_| tensor.format == "U8")?;
        (*last, tensor.format) = (cols, format.to_owned().into());
        Some(())
    }

    /// The same with other bytes for the tensors that `change` has some for, as many as there were. Everything is
    /// in memory then.
    pub(super) fn changed(
        &self,
        change: impl Fn(&SafetensorsTensor, &[u8]) -> Option<Vec<u8>>,
    ) -> Self {
        let mut shards: Vec<Vec<u8>> =
            self.shards.iter().map(|shard| shard.as_slice().to_vec()).collect();
        for tensor in &self.tensors {
            let place = &mut shards[tensor.shard][tensor.range.clone()];
            if let Some(bytes) = change(tensor, place) {
                place.copy_from_slice(&bytes);
            }
        }
        let named = shards.into_iter().zip(&self.shards);
        let shards = named.map(|(bytes, shard)| ModelBytes::from_vec(shard.path(), bytes));
        Self::new(shards.collect(), self.tensors.clone())
    }

    fn new(shards: Vec<ModelBytes>, tensors: Vec<SafetensorsTensor>) -> Self {
        let names = tensors.iter().map(|tensor| tensor.name.clone());
        let index = names.enumerate().map(|(at, name)| (name, at)).collect();
        Self { shards, tensors, index }
    }
}

/// Tensor and file names of an index; the files are plain names in the index's folder.
fn weight_map<'a>(path: &Path, index: &'a Value) -> Result<Vec<(&'a str, &'a str)>, ModelError> {
    let malformed = |expected, found| ModelError::malformed(path, "weight_map", expected, found);
    let Some(map) = index.get("weight_map").and_then(Value::as_object) else {
        return Err(malformed("an object from tensor to file", "none".to_owned()));
    };
    let mut pairs = Vec::with_capacity(map.len());
    for (tensor, file) in map {
        let name = file.as_str().filter(|name| {
            Path::new(name).file_name() == Some(OsStr::new(name)) && !name.contains('\\')
        });
        let Some(name) = name else {
            return Err(malformed("plain file names", format!("{file} for `{tensor}`")));
        };
        pairs.push((tensor.as_str(), name));
    }
    Ok(pairs)
}

/// The tensors of one file, in the order of their bytes.
fn read_table(bytes: &ModelBytes, shard: usize) -> Result<Vec<SafetensorsTensor>, ModelError> {
    let (header_bytes, metadata) = SafeTensors::read_metadata(bytes.as_slice())
        .map_err(|source| ModelError::Safetensors { path: bytes.path().to_path_buf(), source })?;
    let data_start = header_bytes + LENGTH_BYTES;
    let mut tensors = Vec::new();
    for (name, tensor) in metadata.tensors() {
        let (start, end) = tensor.data_offsets;
        tensors.push(SafetensorsTensor {
            dims: tensor.shape.iter().map(|dim| *dim as u64).collect(),
            format: dtype_name(tensor.dtype).map(Cow::Borrowed).ok_or_else(|| {
                let found = format!("{:?}", tensor.dtype);
                ModelError::malformed(bytes.path(), name.as_str(), "a known dtype", found)
            })?,
            name,
            shard,
            range: data_start + start..data_start + end,
        });
    }
    tensors.sort_by(|a, b| (a.range.start, &a.name).cmp(&(b.range.start, &b.name)));
    Ok(tensors)
}

/// The spelling of the header; `None` for a dtype newer than this table.
fn dtype_name(dtype: Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::BOOL => "BOOL",
        Dtype::F4 => "F4",
        Dtype::F6_E2M3 => "F6_E2M3",
        Dtype::F6_E3M2 => "F6_E3M2",
        Dtype::U8 => "U8",
        Dtype::I8 => "I8",
        Dtype::F8_E5M2 => "F8_E5M2",
        Dtype::F8_E4M3 => "F8_E4M3",
        Dtype::F8_E8M0 => "F8_E8M0",
        Dtype::F8_E4M3FNUZ => "F8_E4M3FNUZ",
        Dtype::F8_E5M2FNUZ => "F8_E5M2FNUZ",
        Dtype::I16 => "I16",
        Dtype::U16 => "U16",
        Dtype::F16 => "F16",
        Dtype::BF16 => "BF16",
        Dtype::I32 => "I32",
        Dtype::U32 => "U32",
        Dtype::F32 => "F32",
        Dtype::C64 => "C64",
        Dtype::F64 => "F64",
        Dtype::I64 => "I64",
        Dtype::U64 => "U64",
        _ => return None,
    })
}

/// The header's length, a `u64`, comes first.
const LENGTH_BYTES: usize = 8;
/// The largest real index has some 200 thousand tensors.
const INDEX_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file of `header` and `data`.
    pub(crate) fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    pub(crate) const TWO: &str = r#"{"b":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]},
        "a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;

    #[test]
    fn finds_tensors_in_one_file() {
        let data: Vec<u8> = (0..12).collect();
        let bytes = ModelBytes::from_vec("x.safetensors", file(TWO, &data));
        let model = Safetensors::parse(bytes).unwrap();
        let names: Vec<_> = model.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let b = model.tensor("b").unwrap();
        assert_eq!(
            (&*b.format, b.dims.as_slice(), model.bytes(b)),
            ("F32", &[1, 2][..], &data[4..])
        );
    }

    #[test]
    fn refuses_headers_that_do_not_fit() {
        let one = |header: &str| file(header, &[0; 4]);
        let cases = [
            ("empty", Vec::new()),
            ("length of 2^63", [&(1_u64 << 63).to_le_bytes()[..], b"{}"].concat()),
            ("no json", one("nonsense")),
            ("too short", one(TWO)),
            ("hole", one(r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#)),
            ("wrong size", one(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#)),
            ("trailing bytes", one("{}")),
        ];
        for (name, bytes) in cases {
            let result = Safetensors::parse(ModelBytes::from_vec("x", bytes));
            assert!(matches!(result, Err(ModelError::Safetensors { .. })), "{name}");
        }
    }

    #[test]
    fn follows_an_index_inside_its_folder_only() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("model.safetensors.index.json");
        std::fs::write(folder.path().join("1.safetensors"), file(TWO, &[1; 12])).unwrap();
        std::fs::write(folder.path().join("2.safetensors"), file(TWO, &[2; 12])).unwrap();
        let open = |json: &str| {
            std::fs::write(&index, json).unwrap();
            Safetensors::open_index(&index)
        };
        let model = open(r#"{"weight_map":{"a":"2.safetensors","b":"1.safetensors"}}"#).unwrap();
        assert_eq!(model.bytes(model.tensor("a").unwrap()), [2; 4]);
        assert_eq!(model.bytes(model.tensor("b").unwrap()), [1; 8]);
        for bad in [
            "[]",
            r#"{"weight_map":{"a":"../1.safetensors"}}"#,
            r#"{"weight_map":{"a":"/etc/passwd"}}"#,
            r#"{"weight_map":{"a":".."}}"#,
            r#"{"weight_map":{"a":7}}"#,
            r#"{"weight_map":{"c":"1.safetensors"}}"#,
            r#"{"weight_map":{"a":"3.safetensors"}}"#,
        ] {
            assert!(open(bad).is_err(), "{bad}");
        }
    }
}
