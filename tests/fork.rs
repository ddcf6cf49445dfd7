//! Strategies may fork, roll back and release sequences: the tokens stay those of plain greedy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use jackfield_engine::{Engine, Output, Request};
use jackfield_runtime::{Lane, PluginInfo, SwapTarget};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::Registrar;
use plugin_api::prelude::*;

const TOKENS: usize = 40;
const REQUESTS: u32 = 12;

/// Greedy with a twin: forks after the prompt, requires both to agree, takes tokens back now and
/// then and evaluates them again, and lets the twin go half way.
#[derive(Default)]
struct Twins {
    requests: BTreeMap<u32, Pair>,
}

#[derive(Default)]
struct Pair {
    prompt: Vec<u32>,
    parent: Option<SeqId>,
    twin: Option<SeqId>,
    /// Tokens to evaluate next.
    next: Vec<u32>,
    emitted: Vec<u32>,
    is_again: bool,
}

impl Capability for Twins {
    const NAME: &'static str = "twins";

    fn from_config(_: &Config) -> Result<Self> {
        Ok(Self::default())
    }
}

impl DecodingStrategy for Twins {
    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        let (prompt, parent) = (request.prompt.to_vec(), Some(request.seq));
        let pair = Pair { next: prompt.clone(), prompt, parent, ..Pair::default() };
        self.requests.insert(group.0, pair);
        Ok(())
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        let pair = &self.requests[&group.0];
        for seq in pair.parent.into_iter().chain(pair.twin) {
            out.push(seq, &pair.next, Want::Argmax);
        }
        Ok(())
    }

    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        self.requests.get_mut(&group.0).unwrap().observe(results, out);
        Ok(())
    }

    fn close(&mut self, group: GroupId) {
        self.requests.remove(&group.0);
    }
}

impl Pair {
    fn observe(&mut self, results: &[Outcome], out: &mut Actions) {
        let first = results[0];
        let token = first.token.unwrap();
        assert_eq!(results.len(), if self.twin.is_some() { 2 } else { 1 });
        assert!(results.iter().all(|result| result.token == Some(token)), "twins agree");
        let parent = self.parent.unwrap();
        if self.is_again {
            self.is_again = false;
            assert_eq!(Some(&token), self.emitted.last(), "evaluated again, the same token");
            self.next = vec![token];
            return;
        }
        self.emitted.push(token);
        out.emit(parent, token, first.logprob);
        self.next = vec![token];
        match self.emitted.len() {
            1 => self.twin = Some(out.fork(parent)),
            20 => {
                let twin = self.twin.take().unwrap();
                out.list.push(Action::Release { seq: twin, upto: 0 });
            }
            n if n % 7 == 0 => {
                // The last three evaluated tokens go, and come again.
                let evaluated = self.prompt.len() + n - 1;
                for seq in self.parent.into_iter().chain(self.twin) {
                    out.list.push(Action::Release { seq, upto: evaluated - 3 });
                }
                self.next = self.emitted[n - 4..n - 1].to_vec();
                self.is_again = true;
            }
            TOKENS => out.finish(FinishReason::Length),
            _ => {}
        }
    }
}

fn setup(cache: &str) -> Setup {
    let mut setup = Setup::new("cpu").with("kv-cache", cache).with("decoding-strategy", "twins");
    let mut registrar = Registrar::new();
    registrar.provide::<dyn DecodingStrategy, Twins>();
    let (name, description, api) = ("twins".to_owned(), String::new(), "0.0".to_owned());
    let info = PluginInfo { name, description, api, lane: Lane::Builtin, origin: None };
    setup.registry.add(info, registrar.into_provided()).unwrap();
    setup
}

#[test]
fn forks_and_rollbacks_change_no_token() {
    // One that keeps keys and values, one with a state per sequence.
    let models = ["tiny", "tiny_mamba"];
    for (model, cache) in models.iter().flat_map(|m| [(m, "paged"), (m, "contiguous")]) {
        let (folder, setup) = (tiny_model(model), setup(cache));
        let mut engine = setup.load(folder.path()).unwrap();
        let prompt: Vec<u32> = (0..21).map(|i| (i * 31) % 510).collect();
        let (_, found) = answer(&mut engine, Request::new(prompt.clone()));

        let greedy = Request::new(prompt).strategy("greedy").with("max_tokens", TOKENS as i64);
        let mut engine = Setup::new("cpu").load(folder.path()).unwrap();
        let (_, expected) = answer(&mut engine, greedy.with("ignore_eos", true));
        assert_eq!(found, expected, "{model} {cache}");
        assert_eq!(engine.cache_usage().used, 0, "{model} {cache}: every block comes back");
    }
}

/// Blocks are shared, copied, written again and given to others while they are converted. The numbers
/// of this model are far enough apart that rounding changes no token.
#[test]
fn forks_and_rollbacks_go_on_through_conversions() {
    let folder = tiny_model("tiny");
    let prompt = |n: u32| -> Vec<u32> { (0..9 + 6 * n).map(|i| (i * 31 + n) % 510).collect() };
    let mut engine = setup("paged").load(folder.path()).unwrap();
    let expected: Vec<_> =
        (0..REQUESTS).map(|n| answer(&mut engine, Request::new(prompt(n))).1).collect();
    for tokens_per_step in 1..8 {
        let mut setup = setup("paged");
        let per_token = setup.load(folder.path()).unwrap().state_layout().bytes_per_token;
        setup.options.convert_bytes_per_step = (tokens_per_step * per_token) as u64;
        let mut engine = setup.load(folder.path()).unwrap();
        let (mut ids, mut tokens, mut takeovers) = (Vec::new(), Vec::new(), 0);
        let numbers = |engine: &Engine| engine.state_layout().pool.storage[0].clone();
        let mut storage = numbers(&engine);
        for step in 0.. {
            if step % 8 == 0 && ids.len() < REQUESTS as usize {
                ids.push(engine.submit(Request::new(prompt(ids.len() as u32))).unwrap());
            } else if engine.num_running() == 0 {
                break;
            }
            let next = if storage == Storage::Plain(DType::F16) { "f32" } else { "f16" };
            let config = Config::new().with("dtype", next);
            let made = (setup.registry.find("kv-cache", "paged").unwrap().make)(&config).unwrap();
            // Refused while the one before it is under way.
            let _ = engine.swapper().swap("kv-cache", "paged", made, Duration::ZERO);
            let sink = &mut |output: Output<'_>| match output {
                Output::Token { request, token, .. } => tokens.push((request, token)),
                Output::Finished { error, .. } => assert_eq!(error, None),
            };
            engine.step(sink).unwrap();
            engine.swapper().flush();
            takeovers += usize::from(storage != numbers(&engine));
            storage = numbers(&engine);
        }
        for (id, expected) in ids.iter().zip(&expected) {
            let of = tokens.iter().filter(|(request, _)| request == id);
            let found: Vec<u32> = of.map(|(_, token)| *token).collect();
            assert_eq!(found, *expected, "{tokens_per_step} tokens a step");
        }
        assert!(takeovers > 0, "{takeovers}");
        assert_eq!(engine.cache_usage().used, 0, "every block comes back");
    }
}
