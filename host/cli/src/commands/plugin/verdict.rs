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

impl Verdict {
    /// What failed, in a few words; nothing if nothing did.
    pub(super) fn summary(&self) -> Option<String> {
        let failed = self.checks.iter().filter(|finding| !finding.passed);
        let (skipped, failed): (Vec<_>, Vec<_>) = failed.partition(|finding| finding.was_skipped());
        let names: Vec<&str> = failed.iter().map(|finding| finding.name).collect();
        let rest = match skipped.len() {
            0 => String::new(),
            n => format!("; {n} were not run"),
        };
        (!names.is_empty()).then(|| format!("{}: failed {}{rest}", self.file, names.join(", ")))
    }
}

impl Finding {
    fn was_skipped(&self) -> bool {
        self.message.starts_with(NOT_RUN)
    }
}

/// How the message of a check begins that was left out, since another failed.
pub(super) const NOT_RUN: &str = "not run";

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  sha256 {:.12}  seed {}", self.file, self.sha256, self.seed)?;
        for finding in &self.checks {
            let Finding { name, passed, message, ms } = finding;
            let mark = match passed {
                true => '✓',
                false if finding.was_skipped() => '–',
                false => '✗',
            };
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
