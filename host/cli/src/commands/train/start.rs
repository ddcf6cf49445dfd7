//! What a run begins with: random parameters, those of a model, or an adapter beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use jackfield_engine::Trainer;
use jackfield_engine::model::Architecture;
use jackfield_engine::train::{Checkpoints, Lora, Parameters};
use jackfield_runtime::SystemClock;
use plugin_api::{Config, Value};

use super::rollouts::{self, Answering};
use super::settings::{Learnt, Settings};
use crate::setup::Session;

/// The keys of the beginning.
pub(super) enum Start {
    /// A `config.json`.
    Fresh(PathBuf),
    /// A model, as `--model` names one.
    Model(String, Option<AdapterKeys>),
}

/// The table `train.adapter`.
pub(super) struct AdapterKeys {
    rank: u64,
    alpha: f64,
    targets: Vec<String>,
    is_stabilized: bool,
}

/// Everything that the first step needs of the model.
pub(super) struct Begun {
    architecture: Architecture,
    /// Those that are trained.
    pub(super) parameters: Parameters,
    frozen: Parameters,
    lora: Option<Lora>,
    /// `config.json` of the checkpoints.
    pub(super) config: String,
    /// Where the model's files are.
    pub(super) path: Option<PathBuf>,
    name: String,
    /// What names the model.
    pub(super) id: String,
}

impl Start {
    pub(super) fn read(table: &Config) -> Result<Self> {
        let adapter = table.table("adapter")?.map(AdapterKeys::read).transpose()?;
        match (table.has("config"), table.has("model"), adapter) {
            (true, false, None) => Ok(Self::Fresh(PathBuf::from(table.text("config")?))),
            (false, true, adapter) => Ok(Self::Model(table.text("model")?.to_owned(), adapter)),
            (true, false, Some(_)) => bail!("train.adapter: expected the key `model` beside it"),
            (true, true, _) => {
                bail!("train: expected one of the keys `config` and `model`, found both")
            }
            (false, false, _) => {
                bail!("train: expected the key `config` or `model`, found neither")
            }
        }
    }

    pub(super) fn begin(&self, session: &Session, seed: u64) -> Result<Begun> {
        match self {
            Self::Fresh(path) => {
                let config =
                    std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                let architecture = Architecture::from_json(&serde_json::from_str(&config)?)?;
                let parameters = Parameters::random(&architecture, seed)?;
                let (frozen, id) = (Parameters::default(), config.clone());
                let (lora, path, name) = (None, None, String::new());
                Ok(Begun { architecture, parameters, frozen, lora, config, path, name, id })
            }
            Self::Model(name, adapter) => {
                let path = session.fetch(name)?;
                let (wiring, registry) = (&session.wiring, session.registry());
                let (architecture, all) = Parameters::of_model(&path, wiring, &registry)?;
                let id = all.fingerprint();
                let (name, path) = (name.clone(), Some(path));
                match adapter {
                    Some(keys) => keys.begin(architecture, all, &id, path, name, seed),
                    None => Begun::whole(architecture, all, id, path, name),
                }
            }
        }
    }
}

impl AdapterKeys {
    fn read(table: &Config) -> Result<Self> {
        let rank = table.count_or("r", 8, 1..=4096)?;
        let text = |value: &Value| match value {
            Value::Text(name) => Ok(name.clone()),
            other => Err(table.wrong("targets", "names like `q_proj`", Some(other))),
        };
        let mut targets = table.list("targets")?.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        if targets.is_empty() {
            targets = ["q_proj", "v_proj"].map(str::to_owned).to_vec();
        }
        let keys = Self {
            rank,
            alpha: table.number_or("alpha", 2.0 * rank as f64, 0.0..=1e6)?,
            targets,
            is_stabilized: table.flag_or("use_rslora", false)?,
        };
        match table.unread().next() {
            Some(key) => {
                bail!("train.adapter.{key}: expected one of r, alpha, targets, use_rslora")
            }
            None => Ok(keys),
        }
    }

