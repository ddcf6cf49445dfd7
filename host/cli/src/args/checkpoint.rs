//! `jackfield checkpoint`, as a person types it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `jackfield checkpoint`.
#[derive(Debug, Subcommand)]
pub(crate) enum Checkpoint {
    /// List the checkpoints of a run: step, loss, size, and whether each is whole
    #[command(after_help = "Every file is read and compared with the manifest beside it.

Examples:
  jackfield checkpoint ls checkpoints
  jackfield checkpoint ls checkpoints --json")]
    Ls {
        /// Folder of a run
        folder: PathBuf,
    },
    /// Compare every file with the manifest; fails and names the file if one is damaged
    #[command(after_help = "Examples:
  jackfield checkpoint verify checkpoints                  # all of a run
  jackfield checkpoint verify checkpoints/step-00000200    # one")]
    Verify {
        /// Folder of a run, or of one of its checkpoints
        folder: PathBuf,
    },
    /// Write a model that other programs read
    Export(Export),
}

/// `jackfield checkpoint export`.
#[derive(Debug, Args)]
#[command(after_help = "What is written is there whole or not at all; nothing is written over.

  hf     a folder: config.json, model.safetensors, tokenizer files. Read by transformers, mlx-lm and this program
  gguf   a file. Read by llama.cpp and this program; architectures llama, qwen2, qwen3 and gemma3

Models that learnt plain text get a tokenizer of 256 tokens, one for each byte.

Examples:
  jackfield checkpoint export --to gguf --out tiny.gguf checkpoints      # the newest that is whole
  jackfield checkpoint export --to hf --out tiny --dtype bf16 checkpoints/step-00000200
  jackfield generate --model tiny.gguf \"Once upon a time\"")]
pub(crate) struct Export {
    /// Folder of a checkpoint, of a run, or of a model as Hugging Face lays it out
    pub(crate) checkpoint: PathBuf,

    /// Layout of what is written
    #[arg(long)]
    pub(crate) to: Layout,

    /// File or folder to write; nothing may be there
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,

    /// Folder with tokenizer.json, for a run that took its tokenizer from elsewhere
    #[arg(long, value_name = "FOLDER")]
    pub(crate) tokenizer: Option<PathBuf>,

    /// Numbers of matrices; f32 changes nothing
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: Dtype,
}

/// `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// A file for llama.cpp
    Gguf,
    /// A folder for transformers and mlx-lm
    Hf,
}

/// `--dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each is its name")]
pub(crate) enum Dtype {
    F32,
    Bf16,
    F16,
}
