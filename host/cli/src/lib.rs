//! The command line: arguments to calls. What a command does lives in the crates below.
//!
//! It is a library as well, because it is where every builtin plugin is linked: tests and examples
//! get them with [`load_registry`].

mod args;
mod board;
mod builtins;
mod changed_keys;
mod commands;
mod control;
mod embedder;
mod exchange;
mod folders;
mod hosts;
mod live_config;
mod memory;
mod progress;
mod setup;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use setup::Session;

pub use args::BuildLane;
pub use commands::plugin::{Built, build_plugin};
pub use setup::load_registry;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Plugin(args::Plugin::Trial { args }) = &cli.command {
        return jackfield_loader::trial::main(args);
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has had enough: no mistake of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "jackfield: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    if matches!(cli.command, Command::Config(args::Config::Check)) {
        return commands::config::check(&cli.common);
    }
    if let Command::Plugin(command) = &cli.command
        && let Some(done) = commands::plugin::without_session(command, cli.common.json)
    {
        return done;
    }
    let session = Session::open(&cli.common)?;
    match &cli.command {
        Command::Generate(args) => commands::generate::run(&session, args),
        Command::Chat(sampling) => commands::chat::run(&session, sampling),
        Command::Serve(args) => commands::serve::run(&session, args),
        Command::Train(args) => commands::train::run(&session, args),
        Command::Checkpoint(command) => commands::checkpoint::run(&session, command),
        Command::Quantize(args) => commands::quantize::run(&session, args),
        Command::Adapter(command) => commands::adapter::run(&session, command),
        Command::Evaluate(args) => commands::evaluate::run(&session, args),
        Command::Bench(args) => commands::bench::run(&session, args),
        Command::Model(args) => commands::model::run(&session, args),
        Command::Plugin(_) => commands::plugin::ls(&session),
        Command::Config(_) => commands::config::show(&session),
        Command::Doctor => commands::doctor::run(&session),
    }
}

/// An error with its causes, without those that it tells itself.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !sentence.ends_with(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
