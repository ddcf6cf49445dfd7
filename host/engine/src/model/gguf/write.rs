//! Writes GGUF version 3: pairs of metadata, a table of tensors, and their bytes one after the other.
//!
//! Bytes of tensors are asked for one tensor at a time, so that a file may be larger than memory.
//! Source: `ggml/docs/gguf.md`.

use std::io::{self, Write};

use super::formats::by_name;
use super::value::{GgufArray, GgufValue, ValueKind};

/// A GGUF file to be written.
#[derive(Debug, Default)]
pub struct GgufWriter {
    num_pairs: u64,
    pairs: Vec<u8>,
    num_tensors: u64,
    rows: Vec<u8>,
    /// Bytes of each tensor, in order.
    sizes: Vec<u64>,
    /// Where the next tensor begins in the part for tensors.
    offset: u64,
}

impl GgufWriter {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair. Keys occur once; of `general.alignment` there is none: tensors begin at multiples of 32.
    pub fn pair(&mut self, key: &str, value: &GgufValue<'_>) {
        self.num_pairs += 1;
        put_string(&mut self.pairs, key.as_bytes());
        self.pairs.extend((value.kind() as u32).to_le_bytes());
        put_value(&mut self.pairs, value);
    }

    /// Adds a pair of strings, as tokens are stored.
    pub fn strings<T: AsRef<[u8]>>(&mut self, key: &str, strings: &[T]) {
        let mut bytes = Vec::new();
        for string in strings {
            put_string(&mut bytes, string.as_ref());
        }
        self.pair(key, &array(ValueKind::Str, strings.len(), &bytes));
    }

    /// Adds a pair of `i32`, as kinds of tokens are stored.
    pub fn i32s(&mut self, key: &str, numbers: &[i32]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.pair(key, &array(ValueKind::I32, numbers.len(), &bytes));
    }

    /// Adds a row of the table: extents outermost first. `None` if nobody knows a format of this name,
    /// or rows are no whole blocks of it.
    #[must_use]
    pub fn tensor(&mut self, name: &str, dims: &[u64], format: &str) -> Option<()> {
        let format = by_name(format)?;
        let size = format.size_bytes(dims)?;
        self.num_tensors += 1;
        put_string(&mut self.rows, name.as_bytes());
        self.rows.extend((dims.len() as u32).to_le_bytes());
        self.rows.extend(dims.iter().rev().flat_map(|dim| dim.to_le_bytes()));
        self.rows.extend(format.type_id.to_le_bytes());
        self.rows.extend(self.offset.to_le_bytes());
        self.sizes.push(size);
        self.offset += size.next_multiple_of(ALIGNMENT);
        Some(())
    }

    /// Whether there are tensors of a format of this name.
    pub fn knows(format: &str) -> bool {
        by_name(format).is_some()
    }

    /// Writes the file; `bytes` makes those of the tensor with this place in the table.
    ///
    /// # Errors
    ///
    /// What `out` and `bytes` say, and [`io::ErrorKind::InvalidData`] for another number of bytes than the table
    /// has.
    pub fn write(
        &self,
        out: &mut dyn Write,
        mut bytes: impl FnMut(usize) -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        let mut head = b"GGUF".to_vec();
        head.extend(VERSION.to_le_bytes());
        head.extend(self.num_tensors.to_le_bytes());
        head.extend(self.num_pairs.to_le_bytes());
        head.extend_from_slice(&self.pairs);
        head.extend_from_slice(&self.rows);
        pad(&mut head);
        out.write_all(&head)?;
        for (index, size) in self.sizes.iter().enumerate() {
            let mut bytes = bytes(index)?;
            if bytes.len() as u64 != *size {
                let found = format!("tensor {index}: expected {size} bytes, found {}", bytes.len());
                return Err(io::Error::new(io::ErrorKind::InvalidData, found));
            }
            pad(&mut bytes);
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}

fn array(kind: ValueKind, len: usize, bytes: &[u8]) -> GgufValue<'_> {
    GgufValue::Array(GgufArray::new(kind, len as u64, bytes))
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_value(out: &mut Vec<u8>, value: &GgufValue<'_>) {
    match value {
        GgufValue::U8(x) => out.push(*x),
        GgufValue::I8(x) => out.extend(x.to_le_bytes()),
        GgufValue::U16(x) => out.extend(x.to_le_bytes()),
        GgufValue::I16(x) => out.extend(x.to_le_bytes()),
        GgufValue::U32(x) => out.extend(x.to_le_bytes()),
        GgufValue::I32(x) => out.extend(x.to_le_bytes()),
        GgufValue::F32(x) => out.extend(x.to_le_bytes()),
        GgufValue::Bool(x) => out.push(u8::from(*x)),
        GgufValue::Str(x) => put_string(out, x.as_bytes()),
        GgufValue::Array(x) => {
            out.extend((x.kind() as u32).to_le_bytes());
            out.extend((x.len() as u64).to_le_bytes());
            out.extend_from_slice(x.as_bytes());
        }
        GgufValue::U64(x) => out.extend(x.to_le_bytes()),
        GgufValue::I64(x) => out.extend(x.to_le_bytes()),
        GgufValue::F64(x) => out.extend(x.to_le_bytes()),
    }
}

const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gguf::Gguf;

    #[test]
    fn what_is_written_is_read_again() {
        let mut writer = GgufWriter::new();
        writer.pair("general.architecture", &GgufValue::Str("llama"));
        writer.pair("a.count", &GgufValue::U32(7));
        writer.pair("a.flag", &GgufValue::Bool(true));
        writer.pair("a.number", &GgufValue::F32(1e-5));
        writer.strings("a.words", &["x", "", "längst"]);
        writer.i32s("a.kinds", &[1, -3]);
        writer.tensor("m", &[2, 3], "F32").unwrap();
        writer.tensor("v", &[5], "F16").unwrap();
        assert!(writer.tensor("q", &[2, 33], "Q4_1").is_none(), "no whole blocks");
        assert!(writer.tensor("q", &[2], "Q9").is_none());
        let tensors = [vec![1; 24], vec![2; 10]];
        let mut file = Vec::new();
        writer.write(&mut file, |index| Ok(tensors[index].clone())).unwrap();
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), &file).unwrap();
        let gguf = Gguf::open(path.path()).unwrap();
        let found = gguf.metadata();
        assert_eq!(found.str("general.architecture").unwrap(), Some("llama"));
        assert_eq!(found.u64("a.count").unwrap(), Some(7));
        assert_eq!(found.bool("a.flag").unwrap(), Some(true));
        assert_eq!(found.f64("a.number").unwrap(), Some(f64::from(1e-5_f32)));
        let words: Vec<_> = found.array("a.words").unwrap().unwrap().strings().unwrap().collect();
        assert_eq!(words, ["x".as_bytes(), b"", "längst".as_bytes()]);
        let kinds = found.array("a.kinds").unwrap().unwrap().numbers().unwrap();
        assert_eq!(kinds.filter_map(|n| n.as_f64()).collect::<Vec<_>>(), [1.0, -3.0]);
        for (tensor, (dims, bytes)) in
            gguf.tensors().iter().zip([(vec![2, 3], &tensors[0]), (vec![5], &tensors[1])])
        {
            assert_eq!((&tensor.dims, gguf.bytes(tensor)), (&dims, &bytes[..]));
        }
        let wrong = writer.write(&mut Vec::new(), |_| Ok(vec![0; 3])).unwrap_err();
        assert!(wrong.to_string().contains("expected 24 bytes, found 3"), "{wrong}");
    }
}
