//! What a run learns, opened: a text, or files of examples with the tokenizer that reads them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jackfield_engine::TextLoader;
use jackfield_engine::model::{ChatTemplate, ModelFiles, Tokenizer};
use jackfield_engine::train::{
    BatchLoader, Checkpoint, DatasetLoader, DatasetOptions, ExampleEncoder, Format,
};

use super::settings::{ExampleFiles, Learnt, Settings};
use super::start::Begun;
use crate::setup::Session;

/// A loader, with what names its data and what is said of them.
pub(super) struct Loaded {
    pub(super) loader: BatchLoader,
    /// How to open others like it.
    pub(super) examples: Option<Examples>,
    pub(super) id: String,
    pub(super) said: String,
}

/// How files of examples are opened.
pub(super) struct Examples {
    keys: ExampleFiles,
    tokenizer: PathBuf,
    vocab_size: u64,
    /// Of what is learnt.
    pub(super) format: Format,
}

impl Loaded {
    pub(super) fn open(session: &Session, settings: &Settings, begun: &Begun) -> Result<Self> {
        match &settings.learnt {
            Learnt::Text(path) => {
                let found = begun.vocab_size();
                if found < 256 {
                    bail!("vocab_size: expected at least 256, a token is a byte; found {found}");
                }
                Self::of_text(settings, path)
            }
            Learnt::Examples(keys) => Self::of_examples(session, settings, keys, begun),
        }
    }

    fn of_text(settings: &Settings, path: &Path) -> Result<Self> {
        let mut text = std::fs::read(path).with_context(|| path.display().to_string())?;
        if let Some(evaluation) = &settings.evaluation {
            text.truncate(evaluation.text_end(text.len()));
        }
        let id = Checkpoint::run_of(&String::from_utf8_lossy(&text));
        let loader = TextLoader::new(text, settings.sequence_length, settings.seed);
        let loader = loader.with_context(|| path.display().to_string())?;
        let said = format!("{} sequences", loader.num_sequences());
        let loader = BatchLoader::Text(loader, settings.sequences);
        Ok(Self { loader, examples: None, id, said })
    }

    fn of_examples(
        session: &Session,
        settings: &Settings,
        keys: &ExampleFiles,
        begun: &Begun,
    ) -> Result<Self> {
        let Some(tokenizer) = keys.tokenizer.clone().or_else(|| begun.path.clone()) else {
            bail!("train.tokenizer: expected a model's folder or GGUF file beside `data`");
        };
        let vocab_size = begun.vocab_size();
        let format = Format::Text;
        let mut examples = Examples { keys: keys.clone(), tokenizer, vocab_size, format };
        let (_, template) = examples.tokenizer()?;
        let written = template.as_ref().map_or("", |template| template.source());
        let loader = examples.open(settings, &keys.files, keys.shuffle)?;
        let (name, curriculum) = session.wiring.curriculum(&session.registry())?;
        let loader = loader.with_curriculum(name, curriculum);
        examples.format = loader.format();
        let hashes: Vec<&str> = loader.surveys().map(|survey| &*survey.sha256).collect();
        let id = format!("{hashes:?} {written} {:?} {}", keys.too_long, keys.shuffle);
        let count: u64 = loader.surveys().map(|survey| survey.num_examples).sum();
        let said = format!("{count} examples of the columns {}", loader.format());
        let loader = BatchLoader::Dataset(Box::new(loader));
        Ok(Self { loader, examples: Some(examples), id, said })
    }
}

impl Examples {
    /// Files that are read like those that are learnt, `shuffle` lines among each other.
    pub(super) fn open(
        &self,
        settings: &Settings,
        files: &[PathBuf],
        shuffle: usize,
    ) -> Result<DatasetLoader> {
        let (tokenizer, template) = self.tokenizer()?;
        let (length, sizes) = (settings.sequence_length, settings.options());
        let encoder = ExampleEncoder::new(tokenizer, template, length, self.keys.too_long);
        let options = DatasetOptions {
            tokens_max: sizes.tokens_max,
            num_seqs_max: sizes.num_seqs_max,
            shuffle,
            seed: settings.seed,
            line_bytes_max: self.keys.line_bytes_max,
        };
        Ok(DatasetLoader::open(files, encoder, options)?)
    }

    /// Tokenizer and chat template of a model: a GGUF file, or a folder with a `tokenizer.json`.
    fn tokenizer(&self) -> Result<(Tokenizer, Option<ChatTemplate>)> {
        let path = &self.tokenizer;
        let (tokenizer, template) = if path.is_dir() {
            (Tokenizer::from_folder(path)?, ChatTemplate::from_folder(path)?)
        } else {
            let files = ModelFiles::open(path)?;
            (files.tokenizer()?, files.chat_template()?)
        };
        let (found, expected) = (tokenizer.vocab_size(), self.vocab_size);
        if found as u64 > expected {
            let path = path.display();
            bail!("{path}: expected at most the {expected} tokens of the model, found {found}");
        }
        Ok((tokenizer, template))
    }
}
