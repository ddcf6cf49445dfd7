//! `jackfield quantize`, as a person types it.

use std::path::PathBuf;

use clap::Args;

/// `jackfield quantize`.
#[derive(Debug, Args)]
#[command(
    after_help = "What is written is there whole or not at all, and nothing is written over. Work that was interrupted is kept in
OUT.work and goes on when the same is asked for again.

Vectors stay whole; rows that are no whole blocks of a format get the one with the fewest bits more. Losses are
measured beside the model that was read, on the same text:

  bits        of all weights, over their number
  MB          that they take
  perplexity  of how many tokens alike the model might have had to choose
  KL          mean divergence of the predictions from the original's, in nats: 0 says the same
  same        tokens after which the likeliest one is the same
  tokens/s    that were evaluated on this machine in this run

Figures of models that had less than 16 bits before are marked as re-quantized: they lose twice.

Examples:
  jackfield quantize --model tiny --to Q4_K --out tiny-q4.gguf --text held-out.txt
  jackfield quantize --model tiny --to Q4_0 --set 'lm_head.weight=Q8_0' --out tiny-q4      # a folder
  jackfield quantize --model tiny --to Q4_0+gptq --calibration text --out tiny.gguf     # by activations
  jackfield quantize --model tiny --to Q4_0+mixed --calibration text --out tiny.gguf    # some keep more bits
  jackfield quantize --model tiny --to Q8_0,Q4_K,Q4_0 --out tried --text held-out.txt   # a table"
)]
pub(crate) struct Quantize {
    /// Format of matrices, such as Q4_K; after it may come a compressor that chooses (Q4_0+gptq) and +mixed; several,
    /// with commas between, make a table
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', required = true)]
    pub(crate) to: Vec<String>,

    /// File that ends in .gguf, or folder, to write; for a table the folder of all
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,

    /// Another format for weights of some names, in which * is any text; may be repeated
    #[arg(long = "set", value_name = "NAME=FORMAT", value_parser = parse_set)]
    pub(crate) others: Vec<(String, String)>,

    /// Folder with tokenizer.json, for a run that took its tokenizer from elsewhere
    #[arg(long, value_name = "FOLDER")]
    pub(crate) tokenizer: Option<PathBuf>,

    /// Text that compressors learn activations on
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,

    /// Windows of that text that are read
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) calibration_windows: usize,

    /// File of the weights that keep more bits where +mixed is asked for; made by a scan on --calibration if it is not there
    #[arg(long, value_name = "FILE", default_value = "sensitive_layers.json")]
    pub(crate) sensitive: PathBuf,

    /// Part of the numbers that a scan may choose
    #[arg(long, default_value_t = 0.1, value_name = "PART")]
    pub(crate) share: f64,

    /// Format of the weights that keep more bits
    #[arg(long, default_value = "Q8_0", value_name = "FORMAT")]
    pub(crate) high: String,

    /// Text that losses are measured on [default: a short one]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,

    /// Tokens that the model may look back at while it is measured
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) window: usize,

    /// Windows that are measured
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) windows_max: u64,
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    let (name, format) = text.split_once('=').ok_or_else(|| {
        format!("expected NAME=FORMAT such as lm_head.weight=Q8_0, found `{text}`")
    })?;
    Ok((name.to_owned(), format.to_owned()))
}
