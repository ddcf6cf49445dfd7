//! `jackfield adapter`, as a person types it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `jackfield adapter`.
#[derive(Debug, Subcommand)]
pub(crate) enum Adapter {
    /// Write the model with an adapter merged into its weights
    Merge(Merge),
}

/// `jackfield adapter merge`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each weight keeps its format: it is decoded, the adapter is added, and the sum is encoded again by the quantizer
of the format. F32 has every sum; formats of fewer bits do not, and how much of the adapter they lose is measured and
printed: weight by weight, and as the distance of logits from those of the model with the adapter beside it.
An adapter that is served beside the weights loses nothing: [engine] adapter = \"FOLDER\" in jackfield.toml.

A model that is a GGUF file becomes a GGUF file; one that is a folder becomes a folder.

Examples:
  jackfield adapter merge my-adapter --out merged --model base-folder
  jackfield adapter merge my-adapter --out merged.gguf --model SmolLM2-135M-Instruct --json"
)]
pub(crate) struct Merge {
    /// Folder of the adapter, in the layout of PEFT
    pub(crate) adapter: PathBuf,

    /// File or folder to write; nothing may be there
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,

    /// Text whose logits are compared [default: one that comes along]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
}
