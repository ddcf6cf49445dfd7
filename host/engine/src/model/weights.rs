//! From a model file into packed memory: which tensors there are, and how they get there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use plugin_api::kinds::backend::{
    Backend, Layout, RawForm, RawRows, RawValues, WeightDesc, WeightPlace,
};
use plugin_api::kinds::quantizer::AffineMut;
use plugin_api::{Lowering, Quantizer};

use super::files::{Metadata, ModelFiles};
use super::hyperparameters::Architecture;
use super::trace::WeightShapes;
use super::views::MatrixView;
use crate::error::EngineError;

/// Quantizers by the name of their format, with the name of their plugin.
pub type Quantizers = BTreeMap<String, (String, Box<dyn Quantizer>)>;

/// The weights of a model, by our names.
#[derive(Debug)]
pub struct WeightTable {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Names in the file: one, or one for each expert, in order; or one again and again.
    theirs: Vec<String>,
    /// What is read of each, if not all of it as it lies.
    views: Vec<MatrixView>,
    dims: Vec<u64>,
}

impl WeightTable {
    /// Lists the tensors of a model under our names. Where each expert has a tensor of its own,
    /// they are one weight with another axis before the others. Biases of experts are matrices of one column.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for experts that are missing or differ in shape, and for tensors that
    /// cannot be read as a view of the blueprint says.
    pub fn of(files: &ModelFiles, architecture: &Architecture) -> Result<Self, EngineError> {
        let mut table = match files.metadata() {
            Metadata::Gguf(_) => {
                Self::named(files, |theirs| architecture.blueprint.gguf_weight(theirs))
            }
            Metadata::Hf(_) => Self::of_hf(files, architecture)?,
        };
        for (ours, entry) in &mut table.entries {
            if entry.dims.len() == 2 && ours.contains(EXPERTS) && ours.ends_with(".bias") {
                entry.dims.push(1);
            }
        }
        Ok(table)
    }

    fn of_hf(files: &ModelFiles, architecture: &Architecture) -> Result<Self, EngineError> {
        let blueprint = &architecture.blueprint;
        let mut table = Self::named(files, |theirs| match blueprint.hf_weight(theirs) {
            _ if blueprint.views_of(theirs).is_some() || blueprint.is_scales(theirs) => None,
            (ours, None) => Some(ours),
            (_, Some(_)) => None,
        });
        for tensor in files.tensors() {
            let Some((prefix, layer, views)) = blueprint.views_of(tensor.name) else { continue };
            for view in views {
                let (views, dims) = MatrixView::all(view, files, prefix, &architecture.config)?;
                let theirs = vec![tensor.name.to_owned(); views.len()];
                let ours = format!("{layer}{}", view.weight);
                table.entries.entry(ours).or_insert(Entry { theirs, views, dims });
            }
        }
        let mut experts: BTreeMap<String, BTreeMap<usize, (&str, &[u64])>> = BTreeMap::new();
        for tensor in files.tensors() {
            if let (ours, Some(expert)) = blueprint.hf_weight(tensor.name) {
                experts.entry(ours).or_default().insert(expert, (tensor.name, tensor.dims));
            }
        }
        for (ours, parts) in experts {
            let of_one = parts.values().next().map_or(&[][..], |(_, dims)| dims);
            for (i, (expert, (theirs, dims))) in parts.iter().enumerate() {
                if i != *expert {
                    return Err(EngineError::inconsistent(&ours, format!("expert {i}"), "none"));
                }
                if *dims != of_one {
                    let expected = format!("experts of the shape {of_one:?}");
                    return Err(EngineError::inconsistent(*theirs, expected, format!("{dims:?}")));
                }
            }
            let dims = [&[parts.len() as u64], of_one].concat();
            let theirs = parts.values().map(|(theirs, _)| (*theirs).to_owned()).collect();
            table.entries.insert(ours, Entry { theirs, views: Vec::new(), dims });
        }
        Ok(table)
    }

    /// Lists the tensors of a model that `ours` has a name for.
    pub fn named(files: &ModelFiles, ours: impl Fn(&str) -> Option<String>) -> Self {
        let mut entries = BTreeMap::new();
        for tensor in files.tensors() {
            if let Some(ours) = ours(tensor.name) {
                let theirs = vec![tensor.name.to_owned()];
                let entry = Entry { theirs, views: Vec::new(), dims: tensor.dims.to_vec() };
                entries.insert(ours, entry);
            }
        }
        Self { entries }
    }

    /// Lists what is stored as `of` under another name too, if it is there and the name is free.
    pub(crate) fn list_again(&mut self, of: &str, name: &str) {
        if let Some(Entry { theirs, dims, .. }) = self.entries.get(of) {
            let entry = Entry { theirs: theirs.clone(), views: Vec::new(), dims: dims.clone() };
            self.entries.entry(name.to_owned()).or_insert(entry);
        }
    }

