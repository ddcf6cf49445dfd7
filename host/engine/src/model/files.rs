//! Opens a model: a `.gguf` file, a `.safetensors` file, or a folder as Hugging Face lays it out.
//!
//! One view over both formats, without a trait: tensors by name, and the metadata as it is. What
//! the metadata means (an architecture) is not decided here.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::chat_template::ChatTemplate;
use super::error::ModelError;
use super::gguf::{Gguf, GgufMetadata, format_name};
use super::safetensors::Safetensors;
use super::tokenizer::Tokenizer;

/// An open model: its weights stay mapped as long as this lives.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Gguf(Gguf),
    Hf { config: Value, tensors: Safetensors },
}

/// The values of one tensor, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// The name of the format: `"F32"`, `"BF16"`, `"Q4_K"`.
    pub format: &'a str,
    /// Outermost first: `[rows (out), cols (in)]`.
    pub dims: &'a [u64],
    /// Row-major, little-endian, whole blocks.
    pub bytes: &'a [u8],
}

/// What a model says of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorDesc<'a> {
    /// Unique in the model.
    pub name: &'a str,
    /// The name of the format; `None` if it is a ggml type that nobody here can name.
    pub format: Option<&'a str>,
    /// Outermost first.
    pub dims: &'a [u64],
    /// Size in the file, in bytes; for an unnamed format up to the next tensor.
    pub size_bytes: u64,
}

/// What a model says of itself.
#[derive(Debug, Clone, Copy)]
pub enum Metadata<'a> {
    /// The typed pairs of a GGUF file.
    Gguf(&'a GgufMetadata),
    /// `config.json`; `null` beside a lone `.safetensors` file without one.
    Hf(&'a Value),
}

impl ModelFiles {
    /// Opens and checks the model at `path`; weights are mapped, not read.
    ///
    /// A folder holds `config.json` and either `model.safetensors` or
    /// `model.safetensors.index.json` with its shards.
    ///
    /// # Errors
    ///
    /// [`ModelError::Open`], [`ModelError::NotAModel`], or what [`Gguf::open`] and
    /// [`Safetensors::open`] say of a file that contradicts its format.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let not_a_model = |found: String| ModelError::NotAModel {
            path: path.to_path_buf(),
            expected: "a .gguf file, a .safetensors file or a folder with config.json".to_owned(),
            found,
        };
        let weights = if path.is_dir() {
            open_folder(path)?
        } else {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("gguf") => Weights::Gguf(Gguf::open(path)?),
                Some("safetensors") => open_lone(path)?,
                Some(other) => return Err(not_a_model(format!("a name that ends in .{other}"))),
                None => return Err(not_a_model("a name without an ending".to_owned())),
            }
        };
        Ok(Self { path: path.to_path_buf(), weights })
    }

    /// Tensors alone, which make no model: those of an adapter.
    pub(crate) fn of_tensors(path: &Path, tensors: Safetensors) -> Self {
        Self { path: path.to_path_buf(), weights: Weights::Hf { config: Value::Null, tensors } }
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the model says of itself.
    pub fn metadata(&self) -> Metadata<'_> {
        match &self.weights {
            Weights::Gguf(gguf) => Metadata::Gguf(gguf.metadata()),
            Weights::Hf { config, .. } => Metadata::Hf(config),
        }
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = TensorDesc<'_>> {
        let (gguf, hf) = match &self.weights {
            Weights::Gguf(gguf) => (gguf.tensors(), [].as_slice()),
            Weights::Hf { tensors, .. } => ([].as_slice(), tensors.tensors()),
        };
        let gguf = gguf.iter().map(|tensor| TensorDesc {
            name: &tensor.name,
            format: format_name(tensor.type_id),
            dims: &tensor.dims,
            size_bytes: tensor.range.len() as u64,
        });
        gguf.chain(hf.iter().map(|tensor| TensorDesc {
            name: &tensor.name,
            format: Some(&tensor.format),
            dims: &tensor.dims,
            size_bytes: tensor.size_bytes(),
        }))
    }

    /// The tensor of this name.
    ///
    /// # Errors
    ///
    /// [`ModelError::TensorMissing`], or [`ModelError::FormatUnknown`] if it has a ggml type
    /// without a name here.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, ModelError> {
        match &self.weights {
            Weights::Gguf(gguf) => {
                let tensor = gguf.tensor(name).ok_or_else(|| self.missing(name))?;
                let format =
                    format_name(tensor.type_id).ok_or_else(|| ModelError::FormatUnknown {
                        path: self.path.clone(),
                        name: name.to_owned(),
                        type_id: tensor.type_id,
                    })?;
                Ok(TensorView { format, dims: &tensor.dims, bytes: gguf.bytes(tensor) })
            }
            Weights::Hf { tensors, .. } => {
                let tensor = tensors.tensor(name).ok_or_else(|| self.missing(name))?;
                let bytes = tensors.bytes(tensor);
                Ok(TensorView { format: &tensor.format, dims: &tensor.dims, bytes })
            }
        }
    }

    /// Gives pages with bytes of a tensor back to the system, until they are read again.
    pub fn release(&self, name: &str, part: Range<usize>) {
        match &self.weights {
            Weights::Gguf(gguf) => {
                if let Some(tensor) = gguf.tensor(name) {
                    gguf.release(tensor, part);
                }
            }
            Weights::Hf { tensors, .. } => {
                if let Some(tensor) = tensors.tensor(name) {
                    tensors.release(tensor, part);
                }
            }
        }
    }

    /// Builds the model's tokenizer: from GGUF metadata, or from `tokenizer.json` in the folder. Checkpoints
    /// without one are of runs whose tokens are bytes.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] if there is none, or none that is implemented.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        match &self.weights {
            Weights::Gguf(gguf) => Tokenizer::from_gguf(gguf.metadata()),
            Weights::Hf { .. } if self.is_of_bytes() => Tokenizer::of_bytes(&self.path),
            Weights::Hf { .. } => Tokenizer::from_folder(self.folder()),
        }
    }

    /// Whether this is a checkpoint of a run on plain text: a folder of a run, without a tokenizer, that
    /// learnt no data of tokens.
    pub fn is_of_bytes(&self) -> bool {
        let manifest = self.folder().join("manifest.json");
        let is_ours = matches!(self.weights, Weights::Hf { .. }) && manifest.exists();
        is_ours
            && !self.folder().join("tokenizer.json").exists()
            && read_json(&manifest, CONFIG_BYTES_MAX, "a manifest")
                .is_ok_and(|manifest| manifest["dataset"].is_null())
    }

    /// Compiles the model's chat template, if it has one.
    ///
    /// # Errors
    ///
    /// [`ModelError::Template`] if it does not compile.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, ModelError> {
        match &self.weights {
            Weights::Gguf(gguf) => ChatTemplate::from_gguf(gguf.metadata()),
            Weights::Hf { .. } => ChatTemplate::from_folder(self.folder()),
        }
    }

    /// Where the files of the model lie.
    pub fn folder(&self) -> &Path {
        if self.path.is_dir() { &self.path } else { self.path.parent().unwrap_or(Path::new("")) }
    }

    fn missing(&self, name: &str) -> ModelError {
        ModelError::TensorMissing {
            path: self.path.clone(),
            name: name.to_owned(),
            count: self.tensors().count(),
        }
    }
}

