//! `jackfield train`.

use clap::Args;

/// `jackfield train`.
#[derive(Debug, Args)]
#[command(after_help = "A run is described in the configuration file:

  [train]
  config = \"config.json\"       # the model, as Hugging Face describes it; vocab_size from 256: a token is a byte
  text = \"tiny.txt\"            # what it learns
  steps = 1000
  learning_rate = 1e-3          # at its highest; the schedule makes it less
  sequence_length = 128         # tokens
  sequences = 8                 # in a micro-batch
  micro_batches = 1             # in a step: gradients add up
  seed = 0                      # of the first parameters and of the order of the text
  folder = \"checkpoints\"
  checkpoint_every = 200        # steps
  keep_last = 2                 # and the one of the least loss

  [plugins]                     # `jackfield plugin ls` says what there is
  optimizer = \"adamw\"
  lr-schedule = \"cosine\"
  hook = [\"metrics-jsonl\"]

  [plugin.cosine]
  warmup_steps = 50

Examples:
  jackfield train --config run.toml
  jackfield train --config run.toml --steps 2000   # goes on where the last checkpoint stands")]
pub(crate) struct Train {
    /// Steps of the whole run, instead of those of the configuration
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<u64>,

    /// Begin with new parameters, whatever checkpoints there are
    #[arg(long)]
    pub(crate) fresh: bool,
}