    /// The numbers of a weight, row-major, whatever format they are stored in.
    ///
    /// # Errors
    ///
    /// As those of [`place`](Self::place).
    pub fn values(
        &self,
        files: &ModelFiles,
        name: &str,
        quantizers: &Quantizers,
    ) -> Result<Vec<f32>, EngineError> {
        let desc = self.desc(files, name)?;
        let mut values = vec![0.0; desc.rows * desc.cols];
        let (entry, quantizer) = (&self.entries[name], quantizer_of(&desc, quantizers)?);
        let each = (values.len() / entry.theirs.len()).max(1);
        for (part, values) in values.chunks_mut(each).enumerate() {
            let decoded = quantizer.decode(&entry.read(files, part)?.0, values);
            decoded.map_err(EngineError::plugin(format!("weight `{name}`")))?;
        }
        Ok(values)
    }

    /// Names of all weights.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// What a weight is called in its file: one name, or one for each expert; none for a part of a tensor.
    pub fn names_in_file(&self, name: &str) -> &[String] {
        let entry = self.entries.get(name).filter(|entry| entry.views.is_empty());
        entry.map_or(&[], |entry| &entry.theirs)
    }

    /// Finds a weight in its file.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for tensors that are no vectors, matrices or stacks of them.
    pub fn desc(&self, files: &ModelFiles, name: &str) -> Result<WeightDesc, EngineError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(EngineError::inconsistent(name, "a tensor of the model", "none"));
        };
        let format = entry.format(files)?;
        let (rows, cols) = match entry.dims[..] {
            [cols] => (1, cols),
            [rows, cols] => (rows, cols),
            [experts, rows, cols] => (experts.saturating_mul(rows), cols),
            ref dims => {
                return Err(EngineError::inconsistent(name, "one to three axes", dims.len()));
            }
        };
        let size = |n: u64| {
            usize::try_from(n).map_err(|_| EngineError::inconsistent(name, "an axis that fits", n))
        };
        let name = name.to_owned();
        Ok(WeightDesc { name, format, rows: size(rows)?, cols: size(cols)? })
    }

    /// Finds out how the backend wants a weight to lie.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] if quantizer or backend refuse, [`EngineError::Inconsistent`] if no
    /// quantizer reads the format or rows are no whole blocks.
    pub fn place(
        &self,
        files: &ModelFiles,
        name: &str,
        quantizers: &Quantizers,
        backend: &dyn Backend,
    ) -> Result<WeightPlace, EngineError> {
        let desc = self.desc(files, name)?;
        let quantizer = quantizer_of(&desc, quantizers)?;
        let (lowering, row_bytes) = (quantizer.lowering(), row_bytes(&desc, quantizer)?);
        let entry = &self.entries[name];
        let parts = &entry.theirs;
        let rows = desc.rows / parts.len();
        for (part, theirs) in parts.iter().enumerate() {
            let tensor = files.tensor(theirs)?;
            let found =
                entry.views.get(part).map_or(tensor.bytes.len(), |view| view.size_bytes(&tensor));
            if row_bytes.checked_mul(rows) != Some(found) {
                let expected = format!("{rows} rows of {row_bytes} bytes");
                return Err(EngineError::inconsistent(theirs, expected, found));
            }
        }
        let layout = backend
            .layout(&desc, &lowering)
            .map_err(EngineError::plugin(format!("weight `{name}`")))?;
        if parts.len() > 1 && !rows.is_multiple_of(layout.row_block) {
            let expected = format!("experts of a multiple of {} rows", layout.row_block);
            return Err(EngineError::inconsistent(name, expected, rows));
        }
        Ok(WeightPlace { desc, lowering, layout })
    }

    /// Packs a weight into its place: `packed` holds as many bytes as the layout says.
    ///
    /// # Errors
    ///
    /// As those of [`place`](Self::place).
    pub fn pack(
        &self,
        files: &ModelFiles,
        place: &WeightPlace,
        quantizers: &Quantizers,
        backend: &dyn Backend,
        threads: usize,
        packed: &mut [u8],
    ) -> Result<(), EngineError> {
        let WeightPlace { desc, lowering, layout } = place;
        let (name, quantizer) = (&desc.name, quantizer_of(desc, quantizers)?);
        let (entry, row_bytes) = (&self.entries[name], row_bytes(desc, quantizer)?);
        let job = PackJob { desc, lowering, layout, quantizer };
        let each = packed.len() / entry.theirs.len();
        for (part, packed) in packed.chunks_mut(each.max(1)).enumerate() {
            let (theirs, (bytes, range)) = (&entry.theirs[part], entry.read(files, part)?);
            let is_as_stored = matches!(bytes, Cow::Borrowed(_));
            // Packed rows have no use for what they were packed from.
            let release = |rows: Range<usize>| {
                if is_as_stored {
                    files.release(theirs, range.start + rows.start..range.start + rows.end);
                }
            };
            job.run(&bytes, row_bytes, packed, (backend, threads), &release)
                .map_err(EngineError::plugin(format!("weight `{name}`")))?;
            if !is_as_stored {
                files.release(theirs, range.clone());
            }
        }
        Ok(())
    }
}

