//! Reservoir replay: one source after the other, with a share of examples learnt again.
//!
//! Source: Vitter, "Random sampling with a reservoir", TOMS 11, 1985, algorithm R; replay against forgetting: Rolnick et
//! al., "Experience replay for continual learning", arXiv:1811.11682.

use plugin_api::prelude::*;

/// Keeps a uniform sample of what was new and mixes it into what comes.
#[derive(Debug)]
pub struct ReservoirReplay {
    capacity: usize,
    ratio: f64,
    state: State,
}

/// All that decides what is chosen.
#[derive(Debug, Clone, PartialEq)]
struct State {
    /// Of SplitMix64.
    random: u64,
    /// Examples that were new.
    seen: u64,
    /// Examples to be learnt again, below 1 after each choice.
    owed: f64,
    /// Source and number of each.
    kept: Vec<(u32, u64)>,
}

impl Capability for ReservoirReplay {
    const NAME: &'static str = "reservoir-replay";

    fn from_config(config: &Config) -> Result<Self> {
        let seed = config.count_or("seed", 0, 0..=u64::from(u32::MAX))?;
        Ok(Self {
            capacity: config.count_or("capacity", 1000, 1..=1_000_000)? as usize,
            ratio: config.number_or("ratio", 0.25, 0.0..=0.9)?,
            state: State { random: seed, seen: 0, owed: 0.0, kept: Vec::new() },
        })
    }
}

impl Curriculum for ReservoirReplay {
    fn next(&mut self, sources: &[SourceView]) -> Result<Choice> {
        self.state.owed += self.ratio;
        if self.state.owed >= 1.0 && !self.state.kept.is_empty() {
            self.state.owed -= 1.0;
            let at = self.state.below(self.state.kept.len() as u64) as usize;
            let (source, number) = self.state.kept[at];
            // A run that was begun with more sources is another run.
            if (source as usize) < sources.len() {
                return Ok(Choice { source: source as usize, again: Some(number) });
            }
        }
        let turns = |at: &usize| sources[*at].given / sources[*at].num_examples.max(1);
        let Some(source) = (0..sources.len()).min_by_key(turns) else {
            return Err(Error::malformed("sources", "at least one", "none"));
        };
        self.keep((source as u32, sources[source].next));
        Ok(Choice::new_of(source))
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        Some(self)
    }
}

impl ReservoirReplay {
    /// The i-th example is kept with probability `capacity / i`.
    fn keep(&mut self, example: (u32, u64)) {
        let state = &mut self.state;
        state.seen = state.seen.saturating_add(1);
        if state.kept.len() < self.capacity {
            state.kept.push(example);
            return;
        }
        let at = state.below(state.seen) as usize;
        if let Some(place) = state.kept.get_mut(at) {
            *place = example;
        }
    }
}

impl State {
    /// From 0 to `end`, which it never is. Source: Steele et al., OOPSLA 2014 (SplitMix64).
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % end.max(1)
    }
}

impl Handover for ReservoirReplay {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        let State { random, seen, owed, kept } = &self.state;
        out.extend_from_slice(&SCHEMA.to_le_bytes());
        for word in [*random, *seen, owed.to_bits(), kept.len() as u64] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for (source, number) in kept {
            out.extend_from_slice(&source.to_le_bytes());
            out.extend_from_slice(&number.to_le_bytes());
        }
        Ok(())
    }

    /// A smaller capacity than before takes the first ones: they are as uniform a sample.
    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let malformed = |found: &str| {
            let expected = format!("schema {SCHEMA}, four numbers, then examples");
            Error::malformed("state of reservoir-replay", expected, found)
        };
        let schema = bytes.split_first_chunk().ok_or_else(|| malformed("no schema"))?;
        if u32::from_le_bytes(*schema.0) != SCHEMA {
            return Err(malformed("another schema"));
        }
        let (numbers, rest) =
            schema.1.split_first_chunk::<32>().ok_or_else(|| malformed("fewer numbers"))?;
        let (words, _) = numbers.as_chunks::<8>();
        let [random, seen, owed, count] = [0, 1, 2, 3].map(|at| u64::from_le_bytes(words[at]));
        let (examples, odd) = rest.as_chunks::<12>();
        let owed = f64::from_bits(owed);
        if !odd.is_empty() || examples.len() as u64 != count || count > seen {
            return Err(malformed("another number of examples"));
        }
        if !(0.0..=f64::from(u32::MAX)).contains(&owed) {
            return Err(malformed("no number of examples that are owed"));
        }
        let example = |bytes: &[u8; 12]| {
            let [a, b, c, d, number @ ..] = *bytes;
            (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(number))
        };
        let kept = examples.iter().take(self.capacity).map(example).collect();
        self.state = State { random, seen, owed, kept };
        Ok(())
    }
}

/// The layout of what is handed over.
const SCHEMA: u32 = 1;

export_plugin!(ReservoirReplay);

#[cfg(test)]
mod tests {
    use plugin_api::testing::curriculum::{Sources, suite};

    use super::*;

    fn curriculum(capacity: u32, ratio: f64, seed: u32) -> ReservoirReplay {
        let config = Config::new().with("capacity", capacity).with("ratio", ratio);
        ReservoirReplay::from_config(&config.with("seed", seed)).unwrap()
    }

    #[test]
    fn passes_the_contract_suite() {
        suite::<ReservoirReplay>(&Config::new());
        suite::<ReservoirReplay>(&Config::new().with("capacity", 3).with("ratio", 0.6));
        suite::<ReservoirReplay>(&Config::new().with("ratio", 0.0));
    }

    /// χ² of 100 bins of equal expectation: beyond 149 once in a thousand with 99 degrees of freedom.
    #[test]
    fn the_reservoir_is_a_uniform_sample() {
        const INSERTS: u64 = 100_000;
        for seed in 0..3 {
            let (mut bins, mut count) = ([0.0_f64; 100], 0.0);
            for round in 0..5 {
                let mut replay = curriculum(1000, 0.0, 100 * seed + round);
                (0..INSERTS).for_each(|number| replay.keep((0, number)));
                assert_eq!((replay.state.kept.len(), replay.state.seen), (1000, INSERTS));
                for (_, number) in &replay.state.kept {
                    bins[(number * 100 / INSERTS) as usize] += 1.0;
                    count += 1.0;
                }
            }
            let expected = count / 100.0;
            let chi: f64 = bins.iter().map(|bin| (bin - expected).powi(2) / expected).sum();
            assert!(chi < 149.0, "seed {seed}: {chi}");
        }
    }

    #[test]
    fn the_share_of_what_is_learnt_again_is_exact_and_reaches_back_to_the_first_source() {
        let mut replay = curriculum(50, 0.3, 1);
        let mut sources = Sources::new(&[400, 400]);
        let choices: Vec<Choice> = (0..1000).map(|_| sources.choose(&mut replay)).collect();
        let again = choices.iter().filter(|choice| choice.again.is_some()).count();
        assert!((298..=300).contains(&again), "{again} of 1000");
        // Of the last hundred, when only the second source is new.
        let late = &choices[900..];
        assert!(late.iter().all(|choice| choice.again.is_some() || choice.source == 1));
        let first = late.iter().filter(|choice| choice.again.is_some() && choice.source == 0);
        assert!(first.count() >= 5, "the first source is not forgotten");
    }
}
