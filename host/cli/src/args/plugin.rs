//! `jackfield plugin`, as a person types it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `jackfield plugin`.
#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// List plugins by kind, and which ones the configuration picks
    #[command(
        after_help = "Each line has the name, the lane and what it does; a star marks what is picked:
builtin plugins are linked in, native and wasm ones come from files that jackfield.toml names.

Examples:
  jackfield plugin ls
  jackfield plugin ls --plugin scheduler=fcfs --json"
    )]
    Ls,
    /// Write the folder of a plugin that works already
    New(New),
    /// Make one file of a plugin's folder: checked, sealed, ready to be loaded
    Build(Build),
    /// Seal a plugin file that other tools have made
    Seal(Seal),
    /// Try a plugin file in processes of its own, and say what a host would find
    Check(Check),
    /// Let the plugins in files fill slots of a process that runs
    Swap(Swap),
    /// Take back the latest swap of a slot, and of what was swapped with it
    Rollback(Rollback),
    /// Show what fills each slot of a process that runs, and which files it has loaded
    Status(Running),
    /// Runs one part of a check
    #[command(hide = true)]
    Probe(Probe),
    /// Tries a native plugin for the process that started this one
    #[command(hide = true)]
    Trial {
        /// What `jackfield_loader::trial::main` takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// `jackfield plugin new`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jackfield plugin new calm --kind logits-processor
  jackfield plugin new unit-norm --kind norm --lang rust-wasm
  jackfield plugin new calm --kind logits-processor --lang python

Kinds, and what they can be written in:
  logits-processor    every language          edits the scores of the next token
  decoding-strategy   rust, rust-wasm         turns scores into tokens, tokens into an answer
  scheduler           rust, rust-wasm         picks what runs in the next step
  quantizer           rust, rust-wasm         reads and writes a format of weights
  norm, residual, rotary-embedding, mixer, feed-forward, moe-router
                      rust, rust-wasm         describe a part of the model, once
  encoder             rust, rust-wasm         turns texts into vectors
  adapter             rust, rust-wasm         adds to the products with frozen weights
  objective, optimizer, lr-schedule
                      rust, rust-wasm         describe a part of training, once
  curriculum          rust, rust-wasm         chooses what a run learns next
  output-parser       rust, rust-wasm         finds reasoning and calls of tools in answers
  memory              rust, rust-wasm         recalls what was said before, remembers what is said
  reward              rust, rust-wasm         rates what a model in training answers
  model-source        rust, rust-wasm         finds and fetches models
  hook                rust, rust-wasm         listens to what happens, may end or refuse an answer
  compressor          rust                    chooses weights again for fewer bits
  kv-cache            rust                    places keys and values of past tokens
  backend             rust                    compiles and runs the model

The folder is written below the current one and stands alone; in the tree of Jackfield itself it is
written to plugins/<kind>/ and becomes a member. It works as it is:
  cd calm && cargo test && jackfield plugin build")]
pub(crate) struct New {
    /// Name of the plugin, in kebab-case
    pub(crate) name: String,

    /// What it provides, such as logits-processor, norm or hook: see below
    #[arg(long)]
    pub(crate) kind: String,

    /// What it is written in
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    pub(crate) lang: Lang,

    /// Folder of the crate plugin-api [default: the one this program was built from]
    #[arg(long, value_name = "PATH")]
    pub(crate) api: Option<PathBuf>,
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    /// Rust, for the lanes builtin, native and wasm
    Rust,
    /// Rust for the lane wasm only: a kind without that lane is refused
    RustWasm,
    /// C, as a component
    C,
    /// Python, as a component
    Python,
    /// JavaScript, as a component
    Js,
}

/// `jackfield plugin build`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jackfield plugin build plugins/logits-processor/min-p
  jackfield plugin build calm --lane wasm --out calm.wasm

A folder with Cargo.toml is Rust; plugin.c, plugin.py and plugin.js are C, Python and JavaScript.
Those are components: they need the lane wasm, which is then the default.")]
pub(crate) struct Build {
    /// Folder with the plugin
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,

    /// How the plugin will run [default: native for Rust, wasm for other languages]
    #[arg(long, value_enum)]
    pub(crate) lane: Option<BuildLane>,

    /// Where the file goes [default: plugins/<name>.so or .wasm in the target folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// The lanes that run plugin files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BuildLane {
    /// A shared library in the process of the host: fast, trusted
    Native,
    /// A component in a sandbox
    Wasm,
}

/// `jackfield plugin seal`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jackfield plugin seal target/release/libcalm.so
  jackfield plugin seal calm.wasm --manifest plugin.toml

The file is replaced at once. A file that is sealed already stays as it is.")]
pub(crate) struct Seal {
    /// A shared library or a component
    pub(crate) file: PathBuf,

    /// Manifest to put into a component that has none
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
}

/// Which process is meant.
#[derive(Debug, Args)]
pub(crate) struct Running {
    /// Number of the process [default: the only one that runs]
    #[arg(long, value_name = "N")]
    pub(crate) pid: Option<u32>,
}

/// `jackfield plugin swap`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jackfield plugin swap target/plugins/min-p.so
  jackfield plugin swap calm.wasm --slot temperature
  jackfield plugin swap far-rope.so half-cache.so

Nothing is lost: engine kinds change between two tokens, requests keep the processors that they
started with. What fails on the way, or within its first minute, leaves or brings back what ran.
Several files are one set: all of them change between the same two tokens, or none does.")]
pub(crate) struct Swap {
    /// The plugin files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Slot to fill, where it has another name than the plugin; with several files, one for each
    #[arg(long = "slot", value_name = "NAME")]
    pub(crate) slots: Vec<String>,

    #[command(flatten)]
    pub(crate) running: Running,
}

/// `jackfield plugin rollback`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jackfield plugin rollback backend
  jackfield plugin rollback logits-processor/min-p")]
pub(crate) struct Rollback {
    /// KIND, or KIND/SLOT where a kind has several
    pub(crate) slot: String,

    #[command(flatten)]
    pub(crate) running: Running,
}

/// `jackfield plugin check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jackfield plugin check target/plugins/calm.so
  jackfield plugin check calm.so --config min_p=0.1 --config 'stop=[\"a\", \"b\"]'
  jackfield plugin check calm.wasm --seed 7 --json

Every part runs in a process of its own under limits of time and memory: the verdict survives
whatever the plugin does. The same seed gives the same verdict. The exit status is 0 if all passed.

Name with --config what makes the plugin act: without, a logits processor is only seen doing
nothing. What each check means stands in plugin-api/docs/writing-a-plugin.md, section 3.")]
pub(crate) struct Check {
    /// The plugin file
    pub(crate) file: PathBuf,

    /// A key of the plugin's own table; requests of a logits processor and the hyperparameters of a
    /// rotary embedding carry it as well; VALUE is TOML or text; may be repeated
    // The option of this name that other commands have is a path: clap wants one type.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) config: Vec<PathBuf>,

    /// What random configurations and inputs are made of
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// Longest time of one part, in seconds
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub(crate) seconds: u64,
}

/// One part of a check, as the checking process asks for it.
#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// Which part.
    pub(crate) part: String,
    /// The plugin file.
    pub(crate) file: PathBuf,
    /// Folder for copies.
    pub(crate) folder: PathBuf,
    /// What random numbers are made of.
    pub(crate) seed: u64,
    /// `KEY=VALUE`.
    pub(crate) set: Vec<String>,
}
