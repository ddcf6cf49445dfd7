//! Sequential: one source after the other, then around again.
//!
//! Source: Bengio et al., "Curriculum learning", ICML 2009, section 3: sources in the order that they are given.

use plugin_api::prelude::*;

/// Reads each source some times before the next one.
#[derive(Debug)]
pub struct Sequential {
    /// How often each before the next one.
    epochs: u64,
}

impl Capability for Sequential {
    const NAME: &'static str = "sequential";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { epochs: config.count_or("epochs", 1, 1..=1_000_000)? })
    }
}

impl Curriculum for Sequential {
    fn next(&mut self, sources: &[SourceView]) -> Result<Choice> {
        // How often a source had its turn; the first of those that had it least often is next.
        let turns = |source: &SourceView| {
            source.given / source.num_examples.saturating_mul(self.epochs).max(1)
        };
        let least = (0..sources.len()).min_by_key(|&at| turns(&sources[at]));
        let none = || Error::malformed("sources", "at least one", "none");
        least.map(Choice::new_of).ok_or_else(none)
    }
}

export_plugin!(Sequential);

#[cfg(test)]
mod tests {
    use plugin_api::testing::curriculum::{Sources, suite};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Sequential>(&Config::new());
        suite::<Sequential>(&Config::new().with("epochs", 3));
    }

    #[test]
    fn each_source_has_its_turn() {
        for (epochs, expected) in [(1, "aabbbaabbb"), (2, "aaaabbbbbbaaaabbbbbb")] {
            let config = Config::new().with("epochs", epochs);
            let mut curriculum = Sequential::from_config(&config).unwrap();
            let mut sources = Sources::new(&[2, 3]);
            let mut chosen = || sources.choose(&mut curriculum).source;
            let found: String = expected.chars().map(|_| ["a", "b"][chosen()]).collect();
            assert_eq!(found, expected);
        }
    }
}
