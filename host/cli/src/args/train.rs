//! `jackfield train`.

use std::net::SocketAddr;

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
  seed = 0                      # of the first parameters and of the order of what is learnt
  folder = \"checkpoints\"
  checkpoint_every = 200        # steps
  keep_last = 2                 # and the best: of the least loss held out, else of the least loss
  validation = 0.05             # held out: a share of the text, or a file like what is learnt
  evaluate_every = 200          # steps; before the first and after the last, too
  validation_batches = 32       # at most

  [plugins]                     # `jackfield plugin ls` says what there is
  optimizer = \"adamw\"
  lr-schedule = \"cosine\"
  curriculum = \"sequential\"     # or reservoir-replay
  objective = \"causal-lm\"       # preferences: dpo, reward-model
  hook = [\"metrics-jsonl\"]

  [plugin.cosine]
  warmup_steps = 50

Instead of `config`, to start from a model:

  model = \"SmolLM2-135M-Instruct\"   # as `--model` takes it; all is trained of a folder of Hugging Face
  adapter = { r = 8, alpha = 16, targets = [\"q_proj\", \"v_proj\"] }   # or this beside any model

Checkpoints of an adapter are as PEFT has them: `engine.adapter` serves such a folder beside the model.

Instead of `text`:

  data = \"chat.jsonl\"          # or a list of files; each line one of (strings, or lists of messages)
                                #   {\"messages\": [{\"role\": …, \"content\": …}]}   the assistant's are learnt
                                #   {\"text\": …}
                                #   {\"prompt\": …, \"completion\": …}               the completion is learnt
                                #   {\"prompt\": …, \"chosen\": …, \"rejected\": …}  preferences
                                #   {\"prompt\": …, \"expected\": …}     the model answers; `expected` may be left out
  tokenizer = \"folder\"         # or a GGUF file, with its chat template; else that of the model
  # several files: the plugin of the kind curriculum decides what comes next
  shuffle = 1024                # lines that are shuffled with each other; 1 keeps their order
  too_long = \"cut\"             # of longer examples the first sequence_length tokens are kept; or \"refuse\"
  line_bytes_max = 1048576

Prompts are answered by the model itself, and plugins of the kind reward rate what it says: micro_batches is the
number of prompts in a step, sequences that of the answers to each, sequence_length of prompt and answer together.

  temperature = 1.0             # of the draws
  [plugins]
  objective = \"grpo\"
  reward = [\"expected-answer\", \"length\"]   # added up

Examples are packed: as many in a micro-batch as fit into sequences times sequence_length tokens.

MFU: the operations that the model needs for the tokens of a step (6 for each element of a matrix that is
trained, 4 for one that is not, and those of attention) in its time, over what products of square matrices
did on this backend when the run began. Whatever else the machine does makes both less.

Examples:
  jackfield train --config run.toml
  jackfield train --config run.toml --listen 127.0.0.1:8002   # and look at it in a browser
  jackfield train --config run.toml --steps 2000   # goes on where the last checkpoint stands")]
pub(crate) struct Train {
    /// Steps of the whole run, instead of those of the configuration
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<u64>,

    /// Serve a page that shows the run, such as at 127.0.0.1:8002
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// Begin with new parameters, whatever checkpoints there are
    #[arg(long)]
    pub(crate) fresh: bool,
}
