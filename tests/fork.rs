//! Strategies may fork, roll back and release sequences: the tokens stay those of plain greedy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jackfield_engine::Request;
use jackfield_runtime::{Lane, PluginInfo};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::Registrar;
use plugin_api::prelude::*;

const TOKENS: usize = 40;

/// Greedy with a twin: forks after the prompt, requires both to agree, takes tokens back now and
/// then and evaluates them again, and lets the twin go half way.
#[derive(Default)]
struct Twins {
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
    fn open(&mut self, _: GroupId, request: &RequestView<'_>) -> Result<()> {
        self.prompt = request.prompt.to_vec();
        (self.next, self.parent) = (self.prompt.clone(), Some(request.seq));
        Ok(())
    }

    fn plan(&mut self, _: GroupId, out: &mut Evals) -> Result<()> {
        for seq in self.parent.into_iter().chain(self.twin) {
            out.push(seq, &self.next, Want::Argmax);
        }
        Ok(())
    }

    fn observe(&mut self, _: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        let first = results[0];
        let token = first.token.unwrap();
        assert_eq!(results.len(), if self.twin.is_some() { 2 } else { 1 });
        assert!(results.iter().all(|result| result.token == Some(token)), "twins agree");
        let parent = self.parent.unwrap();
        if self.is_again {
            self.is_again = false;
            assert_eq!(Some(&token), self.emitted.last(), "evaluated again, the same token");
            self.next = vec![token];
            return Ok(());
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
        Ok(())
    }

    fn close(&mut self, _: GroupId) {}
}

#[test]
fn forks_and_rollbacks_change_no_token() {
    let folder = tiny_model("tiny");
    for cache in ["paged", "contiguous"] {
        let mut setup =
            Setup::new("cpu").with("kv-cache", cache).with("decoding-strategy", "twins");
        let mut registrar = Registrar::new();
        registrar.provide::<dyn DecodingStrategy, Twins>();
        let (name, description, api) = ("twins".to_owned(), String::new(), "0.0".to_owned());
        let info = PluginInfo { name, description, api, lane: Lane::Builtin, origin: None };
        setup.registry.add(info, registrar.into_provided()).unwrap();
        let mut engine = setup.load(folder.path()).unwrap();
        let prompt: Vec<u32> = (0..21).map(|i| (i * 31) % 510).collect();
        let (_, found) = answer(&mut engine, Request::new(prompt.clone()));

        let greedy = Request::new(prompt).strategy("greedy").with("max_tokens", TOKENS as i64);
        let mut engine = Setup::new("cpu").load(folder.path()).unwrap();
        let (_, expected) = answer(&mut engine, greedy.with("ignore_eos", true));
        assert_eq!(found, expected, "{cache}");
        assert_eq!(engine.cache_usage().used, 0, "{cache}: every block comes back");
    }
}