fn open_folder(path: &Path) -> Result<Weights, ModelError> {
    let config = read_json(&path.join("config.json"), CONFIG_BYTES_MAX, "config.json")?;
    let (one, index) = (path.join("model.safetensors"), path.join("model.safetensors.index.json"));
    let mut tensors = if one.exists() {
        Safetensors::open(&one)?
    } else if index.exists() {
        Safetensors::open_index(&index)?
    } else {
        return Err(ModelError::NotAModel {
            path: path.to_path_buf(),
            expected: "model.safetensors or model.safetensors.index.json".to_owned(),
            found: "neither".to_owned(),
        });
    };
    read_blocks(path, &config, &mut tensors)?;
    Ok(Weights::Hf { config, tensors })
}

/// Which tensors are blocks, as `quantization_config` says: `weights` has format and row length by name.
fn read_blocks(path: &Path, config: &Value, tensors: &mut Safetensors) -> Result<(), ModelError> {
    let blocks = &config["quantization_config"];
    if blocks["quant_method"] != BLOCKS_METHOD {
        return Ok(());
    }
    for (name, said) in blocks["weights"].as_object().into_iter().flatten() {
        let cols = said["cols"].as_u64().filter(|cols| (1..=1 << 32).contains(cols));
        let known = said["format"].as_str().zip(cols);
        if known.and_then(|(format, cols)| tensors.say_blocks(name, format, cols)).is_none() {
            let expected = "the format and the row length of a tensor of bytes";
            let (path, item) = (path.join("config.json"), format!("blocks of `{name}`"));
            return Err(ModelError::malformed(&path, item, expected, said.to_string()));
        }
    }
    Ok(())
}