    fn begin(
        &self,
        mut architecture: Architecture,
        frozen: Parameters,
        id: &str,
        path: Option<PathBuf>,
        name: String,
        seed: u64,
    ) -> Result<Begun> {
        let Self { rank, alpha, targets, is_stabilized } = self;
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        let mut lora = Lora::random(&frozen, &targets, *rank, *alpha, seed)?;
        lora.is_stabilized = *is_stabilized;
        lora.configure(&mut architecture.config);
        let parameters = lora.parameters.clone();
        let id = format!("{id} {rank} {alpha} {targets:?} {is_stabilized}");
        let (config, lora) = (String::new(), Some(lora));
        Ok(Begun { architecture, parameters, frozen, lora, config, path, name, id })
    }
}

impl Begun {
    /// All parameters of a model in the layout of Hugging Face.
    fn whole(
        architecture: Architecture,
        parameters: Parameters,
        id: String,
        path: Option<PathBuf>,
        name: String,
    ) -> Result<Self> {
        let folder = path.as_deref().filter(|path| path.is_dir());
        let Some(folder) = folder else {
            bail!(
                "train.model: expected a folder of Hugging Face, whose layout checkpoints have, to train \
                 all of `{name}`; beside a file an `adapter` is trained"
            );
        };
        let config = folder.join("config.json");
        let config =
            std::fs::read_to_string(&config).with_context(|| config.display().to_string())?;
        let (frozen, lora) = (Parameters::default(), None);
        Ok(Self { architecture, parameters, frozen, lora, config, path, name, id })
    }

    /// Tokens that the model tells apart: not every file says how many that are, but each has a row for each.
    pub(super) fn vocab_size(&self) -> u64 {
        let rows =
            |parameters: &Parameters| Some(*parameters.0.get("embed_tokens.weight")?.dims.first()?);
        rows(&self.parameters).or_else(|| rows(&self.frozen)).unwrap_or(0)
    }

    /// Refuses to learn bytes where the model knows other tokens.
    pub(super) fn check(&self, settings: &Settings) -> Result<()> {
        let is_read = |path: &PathBuf| path.is_file() || path.join("tokenizer.json").exists();
        match settings.learnt {
            Learnt::Text(_) if self.path.as_ref().is_some_and(is_read) => bail!(
                "train.text: expected `data` for a model with a tokenizer: tokens of a text are its bytes"
            ),
            _ => Ok(()),
        }
    }

    /// Where checkpoints go, with what lies in each beside the parameters.
    pub(super) fn checkpoints(&self, settings: &Settings) -> Result<Checkpoints> {
        let checkpoints = Checkpoints::open(&settings.folder, settings.keep_last)?;
        if let Some(lora) = &self.lora {
            return Ok(checkpoints.of_adapter(lora, &self.name));
        }
        let mut files = Vec::new();
        for name in BESIDE {
            if let Some(path) = self.tokenizer(settings).map(|path| path.join(name))
                && path.exists()
            {
                let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
                files.push((name.to_owned(), bytes));
            }
        }
        Ok(checkpoints.with_files(files))
    }

    /// Where the tokenizer is: beside the model, or where the settings say for one that is new.
    fn tokenizer<'a>(&'a self, settings: &'a Settings) -> Option<&'a Path> {
        let theirs = match &settings.learnt {
            Learnt::Examples(keys) => keys.tokenizer.as_deref(),
            Learnt::Text(_) => None,
        };
        self.path.as_deref().or(theirs)
    }

    /// What answers prompts and rates the answers.
    pub(super) fn answering<'a>(
        &self,
        session: &'a Session,
        settings: &Settings,
    ) -> Result<Answering<'a>> {
        let has_tokenizer =
            self.tokenizer(settings).is_some_and(|path| path.join("tokenizer.json").exists());
        let base = self.path.clone().filter(|_| self.lora.is_some());
        rollouts::check(settings, base.is_some(), has_tokenizer)?;
        Answering::new(session, settings, base)
    }

    /// The trainer, which takes the parameters.
    pub(super) fn trainer(self, session: &Session, settings: &Settings) -> Result<Trainer> {
        let Self { architecture, parameters, frozen, .. } = self;
        let (registry, bus, wiring) = (session.registry(), &session.bus, &session.wiring);
        let (clock, options) = (Arc::new(SystemClock::new()), settings.options());
        let made = Trainer::beside(
            architecture,
            parameters,
            frozen,
            wiring,
            &registry,
            bus,
            clock,
            options,
        );
        Ok(made?)
    }
}

/// Files of a model that training does not change.
const BESIDE: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];
