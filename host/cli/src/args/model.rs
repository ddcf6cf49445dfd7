//! `jackfield model`.

use std::path::PathBuf;

use clap::Subcommand;

/// `jackfield model`.
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Fetch a model and verify it
    Pull {
        /// Its name
        name: String,
    },
    /// List models that can be fetched or are there
    Ls,
    /// Print what a model consists of
    Inspect {
        /// Its name [default: the configured model]
        name: Option<String>,
        /// Print the plan of one step as text
        #[arg(long)]
        plan: bool,
        /// List every tensor
        #[arg(long)]
        tensors: bool,
    },
    /// Draw fixed scales for 8-bit caches from a text, as a configuration of `channel_scales`
    ///
    /// The model reads the text with numbers of 32 bits in its cache.
    CacheScales {
        /// Text that is like what the model will read
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Part of the numbers that a scale covers; what is beyond is clipped
        #[arg(long, default_value_t = 0.999)]
        share: f64,
        /// Most tokens of the text
        #[arg(long, default_value_t = 2048)]
        tokens: usize,
    },
}