fn open_lone(path: &Path) -> Result<Weights, ModelError> {
    let mut tensors = Safetensors::open(path)?;
    let config = path.with_file_name("config.json");
    let config = match config.exists() {
        true => read_json(&config, CONFIG_BYTES_MAX, "config.json")?,
        false => Value::Null,
    };
    read_blocks(path.parent().unwrap_or(Path::new("")), &config, &mut tensors)?;
    Ok(Weights::Hf { config, tensors })
}

/// Reads a JSON file of at most `bytes_max` bytes.
pub(crate) fn read_json(
    path: &Path,
    bytes_max: u64,
    expected: &'static str,
) -> Result<Value, ModelError> {
    let bytes = read_bounded(path, bytes_max, expected)?;
    serde_json::from_slice(&bytes).map_err(|source| ModelError::Json {
        path: path.to_path_buf(),
        expected,
        source,
    })
}

/// Reads a regular file of at most `bytes_max` bytes.
pub(crate) fn read_bounded(
    path: &Path,
    bytes_max: u64,
    expected: &'static str,
) -> Result<Vec<u8>, ModelError> {
    let refuse = |source| ModelError::Open { path: path.to_path_buf(), expected, source };
    let found = std::fs::metadata(path).map_err(refuse)?;
    if !found.is_file() || found.len() > bytes_max {
        return Err(ModelError::NotAModel {
            path: path.to_path_buf(),
            expected: format!("{expected}, a file of at most {bytes_max} bytes"),
            found: if found.is_file() {
                format!("{} bytes", found.len())
            } else {
                "no file".into()
            },
        });
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(refuse)?;
    file.take(bytes_max).read_to_end(&mut bytes).map_err(refuse)?;
    Ok(bytes)
}

/// What `quantization_config` of `config.json` calls blocks that quantizers of this project read.
pub(crate) const BLOCKS_METHOD: &str = "jackfield";
/// Real ones have some kilobytes.
pub(super) const CONFIG_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gguf::writer::Writer;
    use crate::model::safetensors::tests::{TWO, file};

    #[test]
    fn gives_one_view_over_both_formats() {
        let folder = tempfile::tempdir().unwrap();
        let gguf = folder.path().join("m.gguf");
        let values: Vec<u8> = (0..24).collect();
        let writer = Writer::new().str("general.architecture", "llama");
        let writer = writer.tensor("t", &[3, 2], 0, 0).tensor("u", &[1], 99, 32);
        std::fs::write(&gguf, writer.data(&[&values[..], &[0; 8]].concat()).bytes()).unwrap();
        let model = ModelFiles::open(&gguf).unwrap();
        let view = model.tensor("t").unwrap();
        assert_eq!(view, TensorView { format: "F32", dims: &[2, 3], bytes: &values });
        assert!(matches!(model.metadata(), Metadata::Gguf(_)));
        assert!(matches!(model.tensor("u"), Err(ModelError::FormatUnknown { type_id: 99, .. })));
        assert!(matches!(model.tensor("v"), Err(ModelError::TensorMissing { count: 2, .. })));
        assert_eq!(
            model.tensors().map(|tensor| tensor.format).collect::<Vec<_>>(),
            [Some("F32"), None]
        );

        std::fs::write(folder.path().join("config.json"), r#"{"model_type":"llama"}"#).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), file(TWO, &values[..12])).unwrap();
        for path in [folder.path().to_path_buf(), folder.path().join("model.safetensors")] {
            let model = ModelFiles::open(&path).unwrap();
            let view = model.tensor("a").unwrap();
            assert_eq!(view, TensorView { format: "BF16", dims: &[2], bytes: &values[..4] });
            assert!(
                matches!(model.metadata(), Metadata::Hf(config) if config["model_type"] == "llama")
            );
            assert_eq!(model.tensors().map(|tensor| tensor.size_bytes).sum::<u64>(), 12);
        }
    }

    #[test]
    fn says_what_it_expected() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("a.txt");
        std::fs::write(&text, "x").unwrap();
        for path in [text.as_path(), folder.path(), Path::new("/absent.gguf"), Path::new("/no")] {
            let error = ModelFiles::open(path).unwrap_err().to_string();
            assert!(error.contains("expected"), "{error}");
        }
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        let error = ModelFiles::open(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("found neither"), "{error}");
    }
}
