//! `jackfield evaluate`, as a person types it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `jackfield evaluate`.
#[derive(Debug, Args)]
#[command(
    after_help = "The loss is the mean of -ln p(token | the tokens before it in its window), in nats; the perplexity is e to it:
of how many tokens alike the model might have had to choose. Lower is better. Compare models on the same
text with the same tokenizer, --window, --stride and --cut only: each of them changes the figure.

  --cut sliding   windows begin every --stride tokens, and a token counts in the first window that has it. A small
                  stride gives every token much to look back at, and takes longer. As in transformers
  --cut halves    windows one after the other, the second half of each counts, what does not fill one is left
                  out; BOS leads each where the model wants it. As llama-perplexity has it

A file that ends in .jsonl has a JSON object on each line, and its texts are evaluated one by one.

Examples:
  jackfield evaluate wiki.txt --model SmolLM2-135M-Instruct
  jackfield evaluate wiki.txt --model model.gguf --window 512 --cut halves
  jackfield evaluate held-out.jsonl --model checkpoints          # the newest checkpoint that is whole
  jackfield evaluate held-out.txt --adapter my-adapter --json"
)]
pub(crate) struct Evaluate {
    /// Text, or lines of JSON if its name ends in .jsonl
    pub(crate) file: PathBuf,

    /// Tokens of a window; the model's context at most
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub(crate) window: usize,

    /// Tokens from the beginning of one window to that of the next [default: a whole window]
    #[arg(long, value_name = "N")]
    pub(crate) stride: Option<usize>,

    /// How a text is cut into windows
    #[arg(long, default_value = "sliding")]
    pub(crate) cut: Cut,

    /// Field of each line of a .jsonl file that holds the text
    #[arg(long, default_value = "text", value_name = "NAME")]
    pub(crate) field: String,

    /// Folder of an adapter to stand beside the weights
    #[arg(long, value_name = "FOLDER")]
    pub(crate) adapter: Option<PathBuf>,

    /// End after so many windows
    #[arg(long, value_name = "N")]
    pub(crate) windows_max: Option<u64>,
}

/// `--cut`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cut {
    /// Windows that may overlap: transformers
    Sliding,
    /// The second half of each counts: llama-perplexity
    Halves,
}
