//! What a check has found, for people and for programs.

use std::fmt;

use serde::Serialize;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) file: String,
    pub(super) sha256: String,
    pub(super) passed: bool,
    pub(super) seed: u64,
    pub(super) checks: Vec<Finding>,
    /// What fails no check and should not be.
    pub(super) warnings: Vec<String>,
}

/// The result of one check.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) passed: bool,
    pub(super) message: String,
    pub(super) ms: u64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  sha256 {:.12}  seed {}", self.file, self.sha256, self.seed)?;
        for Finding { name, passed, message, ms } in &self.checks {
            let mark = if *passed { '✓' } else { '✗' };
            let message = message.replace('\n', "\n      ");
            write!(f, "\n  {mark} {name:13} {ms:>6} ms  {message}")?;
        }
        for warning in &self.warnings {
            write!(f, "\n  ! {warning}")?;
        }
        if self.passed {
            write!(f, "\nready: jackfield plugin swap {}", self.file)?;
        }
        Ok(())
    }
}
