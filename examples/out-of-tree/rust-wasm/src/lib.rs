//! No-echo: where a request, or the plugin's table, says `no_echo`, no token follows itself.
//!
//! Source: Keskar et al., "CTRL", arXiv:1909.05858, section 4.1, at a penalty without bound and a
//! window of one token.

use plugin_api::prelude::*;

/// Masks the token that came last.
#[derive(Debug)]
pub struct NoEcho {
    /// For requests that do not say.
    default: bool,
    /// The last token of each row that wants it.
    last: RowMap<Option<u32>>,
}

impl Capability for NoEcho {
    const NAME: &'static str = "no-echo";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { default: config.flag_or("no_echo", false)?, last: RowMap::new() })
    }
}

impl LogitsProcessor for NoEcho {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let default = self.default;
        self.last.follow(change, |params, history| {
            let is_wanted = params.flag_or("no_echo", default)?;
            Ok(history.last().copied().filter(|_| is_wanted))
        })?;
        let (row, token) = match *change {
            BatchChange::Advanced { row, token } => (row, Some(token)),
            BatchChange::RolledBack { row, history } => (row, history.last().copied()),
            _ => return Ok(()),
        };
        // A row without a last token is one that does not want it.
        if let Some(last) = self.last.get_mut(row).filter(|last| last.is_some()) {
            *last = token;
        }
        Ok(())
    }

    fn need(&self) -> Need {
        Need::Nothing
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        let vocab_size = logits.vocab_size();
        logits.for_each(|row| {
            let last = self.last.get(row.id()).copied().flatten();
            if let Some(token) = last.filter(|&token| (token as usize) < vocab_size) {
                row.set(token, f32::NEG_INFINITY);
            }
            Ok(())
        })
    }
}

export_plugin!(NoEcho);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::logits_processor::{apply, suite};

    #[test]
    fn passes_the_contract_suite() {
        suite::<NoEcho>(&Config::new().with("no_echo", true));
    }

    #[test]
    fn masks_the_last_token_only() {
        let params = Config::new().with("no_echo", true);
        let found = apply::<NoEcho>(&params, &[0, 2], &[1.0, 2.0, 3.0]);
        assert_eq!(found, [1.0, 2.0, f32::NEG_INFINITY]);
    }
}
