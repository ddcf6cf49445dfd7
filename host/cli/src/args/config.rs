//! `jackfield config`, as a person types it.

use clap::Subcommand;

/// `jackfield config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Explain every mistake in the configuration
    Check,
    /// Print the configuration that is in effect
    Show,
}