impl Entry {
    /// The format, which is that of every part.
    fn format(&self, files: &ModelFiles) -> Result<String, EngineError> {
        let mut all = None;
        for (part, theirs) in self.theirs.iter().enumerate() {
            let found = files.tensor(theirs)?.format;
            let found = self.views.get(part).map_or(found, |view| view.format(found));
            match all {
                None => all = Some(found),
                Some(format) if format == found => {}
                Some(format) => return Err(EngineError::inconsistent(theirs, format, found)),
            }
        }
        Ok(all.unwrap_or_default().to_owned())
    }

    /// The bytes of a part, and where in its tensor they come from.
    fn read<'f>(
        &self,
        files: &'f ModelFiles,
        part: usize,
    ) -> Result<(Cow<'f, [u8]>, Range<usize>), EngineError> {
        let theirs = &self.theirs[part];
        if let Some(view) = self.views.get(part) {
            return view.read(files, theirs);
        }
        let bytes = files.tensor(theirs)?.bytes;
        Ok((bytes.into(), 0..bytes.len()))
    }
}

/// Bytes of a row in the file.
fn row_bytes(desc: &WeightDesc, quantizer: &dyn Quantizer) -> Result<usize, EngineError> {
    let bytes = quantizer.format().size_bytes(desc.cols);
    bytes.map_err(EngineError::plugin(format!("weight `{}`", desc.name)))
}

fn quantizer_of<'q>(
    desc: &WeightDesc,
    quantizers: &'q Quantizers,
) -> Result<&'q dyn Quantizer, EngineError> {
    quantizers.get(&desc.format).map(|(_, quantizer)| &**quantizer).ok_or_else(|| {
        let known = quantizers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let expected = format!("a format with a quantizer ({known})");
        EngineError::inconsistent(&desc.name, expected, &desc.format)
    })
}

impl WeightShapes for WeightTable {
    fn dims(&self, name: &str) -> Option<&[u64]> {
        self.entries.get(name).map(|entry| &entry.dims[..])
    }
}

/// What names of the weights of experts contain.
const EXPERTS: &str = ".experts.";

/// Elements that one worker unpacks at a time: a few MiB of working memory.
const CHUNK_ELEMENTS: usize = 1 << 19;

struct PackJob<'a> {
    desc: &'a WeightDesc,
    lowering: &'a Lowering,
    layout: &'a Layout,
    quantizer: &'a dyn Quantizer,
}

impl PackJob<'_> {
    /// Packs chunks of rows on `threads` threads; `packed_part` is told the bytes of each.
    fn run(
        &self,
        bytes: &[u8],
        row_bytes: usize,
        packed: &mut [u8],
        (backend, threads): (&dyn Backend, usize),
        packed_part: &(dyn Fn(Range<usize>) + Sync),
    ) -> plugin_api::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let rows = (CHUNK_ELEMENTS / self.desc.cols.max(1)).next_multiple_of(self.layout.row_block);
        let out_bytes = rows / self.layout.row_block * self.layout.block_bytes;
        let chunks = bytes.chunks(rows * row_bytes).zip(packed.chunks_mut(out_bytes));
        let (chunks, failed) = (Mutex::new(chunks.enumerate()), Mutex::new(None));
        let work = || {
            let mut room = Room::default();
            loop {
                let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, (bytes, out))) = next else { return };
                let num_rows = bytes.len() / row_bytes;
                if let Err(error) = self.pack_rows(bytes, num_rows, &mut room, out, backend) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return;
                }
                let start = index * rows * row_bytes;
                packed_part(start..start + bytes.len());
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(self.desc.rows.div_ceil(rows)) {
                scope.spawn(work);
            }
            work();
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn pack_rows(
        &self,
        bytes: &[u8],
        rows: usize,
        room: &mut Room,
        out: &mut [u8],
        backend: &dyn Backend,
    ) -> plugin_api::Result<()> {
        let elements = rows * self.desc.cols;
        let values = match (self.layout.wants, self.lowering) {
            (RawForm::Affine, Lowering::Affine { group, has_min, .. }) => {
                room.codes.resize(elements, 0);
                room.scales.resize(elements / group, 0.0);
                room.mins.resize(if *has_min { elements / group } else { 0 }, 0.0);
                let Room { codes, scales, mins, .. } = room;
                self.quantizer.unpack(bytes, &mut AffineMut { codes, scales, mins })?;
                RawValues::Affine { codes, scales, mins }
            }
            _ => {
                room.floats.resize(elements, 0.0);
                self.quantizer.decode(bytes, &mut room.floats)?;
                RawValues::Floats(&room.floats)
            }
        };
        let raw = RawRows { desc: self.desc, lowering: self.lowering, rows, values };
        backend.pack(&raw, self.layout, out)
    }
}

/// Working memory of one worker.
#[derive(Default)]
struct Room {
    codes: Vec<u8>,
    scales: Vec<f32>,
    mins: Vec<f32>,
    floats: Vec<f32>,
}
