//! Flags of everything that generates: how tokens are chosen, and what the answer has to be.

use std::path::PathBuf;

use clap::Args;

/// How tokens are chosen.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Sampling {
    /// Take the likeliest token every time
    #[arg(long, conflicts_with = "strategy")]
    pub(crate) greedy: bool,

    /// Decoding strategy [default: sample]; prompt-lookup needs fewer steps for the same answer where
    /// it repeats the prompt, speculative where a smaller model (--draft-model) guesses well; beam searches for the
    /// likeliest answer, self-consistency takes the one that most of several come to, chain-of-thought reasons first
    #[arg(long, value_name = "NAME")]
    pub(crate) strategy: Option<String>,

    /// A parameter of the strategy, such as num_beams=8; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) strategy_option: Vec<String>,

    /// Most tokens of an answer
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,

    /// Flattens (above 1) or sharpens (below 1) the distribution; 0 is greedy [default: 0.2]
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,

    /// Keep the K likeliest tokens
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,

    /// Keep the likeliest tokens that together reach P [default: 0.9]
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,

    /// Keep tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,

    /// Penalty for tokens that occurred before; 1 is none
    #[arg(long, value_name = "R")]
    pub(crate) repetition_penalty: Option<f32>,

    /// Penalty for tokens that the answer has, whatever their number; from -2 to 2
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,

    /// Penalty for tokens that the answer has, for each time; from -2 to 2
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,

    /// Makes sampling repeatable
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Text that ends the answer; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,

    /// The answer is JSON that the schema in this file allows
    #[arg(long, value_name = "FILE", group = "constraint")]
    pub(crate) json_schema: Option<PathBuf>,

    /// The answer matches this regular expression as a whole
    #[arg(long, value_name = "PATTERN", group = "constraint")]
    pub(crate) regex: Option<String>,

    /// The answer is a text of the grammar in this file, in the syntax of Lark
    #[arg(long, value_name = "FILE", group = "constraint")]
    pub(crate) grammar: Option<PathBuf>,

    /// Whose memory the conversation is: what memories recall for it goes in front of the question, and the
    /// answer is remembered
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,

    /// What the model is told about its role
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
}
