//! Beam search: keeps the likeliest beginnings of an answer, and answers with the best.
//!
//! Source: Transformers 4.38, `BeamSearchScorer`; blocks are shared as in arXiv:2309.06180, 4.4.

mod search;
mod settings;

use std::collections::BTreeMap;

use plugin_api::prelude::*;

use search::Search;
use settings::{DEFAULTS, Settings};

/// Searches for the answers of many requests.
#[derive(Debug)]
pub struct Beam {
    defaults: Settings,
    searches: BTreeMap<GroupId, Search>,
}

impl Capability for Beam {
    const NAME: &'static str = "beam";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { defaults: DEFAULTS.or(config)?, searches: BTreeMap::new() })
    }
}

impl DecodingStrategy for Beam {
    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        let settings = self.defaults.or(request.params)?;
        self.searches.insert(group, Search::open(request, settings)?);
        Ok(())
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        if let Some(search) = self.searches.get_mut(&group) {
            search.plan(out);
        }
        Ok(())
    }

    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        if let Some(search) = self.searches.get_mut(&group) {
            search.observe(results, out);
        }
        Ok(())
    }

    fn close(&mut self, group: GroupId) {
        self.searches.remove(&group);
    }
}

export_plugin!(Beam);

#[cfg(test)]
mod tests {
    use plugin_api::testing::decoding_strategy;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        decoding_strategy::suite::<Beam>(&Config::new());
        decoding_strategy::suite::<Beam>(&Config::new().with("num_beams", 1));
    }

    #[test]
    fn parameters_outside_their_range_are_refused() {
        let wrong =
            [("num_beams", 0), ("num_beams", 33), ("length_penalty", 9), ("early_stopping", 1)];
        for (key, value) in wrong.into_iter().chain([("choice", 4)]) {
            let error = Beam::from_config(&Config::new().with(key, value)).unwrap_err();
            assert!(error.to_string().starts_with(key), "{error}");
        }
    }

    /// Logarithms of two tokens and an end, by the last token.
    fn logits(last: u32) -> [f32; 3] {
        // 0 looks best at first; what follows 1 is better.
        let p: [f32; 3] = match last {
            0 => [0.4, 0.35, 0.25],
            1 => [0.05, 0.05, 0.9],
            _ => [0.55, 0.44, 0.01],
        };
        p.map(f32::ln)
    }

    /// Runs a search over a model that looks at one token back.
    fn run(params: &Config) -> (Vec<u32>, f32) {
        let mut strategy = Beam::from_config(&Config::new()).unwrap();
        let request = RequestView { seq: SeqId(0), prompt: &[9], params };
        strategy.open(GroupId(0), &request).unwrap();
        let mut actions = Actions { next_seq: 1, ..Actions::default() };
        let (mut answer, mut sum) = (Vec::new(), 0.0);
        for _ in 0..20 {
            let mut evals = Evals::default();
            strategy.plan(GroupId(0), &mut evals).unwrap();
            let mut results = Vec::new();
            for eval in &evals.list {
                let mut all: Vec<(u32, f32)> =
                    (0..).zip(logits(evals.tokens[eval.start + eval.len - 1])).collect();
                all.sort_by(|a, b| b.1.total_cmp(&a.1));
                let (seq, draft) = (eval.seq, None);
                results.extend(all.into_iter().map(|(token, logprob)| Outcome {
                    seq,
                    token: Some(token),
                    logprob,
                    draft,
                }));
            }
            actions.list.clear();
            strategy.observe(GroupId(0), &results, &mut actions).unwrap();
            for action in &actions.list {
                match *action {
                    Action::Say { token, logprob } => {
                        answer.push(token);
                        sum += logprob;
                    }
                    Action::Finish { .. } => return (answer, sum),
                    _ => {}
                }
            }
        }
        panic!("the search does not end");
    }

    fn params() -> Config {
        let ends = vec![Value::Int(2)];
        Config::new().with("eos_token_ids", ends).with("max_tokens", 9).with("length_penalty", 0)
    }

    #[test]
    fn finds_what_a_greedy_choice_misses() {
        let greedy = run(&params().with("num_beams", 1));
        assert_eq!(greedy.0, [0; 9], "the likeliest, one by one");
        let answer = run(&params().with("num_beams", 3)).0;
        assert_eq!(answer, [1], "0.44 x 0.9 is more than 0.55 x 0.4 and anything after it");
    }

    /// Every answer of up to `len` tokens with its probability, best first: of this model, by trying all.
    fn all_answers(len: usize) -> Vec<(f32, Vec<u32>)> {
        let (mut open, mut whole) = (vec![(0.0, Vec::new())], Vec::new());
        for _ in 0..len {
            let mut longer = Vec::new();
            for (sum, tokens) in open {
                let next = logits(tokens.last().copied().unwrap_or(9));
                whole.push((sum + next[2], tokens.clone()));
                for token in [0, 1] {
                    let tokens = tokens.iter().copied().chain([token]).collect();
                    longer.push((sum + next[token as usize], tokens));
                }
            }
            open = longer;
        }
        whole.extend(open);
        whole.sort_by(|a, b| b.0.total_cmp(&a.0));
        whole
    }

    #[test]
    fn as_many_beams_as_there_are_answers_find_the_best_of_all_in_order() {
        let all = all_answers(4);
        let params = params().with("num_beams", 32).with("max_tokens", 4);
        for (choice, (_, tokens)) in all.iter().take(6).enumerate() {
            let params = params.clone().with("choice", choice as i64);
            assert_eq!(run(&params).0, *tokens, "answer {choice}");
        }
    }

    #[test]
    fn a_search_that_never_stops_early_finds_what_a_guess_misses() {
        // A guess looks at how long beginnings are so far; with this penalty longer ones overtake.
        let params = params().with("num_beams", 2).with("length_penalty", 1.5);
        let of = |stopping: Value| run(&params.clone().with("early_stopping", stopping)).0;
        assert_eq!([of(Value::Bool(true)), of(Value::Bool(false))], [[1], [1]]);
        assert_eq!(of("never".into()), [0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
