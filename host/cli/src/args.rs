//! The command line as a person types it. Every option may also stand in `jackfield.toml` or in
//! the environment: flag before environment before file before default.

mod adapter;
mod checkpoint;
mod config;
mod evaluate;
mod model;
mod plugin;
mod quantize;
mod sampling;
mod serve;
mod train;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use adapter::{Adapter, Merge};
pub(crate) use checkpoint::{Checkpoint, Dtype, Export, Layout};
pub(crate) use config::Config;
pub(crate) use evaluate::{Cut, Evaluate};
pub(crate) use model::Model;
pub use plugin::BuildLane;
pub(crate) use plugin::{Build, Check, Lang, New, Plugin, Probe, Rollback, Running, Seal, Swap};
pub(crate) use quantize::Quantize;
pub(crate) use sampling::Sampling;
pub(crate) use serve::Serve;
pub(crate) use train::Train;

/// Runs language models in which every part is a plugin.
#[derive(Debug, Parser)]
#[command(
    name = "jackfield",
    version,
    after_help = "Examples:
  jackfield generate \"The capital of France is\"
  jackfield generate --chat \"What is the capital of France?\"
  jackfield generate --raw --greedy --max-tokens 32 \"fn main() {\"
  jackfield chat --model qwen2.5-coder-0.5b-instruct
  jackfield serve
  jackfield generate --plugin backend=reference --plugin kv-cache=contiguous \"Hello\"
  jackfield plugin ls
  jackfield plugin new calm --kind logits-processor
  jackfield plugin build calm
  jackfield doctor"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    /// Configuration file [default: ./jackfield.toml, then the user's configuration folder]
    #[arg(long, global = true, env = "JACKFIELD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Model: a name (`jackfield model ls`), a file or folder, or user/repo of a hub
    #[arg(long, short, global = true, env = "JACKFIELD_MODEL", value_name = "NAME")]
    pub(crate) model: Option<String>,

    /// Smaller model with the same tokens, which guesses for --strategy speculative [default: `draft_model`, else none]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) draft_model: Option<String>,

    /// Folder that models are kept in [default: the user's cache folder]
    #[arg(long, global = true, env = "JACKFIELD_MODELS", value_name = "FOLDER")]
    pub(crate) models_folder: Option<PathBuf>,

    /// Threads that compute [default: one for each core]
    #[arg(long, global = true, env = "JACKFIELD_THREADS", value_name = "N")]
    pub(crate) threads: Option<u32>,

    /// Plugin for a kind, such as backend=reference; may be repeated
    #[arg(long = "plugin", global = true, value_name = "KIND=NAME", value_parser = parse_choice)]
    pub(crate) plugins: Vec<(String, String)>,

    /// Print machine-readable JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a text, or answer it with --chat
    Generate(Generate),
    /// Talk with a model; type /help inside
    Chat(Sampling),
    /// Answer over HTTP, as the OpenAI interface does, until told to end
    Serve(Serve),
    /// Train a model on a text, as the table `train` of the configuration says
    Train(Train),
    /// List and verify checkpoints, and make models of them for other programs
    #[command(subcommand)]
    Checkpoint(Checkpoint),
    /// Write a model in fewer bits, and measure what that loses
    Quantize(Quantize),
    /// Merge an adapter into the weights that it stands beside
    #[command(subcommand)]
    Adapter(Adapter),
    /// Measure how well a model predicts a text: loss and perplexity
    Evaluate(Evaluate),
    /// Measure prefill and decode
    Bench(Bench),
    /// Fetch, list and look into models
    #[command(subcommand)]
    Model(Model),
    /// List, start, build and check plugins
    #[command(subcommand)]
    Plugin(Plugin),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(Config),
    /// Say what this machine has, what is missing, and how to get it
    Doctor,
}

/// `jackfield generate`.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The prompt; read from standard input where it is absent
    pub(crate) prompt: Option<String>,

    /// Answer the prompt as a message, through the model's chat template
    #[arg(long, conflicts_with = "raw")]
    pub(crate) chat: bool,

    /// Take the prompt as it stands: no token that marks the beginning is added
    #[arg(long)]
    pub(crate) raw: bool,

    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

/// `jackfield bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Tokens of the prompt: decoding goes on from there
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub(crate) prefill: usize,

    /// Tokens to generate
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) decode: usize,

    /// Sequences at a time: decode counts the tokens of all
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) sequences: usize,

    /// Repetitions; the median is reported
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) runs: usize,
}

fn parse_choice(text: &str) -> Result<(String, String), String> {
    let (kind, name) = text
        .split_once('=')
        .ok_or_else(|| format!("expected KIND=NAME such as backend=reference, found `{text}`"))?;
    Ok((kind.to_owned(), name.to_owned()))
}
