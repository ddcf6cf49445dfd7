//! A GGUF file as llama.cpp's converter makes it, for the architectures that the blueprints have in common
//! with it.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use super::whole::whole;
use super::{Exported, Exporter, outside};
use crate::error::EngineError;
use crate::model::files::{Metadata, TensorDesc};
use crate::model::gguf::{GgufValue, GgufWriter};
use crate::model::hyperparameters::{COUNTS, NUMBERS};
use crate::model::tokenizer::GgufTokenizer;
use crate::model::trace::WeightShapes as _;
use crate::model::{ChatTemplate, InterleavedRows};

/// A tensor of the file: our name, and the format that it gets.
struct Row<'a> {
    ours: &'a str,
    format: &'a str,
}

impl Exporter<'_> {
    pub(crate) fn to_gguf(
        &self,
        to: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Exported, EngineError> {
        self.check_representable()?;
        let mut writer = GgufWriter::new();
        self.write_hyperparameters(&mut writer);
        self.write_tokenizer_pairs(&mut writer)?;
        let rows = self.rows(&mut writer)?;
        let size_bytes = write(to, &writer, |index| {
            progress(index as u64, rows.len() as u64);
            self.tensor(&rows[index])
        })?;
        Ok(Exported { tensors: rows.len(), size_bytes })
    }

    /// The same file, with what takes the place of tensors.
    pub(crate) fn to_same_gguf(
        &self,
        to: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Exported, EngineError> {
        let mut writer = GgufWriter::new();
        if let Metadata::Gguf(metadata) = self.files.metadata() {
            let is_made =
                |key: &str| self.parts.is_some() && [TYPE_KEY, VERSION_KEY].contains(&key);
            let pairs = metadata.keys().filter(|key| *key != ALIGNMENT_KEY && !is_made(key));
            for (key, value) in pairs.filter_map(|key| Some((key, metadata.get(key)?))) {
                writer.pair(key, &value);
            }
            if self.parts.is_some() {
                self.write_formats(&mut writer);
            }
        }
        let tensors: Vec<TensorDesc<'_>> = self.files.tensors().collect();
        let ours = |name: &str| self.architecture.blueprint.gguf_weight(name).unwrap_or_default();
        for tensor in &tensors {
            let stored = self.files.tensor(tensor.name)?.format;
            let ours = ours(tensor.name);
            let format = self.made(&ours).unwrap_or(stored);
            if writer.tensor(tensor.name, tensor.dims, format).is_none() {
                return self.refuse(tensor.name, "rows of whole blocks", format);
            }
        }
        let more = self.made_beside(&|theirs| self.architecture.blueprint.gguf_weight(theirs));
        for name in &more {
            let theirs = self.architecture.blueprint.gguf_name(name).unwrap_or_default();
            let (dims, format) = (self.table.dims(name), self.made(name).unwrap_or_default());
            if writer.tensor(&theirs, dims.unwrap_or_default(), format).is_none() {
                return self.refuse(name, "rows of whole blocks", format);
            }
        }
        let total = tensors.len() + more.len();
        let size_bytes = write(to, &writer, |index| {
            progress(index as u64, total as u64);
            let Some(TensorDesc { name, .. }) = tensors.get(index) else {
                let name = more[index - tensors.len()];
                return self.bytes_of_part(name).unwrap_or_else(|| Ok(Vec::new()));
            };
            self.bytes_of_part(&ours(name)).unwrap_or_else(|| Ok(self.stored(name)?.into_owned()))
        })?;
        Ok(Exported { tensors: total, size_bytes })
    }

    /// What the file has no key for has to be as its readers take it to be.
    fn check_representable(&self) -> Result<(), EngineError> {
        let (blueprint, config) = (&self.architecture.blueprint, &self.architecture.config);
        if !ARCHITECTURES.contains(&&*blueprint.name) {
            let expected = format!("one of {}, to be told in GGUF", ARCHITECTURES.join(", "));
            return self.refuse("architectures", expected, &blueprint.name);
        }
        if let Ok(Some(scaling)) = config.table("rope_scaling") {
            let kind = scaling.text("rope_type").or_else(|_| scaling.text("type"));
            let kind = kind.unwrap_or("default");
            if !["default", "linear"].contains(&kind) {
                return self.refuse("rope_scaling", "none, or a linear one", kind);
            }
        }
        let (head_dim, by_dim) = (config.count("head_dim", 1..=1 << 20).unwrap_or(1), 1e-6);
        if let Ok(scale) = config.number("attention_scale", 0.0..=1e6)
            && (scale * (head_dim as f64).sqrt() - 1.0).abs() > by_dim
        {
            let expected = format!("{head_dim}, the width of a head");
            return self.refuse("query_pre_attn_scalar", expected, "another");
        }
        if blueprint.name == "gemma3" {
            let is_usual =
                |layer| self.architecture.is_sliding(layer).ok() == Some((layer + 1) % 6 != 0);
            if !(0..self.architecture.num_layers()).all(is_usual) {
                let expected =
                    "five layers with a window to one without, which readers take for granted";
                return self.refuse("layer_types", expected, "others");
            }
            let local = config.number_or("rope_local_base_freq", 1e4, 1.0..=1e12).unwrap_or(1e4);
            if local != 1e4 {
                return self.refuse("rope_local_base_freq", "10000", &local.to_string());
            }
        }
        Ok(())
    }

    fn write_hyperparameters(&self, writer: &mut GgufWriter) {
        let (blueprint, config) = (&self.architecture.blueprint, &self.architecture.config);
        let name = &blueprint.name;
        let stem = self.files.folder().file_name().unwrap_or_default().to_string_lossy();
        writer.pair("general.architecture", &GgufValue::Str(name));
        writer.pair("general.type", &GgufValue::Str("model"));
        writer.pair("general.name", &GgufValue::Str(&stem));
        self.write_formats(writer);
        let has_windows = name == "gemma3";
        for (theirs, ours) in COUNTS {
            let is_read = has_windows || ours != "sliding_window";
            if let Some(n) = config.count(ours, 0..=u64::from(u32::MAX)).ok().filter(|_| is_read) {
                writer.pair(&format!("{name}.{theirs}"), &GgufValue::U32(n as u32));
            }
        }
        for (theirs, ours) in NUMBERS {
            if let Ok(x) = config.number(ours, f64::MIN..=f64::MAX) {
                writer.pair(&format!("{name}.{theirs}"), &GgufValue::F32(x as f32));
            }
        }
        let count = |key: &str| config.count(key, 0..=1 << 30).unwrap_or(0);
        let head_dim = count("head_dim");
        writer.pair(&format!("{name}.attention.value_length"), &GgufValue::U32(head_dim as u32));
        let part = config.number_or("partial_rotary_factor", 1.0, 0.0..=1.0).unwrap_or(1.0);
        let rotary = (head_dim as f64 * part).round() as u32;
        writer.pair(&format!("{name}.rope.dimension_count"), &GgufValue::U32(rotary));
        writer.pair(&format!("{name}.vocab_size"), &GgufValue::U32(self.vocab_size() as u32));
        if let Ok(Some(scaling)) = config.table("rope_scaling")
            && let Ok(factor) = scaling.number("factor", 0.0..=1e9)
        {
            writer.pair(&format!("{name}.rope.scaling.type"), &GgufValue::Str("linear"));
            let factor = GgufValue::F32(factor as f32);
            writer.pair(&format!("{name}.rope.scaling.factor"), &factor);
        }
    }

    /// What most matrices are made of, as llama.cpp numbers it.
    fn write_formats(&self, writer: &mut GgufWriter) {
        let format = self.parts.map_or(self.format, |_| self.made(FIRST_MATRIX));
        let known = FILE_TYPES.iter().find(|(name, _)| Some(*name) == format);
        // Without a key readers count tensors.
        match (known, self.parts) {
            (Some((_, file_type)), _) => writer.pair(TYPE_KEY, &GgufValue::U32(*file_type)),
            (None, None) => writer.pair(TYPE_KEY, &GgufValue::U32(0)),
            (None, Some(_)) => {}
        }
        if self.parts.is_some() {
            writer.pair(VERSION_KEY, &GgufValue::U32(2));
        }
    }

    /// Rows of the embedding: readers want as many tokens.
    fn vocab_size(&self) -> usize {
        let dims = self.table.dims("embed_tokens.weight").unwrap_or_default();
        dims.first().map_or(0, |&n| n as usize)
    }

    fn write_tokenizer_pairs(&self, writer: &mut GgufWriter) -> Result<(), EngineError> {
        let vocab_size = self.vocab_size();
        let folder = self.tokenizer_folder();
        let tokenizer = match folder {
            None => GgufTokenizer::of_bytes(vocab_size)?,
            Some(folder) => GgufTokenizer::from_folder(folder, vocab_size)?,
        };
        tokenizer.write(writer);
        if let Some(template) = folder.map(ChatTemplate::from_folder).transpose()?.flatten() {
            writer.pair("tokenizer.chat_template", &GgufValue::Str(template.source()));
        }
        Ok(())
    }

    /// Enters all tensors into the table.
    fn rows(&self, writer: &mut GgufWriter) -> Result<Vec<Row<'_>>, EngineError> {
        let mut rows = Vec::new();
        for ours in self.table.names() {
            let Some(theirs) = self.architecture.blueprint.gguf_name(ours) else {
                return self.refuse(ours, "a weight that GGUF has a name for", "none");
            };
            let dims = self.table.dims(ours).unwrap_or_default();
            // As the converter has it: norms and biases stay whole.
            let whole = self.format.filter(|_| dims.len() > 1).unwrap_or("F32");
            let format = self.made(ours).unwrap_or(whole);
            if writer.tensor(&theirs, dims, format).is_none() {
                return self.refuse(ours, "rows of whole blocks", format);
            }
            rows.push(Row { ours, format });
        }
        Ok(rows)
    }

    fn tensor(&self, row: &Row<'_>) -> Result<Vec<u8>, EngineError> {
        if let Some(bytes) = self.bytes_of_part(row.ours) {
            return bytes;
        }
        let mut values = self.table.values(self.files, row.ours, &self.quantizers)?;
        let blueprint = &self.architecture.blueprint;
        let rows = InterleavedRows::in_gguf(&self.architecture);
        if let Some(rows) = rows.filter(|rows| rows.concerns(row.ours)) {
            let dims = self.table.dims(row.ours).unwrap_or_default();
            values = rows.done(&values, dims.get(1).map_or(1, |&width| width as usize));
        }
        // Checkpoints store the weight of a norm less this.
        let offset = blueprint.hf.hyperparameters.get("norm_weight_offset");
        if let Some(offset) = offset.and_then(toml::Value::as_integer)
            && row.ours.ends_with("norm.weight")
        {
            values.iter_mut().for_each(|value| *value += offset as f32);
        }
        self.encode(row.ours, &values, row.format)
    }
}

