//! A folder as Hugging Face has it: `config.json`, `model.safetensors`, and the tokenizer.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use serde_json::{Value, json};

use super::whole::whole;
use super::{Exported, Exporter, outside};
use crate::error::EngineError;
use crate::model::files::{BLOCKS_METHOD, Metadata, TensorDesc};
use crate::model::tokenizer::byte_tokenizer_json;
use crate::model::trace::WeightShapes as _;

/// One tensor, whose bytes are made when they are written.
struct Lazy<'a> {
    exporter: &'a Exporter<'a>,
    tensor: TensorDesc<'a>,
    /// What it is written in.
    format: String,
    dtype: Dtype,
    shape: Vec<usize>,
    size_bytes: usize,
    written: &'a RefCell<Written<'a>>,
}

struct Written<'a> {
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
    /// A view cannot fail: what went wrong is kept here, and told afterwards.
    failed: Option<EngineError>,
}

impl View for &Lazy<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut written = self.written.borrow_mut();
        written.done += 1;
        let Written { done, total, .. } = *written;
        (written.progress)(done, total);
        let bytes = match written.failed {
            Some(_) => Err(None),
            None => self.exporter.bytes_of(&self.tensor, &self.format).map_err(Some),
        };
        Cow::Owned(bytes.unwrap_or_else(|error| {
            written.failed = written.failed.take().or(error);
            vec![0; self.size_bytes]
        }))
    }

    fn data_len(&self) -> usize {
        self.size_bytes
    }
}

