//! Writes small GGUF files for tests.

/// A GGUF file being put together.
#[derive(Debug, Default, Clone)]
pub(crate) struct Writer {
    pub(crate) version: u32,
    pairs: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    pub(crate) data: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { version: 3, ..Self::default() }
    }

    /// Adds a pair of `kind` whose value is the bytes given.
    pub(crate) fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        let mut pair = string(key.as_bytes());
        pair.extend(kind.to_le_bytes());
        pair.extend(value);
        self.pairs.push(pair);
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn bool(self, key: &str, value: bool) -> Self {
        self.raw(key, 7, &[value.into()])
    }

    pub(crate) fn str(self, key: &str, value: &str) -> Self {
        self.raw(key, 8, &string(value.as_bytes()))
    }

    pub(crate) fn strs<T: AsRef<[u8]>>(self, key: &str, values: &[T]) -> Self {
        let strings: Vec<_> = values.iter().map(|value| string(value.as_ref())).collect();
        self.array(key, 8, &strings)
    }

    pub(crate) fn i32s(self, key: &str, values: &[i32]) -> Self {
        let values: Vec<_> = values.iter().map(|value| value.to_le_bytes().to_vec()).collect();
        self.array(key, 5, &values)
    }

    pub(crate) fn f32s(self, key: &str, values: &[f32]) -> Self {
        let values: Vec<_> = values.iter().map(|value| value.to_le_bytes().to_vec()).collect();
        self.array(key, 6, &values)
    }

    /// Adds an array of `kind` from encoded elements.
    pub(crate) fn array(self, key: &str, kind: u32, elements: &[Vec<u8>]) -> Self {
        let value = array(kind, elements);
        self.raw(key, 9, &value)
    }

    /// Adds a row of the tensor table; `dims` in file order (innermost first).
    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let mut row = string(name.as_bytes());
        row.extend((dims.len() as u32).to_le_bytes());
        row.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        row.extend(type_id.to_le_bytes());
        row.extend(offset.to_le_bytes());
        self.tensors.push(row);
        self
    }

    /// Sets the bytes after the (32-byte aligned) header.
    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.pairs.len() as u64).to_le_bytes());
        bytes.extend(self.pairs.iter().chain(&self.tensors).flatten());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}

pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

pub(crate) fn array(kind: u32, elements: &[Vec<u8>]) -> Vec<u8> {
    let mut value = kind.to_le_bytes().to_vec();
    value.extend((elements.len() as u64).to_le_bytes());
    value.extend(elements.iter().flatten());
    value
}