/// Writes the file and returns its size.
fn write(
    to: &Path,
    writer: &GgufWriter,
    mut tensor: impl FnMut(usize) -> Result<Vec<u8>, EngineError>,
) -> Result<u64, EngineError> {
    whole(to, |path| {
        let file = File::create(path).map_err(|error| outside(path, &error))?;
        let (mut out, mut failed) = (BufWriter::new(file), None);
        let written = writer.write(&mut out, |index| {
            tensor(index).map_err(|error| {
                failed = Some(error);
                io::Error::other("a tensor")
            })
        });
        let written = written.and_then(|()| out.flush());
        match (failed, written) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(outside(path, &error)),
            (None, Ok(())) => Ok(out.get_ref().metadata().map_or(0, |found| found.len())),
        }
    })
}

/// Blueprints by the names that llama.cpp has for them, too.
const ARCHITECTURES: [&str; 4] = ["llama", "qwen2", "qwen3", "gemma3"];

/// Of tensors in the file that was read: what is written has its own.
const ALIGNMENT_KEY: &str = "general.alignment";
const TYPE_KEY: &str = "general.file_type";
const VERSION_KEY: &str = "general.quantization_version";

/// A matrix that every model here has.
const FIRST_MATRIX: &str = "layers.0.self_attn.q_proj.weight";

/// `llama_ftype` of `llama.h`.
const FILE_TYPES: [(&str, u32); 12] = [
    ("F32", 0),
    ("F16", 1),
    ("Q4_0", 2),
    ("Q4_1", 3),
    ("Q8_0", 7),
    ("Q5_0", 8),
    ("Q5_1", 9),
    ("Q4_K", 15),
    ("Q5_K", 17),
    ("Q6_K", 18),
    ("BF16", 32),
    ("MXFP4", 38),
];