impl Exporter<'_> {
    pub(crate) fn to_folder(
        &self,
        to: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Exported, EngineError> {
        whole(to, |folder| {
            fs::create_dir(folder).map_err(|error| outside(folder, &error))?;
            let tensors = self.write_tensors(&folder.join("model.safetensors"), progress)?;
            let config = serde_json::to_vec_pretty(&self.config()).unwrap_or_default();
            write(&folder.join("config.json"), &config)?;
            self.write_tokenizer(folder)?;
            let mut size_bytes = 0;
            for entry in fs::read_dir(folder).map_err(|error| outside(folder, &error))?.flatten() {
                size_bytes += entry.metadata().map_or(0, |found| found.len());
            }
            Ok(Exported { tensors, size_bytes })
        })
    }

    fn write_tensors(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<usize, EngineError> {
        let tensors = self.tensors();
        let total = tensors.len();
        let written = Written { done: 0, total: total as u64, progress, failed: None };
        let written = RefCell::new(written);
        let lazy = tensors.into_iter().map(|tensor| {
            // Blocks are chosen weight by weight: norms have none.
            if let Some(format) = self.format.filter(|format| !FLOATS.contains(format)) {
                return self.refuse(tensor.name, "F32, BF16 or F16", format);
            }
            let format = self.format_of(&tensor).to_owned();
            let mut shape: Vec<usize> = tensor.dims.iter().map(|&n| n as usize).collect();
            let (dtype, width) = match &*format {
                "F32" => (Dtype::F32, 4),
                "BF16" => (Dtype::BF16, 2),
                "F16" => (Dtype::F16, 2),
                blocks => {
                    let cols = shape.pop().unwrap_or(0);
                    shape.push(self.row_bytes(tensor.name, blocks, cols)?);
                    (Dtype::U8, 1)
                }
            };
            let size_bytes = shape.iter().product::<usize>() * width;
            let written = &written;
            Ok(Lazy { exporter: self, tensor, format, dtype, shape, size_bytes, written })
        });
        let lazy: Vec<Lazy<'_>> = lazy.collect::<Result<_, EngineError>>()?;
        let views = lazy.iter().map(|tensor| (tensor.tensor.name, tensor));
        // transformers refuses files that do not say so.
        let says = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let saved = safetensors::serialize_to_file(views, Some(says), path);
        if let Some(error) = written.borrow_mut().failed.take() {
            return Err(error);
        }
        saved.map_err(|error| {
            EngineError::inconsistent(path.display().to_string(), "a file to write", error)
        })?;
        Ok(total)
    }

    /// Those of the model, and what was made beside them.
    fn tensors(&self) -> Vec<TensorDesc<'_>> {
        let ours = |theirs: &str| Some(self.architecture.blueprint.hf_weight(theirs).0);
        let more = self.made_beside(&ours).into_iter().map(|name| {
            let dims = self.table.dims(name).unwrap_or_default();
            TensorDesc { name, format: self.made(name), dims, size_bytes: 0 }
        });
        self.files.tensors().chain(more).collect()
    }

    /// What a tensor is written in.
    fn format_of<'t>(&'t self, tensor: &TensorDesc<'t>) -> &'t str {
        let (ours, _) = self.architecture.blueprint.hf_weight(tensor.name);
        self.made(&ours).or(self.format).or(tensor.format).unwrap_or("?")
    }

    /// Bytes of a row in blocks.
    fn row_bytes(&self, name: &str, format: &str, cols: usize) -> Result<usize, EngineError> {
        let Some((_, quantizer)) = self.quantizers.get(format) else {
            return self.refuse(name, "a format with a quantizer", format);
        };
        let size = quantizer.format().size_bytes(cols);
        size.map_err(EngineError::plugin(format!("weight `{name}`")))
    }

    fn bytes_of(&self, tensor: &TensorDesc<'_>, format: &str) -> Result<Vec<u8>, EngineError> {
        let (ours, expert) = self.architecture.blueprint.hf_weight(tensor.name);
        if let Some(bytes) = self.bytes_of_part(&ours) {
            let (bytes, experts) = (bytes?, self.table.names_in_file(&ours).len().max(1));
            let each = (bytes.len() / experts).max(1);
            return Ok(bytes.chunks(each).nth(expert.unwrap_or(0)).unwrap_or_default().to_vec());
        }
        let stored = self.files.tensor(tensor.name)?;
        if format == stored.format {
            return Ok(self.stored(tensor.name)?.into_owned());
        }
        let Some((_, quantizer)) = self.quantizers.get(stored.format) else {
            return self.refuse(tensor.name, "a format with a quantizer", stored.format);
        };
        let mut values = vec![0.0; tensor.dims.iter().product::<u64>() as usize];
        let decoded = quantizer.decode(stored.bytes, &mut values);
        decoded.map_err(EngineError::plugin(format!("weight `{}`", tensor.name)))?;
        self.encode(tensor.name, &values, format)
    }

    /// `config.json` as it is, with what readers need and a run need not say.
    fn config(&self) -> Value {
        let Metadata::Hf(config) = self.files.metadata() else { return Value::Null };
        let (mut config, ours) = (config.clone(), &self.architecture);
        // Of what was read, if it was quantized.
        if let Some(config) = config.as_object_mut() {
            config.remove("quantization_config");
        }
        if let Some(blocks) = self.blocks() {
            config["quantization_config"] = blocks;
        }
        let dtype = self.format.map(|format| match format {
            "BF16" => "bfloat16",
            "F16" => "float16",
            _ => "float32",
        });
        if let Some(dtype) = dtype {
            config["torch_dtype"] = dtype.into();
            if config.get("dtype").is_some() {
                config["dtype"] = dtype.into();
            }
        }
        let has_head = self.table.names().any(|name| name == "lm_head.weight");
        config["tie_word_embeddings"] = (!has_head).into();
        for key in ["head_dim", "num_key_value_heads"] {
            if let (None, Ok(n)) = (config.get(key), ours.config.count(key, 1..=1 << 20)) {
                config[key] = n.into();
            }
        }
        let names = &ours.blueprint.architectures;
        if config.get("model_type").is_none()
            && let Some(name) = names.iter().find(|name| !name.contains("ForCausalLM"))
        {
            config["model_type"] = name.as_str().into();
        }
        if config.get("architectures").is_none() {
            let name = names.iter().find(|name| name.contains("ForCausalLM"));
            config["architectures"] = name.into_iter().cloned().collect::<Vec<_>>().into();
        }
        config
    }

    /// Which tensors are blocks of which format, and how long their rows are.
    fn blocks(&self) -> Option<Value> {
        let mut blocks = serde_json::Map::new();
        for tensor in self.tensors() {
            let format = self.format_of(&tensor);
            if !FLOATS.contains(&format) {
                let cols = tensor.dims.last();
                blocks.insert(tensor.name.to_owned(), json!({ "format": format, "cols": cols }));
            }
        }
        let is_any = !blocks.is_empty();
        is_any.then(|| json!({ "quant_method": BLOCKS_METHOD, "weights": blocks }))
    }

    fn write_tokenizer(&self, folder: &Path) -> Result<(), EngineError> {
        let Some(beside) = self.tokenizer_folder() else {
            let says = json!({
                "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": false,
                "clean_up_tokenization_spaces": false,
            });
            write(&folder.join("tokenizer.json"), byte_tokenizer_json().to_string().as_bytes())?;
            return write(&folder.join("tokenizer_config.json"), says.to_string().as_bytes());
        };
        let says = folder.join("tokenizer_config.json");
        for name in TOKENIZER_FILES {
            let (from, to) = (beside.join(name), folder.join(name));
            if from.is_file() {
                fs::copy(&from, &to).map_err(|error| outside(&from, &error))?;
            }
        }
        if folder.join("tokenizer.json").exists() && !says.exists() {
            write(&says, br#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#)?;
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    fs::write(path, bytes).map_err(|error| outside(path, &error))
}

/// What may lie beside a model and says how text becomes tokens, and when an answer is over.
const TOKENIZER_FILES: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Formats that safetensors has names for.
const FLOATS: [&str; 3] = ["F32", "BF16", "F16"];
